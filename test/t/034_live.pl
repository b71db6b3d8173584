# What is known of tasks in use: in the view at once, in qwen3dm.task_evidence within the interval;
# nothing is lost but what a crash takes, nobody has to wait for it, and no other role sees it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('live', conf => "qwen3dm.flush_interval = 1s\nqwen3dm.max_tasks = 20\n"
	  . "qwen3dm.latency_target = 0\nlog_min_messages = debug1\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# $from: a number that makes the rows others than those of other calls
sub classify
{
	my ($task, $from, $to) = @_;
	return "SELECT count(qwen_classify('secret row ' || i, ARRAY['red', 'blue'], task => '$task')) FROM generate_series($from, $to) AS i;";
}

# Each row with a statement of its own: only such calls have a latency that says something.
sub classify_singly
{
	my ($task, $from, $to) = @_;
	return join('', map { "SELECT qwen_classify('secret row $_', ARRAY['red', 'blue'], task => '$task') IS NOT NULL;" } $from .. $to);
}

my $rows = 'sum(efficient_rows + precise_rows + thinking_rows)';

sub written
{
	my ($task, $count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		within(5, sub { (sql("SELECT $rows FROM qwen3dm.task_evidence WHERE task = '$task'") || 0) == $count }),
		"$count rows of task $task are written");
}

# ---- The view and the table ----
sql(q{SELECT qwen_task_create('colour', 'Which colour is it?'); SELECT qwen_task_create('other')});
sql(classify_singly('colour', 1, 3));
is(sql(q{SELECT datname, task, state, efficient + precise + thinking, pressure, switches, shadow_rows, p50_ms > 0, p95_ms >= p50_ms
	FROM qwen_stat_decisions}), 'postgres|colour|not certified|3|none|0|0|t|t', 'a task in use is in the view');
sql(classify('colour', 4, 23));
is(sql('SELECT efficient + precise + thinking FROM qwen_stat_decisions'), '23', 'rows that are asked about together count');
written('colour', 23);
is(sql(q{SELECT model_digest = (SELECT digest FROM qwen_model_status), question = (SELECT question FROM qwen_stat_decisions),
	standing, efficient_p50_ms > 0 OR precise_p50_ms > 0, used > now() - interval '1 minute', live IS NOT NULL FROM qwen3dm.task_evidence}),
	't|t|not learned|t|t|t', 'as what is known of the task, the model and the question');
sql(classify('colour', 24, 25));
written('colour', 25);
sleep(2.5);
is(sql("SELECT $rows FROM qwen3dm.task_evidence"), '25', 'each once');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qwen3dm flush'"), '0', 'the process that writes does not stay');

# ---- Who sees it ----
sql('CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pg_read_all_stats TO bob');
for my $role (qw(alice bob))
{
	my $seen = $node->safe_psql('postgres', 'SELECT count(*) FROM qwen_stat_decisions', extra_params => [ '-U', $role ]);
	is($seen, $role eq 'bob' ? '1' : '0', $role eq 'bob' ? 'a member of pg_read_all_stats sees it' : 'others do not');
	my ($rc) = $node->psql('postgres', 'SELECT count(*) FROM qwen3dm.task_evidence', extra_params => [ '-U', $role ]);
	isnt($rc, 0, "$role does not see the table");
}

# ---- A row that somebody holds ----
my $log = -s $node->logfile;
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT FROM qwen3dm.task_evidence WHERE task = 'colour' FOR UPDATE});
sql(classify('colour', 26, 30) . classify('other', 1, 4));
written('other', 4);
sleep(2.5);
is(sql("SELECT $rows FROM qwen3dm.task_evidence WHERE task = 'colour'"), '25', 'a row that is locked is not written');
sql(classify('other', 5, 6));
written('other', 6);
$holder->query_safe('COMMIT');
$holder->quit;
written('colour', 30);
is(() = slurp_file($node->logfile, $log) =~ /LOG:  qwen3dm: could not write what was learned/g, 1, 'of which the log tells once');

# Triggers of others run as the table's owner, and cannot keep it.
sql(q{CREATE ROLE keeper; GRANT USAGE ON SCHEMA qwen3dm TO keeper; GRANT SELECT ON qwen3dm.tasks TO keeper;
	CREATE TABLE spied (who name); GRANT ALL ON spied TO keeper;
	CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.spied VALUES (current_user); RETURN NEW; END';
	CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1000); RETURN NEW; END';
	ALTER TABLE qwen3dm.task_evidence OWNER TO keeper;
	CREATE TRIGGER spy BEFORE UPDATE ON qwen3dm.task_evidence FOR EACH ROW EXECUTE FUNCTION spy()});
sql(classify('colour', 31, 31));
written('colour', 31);
is(sql('SELECT DISTINCT who FROM spied'), 'keeper', 'a trigger on the table runs as its owner');
sql(q{DROP TRIGGER spy ON qwen3dm.task_evidence;
	CREATE TRIGGER sleepy BEFORE UPDATE ON qwen3dm.task_evidence FOR EACH ROW EXECUTE FUNCTION sleepy()});
sql(classify('colour', 32, 32));
sleep(2);
my $since = time();
sql(q{DROP TRIGGER sleepy ON qwen3dm.task_evidence; ALTER TABLE qwen3dm.task_evidence OWNER TO postgres});
took(time() - $since, 5, 'a trigger that does not end is ended');
written('colour', 32);

# ---- Pressure ----
$log = -s $node->logfile;
sql(q{SELECT qwen_task_create('slow', latency_target => '1 microsecond')});
sql(classify_singly('slow', 1, 8));
is(sql(q{SELECT pressure, switches, last_switch > now() - interval '1 minute', latency_target_ms FROM qwen_stat_decisions WHERE task = 'slow'}),
	'lean|1|t|0.001', 'a task that is too slow is under pressure');
my $text = slurp_file($node->logfile, $log);
like($text, qr/LOG:  qwen3dm: task "slow" is under latency pressure: lean\n.*DETAIL:  In the database with OID \d+, 95 of 100 of the last \d+ calls took up to [\d.]+ ms; the target is 0\.001 ms/, 'which is logged');
unlike(join('', grep { !/LOG:  statement: / } split /^/, $text), qr/secret row/, 'without any text of a row');
written('slow', 8);
is(sql(q{SELECT switches FROM qwen3dm.task_evidence WHERE task = 'slow'}), '1', 'and written');

# ---- A task that is dropped, one that is made again ----
sql(classify('other', 7, 8) . q{SELECT qwen_task_drop('other')});
sleep(2.5);
is(sql(q{SELECT count(*) FROM qwen3dm.task_evidence WHERE task = 'other'}), '0', 'nothing is written of a task that is no more');
sql(q{SELECT qwen_task_create('other');} . classify('other', 9, 11));
written('other', 3);

# ---- DROP DATABASE ----
for my $round (1 .. 4)
{
	sql("CREATE DATABASE gone$round STRATEGY file_copy");
	my $call = start_call($node, 'CREATE EXTENSION qwen3dm;' . q{SELECT qwen_task_create('t');} . classify('t', 1, 50), dbname => "gone$round");
	my ($status, $out, $err) = finish_call($call);
	is($err, '', 'a database in use');
	sleep(0.4 * ($round - 1)); # at all moments of the interval
	$since = time();
	sql("DROP DATABASE gone$round");
	took(time() - $since, 1, 'DROP DATABASE');
}
sleep(2.5);
my $fatal = qr/FATAL:  database \S+ does not exist/;
my $fatals = () = slurp_file($node->logfile, $log) =~ /$fatal/g;
cmp_ok($fatals, '<=', 4, "a database that is gone is tried once at most ($fatals of 4)");
sql(classify('colour', 33, 33));
written('colour', 33);
ok(within(5, sub { sql('SELECT count(*) FROM qwen_stat_decisions WHERE datname IS NULL') eq '0' }), 'and is forgotten');

# ---- Many tasks ----
sql(q{SELECT count(qwen_task_create('many' || i)) FROM generate_series(1, 50) AS i});
sql(join('', map { classify("many$_", 1, 2) } 1 .. 50));
cmp_ok(sql('SELECT count(*) FROM qwen_stat_decisions'), '<=', 20, 'no more tasks are watched than there is room for');
sleep(3);
sql(join('', map { classify("many$_", 3, 4) } 41 .. 50));
written($_, sql("SELECT efficient + precise + thinking FROM qwen_stat_decisions WHERE task = '$_'")) for 'many50';
is(sql(q{SELECT count(*) FROM qwen_stat_decisions WHERE task ~ 'many(4[1-9]|50)'}), '10', 'those in use now take the places of those that are written');

# ---- Crashes and restarts ----
my $total = "SELECT task, $rows FROM qwen3dm.task_evidence GROUP BY task ORDER BY task";
sql(classify('colour', 34, 35));
written('colour', 35);
my $before = sql($total);
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my @pids = split /\n/, sql(q{SELECT pid FROM pg_stat_activity UNION ALL SELECT engine_pid FROM qwen_model_status});
$node->kill9;
kill('KILL', @pids);
ok(within(10, sub { !grep { process_exists($_) } $postmaster, @pids }), 'everything is killed');
within(10, sub { !grep { kill(0, $_) } $postmaster, @pids }); # and reaped
$node->start;
wait_for_state($node, 'ready');
is(sql($total), $before, 'what was written is there after kill -9 of everything');
is(sql('SELECT count(*) FROM qwen_stat_decisions'), '0', 'no task is in use yet');
sql(classify('colour', 36, 36));
written('colour', 36);

my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'qwen3dm'});
sql(classify('colour', 37, 37) . "SELECT pg_terminate_backend($worker)");
ok( $node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'qwen3dm' AND pid <> $worker"),
	'a new worker');
wait_for_state($node, 'ready');
written('colour', 37);

# ---- Another model ----
sql(classify('colour', 38, 39) . sprintf(q{ALTER SYSTEM SET qwen3dm.model = '%s'; SELECT pg_reload_conf()}, thinking_model()));
ok($node->poll_query_until('postgres', q{SELECT state = 'ready' AND digest NOT IN (SELECT model_digest FROM qwen3dm.task_evidence) FROM qwen_model_status}),
	'another model');
sql(classify('colour', 40, 44));
written('colour', 44);
is(sql("SELECT model_digest = (SELECT digest FROM qwen_model_status), $rows FROM qwen3dm.task_evidence WHERE task = 'colour' GROUP BY 1 ORDER BY 1"),
	"f|39\nt|5", 'is counted for itself');
is(sql(q{SELECT efficient + precise + thinking FROM qwen_stat_decisions WHERE task = 'colour'}), '5', 'in the view too');
$node->stop;

# ---- A standby watches, and writes nothing until it is promoted ----
my $primary = qwen_node('live_primary', streaming => 1,
	conf => "qwen3dm.flush_interval = 1s\nlog_min_messages = debug1\n");
$primary->safe_psql('postgres', q{SELECT qwen_task_create('colour')});
$primary->backup('b1');
my $standby = PostgreSQL::Test::Cluster->new('live_standby');
$standby->init_from_backup($primary, 'b1', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
wait_for_state($standby, 'ready');
$standby->safe_psql('postgres', classify('colour', 1, 5));
is($standby->safe_psql('postgres', 'SELECT efficient + precise + thinking FROM qwen_stat_decisions'), '5', 'a standby watches');
sleep(3);
unlike(slurp_file($standby->logfile), qr/background worker.*qwen3dm flush/, 'but starts no process to write');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM qwen3dm.task_evidence'), '0', 'nothing is written');
$primary->stop;
$standby->promote;
ok($standby->poll_query_until('postgres', "SELECT $rows = 5 FROM qwen3dm.task_evidence"), 'when it is promoted, it writes');
like(slurp_file($standby->logfile), qr/background worker.*qwen3dm flush/, 'with such a process');
$standby->stop;
done_testing();
