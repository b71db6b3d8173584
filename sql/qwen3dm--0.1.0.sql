/* sql/qwen3dm--0.1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION qwen3dm" to load this file. \quit

-- Every role may call these functions, as every role may run any other query; what they cost is
-- bounded by statement_timeout, qwen3dm.timeout and qwen3dm.max_tokens. To keep the model for some:
--     REVOKE EXECUTE ON FUNCTION qwen_infer(text, text, ...) FROM PUBLIC;
--     GRANT EXECUTE ON FUNCTION qwen_infer(text, text, ...) TO analysts;
--
-- All are VOLATILE: the answer depends on the model that is loaded, and the planner must not run it
-- ahead of time. The costs are in units of cpu_operator_cost; those of the functions that generate
-- are lower than the truth, which would only make every plan seem worth compiling.

-- ----------------------------------------------------------------------------------------------
-- Answers
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen_infer(
    prompt pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    max_tokens pg_catalog.int4 DEFAULT NULL,
    temperature pg_catalog.float8 DEFAULT NULL,
    top_p pg_catalog.float8 DEFAULT NULL,
    top_k pg_catalog.int4 DEFAULT NULL,
    seed pg_catalog.int8 DEFAULT NULL,
    stop pg_catalog.text[] DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    system pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_infer'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_infer(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text)
IS 'the model''s answer to a prompt';

CREATE FUNCTION @extschema@.qwen_infer(
    prompts pg_catalog.text[],
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    max_tokens pg_catalog.int4 DEFAULT NULL,
    temperature pg_catalog.float8 DEFAULT NULL,
    top_p pg_catalog.float8 DEFAULT NULL,
    top_k pg_catalog.int4 DEFAULT NULL,
    seed pg_catalog.int8 DEFAULT NULL,
    stop pg_catalog.text[] DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    system pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.text[]
AS 'MODULE_PATHNAME', 'qwen3dm_infer_array'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100000;

COMMENT ON FUNCTION @extschema@.qwen_infer(pg_catalog.text[], pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text)
IS 'the model''s answers to an array of prompts, computed together';

CREATE FUNCTION @extschema@.qwen_infer_details(
    prompt pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    max_tokens pg_catalog.int4 DEFAULT NULL,
    temperature pg_catalog.float8 DEFAULT NULL,
    top_p pg_catalog.float8 DEFAULT NULL,
    top_k pg_catalog.int4 DEFAULT NULL,
    seed pg_catalog.int8 DEFAULT NULL,
    stop pg_catalog.text[] DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    system pg_catalog.text DEFAULT NULL,
    OUT value pg_catalog.text,
    OUT thinking pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT reason pg_catalog.text,
    OUT confidence pg_catalog.float8,
    OUT prompt_tokens pg_catalog.int4,
    OUT cached_tokens pg_catalog.int4,
    OUT output_tokens pg_catalog.int4,
    OUT queue_ms pg_catalog.float8,
    OUT latency_ms pg_catalog.float8,
    OUT finish pg_catalog.text,
    OUT error pg_catalog.text,
    OUT model_digest pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_infer_details'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_infer_details(pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8,
    pg_catalog.int4, pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text)
IS 'the model''s answer to a prompt, with what is known about how it was made';

CREATE FUNCTION @extschema@.qwen_stream(
    prompt pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    max_tokens pg_catalog.int4 DEFAULT NULL,
    temperature pg_catalog.float8 DEFAULT NULL,
    top_p pg_catalog.float8 DEFAULT NULL,
    top_k pg_catalog.int4 DEFAULT NULL,
    seed pg_catalog.int8 DEFAULT NULL,
    stop pg_catalog.text[] DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    system pg_catalog.text DEFAULT NULL)
RETURNS SETOF pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_stream'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 100;

COMMENT ON FUNCTION @extschema@.qwen_stream(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text)
IS 'the model''s answer to a prompt, row by row while it is generated';

-- ----------------------------------------------------------------------------------------------
-- Labels
-- ----------------------------------------------------------------------------------------------

-- Labels are an array, {"name": "description", ...}, [{"label": ..., "description": ...}, ...], or
-- the values of an enum type, of which any value, NULL too, is enough. An untyped literal is taken
-- as text, which may be either of the first three: '{a,b}' or '{"a": "what a is"}'.
CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.text[] DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.text[], pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'the label that fits a text best';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.jsonb,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'the label that fits a text best, by names and descriptions';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify_text'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'the label that fits a text best, of a literal of labels';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.anyenum,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.anyenum
AS 'MODULE_PATHNAME', 'qwen3dm_classify_enum'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.anyenum, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'the value of an enum type that fits a text best';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.text[] DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.text[],
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.jsonb,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs_text'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_score(
    input pg_catalog.text,
    statement pg_catalog.text DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.float8
AS 'MODULE_PATHNAME', 'qwen3dm_score'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_score(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'the probability that a statement holds for a text';

CREATE FUNCTION @extschema@.qwen_filter(
    input pg_catalog.text,
    condition pg_catalog.text DEFAULT NULL,
    threshold pg_catalog.float8 DEFAULT 0.5,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.bool
AS 'MODULE_PATHNAME', 'qwen3dm_filter'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_filter(pg_catalog.text, pg_catalog.text, pg_catalog.float8,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool)
IS 'whether a condition holds for a text with at least this probability';

-- What is pinned is shared by all roles, and takes memory from them: for those who are granted it.
CREATE FUNCTION @extschema@.qwen_pin_prefix(
    system pg_catalog.text,
    labels pg_catalog.text[] DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto')
RETURNS pg_catalog.int4
AS 'MODULE_PATHNAME', 'qwen3dm_pin_prefix'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_pin_prefix(pg_catalog.text, pg_catalog.text[], pg_catalog.text)
IS 'computes and keeps the beginning of all requests with this system text (and these labels); returns its tokens';

CREATE FUNCTION @extschema@.qwen_unpin_prefixes()
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'qwen3dm_unpin_prefixes'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION @extschema@.qwen_unpin_prefixes()
IS 'gives up all that qwen_pin_prefix keeps';

REVOKE EXECUTE ON FUNCTION
    @extschema@.qwen_pin_prefix(pg_catalog.text, pg_catalog.text[], pg_catalog.text),
    @extschema@.qwen_unpin_prefixes()
FROM PUBLIC;

-- ----------------------------------------------------------------------------------------------
-- Tasks
-- ----------------------------------------------------------------------------------------------

DO $$
BEGIN
    IF '@extschema@' OPERATOR(pg_catalog.<>) 'qwen3dm' THEN
        CREATE SCHEMA qwen3dm;
    END IF;
END
$$;

-- Raises an error that says what is wrong. Everybody who may write tasks needs it.
CREATE FUNCTION @extschema@.qwen3dm_check_task(
    labels pg_catalog.jsonb,
    examples pg_catalog.jsonb)
RETURNS pg_catalog.bool
AS 'MODULE_PATHNAME', 'qwen3dm_check_task'
LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.qwen3dm_check_task(pg_catalog.jsonb, pg_catalog.jsonb)
IS 'true, or an error that says what is wrong with the labels and examples of a task';

-- An ordinary table: query it, change it, grant it, give it row security.
CREATE TABLE qwen3dm.tasks (
    name pg_catalog.text PRIMARY KEY
        CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 63),
    description pg_catalog.text,
    instruction pg_catalog.text,
    labels pg_catalog.jsonb,
    examples pg_catalog.jsonb,
    schema pg_catalog.jsonb
        CHECK (pg_catalog.jsonb_typeof(schema) OPERATOR(pg_catalog.=) 'object'),
    mode pg_catalog.text NOT NULL DEFAULT 'auto'
        CHECK (mode IN ('auto', 'efficient', 'precise')),
    thinking pg_catalog.bool,
    thinking_budget pg_catalog.int4
        CHECK (thinking_budget OPERATOR(pg_catalog.>=) 1),
    max_tokens pg_catalog.int4
        CHECK (max_tokens OPERATOR(pg_catalog.>=) 1),
    agreement_target pg_catalog.float8 NOT NULL DEFAULT 0.987
        CHECK (agreement_target OPERATOR(pg_catalog.>) 0
               AND agreement_target OPERATOR(pg_catalog.<=) 1),
    latency_target pg_catalog.interval
        CHECK (latency_target OPERATOR(pg_catalog.>) '0'::pg_catalog.interval),
    owner pg_catalog.name NOT NULL DEFAULT CURRENT_USER,
    created pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT tasks_labels_check CHECK (@extschema@.qwen3dm_check_task(labels, examples)));

COMMENT ON TABLE qwen3dm.tasks
IS 'what calls with task => name take from it, unless they say it themselves';
COMMENT ON COLUMN qwen3dm.tasks.instruction
IS 'the system text; for qwen_score and qwen_filter, the statement that is asked about';
COMMENT ON COLUMN qwen3dm.tasks.labels
IS '{"name": "description", ...}, or an array of names and of {"label": ..., "description": ...}';
COMMENT ON COLUMN qwen3dm.tasks.examples
IS '[{"input": "...", "label": ...}, ...]; a label is one of labels, if there are any, or true or false';
COMMENT ON COLUMN qwen3dm.tasks.schema
IS 'JSON Schema of the answers';
COMMENT ON COLUMN qwen3dm.tasks.mode
IS 'of calls that do not name one: auto, efficient or precise';
COMMENT ON COLUMN qwen3dm.tasks.agreement_target
IS 'share of rows in which mode efficient has to agree with mode precise';
COMMENT ON COLUMN qwen3dm.tasks.owner
IS 'role that made the task; only for row security policies and readers';

SELECT pg_catalog.pg_extension_config_dump('qwen3dm.tasks', '');

CREATE FUNCTION @extschema@.qwen3dm_task_changed()
RETURNS pg_catalog.trigger
AS 'MODULE_PATHNAME', 'qwen3dm_task_changed'
LANGUAGE C VOLATILE;

CREATE TRIGGER qwen3dm_task_changed BEFORE UPDATE ON qwen3dm.tasks
FOR EACH ROW EXECUTE FUNCTION @extschema@.qwen3dm_task_changed();

CREATE FUNCTION @extschema@.qwen_task_create(
    name pg_catalog.text,
    instruction pg_catalog.text DEFAULT NULL,
    labels pg_catalog.jsonb DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    schema pg_catalog.jsonb DEFAULT NULL,
    mode pg_catalog.text DEFAULT NULL,
    description pg_catalog.text DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
    max_tokens pg_catalog.int4 DEFAULT NULL,
    agreement_target pg_catalog.float8 DEFAULT NULL,
    latency_target pg_catalog.interval DEFAULT NULL)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'qwen3dm_task_create'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_task_create(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.jsonb, pg_catalog.jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.bool,
    pg_catalog.int4, pg_catalog.int4, pg_catalog.float8, pg_catalog.interval)
IS 'makes a task';

CREATE FUNCTION @extschema@.qwen_task_alter(
    name pg_catalog.text,
    instruction pg_catalog.text DEFAULT NULL,
    labels pg_catalog.jsonb DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    schema pg_catalog.jsonb DEFAULT NULL,
    mode pg_catalog.text DEFAULT NULL,
    description pg_catalog.text DEFAULT NULL,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
    max_tokens pg_catalog.int4 DEFAULT NULL,
    agreement_target pg_catalog.float8 DEFAULT NULL,
    latency_target pg_catalog.interval DEFAULT NULL,
    reset pg_catalog.text[] DEFAULT NULL)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'qwen3dm_task_alter'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_task_alter(pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.jsonb, pg_catalog.jsonb, pg_catalog.text, pg_catalog.text, pg_catalog.bool,
    pg_catalog.int4, pg_catalog.int4, pg_catalog.float8, pg_catalog.interval, pg_catalog.text[])
IS 'changes what is not NULL of a task; what reset names gets its default again';

CREATE FUNCTION @extschema@.qwen_task_drop(
    name pg_catalog.text,
    if_exists pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'qwen3dm_task_drop'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_task_drop(pg_catalog.text, pg_catalog.bool)
IS 'drops a task';

-- ----------------------------------------------------------------------------------------------
-- Triggers
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen_score_trigger()
RETURNS pg_catalog.trigger
AS 'MODULE_PATHNAME', 'qwen3dm_score_trigger'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_score_trigger()
IS 'trigger (source column, target column, task): the probability that the task''s statement holds';

CREATE FUNCTION @extschema@.qwen_classify_trigger()
RETURNS pg_catalog.trigger
AS 'MODULE_PATHNAME', 'qwen3dm_classify_trigger'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_classify_trigger()
IS 'trigger (source column, target column [, task]): the label that fits best';

-- ----------------------------------------------------------------------------------------------
-- Text and tokens
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen_logprob(
    input pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise')
RETURNS pg_catalog.float8
AS 'MODULE_PATHNAME', 'qwen3dm_logprob'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_logprob(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text)
IS 'mean log-probability per token that the model gives to a text';

CREATE FUNCTION @extschema@.qwen_count_tokens(pg_catalog.text)
RETURNS pg_catalog.int4
AS 'MODULE_PATHNAME', 'qwen3dm_count_tokens'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100;

COMMENT ON FUNCTION @extschema@.qwen_count_tokens(pg_catalog.text)
IS 'number of tokens of a text';

CREATE FUNCTION @extschema@.qwen_tokenize(pg_catalog.text)
RETURNS pg_catalog.int4[]
AS 'MODULE_PATHNAME', 'qwen3dm_tokenize'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100;

COMMENT ON FUNCTION @extschema@.qwen_tokenize(pg_catalog.text)
IS 'the tokens of a text';

CREATE FUNCTION @extschema@.qwen_detokenize(pg_catalog.int4[])
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_detokenize'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100;

COMMENT ON FUNCTION @extschema@.qwen_detokenize(pg_catalog.int4[])
IS 'the text of tokens';

-- ----------------------------------------------------------------------------------------------
-- State
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen3dm_version()
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_version'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.qwen3dm_version()
IS 'version of the library that the server has loaded';

CREATE FUNCTION @extschema@.qwen3dm_model_status(
    OUT state pg_catalog.text,
    OUT progress pg_catalog.float8,
    OUT model pg_catalog.text,
    OUT name pg_catalog.text,
    OUT architecture pg_catalog.text,
    OUT parameters pg_catalog.int8,
    OUT weight_type pg_catalog.text,
    OUT "precision" pg_catalog.text,
    OUT digest pg_catalog.text,
    OUT context_length pg_catalog.int4,
    OUT device pg_catalog.text,
    OUT device_reason pg_catalog.text,
    OUT isa pg_catalog.text,
    OUT threads pg_catalog.int4,
    OUT weight_bytes pg_catalog.int8,
    OUT image_bytes pg_catalog.int8,
    OUT image pg_catalog.text,
    OUT kv_cache_bytes pg_catalog.int8,
    OUT kv_cache_used pg_catalog.float8,
    OUT kv_blocks pg_catalog.int4,
    OUT kv_blocks_free pg_catalog.int4,
    OUT prefix_blocks pg_catalog.int4,
    OUT pinned_blocks pg_catalog.int4,
    OUT scratch_bytes pg_catalog.int8,
    OUT load_ms pg_catalog.float8,
    OUT started_at pg_catalog.timestamptz,
    OUT engine_pid pg_catalog.int4,
    OUT restarts pg_catalog.int8,
    OUT requests pg_catalog.int8,
    OUT errors pg_catalog.int8,
    OUT prompt_tokens pg_catalog.int8,
    OUT output_tokens pg_catalog.int8,
    OUT cached_tokens pg_catalog.int8,
    OUT deduplicated pg_catalog.int8,
    OUT classified pg_catalog.int8,
    OUT steps pg_catalog.int8,
    OUT evictions pg_catalog.int8,
    OUT running pg_catalog.int4,
    OUT queued pg_catalog.int4,
    OUT message pg_catalog.text,
    OUT detail pg_catalog.text,
    OUT hint pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_model_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

CREATE VIEW @extschema@.qwen_model_status AS
    SELECT s.state, s.progress, s.model, s.name, s.architecture, s.parameters, s.weight_type,
           s."precision", s.digest, s.context_length, s.device, s.device_reason, s.isa, s.threads,
           s.weight_bytes, s.image_bytes, s.image, s.kv_cache_bytes, s.kv_cache_used, s.kv_blocks,
           s.kv_blocks_free, s.prefix_blocks, s.pinned_blocks, s.scratch_bytes, s.load_ms,
           s.started_at, s.engine_pid, s.restarts, s.requests, s.errors, s.prompt_tokens,
           s.output_tokens, s.cached_tokens, s.deduplicated, s.classified, s.steps, s.evictions,
           s.running, s.queued, s.message, s.detail, s.hint
    FROM @extschema@.qwen3dm_model_status() AS s;

COMMENT ON VIEW @extschema@.qwen_model_status
IS 'one row: the model, its engine and what they are doing';
COMMENT ON COLUMN @extschema@.qwen_model_status.state
IS 'not loaded, not started, stopped, no model, starting, loading, ready, restarting or failed';
COMMENT ON COLUMN @extschema@.qwen_model_status.progress
IS 'of loading the model, from 0 to 1';
COMMENT ON COLUMN @extschema@.qwen_model_status.model
IS 'path of the model file; only its name for roles without pg_read_all_settings';
COMMENT ON COLUMN @extschema@.qwen_model_status."precision"
IS 'bits of the weights that mode efficient reads + those that only mode precise reads, or why there is one precision';
COMMENT ON COLUMN @extschema@.qwen_model_status.image_bytes
IS 'size of the packed weights, which serve both modes; 0 when the file has no type that is packed';
COMMENT ON COLUMN @extschema@.qwen_model_status.image
IS 'where the packed weights come from: built, kept (of the engine before) or cached (qwen3dm.image_cache)';
COMMENT ON COLUMN @extschema@.qwen_model_status.kv_cache_used
IS 'part of the memory for keys and values that running requests hold, from 0 to 1';
COMMENT ON COLUMN @extschema@.qwen_model_status.kv_blocks_free
IS 'blocks that requests can have: unused, or holding prefixes that make room';
COMMENT ON COLUMN @extschema@.qwen_model_status.prefix_blocks
IS 'blocks that hold beginnings of prompts for later requests';
COMMENT ON COLUMN @extschema@.qwen_model_status.pinned_blocks
IS 'of these, blocks of qwen_pin_prefix, which do not make room';
COMMENT ON COLUMN @extschema@.qwen_model_status.cached_tokens
IS 'tokens of prompts that did not have to be computed';
COMMENT ON COLUMN @extschema@.qwen_model_status.deduplicated
IS 'requests that got the answer of an equal one that was under way';
COMMENT ON COLUMN @extschema@.qwen_model_status.evictions
IS 'blocks of kept prefixes that made room for requests';
COMMENT ON COLUMN @extschema@.qwen_model_status.restarts
IS 'times that the engine was started again since the server started';
COMMENT ON COLUMN @extschema@.qwen_model_status.requests
IS 'finished requests since the server started; counters are brought up to date every second';
COMMENT ON COLUMN @extschema@.qwen_model_status.message
IS 'why the model cannot be used, when it cannot';

CREATE FUNCTION @extschema@.qwen3dm_stat_activity(
    OUT pid pg_catalog.int4,
    OUT usesysid pg_catalog.oid,
    OUT datid pg_catalog.oid,
    OUT kind pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT phase pg_catalog.text,
    OUT prompt_tokens pg_catalog.int4,
    OUT prompt_done pg_catalog.int4,
    OUT output_tokens pg_catalog.int4,
    OUT max_tokens pg_catalog.int4,
    OUT kv_tokens pg_catalog.int4,
    OUT age_ms pg_catalog.float8)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_stat_activity'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;

CREATE VIEW @extschema@.qwen_stat_activity AS
    SELECT a.pid, d.datname, pg_catalog.pg_get_userbyid(a.usesysid) AS usename, a.kind, a.mode,
           a.phase, a.prompt_tokens, a.prompt_done, a.output_tokens, a.max_tokens, a.kv_tokens,
           pg_catalog.make_interval(
               secs => a.age_ms OPERATOR(pg_catalog./) 1000.0) AS age
    FROM @extschema@.qwen3dm_stat_activity() AS a
         LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) a.datid;

COMMENT ON VIEW @extschema@.qwen_stat_activity
IS 'requests that are queued or running: one''s own, or all for members of pg_read_all_stats';
COMMENT ON COLUMN @extschema@.qwen_stat_activity.phase
IS 'queued, prefill (the prompt is being read) or decode (the answer is being written)';
COMMENT ON COLUMN @extschema@.qwen_stat_activity.kv_tokens
IS 'tokens that the request holds room for in the memory for keys and values';

GRANT SELECT ON @extschema@.qwen_model_status, @extschema@.qwen_stat_activity TO PUBLIC;
