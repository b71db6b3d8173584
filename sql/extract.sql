-- Answers under a schema, on whatever chat model the server has loaded: nothing here depends on
-- what it knows.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;
SET qwen3dm.max_tokens = 500;

-- a schema that leaves no choice of form
SELECT jsonb_typeof(v) AS v, jsonb_typeof(v->'ok') AS ok, v->>'kind' IN ('x', 'y') AS kind, (v->>'n')::int BETWEEN 1 AND 9 AS n
FROM qwen_extract('Invoice 7, paid', '{"type": "object", "additionalProperties": false, "required": ["ok", "kind", "n"],
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["x", "y"]}, "n": {"type": "integer", "minimum": 1, "maximum": 9}}}'::jsonb) AS v;
-- json keeps the order of properties, and of what is written; jsonb has its own, shorter names first
SELECT qwen_infer('x', schema => '{"type": "object", "properties": {"long": {"const": 1}, "a": {"const": 2}},
    "required": ["long", "a"], "additionalProperties": false}') ~ 'a.*long' AS shorter_first;
SELECT qwen_extract('x', '{"type": "object", "properties": {"long": {"const": 1}, "a": {"const": 2}},
    "required": ["long", "a"], "additionalProperties": false}'::json);
-- the other functions
SELECT qwen_infer('a', schema => '{"type": "boolean"}') IN ('true', 'false') AS infer,
       qwen_infer(ARRAY['a', NULL], schema => '{"const": 5}') AS infer_array,
       (SELECT value || ' ' || finish FROM qwen_infer_details('a', schema => '{"const": 5}')) AS details,
       (SELECT string_agg(s, '') FROM qwen_stream('a', schema => '{"const": 5}') AS s) AS stream;

-- NULLs
SELECT qwen_extract(NULL, '{"type": "null"}'::jsonb) IS NULL AS input, qwen_extract('a', NULL::jsonb) IS NULL AS schema,
       qwen_extract('a', NULL::json) IS NULL AS json, qwen_infer('a', schema => NULL) IS NOT NULL AS option;

-- max_tokens that are too few
\set VERBOSITY default
SELECT qwen_extract('a', '{"enum": ["a long word that has many tokens"]}'::jsonb, max_tokens => 1);
SELECT qwen_infer('a', schema => '{"type": "object", "properties": {"abc": {"type": "integer"}}, "required": ["abc"]}', max_tokens => 1);
SELECT qwen_extract('a', '{"enum": ["a long word that has many tokens"]}'::jsonb, max_tokens => 1, on_error => 'null') IS NULL AS skipped;
SELECT value, output_tokens, finish, error FROM qwen_infer_details('a', schema => '{"enum": ["a long word that has many tokens"]}', max_tokens => 1, on_error => 'null');
SELECT qwen_infer(ARRAY['a', 'b'], schema => '{"enum": ["a long word that has many tokens"]}', max_tokens => 1, on_error => 'null');

-- mistakes
SELECT qwen_extract('a', '{"type": "string", "contains": 1}'::jsonb);
SELECT qwen_extract('a', '{"type": "string", "contains": 1}'::jsonb, on_error => 'null') IS NULL AS skipped;
SELECT qwen_infer('a', schema => '{"type": "string"}', stop => ARRAY['x']);
SELECT qwen_extract('a', '{}'::jsonb, mode => 'fast');
SELECT qwen_extract('a'::text, '{"type": "string"}');
SELECT qwen_extract('a', NULL::int);

-- rows of a composite type
CREATE TYPE extract_kind AS ENUM ('bill', 'it''s "paid"');
CREATE DOMAIN extract_color AS text CHECK (VALUE IN ('red', 'green'));
CREATE DOMAIN extract_needed AS extract_kind NOT NULL;
CREATE DOMAIN extract_never AS boolean CONSTRAINT never CHECK (VALUE IS NULL);
CREATE TYPE extract_place AS (x smallint, day date);
CREATE TABLE extract_row (id int NOT NULL, gone text, kind extract_kind NOT NULL, color extract_color NOT NULL, name varchar(4) NOT NULL,
    code char(3) NOT NULL, n numeric(5, 2) NOT NULL, small numeric(2, 4) NOT NULL, big bigint NOT NULL, f4 real NOT NULL, f8 float8 NOT NULL, day date NOT NULL,
    at timestamptz NOT NULL, local timestamp NOT NULL, u uuid NOT NULL, place extract_place NOT NULL, ok boolean, need extract_needed);
ALTER TABLE extract_row DROP COLUMN gone;
COMMENT ON COLUMN extract_row.id IS 'the "number"';
SELECT num_nulls(id, kind, color, name, code, n, small, big, f4, f8, day, at, local, u, place, need) AS nulls, color IN ('red', 'green') AS color
FROM qwen_extract('Bill 7', NULL::extract_row, max_tokens => 3000);
-- (f()).* asks once a row
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Requests:|Qwen Batch|Calls' THEN
            RETURN NEXT btrim(line);
        END IF;
    END LOOP;
END
$$;
SELECT pg_temp.plan($$SELECT (qwen_extract('Place ' || i, NULL::extract_place)).* FROM generate_series(1, 6) AS i$$);
-- a row is inserted as it is
INSERT INTO extract_row SELECT (qwen_extract('Bill ' || i, NULL::extract_row, max_tokens => 3000)).* FROM generate_series(1, 4) AS i;
SELECT count(*) FROM extract_row;
-- the type changes within a function
CREATE FUNCTION pg_temp.changes() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    CREATE TYPE extract_changes AS ENUM ('one');
    CREATE TYPE extract_changing AS (e extract_needed);
    RETURN NEXT (qwen_extract('a', NULL::extract_changing)) IS NOT NULL;
    FOR i IN 1..2 LOOP
        ALTER TYPE extract_changing ADD ATTRIBUTE more extract_needed;
        RETURN NEXT (SELECT count(*) FROM jsonb_object_keys(to_jsonb(qwen_extract('a', NULL::extract_changing))));
        ALTER TYPE extract_changing DROP ATTRIBUTE more;
    END LOOP;
    DROP TYPE extract_changing, extract_changes;
END
$$;
SELECT pg_temp.changes();
-- a domain's check that the schema does not know: an error of the row
CREATE TYPE extract_refuses AS (ok extract_never);
CREATE DOMAIN extract_odd AS int NOT NULL CONSTRAINT odd CHECK (VALUE > 2147483646);
CREATE TYPE extract_odds AS (n extract_odd);
SELECT qwen_extract('a', NULL::extract_odds);
SELECT qwen_extract('a' || i, NULL::extract_odds, on_error => 'null') IS NULL AS skipped FROM generate_series(1, 3) AS i;
-- types without a schema
CREATE TYPE extract_range AS (a int, r int4range);
SELECT qwen_extract('a', NULL::extract_range);
CREATE TYPE extract_binary AS (a bytea[]);
SELECT qwen_extract('a', NULL::extract_binary);
SELECT qwen_extract('a', ROW(1));

DROP TABLE extract_row;
DROP TYPE extract_place, extract_refuses, extract_odds, extract_range, extract_binary;
DROP DOMAIN extract_color, extract_needed, extract_never, extract_odd;
DROP TYPE extract_kind;
