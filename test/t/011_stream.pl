# qwen_stream: rows arrive while the rest is still being written, and together are the answer.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('stream', model => slow_model());
my $args = q{('Tell me something.', max_tokens => 200, temperature => 0, seed => 1)};

my $whole = $node->safe_psql('postgres', "SELECT qwen_infer$args");
my $joined = $node->safe_psql('postgres',
	"SELECT string_agg(t, '' ORDER BY n) FROM qwen_stream$args WITH ORDINALITY AS s(t, n)");
is($joined, $whole, 'the pieces together are the answer');
my $pieces = $node->safe_psql('postgres', "SELECT count(*) FROM qwen_stream$args");
cmp_ok($pieces, '>', 10, 'there are many of them');
is($node->safe_psql('postgres', "SELECT count(*) FROM qwen_stream$args s(t) WHERE t = '' OR t IS NULL"),
	'0', 'and none is empty');

# In the select list rows reach the client one by one: note when each arrives.
my $sql = "SELECT qwen_stream('Tell me something.', max_tokens => 300, temperature => 0);";
my (@arrived, $buffer);
my $started = time();
my $handle = IPC::Run::start(
	[ 'psql', '-XAtq', '--set=FETCH_COUNT=1', '-d', $node->connstr('postgres') ],
	'<', \$sql, '>', sub { push @arrived, time() - $started; $buffer .= $_[0]; });
IPC::Run::finish($handle);
cmp_ok(scalar(@arrived), '>', 5, 'psql receives the rows in several pieces');
diag(sprintf('first row after %.0f ms, last after %.0f ms, %d pieces',
		$arrived[0] * 1000, $arrived[-1] * 1000, scalar(@arrived)));
cmp_ok($arrived[0], '<', $arrived[-1] / 2, 'the first row arrives long before the last');

# A cursor reads as it likes, other statements in between.
my $session = $node->background_psql('postgres');
$session->query_safe("BEGIN; DECLARE c CURSOR FOR $sql");
my $since = time();
isnt($session->query_safe('FETCH 1 FROM c'), '', 'FETCH gives the first row');
took(time() - $since, $arrived[-1], 'the first FETCH');
is($session->query_safe('SELECT 42'), '42', 'another statement in between');
is($session->query_safe(q{SELECT qwen_count_tokens('abc') > 0}), 't', 'even one of ours');
isnt($session->query_safe('FETCH 1 FROM c'), '', 'the next row');
$session->query_safe('COMMIT');
$session->quit;
ok(idle($node), 'nothing is held');

# Nothing is lost when the prompt is NULL, and two streams in one statement do not mix.
is($node->safe_psql('postgres', 'SELECT count(*) FROM qwen_stream(NULL)'), '0', 'NULL gives no rows');
my $two = $node->safe_psql('postgres', qq{
	SELECT (SELECT string_agg(t, '') FROM qwen_stream$args t) = (SELECT string_agg(t, '') FROM qwen_stream$args t)});
is($two, 't', 'two streams in one statement');

$node->stop;
done_testing();
