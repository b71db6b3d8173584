# The engine of the embedding model beside the main one: it comes and goes with its setting, gives the vectors that the
# engine's own tool gives, and the death of either engine costs only its own requests.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('embedding', model => slow_model());
my $engine_program = qx(pg_config --pkglibdir);
chomp($engine_program);
$engine_program .= '/qwen3dm-engine';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Columns of the embedding model's row; empty without one.
sub embedding_status { return sql("SELECT $_[0] FROM qwen_model_status WHERE service = 'embedding'"); }

sub use_embedding_model
{
	my ($path) = @_;
	sql("ALTER SYSTEM SET qwen3dm.embedding_model = '$path'");
	$node->reload;
}

sub wait_for_embedding
{
	my ($state) = @_;
	return $node->poll_query_until('postgres', "SELECT state FROM qwen_model_status WHERE service = 'embedding'", $state);
}

# What the engine's tool makes of a text, as the cosine with what the server makes of it.
sub cosine_with_tool
{
	my ($text, $sql, @options) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $engine_program, 'embed', '--packed', @options ], '<', \$text, '>', \$out, '2>', \$err)
	  or die "the tool fails: $err";
	my ($vector) = $out =~ /"vector":\[(.*)\]/;
	return sql("SELECT sum(x::float8 * y) FROM unnest($sql, '{$vector}'::real[]) AS u (x, y)");
}

# ---- The model comes ----

is(sql('SELECT service, embedding FROM qwen_model_status'), 'main|mean of all tokens', 'without an embedding model there is one row');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qwen3dm embedding'}), 1, 'its worker is idle');
my $mean = sql(q{SELECT qwen_embed('a b')});
cmp_ok(cosine_with_tool('a b', q{qwen_embed('a b')}, '-m', slow_model(), '--mean'), '>', 0.999999, 'mean: as the tool has it');

my $session = $node->background_psql('postgres');
is($session->query_safe('SELECT cardinality(qwen_embed($$a$$))'), 512, 'a session has vectors of the main model');
my $main = engine_pid($node);
use_embedding_model(embedding_model());
ok(wait_for_embedding('ready'), 'an embedding model is loaded on reload');
is(sql(q{SELECT string_agg(concat_ws(' ', service, embedding, dimensions), ', ') FROM qwen_model_status}),
	'main 512, embedding last token 64', 'and has a row');
is(sql(q{SELECT engine_pid FROM qwen_model_status WHERE service = 'main'}), $main, 'the main engine was not restarted');
is($session->query_safe('SELECT cardinality(qwen_embed($$a$$))'), 64, 'the session has vectors of the embedding model');
is($session->query_safe('SELECT qwen_count_tokens($$a$$)'), 1, 'and still the main model');

for my $text ('a b', '', 'The sky is blue. ' x 40, "two\nlines")
{
	(my $literal = $text) =~ s/'/''/g;
	cmp_ok(cosine_with_tool($text, "qwen_embed('$literal')", '-m', embedding_model()),
		'>', 0.999999, 'last token: as the tool has it, ' . length($text) . ' bytes');
}
cmp_ok(cosine_with_tool("Instruct: c\nQuery:a b", q{qwen_embed('a b', instruction => 'c', mode => 'efficient')},
	'-m', embedding_model(), '--mode', 'efficient'), '>', 0.999999, 'with an instruction, in mode efficient');
is(sql(q{SELECT abs(qwen_similarity('a', 'a') - 1) < 1e-6}), 't', 'qwen_similarity');

# ---- Many rows ----

sql(q{CREATE TABLE texts AS SELECT i, 'Text ' || i || repeat(' and more', i % 40) AS body FROM generate_series(1, 200) AS i});
my $steps = embedding_status('steps');
sql(q{CREATE TABLE vectors AS SELECT i, body, qwen_embed(body) AS v FROM texts});
ok($node->poll_query_until('postgres',
	"SELECT steps BETWEEN $steps + 1 AND $steps + 150 FROM qwen_model_status WHERE service = 'embedding' AND running = 0"),
	'rows share steps');
is(sql(q{SET qwen3dm.enable_batching = off; SELECT count(*) FROM vectors WHERE v IS DISTINCT FROM qwen_embed(body)}),
	0, 'one by one they have the same bits');
is(sql(q{SET force_parallel_mode = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SELECT count(*) FROM vectors WHERE v IS DISTINCT FROM qwen_embed(body)}), 0, 'and in parallel workers');
is(sql(q{SELECT count(*), count(DISTINCT cardinality(v)), count(w) FROM
	(SELECT qwen_embed(body) AS v, qwen_infer(body, max_tokens => 1) AS w FROM texts WHERE i <= 20) AS t}),
	'20|1|20', 'both engines in one query');
is(sql(q{SELECT count(*) = 200 FROM (SELECT i FROM texts ORDER BY qwen_similarity(body, 'Text 7') DESC) AS t}), 't', 'sorted by nearness');
is(sql(q{SELECT body FROM texts ORDER BY qwen_similarity(body, 'Text 80') DESC LIMIT 1}), 'Text 80', 'the nearest is itself');

# ---- Reranking ----

# The score from the engine's logits behind the reranker's own words; this vocabulary has no whole "yes".
sub tool
{
	my ($input, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $engine_program, @command ], '<', \$input, '>', \$out, '2>', \$err) or die "the tool fails: $err";
	return $out;
}

sub tokens
{
	my ($text) = @_;
	my ($ids) = tool($text, 'tokenize', '-m', slow_model(), '--special') =~ /\[(.*)\]/;
	return $ids;
}

my $prompt = '<|im_start|>system' . "\n"
  . 'Judge whether the Document meets the requirements based on the Query and the Instruct provided. '
  . 'Note that the answer can only be "yes" or "no".<|im_end|>' . "\n<|im_start|>user\n"
  . "<Instruct>: Find it.\n<Query>: What is blue?\n<Document>: The sky.<|im_end|>\n"
  . "<|im_start|>assistant\n<think>\n\n</think>\n\n";
my $raw = PostgreSQL::Test::Utils::tempdir() . '/logits';
tool('', 'logits', '-m', slow_model(), '--packed', '--tokens', tokens($prompt), '--raw', $raw);
my @logits = unpack('f<*', slurp_file($raw));
my ($yes, $no) = map { exp($logits[ (split(',', tokens($_)))[0] ]) } ('yes', 'no');
cmp_ok(abs(sql(q{SELECT score FROM qwen_rerank('What is blue?', ARRAY['The sky.'], instruction => 'Find it.', mode => 'precise')})
	- $yes / ($yes + $no)), '<', 1e-4, 'the score of a document is that of the words that rerankers know');

# ---- Errors ----

my ($rc, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
SELECT qwen_embed(repeat('word ', 4096))});
like($err, qr/ERROR:  54000: input has \d+ tokens, but the context length is 4096/, 'too long for the context');
is(sql(q{SELECT count(*), count(qwen_embed(CASE i WHEN 2 THEN repeat('word ', 4096) ELSE 'a' END, on_error => 'null')) FROM generate_series(1, 3) AS i}),
	'3|2', 'a row that is too long fails alone');
($rc, $out, $err) = $node->psql('postgres', q{SELECT qwen_embed('a', dimensions => 65)});
like($err, qr/ERROR:  dimensions must not be more than the model's 64/, 'too many dimensions');
sql('CREATE ROLE nobody');
($rc, $out, $err) = $node->psql('postgres', q{SET ROLE nobody; SET qwen3dm.embedding_model = 'x'});
isnt($rc, 0, 'the setting is not for users');
($rc, $out, $err) = $node->psql('postgres', q{SET ROLE nobody; SHOW qwen3dm.embedding_model});
like($err, qr/must be superuser|permission denied/, 'nor is its value');
is(sql(q{SET ROLE nobody; SELECT model FROM qwen_model_status WHERE service = 'embedding'}) =~ m{/} ? 1 : 0, 0, 'nor the path');

# ---- Either engine dies ----

my $long = start_long_call($node);
my $embedding = embedding_status('engine_pid');

# A connection that the engine has not accepted would be answered by the next one: this call has one before.
sub waits_for
{
	return $node->poll_query_until('postgres',
		"SELECT wait_event_type = '$_[0]' FROM pg_stat_activity WHERE application_name = 'embed'");
}
$session->query_safe('SELECT pg_advisory_lock(1)');
my $call = start_call($node, "\\set VERBOSITY verbose\nSELECT qwen_embed('a') IS NULL; SELECT pg_advisory_lock(1); SELECT qwen_embed('b');",
	name => 'embed');
ok(waits_for('Lock'), 'a session has its connection');
kill('STOP', $embedding);
$session->query_safe('SELECT pg_advisory_unlock(1)');
ok(waits_for('Extension'), 'and waits for a vector');
my $timed = start_call($node, "SET statement_timeout = '300ms'; SELECT qwen_similarity('a', 'b');");
my $seconds;
($rc, $out, $err, $seconds) = finish_call($timed);
like($err, qr/statement timeout/, 'a call to a stuck engine can be cancelled');
took($seconds, 1.5, 'statement_timeout of 300 ms against a stuck embedding engine');
my $since = time();
kill('KILL', $embedding);
($rc, $out, $err, $seconds) = finish_call($call, $since);
like($err, qr/ERROR:  58000: the qwen3dm engine stopped/, 'kill -9 of the embedding engine: its call fails');
took($seconds, 1, 'error after kill -9 of the embedding engine');
is(sql('SELECT cardinality(qwen_embed($$a$$))'), 64, 'the next one works');
is(sql(q{SELECT engine_pid, restarts FROM qwen_model_status WHERE service = 'main'}), "$main|0", 'the main engine lives');
is(sql(q{SELECT count(*) FROM qwen_stat_activity WHERE service = 'main'}), 1, 'and so does its request');
is(embedding_status('restarts'), 1, 'the restart is counted');

$embedding = embedding_status('engine_pid');
kill('KILL', $main);
($rc, $out, $err) = finish_call($long);
like($err, qr/the qwen3dm engine stopped/, 'kill -9 of the main engine: its call fails');
is(sql('SELECT cardinality(qwen_embed($$a$$))'), 64, 'vectors go on');
is(embedding_status('engine_pid'), $embedding, 'by the same engine');
is(sql(q{SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL}), 't', 'answers are back');

# ---- Other models, and none ----

use_embedding_model('/nowhere/model.gguf');
ok(wait_for_embedding('failed'), 'a bad file: failed');
($rc, $out, $err) = $node->psql('postgres', q{SELECT qwen_embed('a')});
like($err, qr/ERROR:  the model could not be loaded\n.*nowhere/, 'and vectors say so');
is(sql(q{SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL}), 't', 'answers do not mind');
sql('ALTER SYSTEM SET qwen3dm.embedding_kv_cache_size = 1024');
use_embedding_model(embedding_model());
ok(wait_for_embedding('ready'), 'the good file again, with little memory');
($rc, $out, $err) = $node->psql('postgres', q{SELECT qwen_embed(repeat('word ', 1000))});
like($err, qr/ERROR:  request needs room for .*\nHINT:  .*embedding_kv_cache_size/, 'too long for the memory');
is(sql(q{SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL}), 't', 'answers have their own');
$embedding = embedding_status('engine_pid');
use_embedding_model('');
ok(wait_gone($embedding, 5), 'without the setting the engine ends');
is(sql('SELECT count(*) FROM qwen_model_status'), 1, 'and so does the row');
is(sql(q{SELECT qwen_embed('a b')}), $mean, 'vectors are the main model\'s again');
$session->quit;

# ---- The end ----

use_embedding_model(embedding_model());
ok(wait_for_embedding('ready'), 'the embedding model once more');
my @engines = map { $_ || die 'an engine is missing' } (engine_pid_of('main'), engine_pid_of('embedding'));
sub engine_pid_of { return sql("SELECT engine_pid FROM qwen_model_status WHERE service = '$_[0]'"); }
$node->stop('fast');
ok(wait_gone($engines[0], 1) && wait_gone($engines[1], 1), 'both engines end with the server');
is(scalar(grep { -e $node->data_dir . "/pg_stat_tmp/$_" } ('qwen3dm.sock', 'qwen3dm-embedding.sock')), 0, 'and leave no socket');
$node->start;
ok(wait_for_embedding('ready'), 'it comes back with the server');
@engines = (engine_pid_of('main'), engine_pid_of('embedding'));
$node->kill9;
ok(wait_gone($engines[0], 5) && wait_gone($engines[1], 5), 'both engines end with a killed server');
done_testing();
