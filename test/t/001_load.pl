# The extension without shared_preload_libraries: it loads, and every function gives one clear error.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('load', preload => 0, ready => 0);

is($node->safe_psql('postgres', "LOAD 'qwen3dm'; SELECT 1"), '1', 'LOAD works without preloading');

my @calls = (
	q{qwen_infer('a')}, q{qwen_infer(ARRAY['a'])}, q{qwen_infer_details('a')}, q{qwen_stream('a')},
	q{qwen_count_tokens('a')}, q{qwen_tokenize('a')}, q{qwen_detokenize(ARRAY[1])},
	q{qwen_logprob('a b')});
foreach my $call (@calls)
{
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM $call");
	isnt($rc, 0, "$call fails");
	like($err, qr/ERROR:  55000: .*shared_preload_libraries/, "$call says what is missing");
	like($err, qr/^HINT:  .*shared_preload_libraries/m, "$call says what to do");
}

is($node->safe_psql('postgres', 'SELECT state FROM qwen_model_status'),
	'not loaded', 'the status says so too');
is($node->safe_psql('postgres', 'SELECT count(*) FROM qwen_stat_activity'),
	'0', 'no activity');
like($node->safe_psql('postgres', q{LOAD 'qwen3dm'; SHOW qwen3dm.mode}), qr/^auto$/, 'settings are known');

# NULL in, NULL out: needs no model.
is($node->safe_psql('postgres', 'SELECT qwen_infer(NULL::text) IS NULL'), 't', 'NULL gives NULL');

$node->safe_psql('postgres', 'DROP EXTENSION qwen3dm; CREATE EXTENSION qwen3dm');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'qwen3dm'\n");
$node->restart;
wait_for_state($node, 'ready');
is($node->safe_psql('postgres', q{SELECT qwen_count_tokens('abc') > 0}),
	't', 'works after the restart that the hint asks for');

$node->stop;
done_testing();
