# What is learned about the inputs of tasks, and which tasks an input looks like.
use strict;
use warnings;
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('match', streaming => 1, conf => "max_prepared_transactions = 1\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }
# Tasks for an input, best first; or what the query gives for them.
sub matches { return "SELECT coalesce(string_agg(task, ' ' ORDER BY similarity DESC, task), 'none') FROM qwen_task_match(\$x\$$_[0]\$x\$)"; }

my $invoice = 'Why does my invoice show the old price?';
my $parcel = 'The courier lost my parcel';
my $soup = 'Simmer the onions in butter';

is(sql(matches($invoice)), 'none', 'nothing is known yet');
is(sql(q{SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL}), 't', 'which is no obstacle');

# ---- Learning ----

sql(q{CREATE TABLE inputs (task text, body text);
	INSERT INTO inputs SELECT 'billing', format('My invoice number %s of %s shows the wrong %s, please send a refund', i, m, w)
	FROM generate_series(1, 3) AS i, unnest('{March,April}'::text[]) AS m, unnest('{price,amount,tax}'::text[]) AS w;
	INSERT INTO inputs SELECT 'delivery', format('The parcel with %s has not arrived since %s, where is the courier?', w, d)
	FROM unnest('{shoes,books,lamps}'::text[]) AS w, unnest('{Monday,Tuesday,Friday,Sunday}'::text[]) AS d;
	INSERT INTO inputs SELECT 'recipes', format('Chop the %s, fry them with the %s in butter and let the soup simmer', a, b)
	FROM unnest('{onions,carrots,leeks}'::text[]) AS a, unnest('{garlic,celery,mushrooms}'::text[]) AS b;
	SELECT qwen_task_create(t, labels => '["yes", "no"]') FROM unnest('{billing,delivery,recipes}'::text[]) AS t});

my $session = $node->background_psql('postgres');
is($session->query_safe(matches($parcel)), 'none', 'an open session knows nothing either');
for my $task (qw(recipes delivery billing))
{
	sql("SELECT qwen_task_learn('$task', 'SELECT body FROM inputs WHERE task = ''$task'' ORDER BY body')");
}
is(sql('SELECT task, inputs, lengths[5:8] FROM qwen3dm.task_features ORDER BY task'),
	"billing|18|{0,0,18,0}\ndelivery|12|{0,0,12,0}\nrecipes|9|{0,0,9,0}", 'inputs and their lengths are counted');
is(sql('SELECT inputs, octet_length(counts) > 10000 FROM qwen3dm.term_counts'), '39|t', 'and the words of all');

for my $case ([ $invoice, 'billing' ], [ $parcel, 'delivery' ], [ $soup, 'recipes' ])
{
	like(sql(matches($case->[0])), qr/^$case->[1] /, "\"$case->[0]\" is for $case->[1]");
	like($session->query_safe(matches($case->[0])), qr/^$case->[1] /, 'the open session knows, too');
}
is(sql(qq{SELECT count(*), bool_and(similarity BETWEEN 0 AND 1) FROM qwen_task_match('$invoice')}),
	'3|t', 'similarities are between 0 and 1');
is(sql(q{SELECT task, similarity > 0.5 FROM qwen_task_match('My invoice number 7 of May shows the wrong price, please send a refund', 1)}),
	'billing|t', 'high for an input like those that were learned');
is(sql(qq{SELECT count(*) FROM qwen_task_match('$invoice', 2)}), '2', 'limit');
is(sql(q{SELECT count(*), max(similarity) <= 0.1 FROM qwen_task_match('')}), '3|t', 'an empty input is like none');
is(sql(q{SELECT count(*) FROM qwen_task_match(NULL)}), '0', 'NULL matches nothing');

is(sql(q{SELECT terms ? 'invoice', terms ? 'refund', terms ? 'My', terms::text ~ '[0-9]+"' FROM qwen3dm.task_features WHERE task = 'billing'}),
	't|t|f|f', 'words that stand out, in lower case, without numbers');
is(sql(q{SELECT max(n), bool_and(value::float8 > 0) FROM (SELECT count(*) OVER (PARTITION BY task) AS n, value
	FROM qwen3dm.task_features, jsonb_each_text(terms)) AS t WHERE n <= 32}) =~ /^\d+\|t$/ ? 1 : 0, 1, 'with weights, 32 at most');
is(sql(q{SELECT (terms->>'invoice')::float8 > (terms->>'the')::float8 IS NOT FALSE FROM qwen3dm.task_features WHERE task = 'billing'}),
	't', 'common words weigh less');

# Learned again: the row is replaced.
sql(q{SELECT qwen_task_learn('billing', 'SELECT body FROM inputs WHERE task = ''billing'' LIMIT 10')});
is(sql(q{SELECT inputs FROM qwen3dm.task_features WHERE task = 'billing'}), '10', 'learned again');
like($session->query_safe(matches($invoice)), qr/^billing /, 'and found again');

# ---- Changes ----

$session->query_safe('BEGIN');
$session->query_safe(q{DELETE FROM qwen3dm.tasks WHERE name = 'delivery'});
unlike($session->query_safe(matches($parcel)), qr/delivery/, 'a transaction sees its own changes');
like(sql(matches($parcel)), qr/^delivery /, 'others do not');
$session->query_safe('ROLLBACK');
like($session->query_safe(matches($parcel)), qr/^delivery /, 'nor does it after its end');
$session->query_safe(q{BEGIN; SAVEPOINT s; DELETE FROM qwen3dm.task_features WHERE task = 'delivery'});
unlike($session->query_safe(matches($parcel)), qr/delivery/, 'nor a subtransaction\'s');
$session->query_safe('ROLLBACK TO s');
like($session->query_safe(matches($parcel)), qr/^delivery /, 'after its end');
$session->query_safe('COMMIT');

# A snapshot that is older than a change must not keep the session from learning of it.
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM inputs');
sql(q{UPDATE qwen3dm.tasks SET name = 'parcels' WHERE name = 'delivery'});
$session->query_safe(matches($parcel));
$session->query_safe('COMMIT');
like($session->query_safe(matches($parcel)), qr/^parcels /, 'a change during a transaction counts after it');
$session->query_safe('BEGIN');
sql(q{UPDATE qwen3dm.tasks SET name = 'delivery' WHERE name = 'parcels'});
like($session->query_safe(matches($parcel)), qr/^delivery /, 'and in READ COMMITTED already in it');
$session->query_safe('COMMIT');
sql(q{BEGIN; DELETE FROM qwen3dm.task_features WHERE task = 'recipes'; PREPARE TRANSACTION 'gone'});
like($session->query_safe(matches($soup)), qr/^recipes /, 'a prepared transaction changes nothing');
sql(q{COMMIT PREPARED 'gone'});
unlike($session->query_safe(matches($soup)), qr/recipes/, 'until it is committed');
sql(q{SELECT qwen_task_learn('recipes', 'SELECT body FROM inputs WHERE task = ''recipes'''); SELECT qwen_task_drop('billing')});
is($session->query_safe('SELECT count(*) FROM qwen_task_match($$x$$)'), '2', 'a dropped task is gone');
sql(q{SELECT qwen_task_create('billing', labels => '["yes", "no"]');
	SELECT qwen_task_learn('billing', 'SELECT body FROM inputs WHERE task = ''billing''')});
sql(q{UPDATE qwen3dm.task_features SET profile = '\x00' WHERE task = 'delivery'});
is($session->query_safe('SELECT count(*) FROM qwen_task_match($$x$$)'), '2', 'a profile that cannot be read is none');
sql(q{SELECT qwen_task_learn('delivery', 'SELECT body FROM inputs WHERE task = ''delivery''')});
is(sql(q{BEGIN; UPDATE qwen3dm.term_counts SET counts = '\x01'; SELECT count(*) FROM qwen_task_match('x'); ROLLBACK}), '3', 'nor are such counts');

# ---- Who may know ----

sql(q{CREATE ROLE nobody LOGIN; CREATE ROLE somebody LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO nobody, somebody;
	SELECT qwen_grant('somebody')});
is(sql_as('nobody', matches($invoice)), 'none', 'a role without rights is told nothing');
like(sql_as('somebody', matches($invoice)), qr/^billing /, 'one with rights is');
sql('REVOKE USAGE ON SCHEMA qwen3dm FROM somebody');
is(sql_as('somebody', matches($invoice)), 'none', 'the schema counts');
sql('GRANT USAGE ON SCHEMA qwen3dm TO somebody');
# One session, what it has read, and two users.
is(sql("SELECT 1 FROM qwen_task_match('x') LIMIT 1; SET ROLE nobody; " . matches($invoice)), "1\nnone", 'not what others have read before');
like(sql('SET ROLE nobody; ' . matches($invoice) . '; RESET ROLE; ' . matches($invoice)), qr/^none\nbilling /, 'nor they nothing after');
my $theirs = $node->background_psql('postgres', extra_params => [ '-U', 'somebody' ]);
like($theirs->query_safe(matches($invoice)), qr/^billing /, 'a session of a user with rights');
sql('REVOKE SELECT ON qwen3dm.task_features FROM somebody');
is($theirs->query_safe(matches($invoice)), 'none', 'who loses them');
sql('GRANT SELECT ON qwen3dm.task_features TO somebody');
sql(q{ALTER TABLE qwen3dm.task_features ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON qwen3dm.task_features TO somebody USING (task <> coalesce(current_setting('match.hidden', true), ''))});
like($theirs->query_safe(matches($invoice)), qr/^billing /, 'row security shows a task');
$theirs->query_safe(q{SET match.hidden = 'billing'});
unlike($theirs->query_safe(matches($invoice)), qr/billing/, 'and hides one');
is($theirs->query_safe(q{SELECT count(*) FROM qwen_task_match('x')}), '2', 'only that');
$theirs->query_safe('SET row_security = off');
is($theirs->query_safe(matches($invoice)), 'none', 'with row_security = off there are none, and no error');
like(sql(matches($invoice)), qr/^billing /, 'those whom it does not concern see all');
sql('ALTER TABLE qwen3dm.task_features DISABLE ROW LEVEL SECURITY');
like($theirs->query_safe(matches($invoice)), qr/^billing /, 'without row security all are back');
$theirs->quit;

# Names that mean something else to the caller change nothing.
is(sql(q{CREATE SCHEMA hostile; CREATE FUNCTION hostile.steal(text, text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN RAISE 'stolen'; END$$;
	CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.steal);
	CREATE TABLE hostile.task_features (task text, profile bytea); CREATE TABLE hostile.now (x int);
	SET search_path = hostile, public, pg_catalog;
	SELECT rows IS NOT DISTINCT FROM rows FROM qwen_task_learn('recipes', 'SELECT body FROM public.inputs WHERE task OPERATOR(pg_catalog.=) ''recipes''');
	SELECT count(*) FROM qwen_task_match('x')}), "t\n3", 'a hostile search_path');

# ---- Other databases ----

sql(q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$node->safe_psql('latin', q{CREATE SCHEMA "My Schema"; CREATE EXTENSION qwen3dm SCHEMA "My Schema"; SET search_path = "My Schema", public;
	CREATE TABLE public.inputs AS SELECT n, format('%s %s', CASE WHEN n % 2 = 0 THEN U&'gr\00fc\00dfe k\00f6ln' ELSE 'plain words' END, n) AS body
	FROM generate_series(1, 20) AS n;
	SELECT qwen_task_create(t, labels => '["a", "b"]') FROM unnest(ARRAY['plain', U&'gr\00fc\00dfe']) AS t;
	SELECT qwen_task_learn('plain', 'SELECT body FROM public.inputs WHERE n % 2 = 1');
	SELECT qwen_task_learn(U&'gr\00fc\00dfe', 'SELECT body FROM public.inputs WHERE n % 2 = 0')});
is($node->safe_psql('latin', q{SELECT task = U&'gr\00fc\00dfe' FROM "My Schema".qwen_task_match(U&'K\00f6ln', 1)}), 't',
	'a database in LATIN1, an extension in another schema');
is($node->safe_psql('latin', q{SELECT terms ? U&'k\00f6ln' FROM qwen3dm.task_features WHERE task LIKE 'gr%'}), 't', 'words in its encoding');

my $there = $node->background_psql('latin');
my $count = q{SELECT count(*) FROM "My Schema".qwen_task_match('x')};
is($there->query_safe($count), '2', 'a session before the extension is dropped');
$node->safe_psql('latin', 'DROP EXTENSION qwen3dm; CREATE EXTENSION qwen3dm SCHEMA "My Schema"');
is($there->query_safe($count), '0', 'and made anew');
$node->safe_psql('latin', q{SET search_path = "My Schema", public; SELECT qwen_task_create('plain', labels => '["a", "b"]');
	SELECT qwen_task_learn('plain', 'SELECT body FROM public.inputs')});
is($there->query_safe($count), '1', 'sees what is learned then');
$there->quit;

# ---- A dump, and a standby ----

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
my $features = q{SELECT f::text FROM qwen3dm.task_features AS f ORDER BY task};
my $before = sql($features);
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
is($node->safe_psql('restored', $features), $before, 'the dump has all features');
like($node->safe_psql('restored', matches($invoice)), qr/^billing /, 'which work');

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('match_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
my $reader = $standby->background_psql('postgres');
like($reader->query_safe(matches($invoice)), qr/^billing /, 'a standby knows the tasks');
sql(q{UPDATE qwen3dm.tasks SET name = 'accounting' WHERE name = 'billing'});
$node->wait_for_catchup($standby);
like($reader->query_safe(matches($invoice)), qr/^accounting /, 'and its sessions see changes');
$reader->quit;
$standby->stop;

# ---- Many tasks ----

sql(q{INSERT INTO qwen3dm.tasks (name) SELECT 'task ' || n FROM generate_series(1, 1000) AS n;
	INSERT INTO qwen3dm.task_features (task, inputs, lengths, terms, profile)
	SELECT 'task ' || n, 1, '{}', '{}', profile FROM generate_series(1, 1000) AS n, qwen3dm.task_features WHERE task = 'recipes'});
is($session->query_safe('SELECT count(*) FROM qwen_task_match($$x$$, NULL)'), '1003', 'a thousand tasks more');
like($session->query_safe(matches($invoice)), qr/^accounting /, 'the right one is found among them');
my $start = time();
is($session->query_safe(qq{SELECT count(*) FROM generate_series(1, 1000) AS n, qwen_task_match('$invoice ' || n, 1) WHERE task = 'accounting'}),
	'1000', 'a thousand times');
my $took = time() - $start;
diag(sprintf('1,000 of 1,003 tasks: %.3f ms each', $took));
cmp_ok($took, '<', 5, 'a thousand answers within 5 s');
$session->quit;

# ---- Vectors ----

my ($rc, $out, $err) = $node->psql('postgres', q{SELECT qwen_task_match('x', embedding => true)});
like($err, qr/ERROR:  tasks cannot be compared by embedding without an embedding model\nHINT:  Set qwen3dm\.embedding_model/,
	'without an embedding model there are no vectors');
sql(q{ALTER SYSTEM SET qwen3dm.embedding_model = '} . embedding_model() . q{'});
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT state FROM qwen_model_status WHERE service = 'embedding'}, 'ready'), 'an embedding model');
is(sql(q{SELECT count(*) FROM qwen_task_match('x', embedding => true)}), '0', 'tasks without vectors are left out');
sql(q{SELECT qwen_task_create('one', labels => '["yes", "no"]');
	SELECT qwen_task_learn('one', $$SELECT 'a b' FROM generate_series(1, 9)$$);
	SELECT qwen_task_learn('delivery', 'SELECT body FROM inputs WHERE task = ''delivery''')});
is(sql(q{SELECT f.task, cardinality(f.embedding), f.embedding_digest = s.digest FROM qwen3dm.task_features AS f, qwen_model_status AS s
	WHERE f.embedding IS NOT NULL AND s.service = 'embedding' ORDER BY task}), "delivery|64|t\none|64|t", 'vectors of what is learned now');
is(sql(q{SELECT task, similarity > 0.9999 FROM qwen_task_match('a b', 1, embedding => true)}), 'one|t', 'the nearest is itself');
is(sql(q{SELECT count(*) FROM qwen_task_match('a b', NULL, embedding => true)}), '2', 'of two');
is(sql_as('nobody', q{SELECT count(*) FROM qwen_task_match('a b', embedding => true)}), '0', 'a role without rights is told none of them');
sql(q{UPDATE qwen3dm.task_features SET embedding_digest = 'another' WHERE task = 'one'; UPDATE qwen3dm.task_features SET embedding = '{1,2}' WHERE task = 'delivery'});
is(sql(q{SELECT count(*) FROM qwen_task_match('a b', embedding => true)}), '0', 'vectors of another model do not count');
$node->stop;
done_testing();
