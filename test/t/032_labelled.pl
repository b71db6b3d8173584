# Real sentences and a real, if very small, model: how often qwen_classify finds the label that a
# person gave. Only where SmolLM2 is there ("make demo MODEL=smollm2" fetches it).
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

plan skip_all => 'SmolLM2 is not here' unless $ENV{Q3_DEMO_MODEL};

my $node = qwen_node('labelled', model => $ENV{Q3_DEMO_MODEL});

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(qq{
	CREATE TABLE sentences (label text, body text);
	CREATE TABLE examples (label text, body text, n int GENERATED ALWAYS AS IDENTITY);
	COPY sentences FROM '$ENV{Q3_TEST_DATA}/labelled-sentences.tsv';
	COPY examples (label, body) FROM '$ENV{Q3_TEST_DATA}/labelled-examples.tsv';});
sql(q{SELECT qwen_task_create('tickets', mode => 'precise',
	labels => '[{"label": "billing", "description": "invoices, payments, prices and refunds"},
		{"label": "outage", "description": "something is broken, down or does not work"},
		{"label": "praise", "description": "thanks and compliments"},
		{"label": "spam", "description": "advertising and fraud"}]',
	examples => (SELECT jsonb_agg(jsonb_build_object('input', body, 'label', label) ORDER BY n) FROM examples))});
is(sql('SELECT count(*), count(DISTINCT body) FROM sentences'), '120|120', 'the sentences');
is(sql('SELECT count(*) FROM sentences JOIN examples USING (body)'), '0', 'no example is one of them');

# Share of the sentences that get their label.
sub accuracy
{
	my ($what, $call) = @_;
	my $share = sql("SELECT avg((answer = label)::int) FROM (SELECT label, $call AS answer FROM sentences) AS s");
	diag(sprintf('%s: %.3f', $what, $share));
	return $share;
}

my $majority = sql('SELECT max(n) / 120.0 FROM (SELECT count(*) AS n FROM sentences GROUP BY label) AS s');
my $array = q{ARRAY['billing', 'outage', 'praise', 'spam']};
diag(sprintf('the most frequent label: %.3f', $majority));
accuracy('labels only', "qwen_classify(body, $array, mode => 'precise')");
accuracy('labels, calibrated', "qwen_classify(body, $array, mode => 'precise', calibrate => true)");
accuracy('with descriptions', q{qwen_classify(body, task => 'tickets', examples => '[]')});
accuracy('with descriptions, calibrated', q{qwen_classify(body, task => 'tickets', examples => '[]', calibrate => true)});
my $examples = accuracy('with descriptions and examples', q{qwen_classify(body, task => 'tickets')});
my $all = accuracy('with descriptions and examples, calibrated', q{qwen_classify(body, task => 'tickets', calibrate => true)});
my $efficient = accuracy('the same in mode efficient', q{qwen_classify(body, task => 'tickets', calibrate => true, mode => 'efficient')});

cmp_ok($all, '>=', 2 * $majority, 'with all that it is told, at least twice as good as the most frequent label');
cmp_ok($efficient, '>=', 2 * $majority, 'in mode efficient, too');
cmp_ok($all, '>', $examples + 0.1, 'calibration helps');

# Asked one by one, the answers are the same.
is( sql(q{SELECT count(*) FROM (SELECT qwen_classify(body, task => 'tickets', calibrate => true) AS answer, body FROM sentences LIMIT 12) AS s
		WHERE answer <> (SELECT label FROM qwen_classify_probs(s.body, task => 'tickets', calibrate => true) ORDER BY probability DESC LIMIT 1)}),
	'0', 'and the answer is the most probable label');

$node->stop;
done_testing();
