# Many sessions at once: everybody gets the answer that he would get alone.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $sessions = 20;
my $node = qwen_node('sessions', conf => "max_connections = 60\n");

# Different prompts and lengths; half of them greedy, half sampled from a seed.
sub question
{
	my ($i) = @_;
	my $words = join(' ', map { "word$_" } 1 .. ($i * 7) % 40 + 1);
	my $how = $i % 2 ? 'temperature => 0' : "temperature => 0.8, seed => $i";
	return "qwen_infer('Question $i: $words', max_tokens => " . (20 + $i * 3) . ", $how)";
}

sub repeated
{
	my ($question, $times) = @_;
	return "SELECT $question;\n" x $times;
}

my @alone = map { $node->safe_psql('postgres', 'SELECT ' . question($_)) } 1 .. $sessions;
cmp_ok(scalar(keys %{ { map { $_ => 1 } @alone } }), '>', $sessions / 2, 'the answers differ');

# Two at once.
my @calls = map { start_call($node, 'SELECT ' . question($_) . ';') } 1 .. 2;
for my $i (1 .. 2)
{
	my ($status, $out, $err) = finish_call($calls[ $i - 1 ]);
	is($err, '', "two at once: session $i has no error");
	ok($out eq $alone[ $i - 1 ], "two at once: session $i gets its answer");
}

# All at once, each several times in a row.
my $since = time();
@calls = map { start_call($node, repeated(question($_), 3)) } 1 .. $sessions;
my ($wrong, $failed) = (0, 0);
for my $i (1 .. $sessions)
{
	my ($status, $out, $err) = finish_call($calls[ $i - 1 ]);
	$failed++ if $status != 0 || $err ne '';
	diag($err) if $err ne '';
	$wrong++ if $out ne join("\n", ($alone[ $i - 1 ]) x 3);
}
is($failed, 0, "$sessions sessions at once: no errors");
is($wrong, 0, "$sessions sessions at once: every answer is the one of a session alone");
diag(sprintf('%d calls from %d sessions in %.1f s', 3 * $sessions, $sessions, time() - $since));

# One statement with many prompts is the same again.
my $array = join(', ', map { "'prompt number $_'" } 1 .. 12);
is( $node->safe_psql('postgres', qq{
		SELECT bool_and(a IS NOT DISTINCT FROM qwen_infer(p, max_tokens => 12, temperature => 0))
		FROM (SELECT ARRAY[$array] AS ps) s,
			unnest(ps, qwen_infer(ps, max_tokens => 12, temperature => 0)) AS u(p, a)}),
	't', 'an array of prompts gives the answers of its elements');

# Neighbours that are cancelled change nothing.
my $survivor = start_call($node, repeated(question(5), 10));
for my $i (1 .. 5)
{
	my $victim = start_call($node,
		"SET statement_timeout = '100ms'; SELECT qwen_infer('Victim $i', max_tokens => 3000, temperature => 0);");
	finish_call($victim);
}
my ($status, $out, $err) = finish_call($survivor);
is($out, join("\n", ($alone[4]) x 10), 'cancelled neighbours do not change an answer');
ok(idle($node), 'nothing is held');

$node->stop;
done_testing();
