# What goes wrong while rows are computed together: each fault is its own request's, the neighbours
# get the answers that they would get alone, and nothing is left behind.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('faults', model => slow_model(), conf => "max_connections = 240\n");
my ($status, $out, $err, $seconds);

$node->safe_psql('postgres', q{
	CREATE TABLE rows AS SELECT i AS id, 'Row ' || i || ' tells about ' || md5(i::text) AS body
	FROM generate_series(1, 96) i; ANALYZE rows;});

# Every row on its own, one after the other: what all the others are compared with.
sub answers_of
{
	my ($from, $to, $tokens) = @_;
	return qq{SELECT id, qwen_infer(body, max_tokens => $tokens, temperature => 0) FROM rows
		WHERE id BETWEEN $from AND $to ORDER BY id;};
}
my $alone = $node->safe_psql('postgres', 'SET qwen3dm.enable_batching = off; ' . answers_of(1, 8, 12));
isnt($alone, '', 'rows have answers');

# ---- Cancel, terminate: the neighbours' answers are the same bits ----
my $victim = start_call($node, answers_of(9, 96, 200), name => 'victim');
ok(wait_running($node, 2), 'a batch of rows is being answered');
my $neighbour = start_call($node, answers_of(1, 8, 12));
sleep(0.1);
my $since = time();
$node->safe_psql('postgres',
	q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
($status, $out, $err, $seconds) = finish_call($victim, $since);
like($err, qr/canceling statement due to user request/, 'cancel in the middle of a batch');
took($seconds, 1, 'cancel of a batch');
($status, $out, $err) = finish_call($neighbour);
is($out, $alone, 'cancel: the neighbour has the answers that it has alone');
ok(idle($node), 'cancel: nothing is held');

$victim = start_call($node, answers_of(9, 96, 200), name => 'victim');
ok(wait_running($node, 2), 'another batch is being answered');
$neighbour = start_call($node, answers_of(1, 8, 12));
sleep(0.1);
$since = time();
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
($status, $out, $err, $seconds) = finish_call($victim, $since);
like($err, qr/terminating connection due to administrator command/, 'a backend ends in the middle of a batch');
took($seconds, 1, 'end of a backend with a batch');
($status, $out, $err) = finish_call($neighbour);
is($out, $alone, 'terminate: the neighbour has the answers that it has alone');
ok(idle($node), 'terminate: nothing is held');

# ---- The engine dies with at least 64 requests in flight ----
# 64 in one statement, and eight sessions with one each.
my @calls = map { start_call($node, $_) }
  'SELECT qwen_infer(array_agg(body), max_tokens => 400, temperature => 0) FROM rows WHERE id > 32;',
  map { answers_of($_, $_, 400) } 1 .. 8;
ok( $node->poll_query_until('postgres', 'SELECT count(*) >= 64 FROM qwen_stat_activity'),
	'64 requests are in flight');
$since = time();
kill('KILL', engine_pid($node));
for my $call (@calls)
{
	($status, $out, $err, $seconds) = finish_call($call, $since);
	is(() = $err =~ /ERROR: .*engine/g, 1, 'one clear error for each session');
	cmp_ok($seconds, '<', 10, 'soon');
}
is($node->safe_psql('postgres', answers_of(1, 8, 12)), $alone, 'the retry has the right answers');
ok(idle($node), 'nothing is held');

# ---- 200 connections at once ----
$node->safe_psql('postgres', q{CREATE TABLE expected AS SELECT id,
	qwen_classify(body, ARRAY['red','green','blue']) AS label FROM rows WHERE id <= 20});
my $expected = $node->safe_psql('postgres', 'SELECT id, label FROM expected ORDER BY id');
my %label = map { split(/\|/) } split(/\n/, $expected);
@calls = map { start_call($node,
		"SELECT qwen_classify(body, ARRAY['red','green','blue']) FROM rows WHERE id = " . ($_ % 20 + 1) . ';') } 1 .. 200;
my ($wrong, $failed) = (0, 0);
for my $i (1 .. 200)
{
	($status, $out, $err) = finish_call($calls[ $i - 1 ]);
	$failed++ if $status != 0;
	diag($err) if $err ne '' && $failed < 5;
	$wrong++ if $out ne $label{ $i % 20 + 1 };
}
is($failed, 0, '200 connections at once: no errors');
is($wrong, 0, '200 connections at once: every answer is right');
ok(idle($node), 'nothing is held');
$node->stop;

# ---- A small cache: what fits later waits, what never fits is told so ----
$node = qwen_node('small', conf => "qwen3dm.kv_cache_size = '1MB'\n");
my $room = status_of($node, 'kv_blocks * 32');
cmp_ok($room, '>', 0, "the cache has room for $room tokens");
$node->safe_psql('postgres', q{CREATE TABLE rows AS SELECT i AS id, 'Row ' || i AS body
	FROM generate_series(1, 96) i});
my $tokens = int($room / 3);
my $one = "qwen_infer('a', max_tokens => $tokens, temperature => 0)";
my $answer = $node->safe_psql('postgres', "SELECT $one");
@calls = map { start_call($node, "SELECT $one;") } 1 .. 12;
for my $call (@calls)
{
	($status, $out, $err) = finish_call($call);
	is($err . $out, $answer, 'a full cache: the request waits and gets its answer');
}
($status, $out, $err) = $node->psql('postgres', 'SELECT qwen_infer(repeat($$a b c $$, ' . $room . '), max_tokens => 10)');
isnt($status, 0, 'a request larger than the cache fails');
like($err, qr/ERROR: .*(key-value cache|context length)/, 'with an error that says why');
like($err, qr/HINT: /, 'and a hint');
ok(idle($node), 'nothing is held');
$node->stop;

# ---- Twenty thousand requests: memory, descriptors and cache do not grow ----
$node = qwen_node('soak', conf => "qwen3dm.kv_cache_size = '2MB'\n");
sub engine_figures
{
	my $pid = engine_pid($node);
	my ($rss) = slurp_file("/proc/$pid/status") =~ /VmRSS:\s+(\d+)/;
	my @fds = glob("/proc/$pid/fd/*");
	return ($rss, scalar(@fds));
}

sub soak
{
	my ($from, $to) = @_;
	return $node->safe_psql('postgres',
		qq{SELECT count(qwen_classify('Row number ' || i % 7000, ARRAY['red','green','blue']))
			FROM generate_series($from, $to) i});
}
soak(1, 4000);
ok(idle($node), 'idle after the first 4,000');
my ($rss, $fds) = engine_figures();
$since = time();
is(soak(4001, 12000), 8000, '8,000 requests');
is(soak(12001, 20000), 8000, '8,000 more');
diag(sprintf('%.0f requests a second', 16000 / (time() - $since)));
ok(idle($node), 'idle after 20,000: no block of the cache is held');
my ($rss_after, $fds_after) = engine_figures();
is($fds_after, $fds, 'the engine has as many descriptors as before');
diag("resident memory of the engine: $rss kB, later $rss_after kB");
cmp_ok($rss_after, '<', $rss * 1.05 + 2048, 'and no more memory');
$node->stop;

done_testing();
