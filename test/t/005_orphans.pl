# Whatever ends the server ends the engine: fast and immediate stop, kill -9 of the postmaster and
# of the worker.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('orphans', model => slow_model());

sub worker_pid
{
	return $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'qwen3dm'});
}

# kill -9 of the postmaster while an answer is written.
my $call = start_long_call($node);
my $engine = engine_pid($node);
my $backend = $node->safe_psql('postgres', 'SELECT pid FROM qwen_stat_activity');
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my $since = time();
$node->kill9;
ok(wait_gone($engine, 5), 'kill -9 of the postmaster: the engine is gone');
took(time() - $since, 2, 'engine gone after kill -9 of the postmaster');
finish_call($call);
# A new postmaster refuses to start while one of the old processes is in the process table.
ok(within(10, sub { !kill(0, $postmaster) && !kill(0, $backend) }), 'so is the waiting backend');
ok($node->start(fail_ok => 1), 'the server starts again: no stale socket, no orphan');
wait_for_state($node, 'ready');

# Immediate stop.
$call = start_long_call($node);
$engine = engine_pid($node);
$since = time();
$node->stop('immediate');
ok(wait_gone($engine, 5), 'immediate stop: the engine is gone');
took(time() - $since, 3, 'immediate stop during an answer');
finish_call($call);
$node->start;
wait_for_state($node, 'ready');

# Fast stop.
$call = start_long_call($node);
$engine = engine_pid($node);
$since = time();
$node->stop('fast');
took(time() - $since, 3, 'fast stop during an answer');
ok(wait_gone($engine, 1), 'fast stop: the engine is gone');
finish_call($call);
$node->start;
wait_for_state($node, 'ready');

# kill -9 of the worker is a crash of the server, as of any of its processes: the server comes back,
# and the old engine is gone.
$engine = engine_pid($node);
kill('KILL', worker_pid());
ok(wait_gone($engine, 5), 'kill -9 of the worker: the engine is gone');
ok(wait_for_server($node), 'the server recovers');
wait_for_state($node, 'ready');
isnt(engine_pid($node), $engine, 'with a new engine');
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 3) IS NOT NULL}),
	't', 'and works');

$node->stop;
done_testing();
