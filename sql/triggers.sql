-- Triggers that fill a column.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
DROP ROLE IF EXISTS regress_qwen3dm_writer;
RESET client_min_messages;
CREATE TYPE trigger_kind AS ENUM ('billing', 'outage', 'spam');
CREATE SCHEMA "Shop";
SELECT qwen_task_create('fraud', 'It looks like card fraud.');
SELECT qwen_task_create('tickets', labels => '["billing", "outage"]');

-- before each row
CREATE TABLE "Shop"."Payments" (id int PRIMARY KEY, "the Note" text, "Risk" numeric(6, 5), kind trigger_kind, department varchar(10), other int DEFAULT 0);
CREATE TRIGGER score BEFORE INSERT OR UPDATE ON "Shop"."Payments" FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('the Note', 'Risk', 'fraud');
CREATE TRIGGER kind BEFORE INSERT OR UPDATE ON "Shop"."Payments" FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('the Note', 'kind');
CREATE TRIGGER department BEFORE INSERT OR UPDATE ON "Shop"."Payments" FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('the Note', 'department', 'tickets');
INSERT INTO "Shop"."Payments" VALUES (1, 'Two gift cards.', 7, 'spam', 'x'), (2, 'A book.', NULL, NULL, NULL), (3, NULL, 0.5, 'spam', 'x');
CREATE VIEW good AS
SELECT id, "Risk" = round(qwen_score("the Note", task => 'fraud')::numeric, 5) AS risk, kind = qwen_classify("the Note", NULL::trigger_kind) AS kind,
       department = qwen_classify("the Note", ARRAY['billing', 'outage']) AS department FROM "Shop"."Payments";
SELECT * FROM good ORDER BY id;
-- an update asks again only when the source has changed, or when there is no value yet
UPDATE "Shop"."Payments" SET other = 1, "Risk" = 0.12345 WHERE id = 1;
SELECT "Risk" FROM "Shop"."Payments" WHERE id = 1;
UPDATE "Shop"."Payments" SET "Risk" = NULL, "the Note" = "the Note" WHERE id = 1;
SELECT "Risk" IS NULL AS set_to_null FROM "Shop"."Payments" WHERE id = 1;
UPDATE "Shop"."Payments" SET other = 2 WHERE id = 1;
SELECT risk FROM good WHERE id = 1;
UPDATE "Shop"."Payments" SET "the Note" = 'One gift card.', "Risk" = 0.12345 WHERE id = 1;
SELECT * FROM good WHERE id = 1;
UPDATE "Shop"."Payments" SET "the Note" = NULL WHERE id = 2;
UPDATE "Shop"."Payments" SET "the Note" = 'Something.' WHERE id = 3;
SELECT * FROM good ORDER BY id;
INSERT INTO "Shop"."Payments" VALUES (1, 'A car.') ON CONFLICT (id) DO UPDATE SET "the Note" = excluded."the Note";
SELECT * FROM good WHERE id = 1;
SELECT qwen_task_alter('fraud', 'It is about gifts.');
UPDATE "Shop"."Payments" SET "the Note" = 'A gift.' WHERE id = 1;
SELECT * FROM good WHERE id = 1;

-- after a statement, on another table with the same columns
CREATE TABLE "Shop"."More" (LIKE "Shop"."Payments" INCLUDING ALL);
CREATE TRIGGER i1 AFTER INSERT ON "Shop"."More" REFERENCING NEW TABLE AS "new Rows" FOR EACH STATEMENT EXECUTE FUNCTION qwen_score_trigger('the Note', 'Risk', 'fraud');
CREATE TRIGGER i2 AFTER INSERT ON "Shop"."More" REFERENCING NEW TABLE AS t FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('the Note', 'kind');
CREATE TRIGGER i3 AFTER INSERT ON "Shop"."More" REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('the Note', 'department', 'tickets');
CREATE TRIGGER u1 AFTER UPDATE ON "Shop"."More" REFERENCING NEW TABLE AS o OLD TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_score_trigger('the Note', 'Risk', 'fraud');
CREATE TRIGGER u2 AFTER UPDATE ON "Shop"."More" REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('the Note', 'kind');
CREATE TRIGGER u3 AFTER UPDATE ON "Shop"."More" REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('the Note', 'department', 'tickets');
INSERT INTO "Shop"."More" SELECT i, nullif('note ' || i, 'note 7'), 0.5, 'spam', 'x' FROM generate_series(1, 40) AS i;
TRUNCATE "Shop"."Payments";
INSERT INTO "Shop"."Payments" SELECT i, nullif('note ' || i, 'note 7'), 0.5, 'spam', 'x' FROM generate_series(1, 40) AS i;
SELECT count(*) AS rows, count(m."Risk") AS scored, bool_and(to_jsonb(m) = to_jsonb(p)) AS the_same FROM "Shop"."More" AS m JOIN "Shop"."Payments" AS p USING (id);
UPDATE "Shop"."More" SET "the Note" = 'changed ' || id WHERE id < 10;
UPDATE "Shop"."Payments" SET "the Note" = 'changed ' || id WHERE id < 10;
UPDATE "Shop"."More" SET other = 1, "Risk" = 0.12345 WHERE id = 20;
UPDATE "Shop"."Payments" SET other = 1, "Risk" = 0.12345 WHERE id = 20;
UPDATE "Shop"."More" SET "Risk" = NULL WHERE id IN (21, 22);
UPDATE "Shop"."More" SET other = 2 WHERE id = 21;
UPDATE "Shop"."Payments" SET "Risk" = NULL WHERE id IN (21, 22);
UPDATE "Shop"."Payments" SET other = 2 WHERE id = 21;
UPDATE "Shop"."More" SET id = id + 1000, "the Note" = 'moved ' || id WHERE id = 30;
UPDATE "Shop"."Payments" SET id = id + 1000, "the Note" = 'moved ' || id WHERE id = 30;
SELECT count(*) AS rows, count(m."Risk") AS scored, bool_and(to_jsonb(m) = to_jsonb(p)) AS the_same FROM "Shop"."More" AS m JOIN "Shop"."Payments" AS p USING (id);
INSERT INTO "Shop"."More" SELECT * FROM "Shop"."More" WHERE false;
DELETE FROM "Shop"."More";

-- partitions, keys of several columns, generated sources, character(n), domains over the target's type
CREATE DOMAIN probability AS float8 CHECK (VALUE BETWEEN 0 AND 1);
CREATE TABLE parts (a int, b char(3), body char(30), upper_body text GENERATED ALWAYS AS (upper(body)) STORED, risk probability, loud probability, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
CREATE TRIGGER i1 AFTER INSERT ON parts REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud');
CREATE TRIGGER i2 AFTER INSERT ON parts REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION qwen_score_trigger('upper_body', 'loud', 'fraud');
INSERT INTO parts SELECT i, 'k', 'body ' || i FROM generate_series(1, 19) AS i;
SELECT count(*) AS rows, bool_and(risk = qwen_score(body::text, task => 'fraud')) AS risk, bool_and(loud = qwen_score(upper_body, task => 'fraud')) AS loud FROM parts;
DROP TRIGGER i1 ON parts;
DROP TRIGGER i2 ON parts;
CREATE TRIGGER r BEFORE INSERT OR UPDATE OF body ON parts FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud');
INSERT INTO parts SELECT i, 'l', 'body ' || i FROM generate_series(1, 19) AS i;
SELECT count(*) AS rows, bool_and(r.risk = s.risk) AS the_same FROM parts AS r JOIN parts AS s USING (a) WHERE r.b = 'k' AND s.b = 'l';

-- who writes needs the rights for what the triggers do
CREATE ROLE regress_qwen3dm_writer;
GRANT USAGE ON SCHEMA "Shop" TO regress_qwen3dm_writer;
GRANT INSERT ON "Shop"."More", "Shop"."Payments" TO regress_qwen3dm_writer;
GRANT USAGE ON SCHEMA qwen3dm TO regress_qwen3dm_writer;
GRANT SELECT ON qwen3dm.tasks TO regress_qwen3dm_writer;
SET ROLE regress_qwen3dm_writer;
INSERT INTO "Shop"."Payments" VALUES (50, 'A book.');
\set VERBOSITY terse
INSERT INTO "Shop"."More" VALUES (50, 'A book.');
RESET ROLE;
GRANT SELECT, UPDATE ON "Shop"."More" TO regress_qwen3dm_writer;
SET ROLE regress_qwen3dm_writer;
INSERT INTO "Shop"."More" VALUES (50, 'A book.');
RESET ROLE;
SELECT qwen_grant('regress_qwen3dm_writer');
SET ROLE regress_qwen3dm_writer;
INSERT INTO "Shop"."More" VALUES (50, 'A book.');
RESET ROLE;
SELECT "Risk" IS NOT NULL AS scored FROM "Shop"."More" WHERE id = 50;

-- rows that cannot be answered
INSERT INTO "Shop"."Payments" VALUES (60, repeat('word ', 300000));
INSERT INTO "Shop"."More" VALUES (60, repeat('word ', 300000)), (61, 'short');
SET qwen3dm.trigger_on_error = 'null';
INSERT INTO "Shop"."Payments" VALUES (60, repeat('word ', 300000), 0.5), (61, 'short', 0.5);
INSERT INTO "Shop"."More" VALUES (60, repeat('word ', 300000), 0.5), (61, 'short', 0.5);
SELECT id, p."Risk", p."Risk" IS NOT DISTINCT FROM m."Risk" AS the_same, p.kind IS NOT DISTINCT FROM m.kind AS kind FROM "Shop"."Payments" AS p JOIN "Shop"."More" AS m USING (id) WHERE id = 60;
SELECT p."Risk" = m."Risk" AS the_same FROM "Shop"."Payments" AS p JOIN "Shop"."More" AS m USING (id) WHERE id = 61;
UPDATE "Shop"."More" SET other = 3 WHERE id = 60;
RESET qwen3dm.trigger_on_error;

-- mistakes
CREATE TABLE wrong (id int, body text, risk float8, label text, n int, g text GENERATED ALWAYS AS (body) STORED);
CREATE FUNCTION pg_temp.try(trigger text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE TRIGGER t ' || trigger;
    INSERT INTO wrong VALUES (1, 'a');
    UPDATE wrong SET body = 'b';
    DELETE FROM wrong;
    RAISE 'no error';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT pg_temp.try('BEFORE INSERT ON wrong FOR EACH ROW EXECUTE FUNCTION ' || f) FROM (VALUES
    ('qwen_score_trigger()'), ('qwen_score_trigger(''body'', ''risk'')'), ('qwen_score_trigger(''body'', ''risk'', ''fraud'', ''x'')'),
    ('qwen_score_trigger(''nothing'', ''risk'', ''fraud'')'), ('qwen_score_trigger(''body'', ''nothing'', ''fraud'')'), ('qwen_score_trigger(''ctid'', ''risk'', ''fraud'')'),
    ('qwen_score_trigger(''body'', ''label'', ''fraud'')'), ('qwen_score_trigger(''body'', ''n'', ''fraud'')'), ('qwen_score_trigger(''body'', ''risk'', ''nothing'')'),
    ('qwen_score_trigger(''risk'', ''risk'', ''fraud'')'), ('qwen_score_trigger(''body'', ''risk'', ''tickets'')'), ('qwen_score_trigger(''g'', ''risk'', ''fraud'')'),
    ('qwen_classify_trigger(''body'', ''g'', ''tickets'')'), ('qwen_classify_trigger(''body'', ''risk'', ''tickets'')'), ('qwen_classify_trigger(''body'', ''label'')'),
    ('qwen_classify_trigger(''body'', ''label'', ''fraud'')'), ('qwen_classify_trigger(''n'', ''label'', ''tickets'')'), ('qwen_classify_trigger(''body'')')) AS v(f);
SELECT pg_temp.try(t || ' EXECUTE FUNCTION qwen_score_trigger(''body'', ''risk'', ''fraud'')') FROM (VALUES
    ('AFTER INSERT ON wrong FOR EACH ROW'), ('BEFORE INSERT ON wrong FOR EACH STATEMENT'), ('BEFORE DELETE ON wrong FOR EACH ROW'),
    ('AFTER INSERT ON wrong FOR EACH STATEMENT'), ('AFTER INSERT ON wrong REFERENCING NEW TABLE AS x FOR EACH STATEMENT')) AS v(t);
ALTER TABLE wrong ADD PRIMARY KEY (id);
SELECT pg_temp.try(t || ' EXECUTE FUNCTION qwen_score_trigger(''body'', ''risk'', ''fraud'')') FROM (VALUES
    ('AFTER INSERT ON wrong FOR EACH STATEMENT'), ('AFTER UPDATE ON wrong REFERENCING NEW TABLE AS x FOR EACH STATEMENT'),
    ('AFTER DELETE ON wrong REFERENCING OLD TABLE AS x FOR EACH STATEMENT'), ('AFTER INSERT ON wrong REFERENCING NEW TABLE AS x FOR EACH STATEMENT')) AS v(t);
SELECT qwen_score_trigger();

SET client_min_messages = warning;
DROP SCHEMA "Shop" CASCADE;
DROP TABLE parts, wrong;
DROP DOMAIN probability;
DROP TYPE trigger_kind;
SELECT qwen_task_drop(name) FROM (SELECT name FROM qwen3dm.tasks ORDER BY name) AS t;
DROP OWNED BY regress_qwen3dm_writer;
DROP ROLE regress_qwen3dm_writer;
