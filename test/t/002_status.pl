# qwen_model_status: no model, a missing file, a damaged file, a good one, each by ALTER SYSTEM and
# a reload, without a restart.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('status', model => '', ready => 0);
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

sub set_model
{
	my ($file) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET qwen3dm.model = '$file'");
	$node->reload;
	return;
}

sub call_fails_like
{
	my ($pattern, $what) = @_;
	my ($rc, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT qwen_infer('a')");
	isnt($rc, 0, "$what: the call fails");
	like($err, $pattern, "$what: clearly");
	like($err, qr/ERROR:  [0-9A-Z]{5}: /, "$what: with an SQLSTATE");
	unlike($err, qr/ERROR:  XX000/, "$what: which is not an internal error");
	return;
}

wait_for_state($node, 'no model');
call_fails_like(qr/qwen3dm\.model/, 'no model');
is(status_of($node, 'engine_pid IS NULL'), 't', 'no model: no engine');

my $missing = $node->basedir . '/missing.gguf';
set_model($missing);
wait_for_state($node, 'failed');
my $why = q{concat_ws(' ', message, detail, hint)};
like(status_of($node, $why), qr/No such file/, 'missing file: the status says why');
call_fails_like(qr/No such file/, 'missing file');

# Half of a good file: every tensor's place is checked against the file's length.
my $damaged = $node->basedir . '/damaged.gguf';
my $good = slurp_file(tiny_model());
append_to_file($damaged, substr($good, 0, length($good) / 2));
set_model($damaged);
ok( $node->poll_query_until('postgres',
		"SELECT state = 'failed' AND $why !~ 'No such file' FROM qwen_model_status"),
	'half a file: failed');
diag(status_of($node, $why));
call_fails_like(qr/ERROR/, 'half a file');

my $garbage = $node->basedir . '/garbage.gguf';
append_to_file($garbage, "this is no model\n" x 1000);
set_model($garbage);
ok( $node->poll_query_until('postgres',
		"SELECT state = 'failed' AND $why ~ 'GGUF' FROM qwen_model_status"),
	'no GGUF: failed, and says so');

set_model(tiny_model());
wait_for_state($node, 'ready');
is(status_of($node, 'message IS NULL'), 't', 'ready: the old message is gone');
is(status_of($node, 'progress'), '1', 'ready: progress is complete');
like(status_of($node, 'digest'), qr/^[0-9a-f]{16,}$/, 'ready: the digest is there');
is(status_of($node, q{architecture = 'qwen3' AND load_ms > 0 AND weight_bytes > 0 AND kv_cache_bytes > 0 AND kv_cache_used = 0 AND parameters > 0
	AND threads = 2 AND device = 'cpu' AND device_reason <> '' AND context_length > 0}),
	't', 'ready: what was loaded, where and why');
ok(process_exists(engine_pid($node)), 'ready: the engine is there');
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 4) IS NOT NULL}),
	't', 'ready: a call works');

# Another model, and back to none.
my $digest = status_of($node, 'digest');
set_model(slow_model());
ok( $node->poll_query_until('postgres',
		"SELECT state = 'ready' AND digest <> '$digest' FROM qwen_model_status"),
	'another model takes over at a reload');
set_model('');
wait_for_state($node, 'no model');
is(status_of($node, 'engine_pid IS NULL'), 't', 'no model again: the engine is gone');

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$postmaster_start, 'all this without a restart of the server');
is($node->psql('postgres', "ALTER SYSTEM SET qwen3dm.threads = 'many'"),
	3, 'a setting of the wrong type is refused');

$node->stop;
done_testing();
