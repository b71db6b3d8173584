/*
 * rehearse.c: drawing rows of a query and answering them in each tier; see rehearse.h.
 *
 * Rows are asked about as calls ask about them, many together, so that what they cost is what rows
 * of a table cost. Outcomes go through outcomes.c: what a run before this one has computed, and did
 * not live to use, is not computed again. Runs in the backend, as the current user.
 */
#include "postgres.h"

#include <math.h>

#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "extension/classify.h"
#include "extension/connection.h"
#include "extension/decide.h"
#include "extension/encoding.h"
#include "extension/match.h"
#include "extension/rehearse.h"

#define FETCH 1000
/* Fewer tell nothing about many. */
#define FEW_TO_TIME 16

/* ---------------------------------------------------------------------------------------------
 * The question
 * --------------------------------------------------------------------------------------------- */

void
qwen3dm_rehearse_begin(Qwen3dmRehearsal *r, const char *task)
{
	Qwen3dmLabels labels;

	memset(r, 0, sizeof(*r));
	r->context = CurrentMemoryContext;
	qwen3dm_default_options(&r->options, Q3P_CLASSIFY, task, Q3P_AUTO);
	if (qwen3dm_task_labels(&r->options, InvalidOid, &labels))
		qwen3dm_ask_which(&r->options, &labels, NULL, NULL);
	else if (qwen3dm_ask_whether(&r->options, NULL, NULL))
		r->yes_or_no = true;
	else
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("task \"%s\" has neither labels nor an instruction", task),
		                errdetail("What is learned is how well labels are found, or whether the "
		                          "instruction holds.")));
	r->question = qwen3dm_question(&r->options);
	qwen3dm_connection_open(QWEN3DM_MAIN);
	qwen3dm_model_digest(QWEN3DM_MAIN, r->digest);
}

/* ---------------------------------------------------------------------------------------------
 * Drawing
 * --------------------------------------------------------------------------------------------- */

/* S. Vigna's splitmix64: enough to draw with, and the same everywhere. */
static uint64
next_random(uint64 *state)
{
	uint64 z = (*state += UINT64CONST(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* From 0 to n - 1; what n does not divide of 2^64 is beyond notice. */
static int64
draw(uint64 *state, int64 n)
{
	return (int64) (next_random(state) % (uint64) n);
}

static int32
label_number(const Qwen3dmRehearsal *r, const char *value)
{
	q3p_bytes name;
	Qwen3dmFailure failure;
	bool yes;

	if (value == NULL)
		return -1;
	if (r->yes_or_no)
		return parse_bool(value, &yes) ? (yes ? 0 : 1) : -1;
	if (!qwen3dm_to_utf8(cstring_to_text(value), &name, &failure))
		return -1;
	for (uint32 i = 0; i < r->options.request.n_labels; i++)
	{
		q3p_bytes label = r->options.lists.labels[i];

		if (label.len == name.len && memcmp(label.data, name.data, name.len) == 0)
			return (int32) i;
	}
	return -1;
}

/* Keeps the row of SPI's table in this place. */
static void
keep_row(Qwen3dmRehearsal *r, uint64 row, int place)
{
	TupleDesc tupdesc = SPI_tuptable->tupdesc;
	char *value = SPI_getvalue(SPI_tuptable->vals[row], tupdesc, 1);
	char *truth = tupdesc->natts > 1 ? SPI_getvalue(SPI_tuptable->vals[row], tupdesc, 2) : NULL;
	MemoryContext old;
	q3p_bytes bytes;
	Qwen3dmFailure failure;

	if (!qwen3dm_to_utf8(cstring_to_text(value), &bytes, &failure))
		qwen3dm_raise(&failure, 0);
	if (r->rows[place].data != NULL)
		pfree((char *) r->rows[place].data);
	old = MemoryContextSwitchTo(r->context);
	r->rows[place].data = memcpy(palloc(Max(bytes.len, 1)), bytes.data, bytes.len);
	r->rows[place].len = bytes.len;
	MemoryContextSwitchTo(old);
	r->truth[place] = label_number(r, truth);
}

/* J. S. Vitter's algorithm R, ACM TOMS 11 (1985): each set of max_rows rows is as likely. */
static void
take_rows(Qwen3dmRehearsal *r, int max_rows, uint64 *state)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 place;

		(void) SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		if (isnull)
			continue;
		r->population++;
		place = r->n < max_rows ? r->n++ : draw(state, r->population);
		if (place < max_rows)
			keep_row(r, i, (int) place);
	}
}

static void
shuffle(Qwen3dmRehearsal *r, uint64 *state)
{
	for (int i = r->n - 1; i > 0; i--)
	{
		int k = (int) draw(state, i + 1);
		q3p_bytes row = r->rows[i];
		int32 truth = r->truth[i];

		r->rows[i] = r->rows[k];
		r->truth[i] = r->truth[k];
		r->rows[k] = row;
		r->truth[k] = truth;
	}
}

static void
check_columns(TupleDesc tupdesc)
{
	if (tupdesc->natts != 1 && tupdesc->natts != 2)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("the query must return one or two columns"),
		                errdetail("It returns %d. The first is the input, the second the true "
		                          "label, where it is known.",
		                          tupdesc->natts)));
}

void
qwen3dm_rehearse_draw(Qwen3dmRehearsal *r, const char *query, int max_rows, uint64 seed)
{
	uint64 state = seed;
	Portal portal;

	r->rows = palloc0(sizeof(q3p_bytes) * max_rows);
	r->truth = palloc0(sizeof(int32) * max_rows);
	qwen3dm_progress("reading", 0, 0);
	SPI_connect();
	portal = SPI_cursor_open_with_args(NULL, query, 0, NULL, NULL, NULL, true, 0);
	check_columns(portal->tupDesc);
	do
	{
		SPI_cursor_fetch(portal, true, FETCH);
		take_rows(r, max_rows, &state);
		SPI_freetuptable(SPI_tuptable);
		qwen3dm_progress("reading", r->population, 0);
		CHECK_FOR_INTERRUPTS();
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
	shuffle(r, &state);
}

/* ---------------------------------------------------------------------------------------------
 * Asking
 * --------------------------------------------------------------------------------------------- */

static Qwen3dmRequest *
submit(const Qwen3dmRehearsal *r, q3p_bytes row, q3_tier tier)
{
	q3p_request message = qwen3dm_request_for(&r->options, row);

	message.mode = tier == Q3_TIER_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE;
	message.thinking = tier == Q3_TIER_THINKING;
	if (message.thinking)
		message.exit_margin = qwen3dm_policy_default(QWEN3DM_EXIT_MARGIN);
	/* So that the engine tells what lies outside the labels; nothing lies above 1. */
	message.off_label_limit = tier == Q3_TIER_EFFICIENT ? 2 : 0;
	return qwen3dm_submit(&message, &r->options.lists);
}

static Qwen3dmOutcome
outcome_of(const Qwen3dmRehearsal *r, const Qwen3dmRequest *request)
{
	const q3p_result *result = &request->result;
	Qwen3dmOutcome o = {.label = 0};
	double best = -1;

	/* Any other failure is no matter of the row. */
	if (request->failure.sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return (Qwen3dmOutcome){.label = -1};
	if (request->failure.sqlstate != 0)
		qwen3dm_raise(&request->failure, 0);
	if (result->n_probs != r->options.request.n_labels)
		ereport(ERROR,
		        (errcode(ERRCODE_PROTOCOL_VIOLATION),
		         errmsg("the qwen3dm engine answered without a probability for each label")));
	for (uint32 i = 0; i < result->n_probs; i++)
	{
		double p;

		memcpy(&p, result->probs + i * sizeof(p), sizeof(p));
		if (p > best)
		{
			best = p;
			o.label = (int32) i;
		}
	}
	o.margin = (float) result->margin;
	o.off_label = (float) result->off_label;
	return o;
}

/* What a run before has not told. */
typedef struct Fresh
{
	int n;
	int at[QWEN3DM_REHEARSED_TOGETHER];
	Qwen3dmOutcomeKey keys[QWEN3DM_REHEARSED_TOGETHER];
} Fresh;

static void
find_fresh(const Qwen3dmRehearsal *r, int first, int n, const bool *which, q3_tier tier,
           Qwen3dmOutcome *outcomes, Fresh *fresh)
{
	fresh->n = 0;
	for (int i = 0; i < n; i++)
	{
		Qwen3dmOutcomeKey key;

		if (which != NULL && !which[i])
			continue;
		key = qwen3dm_outcome_key(r->digest, r->question, tier, r->rows[first + i]);
		if (qwen3dm_outcome_find(&key, &outcomes[i]))
			continue;
		fresh->at[fresh->n] = i;
		fresh->keys[fresh->n++] = key;
	}
}

void
qwen3dm_rehearse_ask(Qwen3dmRehearsal *r, int first, int n, const bool *which, q3_tier tier,
                     Qwen3dmOutcome *outcomes)
{
	Qwen3dmRequest *requests[QWEN3DM_REHEARSED_TOGETHER];
	Fresh fresh;
	instr_time start, end;

	Assert(n <= QWEN3DM_REHEARSED_TOGETHER);
	find_fresh(r, first, n, which, tier, outcomes, &fresh);
	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < fresh.n; i++)
		requests[i] = submit(r, r->rows[first + fresh.at[i]], tier);
	for (int i = 0; i < fresh.n; i++)
	{
		Qwen3dmOutcome *o = &outcomes[fresh.at[i]];

		qwen3dm_wait(requests[i]);
		*o = outcome_of(r, requests[i]);
		qwen3dm_outcome_keep(&fresh.keys[i], o);
		qwen3dm_release(requests[i]);
	}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	/* The first rows also read what all have in common. */
	if (first > 0 && fresh.n >= FEW_TO_TIME)
	{
		r->ms[tier] += INSTR_TIME_GET_MILLISEC(end);
		r->timed[tier] += fresh.n;
	}
}

double
qwen3dm_rehearsed_ms(const Qwen3dmRehearsal *r, q3_tier tier)
{
	return r->timed[tier] > 0 ? r->ms[tier] / (double) r->timed[tier] : 0;
}
