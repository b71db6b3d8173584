# The packed weights: built once, kept over kill -9 and changes of settings, kept on disk if wanted.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('image', model => slow_model());
my $call = sub {
	my ($mode) = @_;
	return $node->safe_psql('postgres',
		"SELECT qwen_infer('Name three colours.', max_tokens => 8, mode => '$mode')");
};

sub reload_with
{
	my ($setting) = @_;
	my $before = engine_pid($node);
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting");
	$node->reload;
	ok( $node->poll_query_until('postgres',
			"SELECT state = 'ready' AND engine_pid <> $before FROM qwen_model_status"),
		"$setting: a new engine");
	return;
}

is(status_of($node, 'image'), 'built', 'the first engine packs');
is(status_of($node, 'image_bytes BETWEEN weight_bytes / 3 AND weight_bytes * 1.1'),
	't', 'the image is no larger than the weights');
like(status_of($node, '"precision"'), qr/^planes: /, 'the status names the precisions');
my %expected = map { $_ => $call->($_) } qw(precise efficient);
my $built_ms = status_of($node, 'load_ms');

# What the engine holds is the image, not the image and the file.
my $bytes = status_of($node, 'image_bytes');
my %resident = (file => 0, image => 0);
my $what = '';
for my $line (split /\n/, slurp_file('/proc/' . engine_pid($node) . '/smaps'))
{
	$what = $line =~ /\.gguf/ ? 'file' : $line =~ /qwen3dm image/ ? 'image' : ''
	  if $line =~ /^[0-9a-f]+-[0-9a-f]+ /;
	$resident{$what} += $1 if $what ne '' && $line =~ /^Rss: +(\d+) kB/;
}
diag("resident: file $resident{file} kB, image $resident{image} kB of " . int($bytes / 1024));
cmp_ok($resident{image}, '>', $bytes / 1024 * 0.9, 'both modes read the image');
cmp_ok($resident{file} + $resident{image}, '<', $bytes / 1024 * 1.1, 'and hardly anything of the file beside it');

# kill -9: the next engine takes over what is packed.
my $log = -s $node->logfile;
my $engine = engine_pid($node);
my $since = time();
kill('KILL', $engine);
is($call->('efficient'), $expected{efficient}, 'the same answer after kill -9');
diag(sprintf('answered %.0f ms after kill -9', (time() - $since) * 1000));
ok( $node->poll_query_until('postgres',
		"SELECT state = 'ready' AND engine_pid <> $engine FROM qwen_model_status"),
	'there is a new engine');
is(status_of($node, 'image'), 'kept', 'which packs nothing');
is(status_of($node, 'image_bytes'), $bytes, 'has the same image');
is($call->('precise'), $expected{precise}, 'and gives the same answer in mode precise');
my $kept_ms = status_of($node, 'load_ms');
diag(sprintf('loading takes %.0f ms, at first it took %.0f ms', $kept_ms, $built_ms));
took($kept_ms / 1000, 1, 'loading after kill -9');
like(slurp_file($node->logfile, $log), qr/image kept/, 'the log tells');

# And the one after that.
$engine = engine_pid($node);
$since = time();
kill('KILL', $engine);
ok( $node->poll_query_until('postgres',
		"SELECT state = 'ready' AND engine_pid <> $engine FROM qwen_model_status"),
	'there is a third engine');
took(time() - $since, 1, 'ready again after kill -9');
is(status_of($node, 'image'), 'kept', 'which has it, too');

# Settings that do not shape it keep it; their effect is seen.
reload_with('qwen3dm.efficient_bits = 4');
is(status_of($node, 'image'), 'kept', 'another number of bits: the same image');
like(status_of($node, '"precision"'), qr/^planes: 4/, 'of which fewer bits are read');
is($call->('precise'), $expected{precise}, 'mode precise is as before');
reload_with('qwen3dm.exact_weights = on');
is(status_of($node, 'image'), 'kept', 'exact weights: the same image');
like(status_of($node, '"precision"'), qr/precise reads the file's/, 'beside the file');
is($node->psql('postgres', 'ALTER SYSTEM SET qwen3dm.efficient_bits = 5'), 3,
	'5 bits are refused');

# Another model has another image.
reload_with("qwen3dm.model = '" . tiny_model() . "'");
is(status_of($node, 'image'), 'built', 'another model: another image');
cmp_ok(status_of($node, 'image_bytes'), '<', $bytes, 'a smaller one');

# On disk, for the next start of the server.
my $cache = $node->basedir . '/images';
mkdir($cache);
reload_with("qwen3dm.image_cache = '$cache/nowhere'");
is(status_of($node, 'image'), 'kept', 'no such folder: no harm');
reload_with("qwen3dm.image_cache = '$cache'");
$node->restart;
wait_for_state($node, 'ready');
is(status_of($node, 'image'), 'built', 'the server was restarted: the image is built');
is(() = glob("$cache/*.q3image"), 1, 'and is on disk');
$node->restart;
wait_for_state($node, 'ready');
is(status_of($node, 'image'), 'cached', 'the next start finds it there');
$bytes = status_of($node, 'image_bytes');
$node->stop;
truncate((glob("$cache/*.q3image"))[0], $bytes / 2) || die "truncate: $!";
$log = -s $node->logfile;
$node->start;
wait_for_state($node, 'ready');
is(status_of($node, 'image'), 'built', 'a damaged one is built again');
like(slurp_file($node->logfile, $log), qr/damaged or of another model/, 'the log tells');
is(-s (glob("$cache/*.q3image"))[0], $bytes, 'and it is whole again');

$node->stop;
done_testing();
