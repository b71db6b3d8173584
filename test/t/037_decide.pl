# Mode auto: a task is learned, certified, used, drifts; what it rests on can be read and edited; and who may not read it
# gets mode precise. With the model of the three jobs, of which the modes agree on easy rows.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $jobs = $ENV{Q3_JOBS} or die 'Q3_JOBS is not set';
my $node = qwen_node('decide', model => "$jobs/three-jobs.gguf", streaming => 1,
	conf => "qwen3dm.flush_interval = 1\nqwen3dm.latency_target = 0\nqwen3dm.shadow_rate = 0\n");
my ($rc, $out, $err);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub errors { my ($sql, @more) = @_; ($rc, $out, $err) = $node->psql('postgres', $sql, @more); return $err; }

# Mode and reason of a row of a kind of input.
sub decided
{
	my ($body, $more) = @_;
	return sql(qq{SELECT mode, reason, escalated FROM qwen_classify_details($body, task => 'state'} . ($more || '') . ')');
}

my $easy = q{(SELECT body FROM rows_of WHERE kind = 'window/classify' ORDER BY id LIMIT 1)};

sql(qq{
	CREATE TABLE questions (question int, job text, kind text, hard bool, task text, instruction text, labels jsonb, schema text);
	CREATE TABLE held_out (id int, question int, body text, truth text);
	COPY questions FROM '$jobs/questions.csv' CSV HEADER;
	COPY held_out FROM '$jobs/rows.csv' CSV HEADER;
	CREATE VIEW rows_of AS SELECT id, kind, body, truth FROM held_out JOIN questions USING (question) WHERE job = 'machines';
	-- a window with other numbers is another row
	CREATE TABLE windows AS SELECT g * 1000 + id AS id, body || repeat(' ', g) AS body, truth
		FROM rows_of, generate_series(0, 24) AS g WHERE kind LIKE 'window/%';
	CREATE TABLE histories AS SELECT id, body, truth FROM rows_of WHERE kind = 'history/classify';
	SELECT qwen_task_create('state', 'Check the sensor values against the limits.', labels => '["normal", "alarm"]');
	SELECT qwen_task_create('fault', 'Which fault does the machine have?', labels => '["none", "bearing", "cooling", "overload"]', thinking => true,
		thinking_budget => 250);
	SELECT qwen_task_create('empty', schema => '{"type": "string"}')});

# ---- Before anything is known ----
is(decided($easy), 'precise|the task has not been learned|f', 'what is not known is answered in precise');
like(sql(qq{SELECT value FROM qwen_explain_mode($easy, 'state') WHERE part = 'decision' AND name = 'reason'}),
	qr/^precise, because the task has not been learned/, 'and qwen_explain_mode says so');
like(errors(q{SELECT qwen_task_certify('state', 'SELECT body FROM windows')}), qr/ERROR:  task "state" has not been learned\nDETAIL.*\nHINT:  Use qwen_task_learn first/,
	'nothing to certify');

# ---- Mistakes ----
like(errors(q{SELECT qwen_task_learn('nobody', 'SELECT body FROM windows')}), qr/ERROR:  task "nobody" does not exist/, 'no such task');
like(errors(q{SELECT qwen_task_learn('empty', 'SELECT body FROM windows')}), qr/ERROR:  task "empty" has neither labels nor an instruction/, 'no question');
like(errors(q{SELECT qwen_task_learn('state', 'SELECT 1, 2, 3')}), qr/ERROR:  the query must return one or two columns\nDETAIL:  It returns 3/, 'three columns');
like(errors(q{SELECT qwen_task_learn('state', 'SELECT NULL::text')}), qr/ERROR:  the query returned no rows with an input/, 'no rows');
like(errors(q{SELECT qwen_task_learn('state', 'DELETE FROM windows RETURNING body')}), qr/ERROR/, 'a query that writes');
like(errors(q{SELECT qwen_task_learn('state', 'SELECT body FROM windows', 0)}), qr/ERROR:  max_rows must be from 1/, 'no row');
is(sql('SELECT count(*) FROM qwen_stat_progress_tasks'), '0', 'a run that failed is not shown');

# ---- Learning: visible, cancelable, resumable ----
my $learn = q{SELECT standing, rows, agreement > 0.98, threshold IS NOT NULL, reference FROM qwen_task_learn('state', 'SELECT body, truth FROM windows', 600)};
my $call = start_call($node, $learn);
ok($node->poll_query_until('postgres', q{SELECT rows_done >= 128 AND rows_total = 600 AND phase = 'answering' AND task = 'state'
	AND command = 'qwen_task_learn' FROM qwen_stat_progress_tasks}, 't'), 'its progress can be watched');
sql(q{SELECT pg_cancel_backend(pid) FROM qwen_stat_progress_tasks});
(undef, undef, my $canceled) = finish_call($call);
like($canceled, qr/canceling statement due to user request/, 'it is canceled');
is(sql('SELECT count(*) FROM qwen_stat_progress_tasks') . sql('SELECT count(*) FROM qwen3dm.task_features'), '00', 'and leaves nothing');
my $before = sql('SELECT requests FROM qwen_stat_tasks WHERE task = \'state\'');
is(sql($learn), 'uncertified|600|t|t|precise', 'learned');
my $asked = sql('SELECT requests FROM qwen_stat_tasks WHERE task = \'state\'') - $before;
cmp_ok($asked, '<=', 2 * 600 - 128, "what the canceled run had computed is not computed again ($asked of 1200)");
is(decided($easy), 'precise|agreement is not certified yet|f', 'learned is not certified');
is(sql(q{SELECT inputs, array_length(lengths, 1) > 1, terms <> '{}' FROM qwen3dm.task_features WHERE task = 'state'}), '600|t|t', 'features');
is(sql(q{SELECT jsonb_array_length(calibration) BETWEEN 1 AND 32 FROM qwen3dm.task_evidence WHERE task = 'state'}), 't', 'a calibration');

# ---- Certifying ----
is(sql(q{SELECT standing, rows, population, round(delta::numeric, 4)::float8, rows_needed > 0, message ~ 'rows more are needed' FROM qwen_task_certify('state', 'SELECT body FROM windows', 50)}),
	'uncertified|50|2000|0.04|t|t', 'too few rows are no certificate');
is(decided($easy), 'precise|agreement is not certified yet|f', 'and change nothing');
is(sql(q{SELECT standing, rows < 1500, agreed >= 0.98 * rows, round(delta::numeric, 4), rows_needed FROM qwen_task_certify('state', 'SELECT body FROM windows')}),
	'certified|t|t|0.0080|0', 'enough are, the second attempt with a smaller probability of error');

# What efficient costs is another matter on each machine.
sql(q{UPDATE qwen3dm.task_evidence SET efficient_ms = 1, precise_ms = 3, threshold = 0, off_label_limit = NULL WHERE task = 'state'});
is(decided($easy), 'efficient|agreement is certified|f', 'now mode efficient answers');
my $explained = sql(qq{EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT qwen_classify(body, task => 'state') FROM windows LIMIT 20});
like($explained, qr/Modes: \d+ efficient, 0 precise, 0 escalated/, 'EXPLAIN ANALYZE counts modes');
like(sql(qq{SELECT string_agg(part || ' ' || name || ': ' || value, E'\\n') FROM qwen_explain_mode($easy, 'state')}),
	qr/evidence standing: certified\n.*evidence certified: \d+ of \d+ rows agreed.*moment drift: none.*decision mode: efficient.*reason: efficient, because agreement is certified/s,
	'all that says so');
sql(q{UPDATE qwen3dm.task_evidence SET efficient_ms = 2.9 WHERE task = 'state'});
is(decided($easy), 'precise|a cascade would not pay|f', 'where efficient costs as much, it is off');
sql(q{UPDATE qwen3dm.task_evidence SET efficient_ms = 1, threshold = 1.5, escalated = 0.1 WHERE task = 'state'});
is(decided($easy), 'precise|thin margin|t', 'a thin margin is escalated');
like(sql(qq{EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT qwen_classify(body, task => 'state') FROM windows LIMIT 5}),
	qr/Modes: 0 efficient, \d+ precise, [1-9]\d* escalated/, 'and counted');
sql(q{UPDATE qwen3dm.task_evidence SET threshold = 0, off_label_limit = 1e-30 WHERE task = 'state'});
is(sql(qq{SELECT mode, escalated, alarm, off_label > 0 FROM qwen_classify_details($easy, task => 'state')}), 'precise|t|t|t', 'so is what lies outside the labels');
sql(q{UPDATE qwen3dm.task_evidence SET off_label_limit = 1 WHERE task = 'state'});
is(sql(qq{SELECT mode, escalated, alarm FROM qwen_classify_details($easy, task => 'state')}), 'efficient|f|f', 'unless the limit is higher');

# ---- What the evidence is about ----
is(decided($easy, q{, system => 'Look at it.'}), 'precise|the evidence is for another model or instruction|f', 'another system text is another question');
is(decided($easy, q{, labels => '["normal", "alarm", "broken"]'::jsonb}), 'precise|the evidence is for another model or instruction|f', 'so are other labels');
is(decided($easy, q{, calibrate => true}), 'precise|calibrated answers take mode precise|f', 'calibrated answers are not those that were compared');
is(decided($easy, q{, mode => 'efficient'}), 'efficient|mode given by the call|f', 'a mode that is given stays');
is(decided($easy, q{, thinking => true}), 'precise|thinking takes mode precise|f', 'so does thinking');
sql(q{SELECT qwen_task_alter('state', 'Is it an alarm?')});
is(decided($easy), 'precise|the evidence is for another model or instruction|f', 'a new instruction voids the evidence');
sql(q{SELECT qwen_task_alter('state', 'Check the sensor values against the limits.')});
is(decided($easy), 'efficient|agreement is certified|f', 'the old one has it again');
is(sql(qq{SET qwen3dm.agreement_target = 0.999; SELECT mode, reason FROM qwen_classify_details($easy, task => 'state')}),
	'precise|agreement is not certified yet', 'a session that wants more than was certified');
sql(q{SELECT qwen_task_alter('state', mode => 'precise')});
is(decided($easy), 'precise|mode set by the task|f', 'a policy of the task');
sql(q{SELECT qwen_task_alter('state', reset => '{mode}')});
is(sql(q{SELECT qwen_task_learn('state', 'SELECT body, truth FROM windows', 600) IS NOT NULL}), 't', 'learned again');
is(decided($easy), 'precise|agreement is not certified yet|f', 'a new threshold has no certificate');
sql(q{UPDATE qwen3dm.task_evidence SET standing = 'certified', certified_at = now(), efficient_ms = 1, precise_ms = 3, threshold = 0, off_label_limit = NULL,
	shadow_reference = 0.987 WHERE task = 'state'});

# ---- Inputs without a task ----
sub taskless { return sql("SELECT mode, reason FROM qwen_classify_details($_[0], ARRAY['a', 'b'])"); }
is(taskless($easy), 'efficient|suggested by similar tasks', 'a similar task suggests its mode');
sql(q{UPDATE qwen3dm.policy_defaults SET value = 1 WHERE name = 'min_similarity'});
is(taskless(q{'V45 I40 T80'}), 'efficient|short input of common words', 'short input of words that were often seen goes to efficient');
is(taskless(q{'Never before were these words seen'}), 'precise|rare words', 'that of rare ones to precise');
is(taskless(q{repeat('V45 ', 600)}), 'precise|long input', 'long input to precise');
sql(q{UPDATE qwen3dm.policy_defaults SET value = 3 WHERE name = 'max_length'});
is(taskless(q{'V45 I40 T80'}), 'precise|long input', 'what is long is a row of the repository');
sql(q{UPDATE qwen3dm.policy_defaults SET value = 2000 WHERE name = 'max_length'});
sql(q{UPDATE qwen3dm.policy_defaults SET value = 0.3 WHERE name = 'min_similarity'});
sql(q{UPDATE qwen3dm.task_evidence SET standing = 'drifted' WHERE task = 'state'});
is(taskless($easy), 'precise|suggested by similar tasks', 'which it may have lost');
is(decided($easy), 'precise|agreement has fallen below the target|f', 'as the task itself says');
sql(q{UPDATE qwen3dm.task_evidence SET standing = 'certified' WHERE task = 'state'});

# ---- Thinking as the last tier ----
is(sql(q{SELECT mode, thinking IS NULL FROM qwen_classify_details((SELECT body FROM histories LIMIT 1), task => 'fault')}), 'precise|t',
	'a task that may think does not until it was seen to help');
my $told = sql(q{SELECT reference, rows FROM qwen_task_learn('fault', 'SELECT body, truth FROM histories')});
my ($gained, $lost, $rows) = split /\|/, sql(q{SELECT thinking_gained, thinking_lost, labelled_rows FROM qwen3dm.task_evidence WHERE task = 'fault'});
diag("thinking: $gained gained, $lost lost of $rows");
is($told, ($rows >= 30 && $gained - $lost > 2 * sqrt($gained + $lost) ? 'thinking' : 'precise') . '|40', 'the reference is what helps');
sql(q{UPDATE qwen3dm.task_evidence SET reference = 'thinking', labelled_rows = 100, thinking_gained = 20, thinking_lost = 0, standing = 'certified', certified_at = now(),
	target = 0.987, threshold = 1.5, escalated = 0.1, efficient_ms = 1, thinking_ms = 20, off_label_limit = NULL, shadow_reference = 0.987 WHERE task = 'fault'});
is(sql(q{SELECT mode, escalated, thinking ~ 'T1' FROM qwen_classify_details((SELECT body FROM histories LIMIT 1), task => 'fault')}), 'precise|t|t',
	'where it does, thin margins are thought about');

# ---- Shadow runs and drift: efficient answers about histories are not those after thinking ----
sql(q{UPDATE qwen3dm.task_evidence SET threshold = 0 WHERE task = 'fault'});
sql(q{CREATE TABLE many AS SELECT body || repeat(' ', g) AS body FROM histories, generate_series(1, 12) AS g});
my $log = -s $node->logfile;
for my $round (1 .. 10)
{
	sql(q{SET qwen3dm.shadow_rate = 1; SELECT count(qwen_classify(body, task => 'fault')) FROM (SELECT body FROM many ORDER BY random() LIMIT 40) AS m});
	within(5, sub { sql(qq{SELECT coalesce(sum(shadow_rows + (state = 'drifted')::int * 1000), 0) >= $round * 35 FROM qwen_stat_decisions WHERE task = 'fault'}) eq 't' });
	last if sql(q{SELECT state FROM qwen_stat_decisions WHERE task = 'fault' AND shadow_rows > 0}) eq 'drifted';
}
diag('shadow rows until it was demoted: ' . sql(q{SELECT shadow_rows || ', agreed ' || shadow_agreed FROM qwen_stat_decisions WHERE task = 'fault' AND shadow_rows > 0}));
is(sql(q{SELECT state, demotions FROM qwen_stat_decisions WHERE task = 'fault' AND shadow_rows > 0}), 'drifted|1', 'drift is noticed');
like(slurp_file($node->logfile, $log), qr/task "fault" is demoted to mode precise: agreement has fallen/, 'and logged');
is(sql(q{SELECT reason FROM qwen_classify_details((SELECT body FROM histories LIMIT 1), task => 'fault')}), 'agreement has fallen below the target', 'at once for everybody');
ok($node->poll_query_until('postgres', q{SELECT standing = 'drifted' AND drifted_at IS NOT NULL FROM qwen3dm.task_evidence WHERE task = 'fault' AND learned_rows > 0}, 't'),
	'and written to the table');

# ---- Latency ----
$log = -s $node->logfile;
sql(q{SELECT qwen_task_alter('state', latency_target => '0.001 ms')});
sql(join(';', map { "SELECT qwen_classify(body, task => 'state') FROM windows WHERE id = $_" } (1 .. 1)) . q{;
	DO $$ BEGIN FOR i IN 1..30 LOOP PERFORM qwen_classify(body, task => 'state') FROM windows ORDER BY random() LIMIT 1; END LOOP; END $$});
is(sql(q{SELECT pressure, switches FROM qwen_stat_decisions WHERE task = 'state' AND efficient > 20}), 'lean|1', 'latency above its target is pressure');
like(slurp_file($node->logfile, $log), qr/task "state" is under latency pressure/, 'and logged');
is(decided($easy), 'efficient|latency is above its target|f', 'which stays within the certificate');
sql(q{SET qwen3dm.allow_degrade = on; DO $$ BEGIN FOR i IN 1..40 LOOP PERFORM qwen_classify(body, task => 'state') FROM windows ORDER BY random() LIMIT 1; END LOOP; END $$});
is(sql(qq{SET qwen3dm.allow_degrade = on; SELECT mode, reason FROM qwen_classify_details($easy, task => 'state')}),
	'efficient|latency is above its target, degrading is allowed', 'unless a session allows more');
is(decided($easy), 'efficient|latency is above its target|f', 'which is no matter of the others');
sql(q{SELECT qwen_task_alter('state', reset => '{latency_target}')});

# ---- Rights, row security ----
sql(q{CREATE ROLE reader LOGIN; SELECT qwen_grant('reader'); GRANT SELECT ON windows TO reader});
sub as_reader { errors($_[0], extra_params => [ '-U', 'reader' ]); return $rc == 0 ? $out : $err; }
my $ask = q{SELECT mode, reason FROM qwen_classify_details((SELECT body FROM windows LIMIT 1), task => 'state')};
my $granted = as_reader($ask);
like($granted, qr/^efficient\|(agreement is certified|latency is above its target)$/, 'a role with the usual grant');
like(as_reader(q{SELECT qwen_task_learn('state', 'SELECT body FROM windows')}), qr/permission denied for function qwen_task_learn/, 'which does not let it learn');
sql(q{REVOKE SELECT ON qwen3dm.task_evidence FROM reader});
is(as_reader($ask), 'precise|the task has not been learned', 'without the evidence it is as if there were none');
sql(q{GRANT SELECT ON qwen3dm.task_evidence TO reader; ALTER TABLE qwen3dm.task_evidence ENABLE ROW LEVEL SECURITY});
is(as_reader($ask), 'precise|the task has not been learned', 'so with row security');
sql(q{CREATE POLICY p ON qwen3dm.task_evidence FOR SELECT TO reader USING (task = 'state')});
like(as_reader($ask), qr/^efficient\|/, 'up to its policies');
sql(q{ALTER TABLE qwen3dm.task_evidence DISABLE ROW LEVEL SECURITY});

# ---- pg_dump, a standby ----
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
sql('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'and back');
is($node->safe_psql('copy', qq{SELECT mode, reason FROM qwen_classify_details($easy, task => 'state')}), 'efficient|agreement is certified', 'with what was learned');
is($node->safe_psql('copy', 'SELECT count(*) FROM qwen3dm.policy_defaults'), sql('SELECT count(*) FROM qwen3dm.policy_defaults'), 'and the defaults, once each');

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('decide_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
wait_for_state($standby, 'ready');
is($standby->safe_psql('postgres', qq{SELECT mode, reason FROM qwen_classify_details($easy, task => 'state')}), 'efficient|agreement is certified', 'a standby decides, too');
is($standby->safe_psql('postgres', qq{SELECT count(*) > 3 FROM qwen_explain_mode($easy, 'state')}), 't', 'and explains');
$standby->stop;

$node->stop;
done_testing();
