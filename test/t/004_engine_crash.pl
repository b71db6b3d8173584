# kill -9 of the engine while it writes: one clear error for who waits, nothing for anybody else,
# and the next call works.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('crash', model => slow_model());
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $bystander = $node->background_psql('postgres');
my $bystander_pid = $bystander->query_safe('SELECT pg_backend_pid()');
my $restarts = status_of($node, 'restarts');

my $first = start_long_call($node, name => 'first');
(my $other = $Qwen3dm::LONG) =~ s/Tell me/Please tell me/; # an equal call would only share the first
my $second = start_call($node, "\\set VERBOSITY verbose\nSELECT length($other);");
ok(wait_running($node, 2), 'two calls run');
my $engine = engine_pid($node);
my $since = time();
kill('KILL', $engine);

my ($status, $out, $err, $seconds) = finish_call($first, $since);
isnt($status, 0, 'the first waiting call fails');
like($err, qr/ERROR: .*engine/, 'with an error about the engine');
is(() = $err =~ /ERROR:/g, 1, 'and only one');
took($seconds, 1, 'error after kill -9 of the engine');
($status, $out, $err) = finish_call($second);
isnt($status, 0, 'the second waiting call fails');
like($err, qr/ERROR:  (57|08|58)[0-9A-Z]{3}: .*engine/, 'with an SQLSTATE of the right class');

# Without waiting for anything: the call itself waits for the new engine.
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 3) IS NOT NULL}),
	't', 'the next call works');
diag(sprintf('back in service after %.0f ms', (time() - $since) * 1000));
isnt(engine_pid($node), $engine, 'by a new engine');
is(status_of($node, 'restarts'), $restarts + 1, 'and the restart is counted');
ok(idle($node), 'nothing is held');

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$postmaster_start, 'the server did not restart');
is($bystander->query_safe('SELECT pg_backend_pid()'),
	$bystander_pid, 'other sessions did not notice');
$bystander->quit;
unlike(slurp_file($node->logfile), qr/terminating any other active server processes/,
	'no crash recovery');

# Three times in a row: back-off, but never for good.
for my $i (1 .. 3)
{
	kill('KILL', engine_pid($node));
	wait_for_state($node, 'ready') if $i < 3;
}
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 3) IS NOT NULL}),
	't', 'works after three more kills');

# An engine that is stopped, not dead: the call can still be cancelled.
$engine = engine_pid($node);
kill('STOP', $engine);
my $call = start_call($node, "SET statement_timeout = '500ms'; SELECT qwen_infer('a');");
($status, $out, $err, $seconds) = finish_call($call);
like($err, qr/statement timeout/, 'a call to a stuck engine can be cancelled');
took($seconds, 1.5, 'statement_timeout of 500 ms against a stuck engine');
kill('CONT', $engine);
ok(idle($node), 'nothing is held');

$node->stop;
done_testing();
