# Queries that read ahead: concurrent updates, parallel workers, cancel, scans that are abandoned,
# an engine that dies, savepoints, clients that fetch in portions.
use strict;
use warnings;
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('batching', conf => "max_parallel_workers_per_gather = 2\nmax_worker_processes = 12\n");
$node->safe_psql('postgres', q{
	CREATE TABLE notes (id int PRIMARY KEY, body text, label text);
	INSERT INTO notes SELECT i, 'note number ' || i FROM generate_series(1, 60) AS i;
	ANALYZE notes;
	CREATE FUNCTION ask(t text) RETURNS text LANGUAGE sql AS
	$$ SELECT qwen_infer(t, max_tokens => 2, temperature => 0) $$;});

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A query's rows with batching on and off, which must be the same.
sub same
{
	my ($query, $what, $settings) = @_;
	my ($on, $off) = map { sql(($settings || '') . "SET qwen3dm.enable_batching = $_; $query") } qw(on off);
	cmp_ok(length($on), '>', 0, "$what: there are rows");
	is($on, $off, "$what: the same rows");
}

# Two sessions: while the first holds a row, the second's UPDATE has read and asked about it, waits
# for it, and then asks about what the row has become.
sub concurrent_update
{
	my ($batching, $statement) = @_;
	sql(q{UPDATE notes SET body = 'note number ' || id, label = NULL});
	my $first = $node->background_psql('postgres');
	my $second = $node->background_psql('postgres');
	$first->query_safe(q{BEGIN; UPDATE notes SET body = 'changed ' || id WHERE id IN (5, 50)});
	$second->query_safe("SET qwen3dm.enable_batching = $batching; SET application_name = 'second'");
	$second->query_until(qr/start/, "\\echo start\n$statement;\n");
	ok( $node->poll_query_until('postgres',
			q{SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE application_name = 'second'}),
		"$batching: it waits for the other session");
	$first->query_safe('COMMIT');
	$second->query_safe('SELECT 1');
	$_->quit for $first, $second;
	return sql('SELECT id, body, label FROM notes ORDER BY id');
}

for my $case (
	[ 'UPDATE', q{UPDATE notes SET label = qwen_infer(body, max_tokens => 2, temperature => 0)} ],
	[ 'UPDATE with a filter', q{UPDATE notes SET label = qwen_classify(body, ARRAY['a', 'b', 'c'])
		WHERE qwen_logprob(body) < 0 AND id < 55} ],
	[ 'FOR UPDATE', q{WITH locked AS (SELECT id, qwen_infer(body, max_tokens => 2, temperature => 0) AS x
		FROM notes ORDER BY id FOR UPDATE) UPDATE notes SET label = x FROM locked WHERE locked.id = notes.id} ])
{
	my ($what, $statement) = @$case;
	my ($on, $off) = map { concurrent_update($_, $statement) } qw(on off);
	like($on, qr/^5\|changed 5\|/m, "$what: the other session's change is kept");
	is($on, $off, "$what: the same as without batching");
}
is( sql(q{SELECT count(*) FROM notes WHERE label IS NOT DISTINCT FROM ask(body)}), '60',
	'what was asked is what the row has become');

# SKIP LOCKED: a queue.
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT id FROM notes WHERE id IN (1, 2, 4) FOR UPDATE');
is( sql(q{SELECT string_agg(id::text, ',') FROM (SELECT id, qwen_logprob(body) FROM notes ORDER BY id LIMIT 3
		FOR UPDATE SKIP LOCKED) AS s}), '3,5,6', 'SKIP LOCKED: the next rows that are free');
my $locked = $node->background_psql('postgres');
$locked->query_safe('BEGIN; DECLARE c CURSOR FOR SELECT id, qwen_logprob(body) FROM notes WHERE id > 10 ORDER BY id FOR UPDATE');
$locked->query_safe('FETCH 4 FROM c');
is( sql(q{SELECT min(id) FROM (SELECT id FROM notes WHERE id > 10 ORDER BY id FOR UPDATE SKIP LOCKED) AS s}), '15',
	'only rows that were returned are locked');
$locked->quit;
$holder->query_safe('ROLLBACK');
$holder->quit;

# Parallel workers, each with rows and a connection of its own.
my $parallel = q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SET parallel_leader_participation = on;};
my $query = q{SELECT id, qwen_infer(body, max_tokens => 3, temperature => 0) FROM notes};
like( sql("$parallel EXPLAIN (COSTS OFF) $query"), qr/Gather.*Parallel Custom Scan \(Qwen Batch\).*Parallel Seq Scan/s, 'parallel: the plan');
same("SELECT * FROM ($query) AS s ORDER BY id", 'parallel', $parallel);
same(q{SELECT count(qwen_logprob(body)), min(qwen_logprob(body)) FROM notes WHERE qwen_filter(body, 'x', 0.3)}, 'parallel filter', $parallel);
like( sql("$parallel EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) $query"), qr/Requests: 60 in \d+ batches, 0 deduplicated, 0 wasted/,
	'parallel: requests of all workers are counted');
my ($rc, $out, $err) = $node->psql('postgres', "$parallel SELECT qwen_infer(body, max_tokens => 10 - id) FROM notes");
like($err, qr/ERROR: +max_tokens must be at least 1/, "parallel: a worker's error arrives");

# A client that fetches in portions, as drivers do.
is( sql("\\set FETCH_COUNT 7\nSELECT count(*) FROM notes;\n$query ORDER BY id;") =~ tr/\n//, 60, 'rows in portions');

# Savepoints: rows that were asked about inside of one that is rolled back are not lost.
is( sql(q{BEGIN; DECLARE c CURSOR FOR SELECT id FROM notes WHERE qwen_logprob(body) < 0 ORDER BY id; MOVE 3 IN c;
	SAVEPOINT s; MOVE 5 IN c; ROLLBACK TO s; MOVE 4 IN c; SAVEPOINT t; MOVE 2 IN c; RELEASE t; FETCH 1 FROM c; COMMIT;}),
	'15', 'a cursor survives savepoints');
ok(idle($node), 'nothing is left');
$node->stop;

# Now with answers that take long.
$node = qwen_node('batching_slow', model => slow_model());
sql(q{CREATE TABLE notes AS SELECT i AS id, 'note number ' || i AS body FROM generate_series(1, 100) AS i});
my $slow = q{qwen_infer(body, max_tokens => CASE WHEN id < 8 THEN 1 ELSE 3000 END, temperature => 0, mode => 'precise')};

# Cancel in the middle of a batch; a neighbour's answer is not touched.
my $alone = sql(q{SELECT md5(qwen_infer('Tell me a story.', max_tokens => 60, temperature => 0))});
my $call = start_call($node, "SELECT id, length($slow) FROM notes;");
wait_running($node, 2) || BAIL_OUT('the batch does not run');
my $neighbour = start_call($node, q{SELECT md5(qwen_infer('Tell me a story.', max_tokens => 60, temperature => 0));}, name => 'neighbour');
ok( $node->poll_query_until('postgres', q{SELECT count(DISTINCT pid) = 2 FROM qwen_stat_activity}), 'a neighbour runs beside a batch');
my $since = time();
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
my ($status, $text, $errors, $seconds) = finish_call($call, $since);
like($errors, qr/canceling statement due to user request/, 'cancel: the usual error');
took($seconds, 1, 'cancel in the middle of a batch');
($status, $text) = finish_call($neighbour);
is($text, $alone, "cancel: the neighbour's answer is the same");
ok(idle($node), 'cancel: nothing is held');

# Scans that are abandoned.
my $running = 'SELECT count(*) FROM qwen_stat_activity';
is( sql(qq{BEGIN; DECLARE c CURSOR FOR SELECT id, $slow FROM notes; MOVE 7 IN c; SELECT 'more', count(*) > 1 FROM qwen_stat_activity; CLOSE c; COMMIT;}),
	'more|t', 'a cursor has asked ahead');
ok(idle($node), 'closed cursor: nothing is left');
sql(qq{SELECT id FROM (SELECT id, $slow AS x FROM notes OFFSET 0) AS s WHERE length(x) >= 0 LIMIT 7});
ok(idle($node), 'LIMIT: nothing is left');
sql(qq{SELECT 1 WHERE EXISTS (SELECT FROM notes WHERE length($slow) >= 0)});
ok(idle($node), 'EXISTS: nothing is left');
($rc, $out, $err) = $node->psql('postgres', qq{SELECT 1 / (7 - id), length($slow) FROM notes});
like($err, qr/division by zero/, 'an error of another column');
ok(idle($node), 'error: nothing is left');
sql(qq{DO \$\$ DECLARE r record; BEGIN
	FOR r IN SELECT id, $slow AS x FROM notes LIMIT 7 LOOP EXIT WHEN r.id = 3; END LOOP;
	BEGIN PERFORM 1 / (7 - id), $slow FROM notes; EXCEPTION WHEN division_by_zero THEN NULL; END;
	IF EXISTS ($running HAVING count(*) > 100) THEN RAISE 'too many'; END IF; END \$\$});
ok(idle($node), 'left loop, caught error: nothing is left');
$call = start_call($node, "SELECT id, length($slow) FROM notes;");
wait_running($node, 2) || BAIL_OUT('the batch does not run');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
finish_call($call);
ok(idle($node), 'terminated: nothing is left');

# The engine dies with a batch in flight: one clear error, and the next try works.
$call = start_call($node, "SELECT id, length($slow) FROM notes;");
wait_running($node, 2) || BAIL_OUT('the batch does not run');
$since = time();
kill('KILL', engine_pid($node));
($status, $text, $errors, $seconds) = finish_call($call, $since);
like($errors, qr/ERROR: +the qwen3dm engine stopped while it computed this answer/, 'engine killed: a clear error');
took($seconds, 1, 'the error after kill -9 of the engine');
is( sql(q{SELECT count(qwen_infer(body, max_tokens => 1)) FROM notes WHERE id < 10}), '9', 'engine killed: the next query works');

$node->stop;
done_testing();
