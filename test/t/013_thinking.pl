# Thinking comes apart from the value: on a model that thinks "ab" and then says "cd".
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('thinking', model => thinking_model());

sub details
{
	my ($options) = @_;
	return $node->safe_psql('postgres',
		qq{SELECT quote_nullable(value), quote_nullable(thinking), output_tokens, finish
		   FROM qwen_infer_details('What is it?', $options)});
}

is(details('thinking => true, temperature => 0'), q{'cd'|'ab'|7|stop}, 'thinking and value');
is(details(q{thinking => true, seed => 1}), q{'cd'|'ab'|7|stop}, 'with the sampling that thinking has by default');
is(details('thinking => true, temperature => 0, max_tokens => 3'), q{''|'ab'|3|length}, 'no token left for the value');
is(details(q{thinking => true, temperature => 0, stop => ARRAY['d']}), q{'c'|'ab'|6|stop}, 'a stop string ends the value');
is(details(q{thinking => true, temperature => 0, stop => ARRAY['b']}), q{'cd'|'ab'|7|stop}, 'but not the thinking');
is(details('temperature => 0'), q{'cd'|NULL|7|stop}, 'thinking that nobody asked for is dropped');
is(details(q{mode => 'efficient'}), q{'cd'|NULL|7|stop}, 'in mode efficient, too');

is($node->safe_psql('postgres', q{SELECT qwen_infer('What is it?', thinking => true, temperature => 0)}),
	'cd', 'qwen_infer gives the value');
is($node->safe_psql('postgres',
		q{SELECT string_agg(s, '') FROM (SELECT qwen_stream('What is it?', thinking => true, temperature => 0) AS s) AS q}),
	'cd', 'and so does a stream');

# Budgets: the thinking is ended, and the answer follows.
# (Behind the line feeds that end the thinking this model begins anew.)
is(details('thinking => true, temperature => 0, thinking_budget => 1'), qq{'cd'|'a\nab'|13|stop}, 'a budget of one token');
is(details('thinking => true, temperature => 0, thinking_budget => 50'), q{'cd'|'ab'|7|stop}, 'one that is not used up');

# Labels are compared behind the thinking.
sub classified
{
	my ($options) = @_;
	return $node->safe_psql('postgres',
		qq{SELECT value, quote_nullable(thinking), mode, escalated, output_tokens
		   FROM qwen_classify_details('What is it?', ARRAY['cd', 'ef'], $options)});
}
is(classified('thinking => true'), q{cd|'ab'|precise|f|4}, 'labels after thinking');
is(classified('thinking => true, thinking_budget => 1'), q{cd|'a'|precise|f|2}, 'after a budget of one token');
is(classified('thinking => false'), q{cd|NULL|efficient|f|0}, 'without');
is($node->safe_psql('postgres', q{SELECT round(sum(probability)::numeric, 6) FROM qwen_classify_probs('x', ARRAY['cd', 'ef', 'g'], thinking => true)}),
	'1.000000', 'their probabilities add up');
is( $node->safe_psql('postgres', q{SELECT string_agg(qwen_classify('Text ' || i, ARRAY['cd', 'ef'], thinking => true), ' ') FROM generate_series(1, 40) AS i}),
	join(' ', ('cd') x 40), 'many rows together');
is( $node->safe_psql('postgres', q{SELECT qwen_score('x', 'Is it?', thinking => true) = qwen_score('x', 'Is it?', thinking => true, thinking_budget => 20)}),
	't', 'and for a statement');
is($node->safe_psql('postgres', q{SELECT output_tokens FROM qwen_classify_details('x', ARRAY['cd'], thinking => true)}), '0', 'one label needs no thought');

sub failed
{
	my ($call) = @_;
	my (undef, undef, $err) = $node->psql('postgres', "SELECT $call");
	return (split /\n/, $err)[0];
}
like(failed(q{qwen_classify('x', ARRAY['a', 'b'], mode => 'efficient', thinking => true)}), qr/mode "efficient" does not think/, 'not in mode efficient');
like(failed(q{qwen_classify('x', ARRAY['a', 'b'], thinking => true, thinking_budget => 0)}), qr/thinking_budget must be at least 1/, 'nor without a budget');
like(failed(q{qwen_classify('x', ARRAY['a', 'a'], thinking => true)}), qr/labels must differ from each other/, 'bad labels are found before');
like(failed(q{qwen_infer('x', thinking => true, thinking_budget => -1)}), qr/thinking_budget must be at least 1/, 'the same for answers');

# What a task says of thinking, and what the call says against it; triggers, too.
$node->safe_psql('postgres', q{
	SELECT qwen_task_create('kind', 'Which?', labels => '["cd", "ef"]', mode => 'precise', thinking => true, thinking_budget => 1);
	CREATE TABLE things (id int PRIMARY KEY, body text, kind text);
	CREATE TRIGGER kind BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'kind', 'kind');
	INSERT INTO things (id, body) VALUES (1, 'What is it?');});
is($node->safe_psql('postgres', q{SELECT value, thinking FROM qwen_classify_details('x', task => 'kind')}), 'cd|a', 'a task that thinks');
is($node->safe_psql('postgres', q{SELECT thinking IS NULL FROM qwen_classify_details('x', task => 'kind', thinking => false)}), 't', 'a call that does not');
is($node->safe_psql('postgres', q{SELECT thinking IS NULL FROM qwen_classify_details('x', task => 'kind', mode => 'efficient')}), 't', 'mode efficient does not');
is($node->safe_psql('postgres', 'SELECT kind FROM things'), 'cd', 'a trigger');
is($node->safe_psql('postgres', q{SELECT output_tokens >= 4 FROM qwen_stat_tasks WHERE task = 'kind'}), 't', 'what is thought counts');

# Limits and quotas know of it.
like(failed(q{set_config('qwen3dm.max_tokens_limit', '5', false), qwen_classify('x', ARRAY['cd', 'ef'], thinking => true, thinking_budget => 6)}),
	qr/thinking_budget must not be greater than 5/, 'no more than the limit');

$node->stop;
done_testing();
