# Cancel, statement_timeout, terminate and a client's death while an answer is written: each is
# over at once and frees what the request held.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('cancel', model => slow_model());
my ($call, $since, $status, $out, $err, $seconds);

sub backend_pid
{
	return $node->safe_psql('postgres', 'SELECT min(pid) FROM qwen_stat_activity');
}

# pg_cancel_backend is what Ctrl-C in psql sends.
$call = start_long_call($node);
my $pid = backend_pid();
$since = time();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($status, $out, $err, $seconds) = finish_call($call, $since);
like($err, qr/canceling statement due to user request/, 'cancel: the usual error');
took($seconds, 1, 'cancel during the answer');
ok(idle($node), 'cancel: nothing is held');

# The same while a long prompt is read.
$call = start_call($node, q{SELECT qwen_infer(repeat('tell me more about it ', 120), max_tokens => 3);});
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM qwen_stat_activity WHERE phase = 'prefill' AND output_tokens = 0}),
	'prompt: it is being read');
$pid = backend_pid();
$since = time();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($status, $out, $err, $seconds) = finish_call($call, $since);
like($err, qr/canceling statement due to user request/, 'prompt: the usual error');
took($seconds, 1, 'cancel while the prompt is read');
ok(idle($node), 'prompt: nothing is held');

# statement_timeout; the session goes on.
$call = start_call($node, "SET statement_timeout = '500ms';\n\\set ON_ERROR_STOP off\n"
	  . "SELECT length($Qwen3dm::LONG);\nRESET statement_timeout;\n"
	  . "SELECT 'next', length(qwen_infer('a', max_tokens => 3)) IS NOT NULL;\n");
($status, $out, $err, $seconds) = finish_call($call);
like($err, qr/canceling statement due to statement timeout/, 'timeout: the usual error');
is($out, 'next|t', 'timeout: the session works on');
took($seconds, 3, 'a session with statement_timeout of 500 ms and one more call');
ok(idle($node), 'timeout: nothing is held');

# qwen3dm.timeout is ours.
$call = start_call($node, "SET qwen3dm.timeout = '500ms';\nSELECT length($Qwen3dm::LONG);\n");
($status, $out, $err, $seconds) = finish_call($call);
like($err, qr/ERROR: .*qwen3dm\.timeout|ERROR: .*tim(ed|e) ?out/s, 'qwen3dm.timeout: a clear error');
took($seconds, 2, 'qwen3dm.timeout of 500 ms');
ok(idle($node), 'qwen3dm.timeout: nothing is held');

# pg_terminate_backend
$call = start_long_call($node);
$pid = backend_pid();
$since = time();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
($status, $out, $err, $seconds) = finish_call($call, $since);
like($err, qr/terminating connection due to administrator command/, 'terminate: the usual error');
took($seconds, 1, 'terminate during the answer');
ok(idle($node), 'terminate: nothing is held');

# A client that dies: the server notices when it looks (client_connection_check_interval).
$call = start_long_call($node, before => "SET client_connection_check_interval = '50ms';\n");
$pid = backend_pid();
$since = time();
$call->{handle}->kill_kill(grace => 0);
ok(within(3, sub { running($node) eq '0' }), 'disconnect: the request is dropped');
took(time() - $since, 1, 'a dead client noticed');
ok(idle($node), 'disconnect: nothing is held');
ok(wait_gone($pid, 2), 'disconnect: the backend is gone');

# A stream that is cancelled in the middle, and one that nobody reads to its end.
$call = start_call($node, "SELECT qwen_stream('Tell me everything.', max_tokens => 3000, temperature => 0);");
ok(wait_running($node), 'stream: it runs');
$pid = backend_pid();
$since = time();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($status, $out, $err, $seconds) = finish_call($call, $since);
like($err, qr/canceling statement due to user request/, 'stream: the usual error');
took($seconds, 1, 'cancel of a stream');
ok(idle($node), 'stream: nothing is held');

is( $node->safe_psql('postgres',
		q{BEGIN; DECLARE c CURSOR FOR SELECT qwen_stream('Tell me everything.', max_tokens => 3000,
			temperature => 0); MOVE 2 IN c; CLOSE c; COMMIT; SELECT 'closed'}),
	'closed',
	'a stream behind a cursor can be closed early');
ok(idle($node), 'closed cursor: nothing is held');

# Rows that are never fetched because of LIMIT.
$node->safe_psql('postgres',
	q{SELECT qwen_stream('Tell me everything.', max_tokens => 3000, temperature => 0) LIMIT 2});
ok(idle($node), 'LIMIT: nothing is held');

# An error elsewhere in the statement.
$node->psql('postgres',
	q{SELECT 1 / (length(x) - length(x)) FROM qwen_stream('a', max_tokens => 5, temperature => 0) x});
ok(idle($node), 'an error elsewhere: nothing is held');

$node->stop;
done_testing();
