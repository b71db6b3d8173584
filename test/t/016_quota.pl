# Tokens that a role may use in a minute: over all its connections, whatever it tries.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('quota', conf => "max_connections = 60\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub as_user
{
	my ($user, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $user ]);
	return ($out, $err);
}

sub used
{
	my ($user) = @_;
	return sql("SELECT coalesce(sum(prompt_tokens + output_tokens), 0) FROM qwen_stat_roles WHERE usename = '$user'");
}

# A role with so many tokens a minute.
sub role
{
	my ($name, $quota) = @_;
	sql("CREATE ROLE $name LOGIN; SELECT qwen_grant('$name'); ALTER ROLE $name SET qwen3dm.token_quota = $quota");
}

# ---- One session: refused when it is used up, with what is needed to understand it ----
role('alice', 500);
my ($out, $err) = as_user('alice', q{\set VERBOSITY verbose
SELECT count(qwen_infer('How are you, ' || i, max_tokens => 10)) FROM generate_series(1, 100) AS i});
like($err, qr/ERROR:  53400: token quota of role exceeded/, 'used up: the error');
like($err, qr/DETAIL:  The role has used \d+ of its 500 tokens in the last minute, and this request may use \d+ more\./, 'used up: what is');
like($err, qr/HINT:  Wait \d+ seconds/, 'used up: how long to wait');
cmp_ok(used('alice'), '<=', 500, 'no more than the quota is used');
cmp_ok(used('alice'), '>', 400, 'and not much less');
($out) = as_user('alice', q{SELECT count(*), count(d.value), count(d.error) FROM generate_series(1, 20) AS i,
	qwen_infer_details('How are you, ' || i, max_tokens => 400, on_error => 'null') AS d});
is($out, '20|0|20', q{on_error => 'null' makes it NULL});
($out) = as_user('alice', q{SELECT qwen_count_tokens('this needs no model') > 0});
is($out, 't', 'what computes nothing is free');
is(sql(q{SET ROLE alice; SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL}), 't', "another session's setting is its own");

# ---- Batching does not refuse what one row after the other would have ----
# Answers are short, however long they may be: a stop string ends them.
sub rows_answered
{
	my ($user, $batching) = @_;
	my ($answers, $error) = as_user($user, qq{SET qwen3dm.enable_batching = $batching;
		SELECT count(qwen_classify('Row ' || i, ARRAY['good', 'bad'])), count(qwen_infer('Row ' || i, max_tokens => 300, stop => ARRAY['e', 'a', 't', 'o', 'i', 'n', 's', ' ', 'r', 'h', 'l', 'd']))
		FROM generate_series(1, 12) AS i});
	return $error eq '' ? $answers : $error;
}
role($_, 2500) for qw(bob carl);
is(rows_answered('bob', 'off'), '12|12', 'a query within the quota, row by row');
is(rows_answered('carl', 'on'), '12|12', 'and in batches, where all answers together might be longer than the quota');
cmp_ok(used('carl'), '<', 2000, 'which they are not');

# ---- Many sessions at once, with cancels: never more than the quota ----
role('dora', 3000);
my @calls;
for my $i (1 .. 12)
{
	my $rows = "FROM generate_series(1, 40) AS n";
	push @calls, start_call($node, $i % 3
		? "SELECT count(qwen_infer('Session $i, row ' || n, max_tokens => 20, on_error => 'null')) $rows;"
		: "\\set ON_ERROR_STOP off\n" . ("SET statement_timeout = '8ms';\n"
			. "SELECT count(qwen_infer('Session $i, row ' || n, max_tokens => 500, on_error => 'null')) $rows;\n") x 5,
		user => 'dora');
}
my $answers = 0;
for my $i (1 .. 12)
{
	my ($status, $o, $e) = finish_call($calls[ $i - 1 ]);
	$answers += $1 if $o =~ /^(\d+)/;
	unlike($e, qr/ERROR:  (?!canceling statement)/, "session $i has no other error than that it gave up");
}
ok(idle($node), 'nothing runs any more');
sleep(0.2);
diag("$answers answers, " . used('dora') . ' tokens');
cmp_ok(used('dora'), '<=', 3000, 'twelve sessions of a role use no more than one might');
cmp_ok(used('dora'), '>', 1500, 'but most of that');
cmp_ok(sql(q{SELECT canceled FROM qwen_stat_roles WHERE usename = 'dora'}), '>', 0, 'some gave up');
($out, $err) = as_user('dora', q{SELECT qwen_infer('once more', max_tokens => 2900)});
like($err, qr/token quota of role exceeded/, 'a new connection changes nothing');

# ---- A function with its owner's rights uses the owner's tokens, under the session's quota ----
role('owner', 300);
role('caller', 5000);
sql(q{CREATE FUNCTION asks(n int) RETURNS text LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT qwen_infer('Ask ' || n, max_tokens => 5) $$; ALTER FUNCTION asks(int) OWNER TO owner});
($out, $err) = as_user('caller', q{SELECT count(asks(n)) FROM generate_series(1, 30) AS n});
is($out, '30', 'a function of another role');
is(used('caller'), '0', 'uses nothing of its caller');
cmp_ok(used('owner'), '>', 300, 'but of its owner, as far as the session may');
($out, $err) = as_user('owner', q{SELECT qwen_infer('a', max_tokens => 1)});
like($err, qr/token quota of role exceeded/, 'who then has none left');

# ---- The quota is the administrator's ----
for my $setting ('SET qwen3dm.token_quota = 0', 'ALTER ROLE alice SET qwen3dm.token_quota = 0', 'RESET qwen3dm.token_quota')
{
	($out, $err) = as_user('alice', $setting);
	like($err, qr/permission denied/, "$setting is refused");
}

# ---- Waiting as long as the hint says is enough ----
SKIP:
{
	skip 'takes a minute (Q3_SLOW_TESTS)', 2 unless $ENV{Q3_SLOW_TESTS};
	my $query = q{SELECT qwen_infer('How are you?', max_tokens => 100)};
	($out, $err) = as_user('alice', $query);
	my ($seconds) = $err =~ /Wait (\d+) seconds/;
	cmp_ok($seconds, '<=', 61, 'no longer than a minute');
	sleep($seconds);
	($out, $err) = as_user('alice', $query);
	is($err, '', 'after that the role may ask again');
}

$node->stop;
done_testing();
