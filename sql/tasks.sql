-- Tasks: rows that calls take their options from.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
DROP ROLE IF EXISTS regress_qwen3dm_tasks;
RESET client_min_messages;
CREATE TYPE task_kind AS ENUM ('billing', 'outage', 'spam');

SELECT qwen_task_create('tickets', 'Which department is it for?', '{"billing": "money", "outage": "something is down"}',
                        '[{"input": "My invoice is wrong.", "label": "billing"}]');
SELECT qwen_task_create('fraud', instruction => 'It looks like card fraud.', mode => 'efficient', description => 'payments',
                        examples => '[{"input": "50 gift cards", "label": true}]', latency_target => '100 ms');
SELECT qwen_task_create('terse', 'Answer in one word.', mode => 'precise', max_tokens => 3, thinking => false, thinking_budget => 10,
                        agreement_target => 0.9);
SELECT qwen_task_create('form', 'Answer the question.', schema => '{"enum": ["first", "second"]}');
SELECT name, description, instruction, labels, examples, schema, mode, thinking, thinking_budget, max_tokens, agreement_target, latency_target,
       owner = current_user AS owner, created = changed AS unchanged FROM qwen3dm.tasks ORDER BY name;

-- what a call takes from its task is as if the call said it
SELECT (SELECT array_agg(p) FROM qwen_classify_probs('The site is down.', task => 'tickets', mode => 'precise') AS p)
     = (SELECT array_agg(p) FROM qwen_classify_probs('The site is down.', '{"billing": "money", "outage": "something is down"}', mode => 'precise', system => 'Which department is it for?',
                                                     examples => '[{"input": "My invoice is wrong.", "label": "billing"}]') AS p) AS classify,
       qwen_score('Two gift cards.', task => 'fraud')
     = qwen_score('Two gift cards.', 'It looks like card fraud.', mode => 'efficient', examples => '[{"input": "50 gift cards", "label": true}]') AS score,
       qwen_filter('Two gift cards.', threshold => 0, task => 'fraud') AS filter,
       qwen_infer('Hello', task => 'terse', temperature => 0) = qwen_infer('Hello', system => 'Answer in one word.', mode => 'precise', max_tokens => 3, temperature => 0) AS infer,
       qwen_logprob('Hello', task => 'terse') = qwen_logprob('Hello', mode => 'precise') AS logprob;
SELECT mode, reason, output_tokens <= 3 AS bounded FROM qwen_infer_details('Hello', task => 'terse');
SELECT qwen_infer('Which?', task => 'form') IN ('"first"', '"second"') AS infer, qwen_extract('Which?', NULL::jsonb, task => 'form') IN ('"first"', '"second"') AS extract,
       qwen_infer('Which?', task => 'form', schema => '{"const": 7}') AS own_schema;
SELECT qwen_classify('The site is down.', NULL::task_kind, task => 'tickets') IN ('billing', 'outage') AS labels_of_the_task,
       qwen_classify('The site is down.', NULL::text[], task => 'tickets') IN ('billing', 'outage') AS array_form,
       qwen_classify('The site is down.', NULL::jsonb, task => 'tickets') IN ('billing', 'outage') AS jsonb_form,
       qwen_classify('The site is down.', NULL, task => 'tickets') IN ('billing', 'outage') AS literal_form;
SELECT qwen_infer('Hello', task => 'fraud', temperature => 0, max_tokens => 4)
     = qwen_infer('Hello', task => 'fraud', temperature => 0, max_tokens => 4) AS examples_without_labels;
-- and what the call says counts
SELECT mode, output_tokens <= 1 AS bounded FROM qwen_infer_details('Hello', task => 'terse', mode => 'efficient', max_tokens => 1);
SELECT qwen_classify('x', ARRAY['only'], task => 'tickets', examples => '[]') AS labels,
       qwen_score('x', 'it is a letter', task => 'fraud', mode => 'precise', examples => '[]') = qwen_score('x', 'it is a letter', mode => 'precise') AS statement,
       qwen_infer('Hello', task => 'terse', system => 'Be long.', temperature => 0) = qwen_infer('Hello', system => 'Be long.', mode => 'precise', max_tokens => 3, temperature => 0) AS system;
SET qwen3dm.mode = 'efficient';
SELECT mode, reason FROM qwen_infer_details('Hello', task => 'terse');
RESET qwen3dm.mode;
-- many rows, and more than one task
EXPLAIN (COSTS OFF) SELECT qwen_classify('text ' || i, task => 'tickets') FROM generate_series(1, 3) AS i;
SELECT count(qwen_score('text ' || i, task => 'fraud')), count(DISTINCT qwen_classify('text ' || i, task => 'tickets')) BETWEEN 1 AND 2 AS two FROM generate_series(1, 50) AS i;
SET force_parallel_mode = on;
SELECT qwen_score('Two gift cards.', task => 'fraud') = (SELECT qwen_score('Two gift cards.', task => 'fraud', mode => 'efficient')) AS parallel;
RESET force_parallel_mode;

-- changes count for the next statement
SELECT qwen_task_alter('tickets', labels => '["one"]');
SELECT qwen_task_alter('tickets', labels => '["one"]', reset => '{examples}');
SELECT qwen_classify('x', task => 'tickets');
UPDATE qwen3dm.tasks SET labels = '["two"]' WHERE name = 'tickets';
SELECT qwen_classify('x', task => 'tickets');
BEGIN;
UPDATE qwen3dm.tasks SET labels = '["three"]' WHERE name = 'tickets';
SAVEPOINT s;
UPDATE qwen3dm.tasks SET labels = '["four"]' WHERE name = 'tickets';
SELECT qwen_classify('x', task => 'tickets');
ROLLBACK TO s;
SELECT qwen_classify('x', task => 'tickets');
ROLLBACK;
SELECT qwen_classify('x', task => 'tickets');
DO $$
DECLARE seen text[] := '{}';
BEGIN
    FOR i IN 1..3 LOOP
        PERFORM qwen_task_alter('tickets', labels => jsonb_build_array('round ' || i));
        seen := seen || qwen_classify('x', task => 'tickets');
    END LOOP;
    RAISE NOTICE '%', seen;
END
$$;
SELECT changed > created AS changed FROM qwen3dm.tasks WHERE name = 'tickets';
SELECT qwen_task_alter('terse', reset => '{mode,agreement_target,max_tokens,schema,thinking,thinking_budget,description}', instruction => 'Answer.');
SELECT instruction, mode, agreement_target, max_tokens, schema, thinking, thinking_budget, description FROM qwen3dm.tasks WHERE name = 'terse';

-- mistakes
\set VERBOSITY terse
SELECT qwen_classify('x', task => 'terse');
SELECT qwen_classify('x', NULL::task_kind, task => 'tickets');
SELECT qwen_classify('x', task => 'nothing');
SELECT qwen_score('x', task => 'tickets', examples => '[{"input": "x", "label": "y"}]');
SELECT qwen_task_create(NULL);
SELECT qwen_task_create('');
SELECT qwen_task_create(repeat('x', 64));
SELECT qwen_task_create('tickets');
SELECT qwen_task_create('new', labels => '{}');
SELECT qwen_task_create('new', labels => '["a", "a"]');
SELECT qwen_task_create('new', labels => '["a"]', examples => '[{"input": "x", "label": "b"}]');
SELECT qwen_task_create('new', examples => '[{"input": "x", "label": 1}]');
SELECT qwen_task_create('new', mode => 'fast');
SELECT qwen_task_create('new', max_tokens => 0);
SELECT qwen_task_create('new', thinking_budget => -1);
SELECT qwen_task_create('new', agreement_target => 1.5);
SELECT qwen_task_create('new', agreement_target => 'NaN');
SELECT qwen_task_create('new', latency_target => '-1 s');
SELECT qwen_task_create('new', schema => '[]');
SELECT qwen_task_alter('nothing');
SELECT qwen_task_alter('tickets', mode => 'fast');
SELECT qwen_task_alter('tickets', reset => '{name}');
SELECT qwen_task_alter('tickets', reset => ARRAY[NULL]);
SELECT qwen_task_alter('tickets', mode => 'precise', reset => '{mode}');
SELECT qwen_task_drop('nothing');
SELECT qwen_task_drop('nothing', if_exists => true);
UPDATE qwen3dm.tasks SET labels = '1' WHERE name = 'tickets';
SELECT count(*) FROM qwen3dm.tasks WHERE name = 'new';
SELECT qwen_task_create('no instruction');
SELECT qwen_score('x', task => 'no instruction');
SELECT qwen_filter('x', task => 'no instruction');
\set VERBOSITY default

-- grants and row security are those of the table
CREATE ROLE regress_qwen3dm_tasks;
SET ROLE regress_qwen3dm_tasks;
SELECT qwen_score('x', task => 'fraud');
RESET ROLE;
SELECT qwen_grant('regress_qwen3dm_tasks');
SET ROLE regress_qwen3dm_tasks;
SELECT qwen_score('x', task => 'fraud') IS NOT NULL AS answered;
SELECT qwen_task_create('mine');
SELECT qwen_task_drop('fraud');
RESET ROLE;
SELECT qwen_grant('regress_qwen3dm_tasks', admin => true);
ALTER TABLE qwen3dm.tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON qwen3dm.tasks USING (owner = current_user);
SELECT qwen_score('x', task => 'fraud') IS NOT NULL AS the_superuser_sees_all;
SET ROLE regress_qwen3dm_tasks;
SELECT qwen_score('x', task => 'fraud');
SELECT qwen_task_create('mine', 'It is mine.');
SELECT qwen_score('x', task => 'mine') IS NOT NULL AS answered;
SELECT qwen_task_drop('fraud');
RESET ROLE;
DROP POLICY own ON qwen3dm.tasks;
ALTER TABLE qwen3dm.tasks DISABLE ROW LEVEL SECURITY;
SELECT qwen_task_drop(name) FROM (SELECT name FROM qwen3dm.tasks ORDER BY name) AS t;
SELECT count(*) FROM qwen3dm.tasks;
DROP OWNED BY regress_qwen3dm_tasks;
DROP ROLE regress_qwen3dm_tasks;
DROP TYPE task_kind;
