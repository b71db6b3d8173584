/* sql/qwen3dm--0.1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION qwen3dm" to load this file. \quit

-- What spends the model's time is granted to nobody: see "Who may do what" at the end.
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
    system pg_catalog.text DEFAULT NULL,
    schema pg_catalog.jsonb DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_infer'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_infer(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.jsonb, pg_catalog.int4)
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
    system pg_catalog.text DEFAULT NULL,
    schema pg_catalog.jsonb DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.text[]
AS 'MODULE_PATHNAME', 'qwen3dm_infer_array'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100000;

COMMENT ON FUNCTION @extschema@.qwen_infer(pg_catalog.text[], pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.jsonb, pg_catalog.int4)
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
    schema pg_catalog.jsonb DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
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
    pg_catalog.int4, pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.jsonb, pg_catalog.int4)
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
    system pg_catalog.text DEFAULT NULL,
    schema pg_catalog.jsonb DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS SETOF pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_stream'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 100;

COMMENT ON FUNCTION @extschema@.qwen_stream(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.jsonb, pg_catalog.int4)
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
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.text[], pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.jsonb,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best, by names and descriptions';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_classify_text'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best, of a literal of labels';

CREATE FUNCTION @extschema@.qwen_classify(
    input pg_catalog.text,
    labels pg_catalog.anyenum,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.anyenum
AS 'MODULE_PATHNAME', 'qwen3dm_classify_enum'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify(pg_catalog.text, pg_catalog.anyenum, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the value of an enum type that fits a text best';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.text[] DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.text[],
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.jsonb,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_classify_probs(
    input pg_catalog.text,
    labels pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_classify_probs_text'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000 ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_classify_probs(pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the probability of each label for a text; they add up to 1';

CREATE FUNCTION @extschema@.qwen_classify_details(
    input pg_catalog.text,
    labels pg_catalog.text[] DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
    OUT value pg_catalog.text,
    OUT probability pg_catalog.float8,
    OUT margin pg_catalog.float8,
    OUT off_label pg_catalog.float8,
    OUT alarm pg_catalog.bool,
    OUT thinking pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT reason pg_catalog.text,
    OUT escalated pg_catalog.bool,
    OUT prompt_tokens pg_catalog.int4,
    OUT cached_tokens pg_catalog.int4,
    OUT output_tokens pg_catalog.int4,
    OUT queue_ms pg_catalog.float8,
    OUT latency_ms pg_catalog.float8,
    OUT error pg_catalog.text,
    OUT model_digest pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_classify_details'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify_details(pg_catalog.text, pg_catalog.text[], pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best, with what is known about how it was found';

CREATE FUNCTION @extschema@.qwen_classify_details(
    input pg_catalog.text,
    labels pg_catalog.jsonb,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
    OUT value pg_catalog.text,
    OUT probability pg_catalog.float8,
    OUT margin pg_catalog.float8,
    OUT off_label pg_catalog.float8,
    OUT alarm pg_catalog.bool,
    OUT thinking pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT reason pg_catalog.text,
    OUT escalated pg_catalog.bool,
    OUT prompt_tokens pg_catalog.int4,
    OUT cached_tokens pg_catalog.int4,
    OUT output_tokens pg_catalog.int4,
    OUT queue_ms pg_catalog.float8,
    OUT latency_ms pg_catalog.float8,
    OUT error pg_catalog.text,
    OUT model_digest pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_classify_details_jsonb'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify_details(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best, with what is known about how it was found';

CREATE FUNCTION @extschema@.qwen_classify_details(
    input pg_catalog.text,
    labels pg_catalog.text,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    system pg_catalog.text DEFAULT NULL,
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL,
    OUT value pg_catalog.text,
    OUT probability pg_catalog.float8,
    OUT margin pg_catalog.float8,
    OUT off_label pg_catalog.float8,
    OUT alarm pg_catalog.bool,
    OUT thinking pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT reason pg_catalog.text,
    OUT escalated pg_catalog.bool,
    OUT prompt_tokens pg_catalog.int4,
    OUT cached_tokens pg_catalog.int4,
    OUT output_tokens pg_catalog.int4,
    OUT queue_ms pg_catalog.float8,
    OUT latency_ms pg_catalog.float8,
    OUT error pg_catalog.text,
    OUT model_digest pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_classify_details_text'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_classify_details(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the label that fits a text best, with what is known about how it was found';

CREATE FUNCTION @extschema@.qwen_score(
    input pg_catalog.text,
    statement pg_catalog.text DEFAULT NULL,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.float8
AS 'MODULE_PATHNAME', 'qwen3dm_score'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_score(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'the probability that a statement holds for a text';

CREATE FUNCTION @extschema@.qwen_filter(
    input pg_catalog.text,
    condition pg_catalog.text DEFAULT NULL,
    threshold pg_catalog.float8 DEFAULT 0.5,
    task pg_catalog.text DEFAULT NULL,
    mode pg_catalog.text DEFAULT 'auto',
    on_error pg_catalog.text DEFAULT 'raise',
    examples pg_catalog.jsonb DEFAULT NULL,
    calibrate pg_catalog.bool DEFAULT false,
    thinking pg_catalog.bool DEFAULT NULL,
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.bool
AS 'MODULE_PATHNAME', 'qwen3dm_filter'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_filter(pg_catalog.text, pg_catalog.text, pg_catalog.float8,
    pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.jsonb, pg_catalog.bool,
    pg_catalog.bool, pg_catalog.int4)
IS 'whether a condition holds for a text with at least this probability';

-- What is pinned is shared by all roles, and takes memory from them.
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
-- Extraction
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen_extract(
    input pg_catalog.text,
    schema pg_catalog.jsonb,
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
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.jsonb
AS 'MODULE_PATHNAME', 'qwen3dm_extract'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_extract(pg_catalog.text, pg_catalog.jsonb,
    pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.int4)
IS 'what a text says, as JSON that is valid under a JSON Schema';

-- jsonb orders the properties of an object in a way of its own; json keeps the order of the schema.
CREATE FUNCTION @extschema@.qwen_extract(
    input pg_catalog.text,
    schema pg_catalog.json,
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
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.jsonb
AS 'MODULE_PATHNAME', 'qwen3dm_extract_json'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_extract(pg_catalog.text, pg_catalog.json,
    pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.int4)
IS 'what a text says, as JSON that is valid under a JSON Schema; written in the order of its properties';

CREATE FUNCTION @extschema@.qwen_extract(
    input pg_catalog.text,
    "type" pg_catalog.anyelement,
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
    thinking_budget pg_catalog.int4 DEFAULT NULL)
RETURNS pg_catalog.anyelement
AS 'MODULE_PATHNAME', 'qwen3dm_extract_row'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_extract(pg_catalog.text, pg_catalog.anyelement,
    pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text,
    pg_catalog.int4)
IS 'what a text says, as a row of the composite type of the second argument';

-- ----------------------------------------------------------------------------------------------
-- Summaries
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen_summarize(
    input pg_catalog.text,
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
AS 'MODULE_PATHNAME', 'qwen3dm_summarize'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

COMMENT ON FUNCTION @extschema@.qwen_summarize(pg_catalog.text, pg_catalog.text, pg_catalog.text,
    pg_catalog.text, pg_catalog.int4, pg_catalog.float8, pg_catalog.float8, pg_catalog.int4,
    pg_catalog.int8, pg_catalog.text[], pg_catalog.bool, pg_catalog.text)
IS 'a summary of a text, of any length';

CREATE FUNCTION @extschema@.qwen3dm_summarize_transition(pg_catalog.internal, pg_catalog.text)
RETURNS pg_catalog.internal
AS 'MODULE_PATHNAME', 'qwen3dm_summarize_transition'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100;

CREATE FUNCTION @extschema@.qwen3dm_reduce_transition(pg_catalog.internal, pg_catalog.text, pg_catalog.text)
RETURNS pg_catalog.internal
AS 'MODULE_PATHNAME', 'qwen3dm_reduce_transition'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100;

CREATE FUNCTION @extschema@.qwen3dm_reduce_combine(pg_catalog.internal, pg_catalog.internal)
RETURNS pg_catalog.internal
AS 'MODULE_PATHNAME', 'qwen3dm_reduce_combine'
LANGUAGE C VOLATILE PARALLEL SAFE COST 100;

CREATE FUNCTION @extschema@.qwen3dm_reduce_serialize(pg_catalog.internal)
RETURNS pg_catalog.bytea
AS 'MODULE_PATHNAME', 'qwen3dm_reduce_serialize'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION @extschema@.qwen3dm_reduce_deserialize(pg_catalog.bytea, pg_catalog.internal)
RETURNS pg_catalog.internal
AS 'MODULE_PATHNAME', 'qwen3dm_reduce_deserialize'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE COST 100;

CREATE FUNCTION @extschema@.qwen3dm_reduce_final(pg_catalog.internal)
RETURNS pg_catalog.text
AS 'MODULE_PATHNAME', 'qwen3dm_reduce_final'
LANGUAGE C VOLATILE PARALLEL SAFE COST 10000;

-- The final function uses the state up, so that they are no window functions.
CREATE AGGREGATE @extschema@.qwen_summarize_agg(pg_catalog.text) (
    SFUNC = @extschema@.qwen3dm_summarize_transition,
    STYPE = pg_catalog.internal,
    SSPACE = 16384,
    FINALFUNC = @extschema@.qwen3dm_reduce_final,
    FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = @extschema@.qwen3dm_reduce_combine,
    SERIALFUNC = @extschema@.qwen3dm_reduce_serialize,
    DESERIALFUNC = @extschema@.qwen3dm_reduce_deserialize,
    PARALLEL = SAFE);

COMMENT ON AGGREGATE @extschema@.qwen_summarize_agg(pg_catalog.text)
IS 'one summary of the texts of many rows';

CREATE AGGREGATE @extschema@.qwen_reduce_agg(pg_catalog.text, instruction pg_catalog.text) (
    SFUNC = @extschema@.qwen3dm_reduce_transition,
    STYPE = pg_catalog.internal,
    SSPACE = 16384,
    FINALFUNC = @extschema@.qwen3dm_reduce_final,
    FINALFUNC_MODIFY = READ_WRITE,
    COMBINEFUNC = @extschema@.qwen3dm_reduce_combine,
    SERIALFUNC = @extschema@.qwen3dm_reduce_serialize,
    DESERIALFUNC = @extschema@.qwen3dm_reduce_deserialize,
    PARALLEL = SAFE);

COMMENT ON AGGREGATE @extschema@.qwen_reduce_agg(pg_catalog.text, pg_catalog.text)
IS 'one answer to an instruction about the texts of many rows';

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
    agreement_target pg_catalog.float8
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
IS 'share of rows in which answers have to agree with those of mode precise; null: qwen3dm.agreement_target';
COMMENT ON COLUMN qwen3dm.tasks.latency_target
IS 'that 95 of 100 single calls have to keep; null: qwen3dm.latency_target';
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
-- What is learned about tasks
-- ----------------------------------------------------------------------------------------------

CREATE TABLE qwen3dm.task_features (
    task pg_catalog.text PRIMARY KEY
        REFERENCES qwen3dm.tasks (name) ON UPDATE CASCADE ON DELETE CASCADE,
    inputs pg_catalog.int8 NOT NULL,
    lengths pg_catalog.int8[] NOT NULL,
    terms pg_catalog.jsonb NOT NULL,
    profile pg_catalog.bytea NOT NULL,
    embedding pg_catalog.float4[],
    embedding_digest pg_catalog.text,
    changed pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now());

COMMENT ON TABLE qwen3dm.task_features
IS 'what the inputs of tasks look like, from qwen_task_learn';
COMMENT ON COLUMN qwen3dm.task_features.lengths
IS 'inputs of 1, 2 to 3, 4 to 7, ... bytes';
COMMENT ON COLUMN qwen3dm.task_features.terms
IS 'words that the inputs of the task have more often than others, with their weights';
COMMENT ON COLUMN qwen3dm.task_features.profile
IS 'the direction of the inputs'' words, for qwen_task_match';
COMMENT ON COLUMN qwen3dm.task_features.embedding
IS 'mean of the inputs'' vectors, where there was an embedding model';

-- One row: in how many inputs each word was seen, as a sketch without words.
CREATE TABLE qwen3dm.term_counts (
    one pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (one),
    inputs pg_catalog.int8 NOT NULL,
    counts pg_catalog.bytea NOT NULL);

COMMENT ON TABLE qwen3dm.term_counts
IS 'how common words are in the inputs of all tasks, as hashed counts';

CREATE TABLE qwen3dm.task_evidence (
    task pg_catalog.text NOT NULL
        REFERENCES qwen3dm.tasks (name) ON UPDATE CASCADE ON DELETE CASCADE,
    model_digest pg_catalog.text NOT NULL,
    question pg_catalog.int8 NOT NULL,
    standing pg_catalog.text NOT NULL DEFAULT 'not learned'
        CHECK (standing IN ('not learned', 'uncertified', 'refuted', 'certified', 'drifted')),
    reference pg_catalog.text NOT NULL DEFAULT 'precise'
        CHECK (reference IN ('precise', 'thinking')),
    target pg_catalog.float8,
    delta pg_catalog.float8,
    -- from qwen_task_learn
    learned_rows pg_catalog.int8,
    agreement pg_catalog.float8,
    threshold pg_catalog.float8,
    expected_agreement pg_catalog.float8,
    escalated pg_catalog.float8,
    off_label_limit pg_catalog.float8,
    calibration pg_catalog.jsonb,
    efficient_ms pg_catalog.float8,
    precise_ms pg_catalog.float8,
    thinking_ms pg_catalog.float8,
    labelled_rows pg_catalog.int8,
    efficient_accuracy pg_catalog.float8,
    precise_accuracy pg_catalog.float8,
    thinking_accuracy pg_catalog.float8,
    thinking_gained pg_catalog.int8,
    thinking_lost pg_catalog.int8,
    learned_at pg_catalog.timestamptz,
    -- from qwen_task_certify
    attempts pg_catalog.int4 NOT NULL DEFAULT 0,
    population pg_catalog.int8,
    certified_rows pg_catalog.int8,
    certified_agreed pg_catalog.int8,
    log_wealth pg_catalog.float8,
    log_against pg_catalog.float8,
    rows_needed pg_catalog.int8,
    shadow_reference pg_catalog.float8,
    certified_at pg_catalog.timestamptz,
    -- from use
    efficient_rows pg_catalog.int8 NOT NULL DEFAULT 0,
    precise_rows pg_catalog.int8 NOT NULL DEFAULT 0,
    thinking_rows pg_catalog.int8 NOT NULL DEFAULT 0,
    escalated_rows pg_catalog.int8 NOT NULL DEFAULT 0,
    alarms pg_catalog.int8 NOT NULL DEFAULT 0,
    efficient_p50_ms pg_catalog.float8,
    efficient_p95_ms pg_catalog.float8,
    precise_p50_ms pg_catalog.float8,
    precise_p95_ms pg_catalog.float8,
    switches pg_catalog.int8 NOT NULL DEFAULT 0,
    shadow_rows pg_catalog.int8 NOT NULL DEFAULT 0,
    shadow_agreed pg_catalog.int8 NOT NULL DEFAULT 0,
    drift_level pg_catalog.float8,
    drifted_at pg_catalog.timestamptz,
    live pg_catalog.bytea,
    used pg_catalog.timestamptz,
    PRIMARY KEY (task, model_digest, question));

COMMENT ON TABLE qwen3dm.task_evidence
IS 'how well mode efficient does for a task, by model and by what is asked';
COMMENT ON COLUMN qwen3dm.task_evidence.question
IS 'hash of what is asked: system text, labels and examples';
COMMENT ON COLUMN qwen3dm.task_evidence.reference
IS 'what efficient answers are compared with, and thin margins are escalated to';
COMMENT ON COLUMN qwen3dm.task_evidence.agreement
IS 'share of learned rows in which the efficient answer was the reference''s';
COMMENT ON COLUMN qwen3dm.task_evidence.threshold
IS 'efficient answers with a smaller margin are escalated';
COMMENT ON COLUMN qwen3dm.task_evidence.expected_agreement
IS 'the same with escalations, by the calibration';
COMMENT ON COLUMN qwen3dm.task_evidence.escalated
IS 'share of learned rows whose margin is below the threshold';
COMMENT ON COLUMN qwen3dm.task_evidence.off_label_limit
IS 'more probability than this outside the labels raises an alarm and escalates';
COMMENT ON COLUMN qwen3dm.task_evidence.calibration
IS 'agreement by margin, isotonic: [{"margin": from, "rows": n, "agreed": n}, ...]';
COMMENT ON COLUMN qwen3dm.task_evidence.attempts
IS 'certificates that were tried; each further one has a fifth of the probability of error that is left';
COMMENT ON COLUMN qwen3dm.task_evidence.log_wealth
IS 'of who bets that the target is kept; the certificate is there at -ln(delta)';
COMMENT ON COLUMN qwen3dm.task_evidence.rows_needed
IS 'about how many rows more the certificate would take';
COMMENT ON COLUMN qwen3dm.task_evidence.shadow_reference
IS 'agreement that kept efficient answers must show in shadow runs';
COMMENT ON COLUMN qwen3dm.task_evidence.live
IS 'state of the watch for drift';

CREATE TABLE qwen3dm.policy_defaults (
    name pg_catalog.text PRIMARY KEY,
    value pg_catalog.float8 NOT NULL,
    description pg_catalog.text NOT NULL);

COMMENT ON TABLE qwen3dm.policy_defaults
IS 'the numbers that mode auto decides by; edit the values';

INSERT INTO qwen3dm.policy_defaults VALUES
    ('max_length', 2000, 'bytes: longer inputs without a task go to mode precise'),
    ('max_rarity', 0.6, '0 to 1: inputs of rarer words go to mode precise'),
    ('min_similarity', 0.3, '0 to 1: from this similarity on a task suggests its mode'),
    ('delta', 0.05, '0 to 1: the probability that a certificate may be wrong'),
    ('exit_margin', 0, '0 to 1: thinking that mode auto has begun ends when the best label is twice running ahead by this; 0: never');

-- A dump has the rows that CREATE EXTENSION has made before it is restored.
CREATE FUNCTION @extschema@.qwen3dm_set_default()
RETURNS pg_catalog.trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE qwen3dm.policy_defaults SET value = NEW.value, description = NEW.description
    WHERE name = NEW.name;
    RETURN CASE WHEN FOUND THEN NULL ELSE NEW END;
END
$$;

CREATE TRIGGER qwen3dm_set_default BEFORE INSERT ON qwen3dm.policy_defaults
FOR EACH ROW EXECUTE FUNCTION @extschema@.qwen3dm_set_default();

SELECT pg_catalog.pg_extension_config_dump('qwen3dm.task_features', '');
SELECT pg_catalog.pg_extension_config_dump('qwen3dm.term_counts', '');
SELECT pg_catalog.pg_extension_config_dump('qwen3dm.task_evidence', '');
SELECT pg_catalog.pg_extension_config_dump('qwen3dm.policy_defaults', '');

-- Sessions keep what they have read of these tables until this tells them of a change.
CREATE FUNCTION @extschema@.qwen3dm_features_changed()
RETURNS pg_catalog.trigger
AS 'MODULE_PATHNAME', 'qwen3dm_features_changed'
LANGUAGE C VOLATILE;

CREATE TRIGGER qwen3dm_features_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON qwen3dm.task_features
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.qwen3dm_features_changed();
CREATE TRIGGER qwen3dm_features_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON qwen3dm.term_counts
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.qwen3dm_features_changed();
CREATE TRIGGER qwen3dm_features_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON qwen3dm.policy_defaults
FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.qwen3dm_features_changed();

CREATE FUNCTION @extschema@.qwen_task_learn(
    task pg_catalog.text,
    query pg_catalog.text,
    max_rows pg_catalog.int4 DEFAULT 500,
    OUT standing pg_catalog.text,
    OUT rows pg_catalog.int8,
    OUT agreement pg_catalog.float8,
    OUT threshold pg_catalog.float8,
    OUT escalated pg_catalog.float8,
    OUT expected_agreement pg_catalog.float8,
    OUT speedup pg_catalog.float8,
    OUT reference pg_catalog.text,
    OUT message pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_task_learn'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_task_learn(pg_catalog.text, pg_catalog.text, pg_catalog.int4)
IS 'asks about rows of a query (text [, true label]) in each mode, and keeps what that tells about the task';

CREATE FUNCTION @extschema@.qwen_task_certify(
    task pg_catalog.text,
    query pg_catalog.text,
    max_rows pg_catalog.int4 DEFAULT 2000,
    OUT standing pg_catalog.text,
    OUT rows pg_catalog.int8,
    OUT agreed pg_catalog.int8,
    OUT population pg_catalog.int8,
    OUT target pg_catalog.float8,
    OUT delta pg_catalog.float8,
    OUT rows_needed pg_catalog.int8,
    OUT message pg_catalog.text)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_task_certify'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION @extschema@.qwen_task_certify(pg_catalog.text, pg_catalog.text, pg_catalog.int4)
IS 'draws rows of a query at random until it is certain, but for a small probability, that answers agree with mode precise as often as the target says';

CREATE FUNCTION @extschema@.qwen_task_match(
    input pg_catalog.text,
    "limit" pg_catalog.int4 DEFAULT 5,
    embedding pg_catalog.bool DEFAULT false)
RETURNS TABLE (task pg_catalog.text, similarity pg_catalog.float8)
AS 'MODULE_PATHNAME', 'qwen3dm_task_match'
LANGUAGE C VOLATILE ROWS 5;

COMMENT ON FUNCTION @extschema@.qwen_task_match(pg_catalog.text, pg_catalog.int4, pg_catalog.bool)
IS 'the tasks whose inputs are most like a text: by length and words, or with embedding => true by the embedding model''s vectors';

CREATE FUNCTION @extschema@.qwen_explain_mode(
    input pg_catalog.text,
    task pg_catalog.text DEFAULT NULL)
RETURNS TABLE (part pg_catalog.text, name pg_catalog.text, value pg_catalog.text)
AS 'MODULE_PATHNAME', 'qwen3dm_explain_mode'
LANGUAGE C VOLATILE ROWS 20;

COMMENT ON FUNCTION @extschema@.qwen_explain_mode(pg_catalog.text, pg_catalog.text)
IS 'which mode auto would take for a text, and why';

CREATE FUNCTION @extschema@.qwen3dm_stat_progress(
    OUT pid pg_catalog.int4,
    OUT usesysid pg_catalog.oid,
    OUT task pg_catalog.text,
    OUT command pg_catalog.text,
    OUT phase pg_catalog.text,
    OUT rows_done pg_catalog.int8,
    OUT rows_total pg_catalog.int8,
    OUT started pg_catalog.timestamptz)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_stat_progress'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 1;

CREATE VIEW @extschema@.qwen_stat_progress_tasks AS
    SELECT s.pid, pg_catalog.pg_get_userbyid(s.usesysid) AS usename, s.task, s.command, s.phase,
           s.rows_done, s.rows_total, s.started
    FROM @extschema@.qwen3dm_stat_progress() AS s;

COMMENT ON VIEW @extschema@.qwen_stat_progress_tasks
IS 'how far qwen_task_learn and qwen_task_certify are in this database: one''s own, or all for members of pg_read_all_stats';

GRANT SELECT ON @extschema@.qwen_stat_progress_tasks TO PUBLIC;

CREATE FUNCTION @extschema@.qwen3dm_stat_decisions(
    OUT datid pg_catalog.oid,
    OUT task pg_catalog.text,
    OUT question pg_catalog.int8,
    OUT state pg_catalog.text,
    OUT efficient pg_catalog.int8,
    OUT precise pg_catalog.int8,
    OUT thinking pg_catalog.int8,
    OUT escalated pg_catalog.int8,
    OUT alarms pg_catalog.int8,
    OUT p50_ms pg_catalog.float8,
    OUT p95_ms pg_catalog.float8,
    OUT latency_target_ms pg_catalog.float8,
    OUT pressure pg_catalog.text,
    OUT switches pg_catalog.int8,
    OUT last_switch pg_catalog.timestamptz,
    OUT shadow_rows pg_catalog.int8,
    OUT shadow_agreed pg_catalog.int8,
    OUT drift_level pg_catalog.float8,
    OUT demotions pg_catalog.int8,
    OUT drifted_at pg_catalog.timestamptz,
    OUT warning pg_catalog.text)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_stat_decisions'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100;

COMMENT ON FUNCTION @extschema@.qwen3dm_stat_decisions()
IS 'what mode auto knows of each task that is in use, for members of pg_read_all_stats';

CREATE VIEW @extschema@.qwen_stat_decisions AS
    SELECT d.datname, s.task, s.question, s.state, s.efficient, s.precise, s.thinking, s.escalated,
           s.alarms, s.p50_ms, s.p95_ms, s.latency_target_ms, s.pressure, s.switches, s.last_switch,
           s.shadow_rows, s.shadow_agreed, s.drift_level, s.demotions, s.drifted_at, s.warning
    FROM @extschema@.qwen3dm_stat_decisions() AS s
         LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.datid;

COMMENT ON VIEW @extschema@.qwen_stat_decisions
IS 'tasks in use: which modes answered, latency and pressure, shadow runs and drift; rows for members of pg_read_all_stats';
COMMENT ON COLUMN @extschema@.qwen_stat_decisions.state
IS 'steady, drifted (demoted to precise until it is certified again), or why nothing is watched';
COMMENT ON COLUMN @extschema@.qwen_stat_decisions.pressure
IS 'none, lean (as few escalations as the certificate allows) or degraded (qwen3dm.allow_degrade)';
COMMENT ON COLUMN @extschema@.qwen_stat_decisions.shadow_rows
IS 'efficient answers that were computed again in mode precise, while the engine had nothing else to do';
COMMENT ON COLUMN @extschema@.qwen_stat_decisions.drift_level
IS 'how far the evidence for drift has come: 0 none, 1 the alarm';
COMMENT ON COLUMN @extschema@.qwen_stat_decisions.warning
IS 'that margins or off-label probability are not what they were; demotes nothing';

GRANT SELECT ON @extschema@.qwen_stat_decisions TO PUBLIC;

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
    OUT age_ms pg_catalog.float8,
    OUT queryid pg_catalog.int8,
    OUT task pg_catalog.text)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_stat_activity'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;

CREATE VIEW @extschema@.qwen_stat_activity AS
    SELECT a.service, a.pid, d.datname, pg_catalog.pg_get_userbyid(a.usesysid) AS usename, a.kind,
           a.mode, a.phase, a.prompt_tokens, a.prompt_done, a.output_tokens, a.max_tokens, a.kv_tokens,
           pg_catalog.make_interval(
               secs => a.age_ms OPERATOR(pg_catalog./) 1000.0) AS age,
           a.queryid, a.task
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
COMMENT ON COLUMN @extschema@.qwen_stat_activity.queryid
IS 'of the statement, as in pg_stat_activity and pg_stat_statements; needs compute_query_id';

GRANT SELECT ON @extschema@.qwen_model_status, @extschema@.qwen_stat_activity TO PUBLIC;

-- ----------------------------------------------------------------------------------------------
-- Usage
-- ----------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.qwen3dm_accounts(
    OUT usesysid pg_catalog.oid,
    OUT datid pg_catalog.oid,
    OUT task pg_catalog.text,
    OUT mode pg_catalog.text,
    OUT kind pg_catalog.text,
    OUT requests pg_catalog.int8,
    OUT errors pg_catalog.int8,
    OUT canceled pg_catalog.int8,
    OUT deduplicated pg_catalog.int8,
    OUT prompt_tokens pg_catalog.int8,
    OUT cached_tokens pg_catalog.int8,
    OUT output_tokens pg_catalog.int8,
    OUT latency_ms pg_catalog.float8,
    OUT max_latency_ms pg_catalog.float8,
    OUT last_request pg_catalog.timestamptz)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'qwen3dm_accounts'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100;

COMMENT ON FUNCTION @extschema@.qwen3dm_accounts()
IS 'what has been used, by role, database, task, mode and kind: one''s own, or all for members of pg_read_all_stats';

CREATE VIEW @extschema@.qwen_stat_roles AS
    SELECT a.usesysid,
           CASE WHEN a.usesysid IS NOT NULL
                THEN pg_catalog.pg_get_userbyid(a.usesysid) END AS usename,
           a.requests, a.errors, a.canceled, a.deduplicated, a.prompt_tokens, a.cached_tokens,
           a.output_tokens, a.mean_ms, a.max_ms, a.last_request,
           (SELECT CASE WHEN o.option_value OPERATOR(pg_catalog.~) '^[0-9]+$'
                        THEN o.option_value::pg_catalog.int4 END
            FROM pg_catalog.pg_db_role_setting AS s,
                 pg_catalog.pg_options_to_table(s.setconfig) AS o
            WHERE s.setrole OPERATOR(pg_catalog.=) a.usesysid
              AND s.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid
              AND o.option_name OPERATOR(pg_catalog.=) 'qwen3dm.token_quota') AS token_quota
    FROM (SELECT usesysid,
                 pg_catalog.sum(requests)::pg_catalog.int8 AS requests,
                 pg_catalog.sum(errors)::pg_catalog.int8 AS errors,
                 pg_catalog.sum(canceled)::pg_catalog.int8 AS canceled,
                 pg_catalog.sum(deduplicated)::pg_catalog.int8 AS deduplicated,
                 pg_catalog.sum(prompt_tokens)::pg_catalog.int8 AS prompt_tokens,
                 pg_catalog.sum(cached_tokens)::pg_catalog.int8 AS cached_tokens,
                 pg_catalog.sum(output_tokens)::pg_catalog.int8 AS output_tokens,
                 pg_catalog.sum(latency_ms) OPERATOR(pg_catalog./)
                     pg_catalog.sum(requests)::pg_catalog.float8 AS mean_ms,
                 pg_catalog.max(max_latency_ms) AS max_ms,
                 pg_catalog.max(last_request) AS last_request
          FROM @extschema@.qwen3dm_accounts()
          GROUP BY usesysid) AS a;

COMMENT ON VIEW @extschema@.qwen_stat_roles
IS 'what each role has used: oneself, or all for members of pg_read_all_stats';
COMMENT ON COLUMN @extschema@.qwen_stat_roles.usename
IS 'the role; NULL for what found no place in qwen3dm.max_accounts';
COMMENT ON COLUMN @extschema@.qwen_stat_roles.requests
IS 'that have ended, however';
COMMENT ON COLUMN @extschema@.qwen_stat_roles.canceled
IS 'requests whose answers nobody took: canceled, or not needed any more';
COMMENT ON COLUMN @extschema@.qwen_stat_roles.cached_tokens
IS 'of prompt_tokens, that did not have to be computed';
COMMENT ON COLUMN @extschema@.qwen_stat_roles.token_quota
IS 'tokens a minute that ALTER ROLE ... SET qwen3dm.token_quota allows the role in all databases';

CREATE VIEW @extschema@.qwen_stat_tasks AS
    SELECT d.datname, a.task,
           pg_catalog.sum(a.requests)::pg_catalog.int8 AS requests,
           pg_catalog.sum(a.errors)::pg_catalog.int8 AS errors,
           pg_catalog.sum(a.canceled)::pg_catalog.int8 AS canceled,
           pg_catalog.sum(a.deduplicated)::pg_catalog.int8 AS deduplicated,
           pg_catalog.sum(a.requests) FILTER (
               WHERE a.mode OPERATOR(pg_catalog.=) 'efficient')::pg_catalog.int8 AS efficient,
           pg_catalog.sum(a.requests) FILTER (
               WHERE a.mode OPERATOR(pg_catalog.=) 'precise')::pg_catalog.int8 AS precise,
           pg_catalog.sum(a.prompt_tokens)::pg_catalog.int8 AS prompt_tokens,
           pg_catalog.sum(a.cached_tokens)::pg_catalog.int8 AS cached_tokens,
           pg_catalog.sum(a.output_tokens)::pg_catalog.int8 AS output_tokens,
           pg_catalog.sum(a.latency_ms) OPERATOR(pg_catalog./)
               pg_catalog.sum(a.requests)::pg_catalog.float8 AS mean_ms,
           pg_catalog.max(a.max_latency_ms) AS max_ms,
           pg_catalog.max(a.last_request) AS last_request
    FROM @extschema@.qwen3dm_accounts() AS a
         LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) a.datid
    GROUP BY a.datid, d.datname, a.task;

COMMENT ON VIEW @extschema@.qwen_stat_tasks
IS 'what each task of each database has been used for, by the roles that one may see; without a task: what no task was named for';
COMMENT ON COLUMN @extschema@.qwen_stat_tasks.efficient
IS 'requests that mode efficient has answered';
COMMENT ON COLUMN @extschema@.qwen_stat_tasks.precise
IS 'requests that mode precise has answered';

CREATE VIEW @extschema@.qwen_stat_modes AS
    SELECT a.mode, a.kind,
           pg_catalog.sum(a.requests)::pg_catalog.int8 AS requests,
           pg_catalog.sum(a.errors)::pg_catalog.int8 AS errors,
           pg_catalog.sum(a.canceled)::pg_catalog.int8 AS canceled,
           pg_catalog.sum(a.deduplicated)::pg_catalog.int8 AS deduplicated,
           pg_catalog.sum(a.prompt_tokens)::pg_catalog.int8 AS prompt_tokens,
           pg_catalog.sum(a.cached_tokens)::pg_catalog.int8 AS cached_tokens,
           pg_catalog.sum(a.output_tokens)::pg_catalog.int8 AS output_tokens,
           pg_catalog.sum(a.latency_ms) OPERATOR(pg_catalog./)
               pg_catalog.sum(a.requests)::pg_catalog.float8 AS mean_ms,
           pg_catalog.max(a.max_latency_ms) AS max_ms
    FROM @extschema@.qwen3dm_accounts() AS a
    GROUP BY a.mode, a.kind;

COMMENT ON VIEW @extschema@.qwen_stat_modes
IS 'what each mode has been used for, by kind of request and by the roles that one may see; without a mode: what needs no model';

GRANT SELECT ON @extschema@.qwen_stat_roles, @extschema@.qwen_stat_tasks,
    @extschema@.qwen_stat_modes TO PUBLIC;

CREATE FUNCTION @extschema@.qwen_stat_reset(role pg_catalog.regrole DEFAULT NULL)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'qwen3dm_stat_reset'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

COMMENT ON FUNCTION @extschema@.qwen_stat_reset(pg_catalog.regrole)
IS 'forgets what a role, or by default everybody, has used';

-- ----------------------------------------------------------------------------------------------
-- Who may do what
-- ----------------------------------------------------------------------------------------------

-- The functions of the extension in three classes:
--   free    everybody may call them; they compute nothing, show only what one may see, and pass on
--           only what one may pass on
--   admin   what concerns all roles: counters, pinned prefixes, tasks
--   usage   all others: what spends the model's time
-- Only the free ones keep the EXECUTE that PostgreSQL grants to PUBLIC on every new function.
CREATE FUNCTION @extschema@.qwen3dm_functions(
    OUT function pg_catalog.regprocedure,
    OUT class pg_catalog.text)
RETURNS SETOF pg_catalog.record
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT p.oid,
           CASE WHEN p.proname IN ('qwen3dm_version', 'qwen3dm_model_status',
                                   'qwen3dm_stat_activity', 'qwen3dm_accounts',
                                   'qwen3dm_functions', 'qwen3dm_change_grants', 'qwen_grant',
                                   'qwen_revoke', 'qwen3dm_check_task', 'qwen3dm_task_changed',
                                   'qwen3dm_features_changed', 'qwen3dm_stat_decisions',
                                   'qwen3dm_stat_progress', 'qwen3dm_set_default')
                THEN 'free'
                WHEN p.proname IN ('qwen_pin_prefix', 'qwen_unpin_prefixes', 'qwen_stat_reset',
                                   'qwen_task_create', 'qwen_task_alter', 'qwen_task_drop',
                                   'qwen_task_learn', 'qwen_task_certify') THEN 'admin'
                ELSE 'usage' END
    FROM pg_catalog.pg_depend AS d
         JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
         JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) d.objid
    WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
      AND d.deptype OPERATOR(pg_catalog.=) 'e'
      AND e.extname OPERATOR(pg_catalog.=) 'qwen3dm';
END;

COMMENT ON FUNCTION @extschema@.qwen3dm_functions()
IS 'the functions of qwen3dm, and who is meant to call them: all (free), those with qwen_grant (usage), those who manage it (admin)';

-- Grants (give) or revokes the classes of functions and the tables and schemas that belong to them,
-- with admin those of both. It runs with the rights of its caller, and is as strict as PostgreSQL
-- is with functions that one may not call at all: what one cannot pass on is an error, no warning.
CREATE FUNCTION @extschema@.qwen3dm_change_grants(role pg_catalog.regrole, give pg_catalog.bool,
    admin pg_catalog.bool)
RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o record;
BEGIN
    FOR o IN
        WITH members AS (
            SELECT d.classid, d.objid, e.extnamespace
            FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
            WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
                  AND e.extname = 'qwen3dm')
        SELECT 'function' AS kind, 'EXECUTE ON ROUTINE ' || f.function AS what,
               f.function::text AS name, f.class = 'admin' AS for_admin,
               has_function_privilege(f.function, 'EXECUTE WITH GRANT OPTION') AS allowed
        FROM @extschema@.qwen3dm_functions() AS f
        WHERE f.class = 'usage' OR (f.class = 'admin' AND admin)
        UNION ALL
        SELECT 'table', CASE WHEN admin AND (give OR
                                             has_table_privilege(c.oid, 'INSERT WITH GRANT OPTION'))
                             THEN 'SELECT, INSERT, UPDATE, DELETE ON '
                             ELSE 'SELECT ON ' END || c.oid::regclass,
               c.oid::regclass::text, false,
               has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')
        FROM members AS m JOIN pg_class AS c ON c.oid = m.objid
        WHERE m.classid = 'pg_class'::regclass AND c.relkind = 'r'
        UNION ALL
        SELECT 'schema', 'USAGE ON SCHEMA ' || n.oid::regnamespace, n.oid::regnamespace::text, false,
               has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
        FROM pg_namespace AS n
        WHERE EXISTS (SELECT FROM members AS m
                      WHERE m.classid = 'pg_namespace'::regclass AND m.objid = n.oid)
              -- one that it only lives in is opened where it is closed, and never closed
              OR (give AND NOT has_schema_privilege(role, n.oid, 'USAGE')
                  AND (n.oid IN (SELECT extnamespace FROM members)
                       OR n.oid IN (SELECT c.relnamespace FROM members AS m, pg_class AS c
                                    WHERE m.classid = 'pg_class'::regclass AND c.oid = m.objid)))
    LOOP
        -- who may not give something cannot have given it
        CONTINUE WHEN NOT give AND o.for_admin AND NOT o.allowed;
        IF NOT o.allowed THEN
            RAISE insufficient_privilege USING
                MESSAGE = format('permission denied for %s %s', o.kind, o.name),
                HINT = 'Its owner, superusers and roles with the grant option can pass it on.';
        END IF;
        EXECUTE format(CASE WHEN give THEN 'GRANT %s TO %s' ELSE 'REVOKE %s FROM %s' END, o.what, role);
    END LOOP;
END
$$;

CREATE FUNCTION @extschema@.qwen_grant(role pg_catalog.regrole,
    admin pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.void
LANGUAGE sql VOLATILE STRICT
BEGIN ATOMIC
    SELECT @extschema@.qwen3dm_change_grants(role, true, admin);
END;

COMMENT ON FUNCTION @extschema@.qwen_grant(pg_catalog.regrole, pg_catalog.bool)
IS 'lets a role use the model; with admin also manage it: counters, pinned prefixes, tasks';

CREATE FUNCTION @extschema@.qwen_revoke(role pg_catalog.regrole)
RETURNS pg_catalog.void
LANGUAGE sql VOLATILE STRICT
BEGIN ATOMIC
    SELECT @extschema@.qwen3dm_change_grants(role, false, true);
END;

COMMENT ON FUNCTION @extschema@.qwen_revoke(pg_catalog.regrole)
IS 'takes back what qwen_grant gave';

-- The last statement: what is made above it is covered.
DO $$
DECLARE
    f pg_catalog.regprocedure;
BEGIN
    FOR f IN SELECT function FROM @extschema@.qwen3dm_functions()
             WHERE class OPERATOR(pg_catalog.<>) 'free' LOOP
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', f);
    END LOOP;
END
$$;
