# qwen_stream: rows arrive while the rest is still being written, and together are the answer.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('stream', model => slow_model());
my $args = q{('Tell me something.', max_tokens => 60, temperature => 0, seed => 1)};

my $whole = $node->safe_psql('postgres', "SELECT qwen_infer$args");
my $joined = $node->safe_psql('postgres',
	"SELECT string_agg(t, '' ORDER BY n) FROM qwen_stream$args WITH ORDINALITY AS s(t, n)");
is($joined, $whole, 'the pieces together are the answer');
my $pieces = $node->safe_psql('postgres', "SELECT count(*) FROM qwen_stream$args");
cmp_ok($pieces, '>', 10, 'there are many of them');
is($node->safe_psql('postgres', "SELECT count(*) FROM qwen_stream$args s(t) WHERE t = '' OR t IS NULL"),
	'0', 'and none is empty');

# When each piece of a program's output arrives.
sub arrivals
{
	my @command = @_;
	my @at;
	my $started = time();
	my $handle =
	  IPC::Run::start(\@command, '<', '/dev/null', '>', sub { push @at, time() - $started; });
	IPC::Run::finish($handle);
	return @at;
}

# In the select list rows reach the client one by one. COPY, because psql prints what that sends as
# it comes; stdbuf, because the pipe would make psql collect.
my $sql = q{SELECT qwen_stream('Tell me something.', max_tokens => 100, temperature => 0)};
my @at = arrivals('stdbuf', '-o0', 'psql', '-XAtq', '-d', $node->connstr('postgres'),
	'-c', "COPY ($sql) TO STDOUT");
diag(sprintf('first row after %.0f ms, last after %.0f ms, in %d pieces',
		$at[0] * 1000, $at[-1] * 1000, scalar(@at)));
cmp_ok(scalar(@at), '>', 10, 'the rows arrive in many pieces');
cmp_ok($at[0], '<', $at[-1] / 2, 'the first long before the last');

# psql's FETCH_COUNT reads through a cursor.
@at = arrivals('psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', 'FETCH_COUNT=1', '-c', $sql);
cmp_ok(scalar(@at), '>', 10, 'FETCH_COUNT: the rows arrive in many pieces');
cmp_ok($at[0], '<', $at[-1] / 2, 'FETCH_COUNT: the first long before the last');

# A cursor reads as it likes, other statements in between.
my $session = $node->background_psql('postgres');
$session->query_safe("BEGIN; DECLARE c CURSOR FOR $sql");
my $since = time();
isnt($session->query_safe('FETCH 1 FROM c'), '', 'FETCH gives the first row');
took(time() - $since, $at[-1], 'the first FETCH');
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
