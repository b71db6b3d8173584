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

$node->stop;
done_testing();
