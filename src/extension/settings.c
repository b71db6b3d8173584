/*
 * settings.c: the qwen3dm.* settings.
 *
 * What names a file or sizes the engine belongs to the administrator and takes effect on reload,
 * when the worker restarts the engine with it. What shapes one session's calls belongs to the user.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "extension/module.h"
#include "protocol/protocol.h"

char *qwen3dm_model = NULL;
int qwen3dm_threads = 0;
int qwen3dm_kv_cache_size = 1024 * 1024;
char *qwen3dm_embedding_model = NULL;
int qwen3dm_embedding_kv_cache_size = 512 * 1024;
int qwen3dm_kv_cache_type = QWEN3DM_KV_F32;
int qwen3dm_max_batch_tokens = 512;
int qwen3dm_context_length = 4096;
int qwen3dm_efficient_bits = 8;
bool qwen3dm_exact_weights = false;
char *qwen3dm_image_cache = NULL;
int qwen3dm_mode = Q3P_AUTO;
int qwen3dm_max_tokens = 256;
int qwen3dm_timeout = 0;
int qwen3dm_start_timeout = 60 * 1000;
int qwen3dm_priority = Q3P_DEFAULT_PRIORITY;
int qwen3dm_token_quota = 0;
int qwen3dm_max_tokens_limit = 0;
int qwen3dm_flush_interval = 10;
int qwen3dm_max_accounts = 5000;
bool qwen3dm_enable_batching = true;
int qwen3dm_batch_window = 256;
int qwen3dm_trigger_on_error = QWEN3DM_TRIGGER_RAISE;
double qwen3dm_agreement_target = 0.987;
int qwen3dm_latency_target = 100;
bool qwen3dm_allow_degrade = false;
double qwen3dm_shadow_rate = 0.01;
int qwen3dm_max_tasks = 1000;

static const struct config_enum_entry mode_options[] = {{"auto", Q3P_AUTO, false},
                                                        {"efficient", Q3P_EFFICIENT, false},
                                                        {"precise", Q3P_PRECISE, false},
                                                        {NULL, 0, false}};

static const struct config_enum_entry kv_type_options[] = {
    {"f32", QWEN3DM_KV_F32, false}, {"f16", QWEN3DM_KV_F16, false}, {NULL, 0, false}};

static const struct config_enum_entry bits_options[] = {
    {"8", 8, false}, {"4", 4, false}, {NULL, 0, false}};

static const struct config_enum_entry trigger_options[] = {{"raise", QWEN3DM_TRIGGER_RAISE, false},
                                                           {"null", QWEN3DM_TRIGGER_NULL, false},
                                                           {NULL, 0, false}};

/* Of settings that are paths. */
static bool
check_path(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && strlen(*newval) >= MAXPGPATH)
	{
		GUC_check_errdetail("The path is longer than %d bytes.", MAXPGPATH - 1);
		return false;
	}
	return true;
}

static void
define_engine_settings(void)
{
	DefineCustomStringVariable(
	    "qwen3dm.model", "Path of the model file, in GGUF format.",
	    "A relative path starts at the data directory. Empty: no model is loaded.", &qwen3dm_model,
	    "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_path, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.threads", "Number of threads the engine computes with.",
	                        "0 takes every core that the server may use.", &qwen3dm_threads, 0, 0,
	                        1024, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.kv_cache_size",
	                        "Memory for the keys and values of all running requests.",
	                        "It bounds how many tokens the requests that run together may have.",
	                        &qwen3dm_kv_cache_size, 1024 * 1024, 1024, INT_MAX, PGC_SIGHUP,
	                        GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomEnumVariable(
	    "qwen3dm.kv_cache_type", "Precision of the keys and values in memory.",
	    "f16 holds twice as many tokens and rounds keys and values to 11 bits.",
	    &qwen3dm_kv_cache_type, QWEN3DM_KV_F32, kv_type_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "qwen3dm.max_batch_tokens", "Largest number of tokens computed in one step of the engine.",
	    "More reads long prompts faster and takes more memory.", &qwen3dm_max_batch_tokens, 512, 16,
	    65536, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.context_length",
	                        "Largest number of tokens of one request, prompt and answer together.",
	                        "0, or more than the model was made for, means the model's own limit.",
	                        &qwen3dm_context_length, 4096, 0, 16 * 1024 * 1024, PGC_SIGHUP, 0, NULL,
	                        NULL, NULL);
}

static void
define_embedding_settings(void)
{
	DefineCustomStringVariable(
	    "qwen3dm.embedding_model", "Path of the embedding model's file, in GGUF format.",
	    "It is served by an engine of its own. Empty: qwen_embed uses the main model.",
	    &qwen3dm_embedding_model, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_path, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.embedding_kv_cache_size",
	                        "Memory for the keys and values of all texts that are being embedded.",
	                        "It bounds how long such a text may be.",
	                        &qwen3dm_embedding_kv_cache_size, 512 * 1024, 1024, INT_MAX, PGC_SIGHUP,
	                        GUC_UNIT_KB, NULL, NULL, NULL);
}

static void
define_weight_settings(void)
{
	DefineCustomEnumVariable(
	    "qwen3dm.efficient_bits", "Bits of each weight that mode efficient reads.",
	    "4 is faster and less precise. Weights that the file has in 4 bits are read whole.",
	    &qwen3dm_efficient_bits, 8, bits_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
	    "qwen3dm.exact_weights", "Lets mode precise compute with the file's own weights.",
	    "Off, it computes with the packed weights, which round weights of 16 or 32 bits. On takes "
	    "the memory of both.",
	    &qwen3dm_exact_weights, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
	    "qwen3dm.image_cache", "Folder where the packed weights of models are kept.",
	    "A relative path starts at the data directory. Empty: they are packed again at every start "
	    "of the server.",
	    &qwen3dm_image_cache, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_path, NULL, NULL);
}

static void
define_session_settings(void)
{
	DefineCustomEnumVariable("qwen3dm.mode", "Mode of the calls that do not name one.",
	                         "auto lets the engine choose.", &qwen3dm_mode, Q3P_AUTO, mode_options,
	                         PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "qwen3dm.max_tokens", "Largest number of tokens of an answer, for calls that do not say.",
	    NULL, &qwen3dm_max_tokens, 256, 1, 16 * 1024 * 1024, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "qwen3dm.timeout", "Longest time that a function waits for the engine's answer.",
	    "The call is then canceled. qwen_stream counts from piece to piece. 0: no limit.",
	    &qwen3dm_timeout, 0, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.start_timeout",
	                        "Longest time that a function waits for the model to be loaded.", NULL,
	                        &qwen3dm_start_timeout, 60 * 1000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
	                        NULL, NULL, NULL);
}

static void
define_batching_settings(void)
{
	DefineCustomIntVariable(
	    "qwen3dm.priority", "Weight of a role's requests when many wait for the engine.",
	    "A role with 200 gets twice the share of one with 100. Meant for ALTER ROLE ... SET.",
	    &qwen3dm_priority, Q3P_DEFAULT_PRIORITY, 1, Q3P_MAX_PRIORITY, PGC_SUSET, 0, NULL, NULL,
	    NULL);
	DefineCustomBoolVariable(
	    "qwen3dm.enable_batching", "Lets queries ask for the answers of several rows at a time.",
	    NULL, &qwen3dm_enable_batching, true, PGC_USERSET, GUC_EXPLAIN, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "qwen3dm.batch_window", "Largest number of rows that a query asks about ahead of need.",
	    NULL, &qwen3dm_batch_window, 256, 1, 65536, PGC_USERSET, GUC_EXPLAIN, NULL, NULL, NULL);
	DefineCustomEnumVariable(
	    "qwen3dm.trigger_on_error", "What the triggers do with a row that cannot be answered.",
	    "raise lets the write fail, null writes the row with NULL.", &qwen3dm_trigger_on_error,
	    QWEN3DM_TRIGGER_RAISE, trigger_options, PGC_SUSET, 0, NULL, NULL, NULL);
}

/* Of mode auto. */
static void
define_policy_settings(void)
{
	DefineCustomRealVariable(
	    "qwen3dm.agreement_target",
	    "Share of answers of mode auto that have to agree with those of mode precise.",
	    "For tasks that do not say themselves.", &qwen3dm_agreement_target, 0.987, 0.5, 1,
	    PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "qwen3dm.latency_target", "Latency that 95 of 100 single calls of a task have to keep.",
	    "For tasks that do not say themselves. Above it, mode auto escalates less. 0: none.",
	    &qwen3dm_latency_target, 100, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable(
	    "qwen3dm.allow_degrade",
	    "Lets mode auto give answers below the agreement target when latency is above its own.",
	    NULL, &qwen3dm_allow_degrade, false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable(
	    "qwen3dm.shadow_rate",
	    "Share of kept efficient answers that are computed again in mode precise.",
	    "When the engine has nothing else to do. This is how drift is noticed.",
	    &qwen3dm_shadow_rate, 0.01, 0, 1, PGC_SUSET, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("qwen3dm.max_tasks", "Number of tasks that are watched at a time.",
		                        "One for each database, task and question that is in use.",
		                        &qwen3dm_max_tasks, 1000, 10, 100000, PGC_POSTMASTER, 0, NULL, NULL,
		                        NULL);
}

static void
define_accounts_settings(void)
{
	DefineCustomIntVariable(
	    "qwen3dm.token_quota", "Tokens of prompts and answers that a role may use in a minute.",
	    "All its connections together. 0: no limit. Meant for ALTER ROLE ... SET.",
	    &qwen3dm_token_quota, 0, 0, INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.max_tokens_limit",
	                        "Largest number of tokens of an answer that a call may ask for.",
	                        "0: no limit. Meant for ALTER ROLE ... SET.", &qwen3dm_max_tokens_limit,
	                        0, 0, INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qwen3dm.flush_interval",
	                        "Time between two writes of usage counters and of what was learned.",
	                        "What was counted since is lost when the server crashes.",
	                        &qwen3dm_flush_interval, 10, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL,
	                        NULL, NULL);
	/* Later it would be too late to reserve memory, and an error to define it. */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable(
		    "qwen3dm.max_accounts", "Number of usage counters.",
		    "One for each role, database, task, mode and kind of request that is used together.",
		    &qwen3dm_max_accounts, 5000, 100, 1000000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

void
qwen3dm_define_settings(void)
{
	define_engine_settings();
	define_embedding_settings();
	define_weight_settings();
	define_session_settings();
	define_batching_settings();
	define_policy_settings();
	define_accounts_settings();
	MarkGUCPrefixReserved("qwen3dm");
}
