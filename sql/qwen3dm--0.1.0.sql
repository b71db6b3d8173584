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

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.text[],
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.text[], pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text)
IS 'the label that fits a text best';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.text[],
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.text[],
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_filter(
    input pg_catalog.text,
    condition pg_catalog.text,
    threshold pg_catalog.float8 DEFAULT 0.5,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise')
RETURNS pg_catalog.bool
AS 'MODULE_PATHNAME', 'qwen3dm_filter'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_filter(pg_catalog.text, pg_catalog.text, pg_catalog.float8,
    pg_catalog.text, pg_catalog.text, pg_catalog.text)
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
-- Vectors
-- ----------------------------------------------------------------------------------------------

-- real[] goes into a column of pgvector's type by that extension's own assignment casts.
CREATE FUNCTION @extschema@.qwen_embed(
    input pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    instruction pg_catalog.text DEFAULT NULL,
    dimensions pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.float4[]
AS 'MODULE_PATHNAME', 'qwen3dm_embed'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_embed(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.int4)
IS 'a text as a vector of length 1, with an instruction as a query';

CREATE FUNCTION @extschema@.qwen_similarity(
    a pg_catalog.text,
    b pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise')
RETURNS pg_catalog.float8
AS 'MODULE_PATHNAME', 'qwen3dm_similarity'
LANGUAGE C VOLATILE PARALLEL SAFE COST 20000;

COMMENT ON FUNCTION @extschema@.qwen_similarity(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text)
IS 'cosine of the angle between the vectors of two texts';

CREATE FUNCTION @extschema@.qwen_rerank(
    query pg_catalog.text,
    documents pg_catalog.text[],
    instruction pg_catalog.text DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise')
RETURNS TABLE (idx pg_catalog.int4, score pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_rerank'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100000 ROWS 10;

COMMENT ON FUNCTION @extschema@.qwen_rerank(pg_catalog.text, pg_catalog.text[], pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text)
IS 'positions of documents, those first that answer a query best, with the probability that they do';

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
    OUT service pg_catalog.text,
    OUT state pg_catalog.text,
    OUT progress pg_catalog.float8,
    OUT model pg_catalog.text,
    OUT name pg_catalog.text,
    OUT architecture pg_catalog.text,
    OUT parameters pg_catalog.int8,
    OUT weight_type pg_catalog.text,
    OUT "precision" pg_catalog.text,
    OUT embedding pg_catalog.text,
    OUT dimensions pg_catalog.int4,
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
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_model_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 2;

CREATE VIEW @extschema@.qwen_model_status AS
    SELECT s.service, s.state, s.progress, s.model, s.name, s.architecture, s.parameters,
           s.weight_type, s."precision", s.embedding, s.dimensions, s.digest, s.context_length, s.device, s.device_reason, s.isa, s.threads,
           s.weight_bytes, s.image_bytes, s.image, s.kv_cache_bytes, s.kv_cache_used, s.kv_blocks,
           s.kv_blocks_free, s.prefix_blocks, s.pinned_blocks, s.scratch_bytes, s.load_ms,
           s.started_at, s.engine_pid, s.restarts, s.requests, s.errors, s.prompt_tokens,
           s.output_tokens, s.cached_tokens, s.deduplicated, s.classified, s.steps, s.evictions,
           s.running, s.queued, s.message, s.detail, s.hint
    FROM @extschema@.qwen3dm_model_status() AS s;

COMMENT ON VIEW @extschema@.qwen_model_status
IS 'the model, its engine and what they are doing; a second row for the embedding model if one is set';
COMMENT ON COLUMN @extschema@.qwen_model_status.service
IS 'main, or embedding for the model of qwen3dm.embedding_model';
COMMENT ON COLUMN @extschema@.qwen_model_status.state
IS 'not loaded, not started, stopped, no model, starting, loading, ready, restarting or failed';
COMMENT ON COLUMN @extschema@.qwen_model_status.progress
IS 'of loading the model, from 0 to 1';
COMMENT ON COLUMN @extschema@.qwen_model_status.model
IS 'path of the model file; only its name for roles without pg_read_all_settings';
COMMENT ON COLUMN @extschema@.qwen_model_status."precision"
IS 'bits of the weights that mode efficient reads + those that only mode precise reads, or why there is one precision';
COMMENT ON COLUMN @extschema@.qwen_model_status.embedding
IS 'how qwen_embed makes a vector with this model: from the last token, or the mean of all tokens; null when it uses the other model';
COMMENT ON COLUMN @extschema@.qwen_model_status.dimensions
IS 'coordinates of such a vector';
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
    OUT service pg_catalog.text,
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
    SELECT a.service, a.pid, d.datname, pg_catalog.pg_get_userbyid(a.usesysid) AS usename, a.kind,
           a.mode, a.phase, a.prompt_tokens, a.prompt_done, a.output_tokens, a.max_tokens, a.kv_tokens,
           pg_catalog.make_interval(
               secs => a.age_ms OPERATOR(pg_catalog./) 1000.0) AS age
    FROM @extschema@.qwen3dm_stat_activity() AS a
         LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) a.datid;

COMMENT ON VIEW @extschema@.qwen_stat_activity
IS 'requests that are queued or running: one''s own, or all for members of pg_read_all_stats';
COMMENT ON COLUMN @extschema@.qwen_stat_activity.service
IS 'whose engine: main or embedding, as in qwen_model_status';
COMMENT ON COLUMN @extschema@.qwen_stat_activity.phase
IS 'queued, prefill (the prompt is being read) or decode (the answer is being written)';
COMMENT ON COLUMN @extschema@.qwen_stat_activity.kv_tokens
IS 'tokens that the request holds room for in the memory for keys and values';

GRANT SELECT ON @extschema@.qwen_model_status, @extschema@.qwen_stat_activity TO PUBLIC;
