# The SQL surface under attack: objects in front of PostgreSQL's own, roles without a grant, the most
# labels and examples, plans that outlive what they ask about, standbys, and whatever ends a call.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

# The tiny model, with a context that has room for everything at once.
my $model = PostgreSQL::Test::Utils::tempdir() . '/roomy.gguf';
my $bytes = slurp_file(tiny_model());
$bytes =~ s/(\.context_length\x04\0\0\0)..../$1 . pack('V', 16384)/es or die 'the model has no context length';
open(my $out, '>:raw', $model) or die;
print $out $bytes;
close($out);

my $node = qwen_node('surface', model => $model, streaming => 1, conf => "qwen3dm.context_length = 16384\n");
my ($rc, $result, $errors);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What a role gets: the output, or else the errors.
sub as_role
{
	my ($role, $sql) = @_;
	($rc, $result, $errors) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);
	return $rc == 0 ? $result : $errors;
}

# ---------------------------------------------------------------------------------------------
# search_path: eve's objects stand before PostgreSQL's own, and raise errors when they are used.
# ---------------------------------------------------------------------------------------------

sql(q{
	CREATE ROLE eve LOGIN; CREATE SCHEMA evil AUTHORIZATION eve;
	CREATE FUNCTION make_traps() RETURNS int LANGUAGE plpgsql AS $make$
	DECLARE
		r record; n int := 0;
		body text := $body$ LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''TRAPPED''; END' $body$;
		types regtype[] := '{text,name,oid,int4,int8,float8,numeric,bool,"\"char\"",interval,timestamptz,jsonb,regclass,regprocedure}';
	BEGIN
		FOR r IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
				FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft = ANY (types) AND oprright = ANY (types) LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION evil.trap_%s(%s, %s) RETURNS %s', n, r.l, r.r, r.result) || body;
			EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.trap_%s)', r.oprname, r.l, r.r, n);
		END LOOP;
		FOR r IN SELECT proname, oidvectortypes(proargtypes) AS arguments, prorettype::regtype AS result
				FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0
				AND proname IN ('date_part', 'octet_length', 'jsonb_typeof', 'now', 'pg_get_userbyid', 'has_function_privilege',
					'has_table_privilege', 'has_schema_privilege', 'format', 'text', 'int4', 'int8', 'float8', 'numeric', 'name', 'upper', 'lower')
				AND proargtypes::oid[] <@ types::oid[] LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s', r.proname, r.arguments, r.result) || body;
		END LOOP;
		FOR r IN SELECT p.proname, oidvectortypes(p.proargtypes) AS arguments FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
				WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qwen3dm') AND d.classid = 'pg_proc'::regclass AND p.prokind = 'f'
				AND oidvectortypes(p.proargtypes) !~ 'internal|any' LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS int', r.proname, r.arguments) || body;
		END LOOP;
		CREATE TYPE evil.int4 AS (n int);
		CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.octet_length(VALUE) OPERATOR(pg_catalog.>) 0);
		CREATE TABLE evil.tasks (name pg_catalog.text);
		CREATE TABLE evil.pg_extension (oid pg_catalog.oid, extname name);
		CREATE TABLE evil.pg_depend (objid pg_catalog.oid);
		RETURN n;
	END $make$;});
cmp_ok(as_role('eve', q{SET search_path = evil, public, pg_catalog; SET search_path = pg_catalog, public; SELECT make_traps()}), '>', 250, 'many traps');

my $path = 'SET search_path = evil, pg_catalog, public;';
for my $control (q{SELECT 'a'::pg_catalog.text IS DISTINCT FROM 'b'::pg_catalog.text}, q{SELECT 1::pg_catalog.oid = 2::pg_catalog.oid},
	q{SELECT octet_length('a'::pg_catalog.text)}, q{SELECT qwen_classify('a'::pg_catalog.text, 'b'::pg_catalog.text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)})
{
	like(as_role('postgres', "$path $control"), qr/TRAPPED/, "a trap: $control");
}

sql(q{CREATE ROLE frank; CREATE TYPE kind AS ENUM ('gift', 'food', 'rent'); CREATE TYPE pair AS (a kind, b bool);
	CREATE TABLE notes (id int PRIMARY KEY, note text, risk float8, kind kind, label text);
	CREATE TABLE by_row (LIKE notes INCLUDING ALL)});
for my $call (
	q{qwen_grant('frank', admin => true)}, q{qwen_revoke('frank')}, q{count(*) FROM public.qwen3dm_functions()},
	q{count(*) FROM public.qwen_stat_roles}, q{count(*) FROM public.qwen_stat_tasks}, q{count(*) FROM public.qwen_stat_modes},
	q{count(*) FROM public.qwen_stat_activity}, q{count(*) FROM public.qwen_model_status},
	q{qwen_task_create('fraud', 'It is fraud', latency_target => '1 s')}, q{qwen_task_alter('fraud', 'It is fraud.', reset => '{mode}')},
	q{qwen_task_create('which', labels => '["a", "b"]', examples => '[{"input": "x", "label": "a"}]', schema => '{"type": "null"}')},
	q{qwen_score('x', task => 'fraud', calibrate => true)}, q{qwen_classify('x', task => 'which')}, q{qwen_classify('x', NULL::public.kind)},
	q{qwen_classify('x', '{"a": "b"}')}, q{qwen_filter('x', 'y')}, q{qwen_infer('x', max_tokens => 2, stop => '{z}')},
	q{qwen_infer('x', task => 'which')}, q{count(*) FROM public.qwen_rerank('a', '{x,y}')}, q{qwen_embed('x')}, q{qwen_similarity('x', 'y')},
	q{qwen_extract('x', NULL::public.pair, max_tokens => 50)}, q{qwen_summarize('x', max_tokens => 2)}, q{qwen_tokenize('x')},
	q{public.qwen_reduce_agg('x'::pg_catalog.text, 'y'::pg_catalog.text)}, q{qwen_pin_prefix('x')}, q{qwen_unpin_prefixes()}, q{qwen_stat_reset('frank')})
{
	my $sql = $call;
	$sql =~ s/^(qwen_)/public.$1/;
	# without a name that a trap has: the call is resolved, and what it does is the matter
	unlike(as_role('postgres', "$path SET qwen3dm.max_tokens = 4; SELECT $sql"), qr/TRAPPED/, $call);
	is($rc, 0, "$call works") || diag($errors);
}
unlike(as_role('postgres', "$path UPDATE qwen3dm.tasks SET mode = 'precise'; UPDATE qwen3dm.tasks SET mode = 'auto'"), qr/./, 'a task by hand');

sql(q{
	CREATE TRIGGER risk AFTER INSERT ON notes REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_score_trigger('note', 'risk', 'fraud');
	CREATE TRIGGER kind AFTER INSERT ON notes REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('note', 'kind');
	CREATE TRIGGER label AFTER INSERT ON notes REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('note', 'label', 'which');
	CREATE TRIGGER again AFTER UPDATE ON notes REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT
		EXECUTE FUNCTION qwen_score_trigger('note', 'risk', 'fraud');
	CREATE TRIGGER kind BEFORE INSERT OR UPDATE ON by_row FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('note', 'kind')});
for my $table (qw(notes by_row))
{
	is(as_role('postgres', "$path INSERT INTO public.$table (id, note) VALUES (1, 'one'), (2, NULL), (3, 'three'), (4, '');
		UPDATE public.$table AS t SET note = v.note FROM (VALUES (1, 'uno'), (2, 'duo'), (3, NULL), (4, '')) AS v (id, note)
			WHERE t.id OPERATOR(pg_catalog.=) v.id"),
		'', "$table: triggers");
}
is(sql('SELECT string_agg((kind IS NULL)::text, NULL ORDER BY id) FROM by_row'), 'falsefalsetruefalse', 'what rows were asked about, row by row');
is(sql('SELECT string_agg((risk IS NULL)::text, NULL ORDER BY id) FROM notes'), 'falsefalsetruefalse', 'and after a statement');
is(sql(q{SELECT bool_and(risk = qwen_score(note, task => 'fraud')) FROM notes WHERE note IS NOT NULL}), 't', 'of the new texts');

# In the extension's own schema, functions that fit better.
sql('GRANT CREATE ON SCHEMA public TO eve');
my $trap = q{LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'TRAPPED'; END $$};
as_role('eve', qq{
	CREATE FUNCTION qwen_score(text, text, task text, on_error text) RETURNS float8 $trap;
	CREATE FUNCTION qwen_classify(text, text[], task text, on_error text) RETURNS text $trap;
	CREATE FUNCTION qwen_classify(text, kind, task text, on_error text) RETURNS kind $trap;});
is($rc, 0, 'eve makes functions beside ours') || diag($errors);
is(as_role('postgres', q{INSERT INTO notes VALUES (5, 'five'); UPDATE notes SET note = 'cinque' WHERE id = 5;
	SELECT num_nulls(risk, kind, label) FROM notes WHERE id = 5}), '0', 'a trigger calls ours all the same');
as_role('eve', qq{CREATE FUNCTION qwen_classify(text, kind, text, text, text, text, jsonb, bool, bool, int4) RETURNS kind $trap});
like(as_role('postgres', q{INSERT INTO notes VALUES (6, 'six')}), qr/ERROR: +function public.qwen_classify\(text, kind, .*\) hides the one of qwen3dm/,
	'or says that it cannot');
sql('DROP OWNED BY eve CASCADE; DROP FUNCTION make_traps()');

# ---------------------------------------------------------------------------------------------
# A role without qwen_grant, and row security
# ---------------------------------------------------------------------------------------------

sql(q{CREATE ROLE nobody LOGIN; CREATE ROLE somebody LOGIN; GRANT ALL ON notes, by_row TO nobody, somebody; GRANT CREATE ON SCHEMA public TO nobody;
	SELECT qwen_grant('somebody'); SELECT qwen_stat_reset();
	CREATE VIEW answers AS SELECT qwen_classify(note, NULL::kind) AS kind FROM notes; GRANT SELECT ON answers TO nobody;
	CREATE FUNCTION ask(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN qwen_classify(t, NULL::kind); END'});
is(sql(q{SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qwen3dm') AND d.classid = 'pg_proc'::regclass
	AND has_function_privilege('nobody', p.oid, 'EXECUTE')}),
	'qwen3dm_accounts qwen3dm_change_grants qwen3dm_check_task qwen3dm_features_changed qwen3dm_functions qwen3dm_model_status '
	  . 'qwen3dm_set_default qwen3dm_stat_activity qwen3dm_stat_decisions qwen3dm_stat_progress qwen3dm_task_changed qwen3dm_version qwen_grant qwen_revoke', 'all that anybody may call');
my $denied = qr/ERROR: +permission denied for (function|aggregate|table|schema)/;
for my $sql (
	q{SELECT qwen_summarize_agg(note) FROM notes}, q{SELECT qwen_reduce_agg(note, 'x') FROM notes}, q{SELECT * FROM answers},
	q{SELECT id FROM notes WHERE qwen_filter(note, 'x')}, q{EXPLAIN SELECT qwen_score(note, 'x') FROM notes}, q{SELECT ask('x')},
	q{SELECT qwen_classify('x', NULL::kind)}, q{SELECT qwen_extract('x', NULL::pair)}, q{SELECT qwen_tokenize('x')}, q{SELECT * FROM qwen_rerank('a', '{b}')},
	q{CREATE TABLE mine (a text, b float8); CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('a', 'b', 'fraud')},
	q{CREATE AGGREGATE mine(text) (SFUNC = qwen3dm_summarize_transition, STYPE = internal)},
	q{CREATE CAST (text AS kind) WITH FUNCTION ask(text)}, q{INSERT INTO notes VALUES (7, 'seven')}, q{UPDATE notes SET note = 'zzz'},
	q{SELECT qwen_task_create('x')}, q{TABLE qwen3dm.tasks}, q{SELECT qwen_grant('nobody')}, q{SELECT qwen3dm_change_grants('nobody', true, true)})
{
	like(as_role('nobody', $sql), $sql =~ /^CREATE CAST/ ? qr/ERROR: +must be owner of type/ : $sql =~ /^CREATE AGG/ ? qr/ERROR: +unsafe use of pseudo-type|ERROR: +aggregate transition data type cannot be internal|$denied/ : $denied,
		"nobody: $sql");
}
# Plans that were made for somebody who may.
like(as_role('postgres', q{PREPARE p AS SELECT count(qwen_classify(note, NULL::kind)) FROM notes; EXECUTE p; SELECT ask('x'); SET ROLE nobody; EXECUTE p}),
	$denied, "nobody: another's prepared statement");
like(as_role('postgres', q{SELECT ask('x'); SET ROLE nobody; SELECT ask('y')}), $denied, "nobody: a cached plan of PL/pgSQL");
is(sql(q{SELECT count(*) FROM qwen_stat_roles WHERE usename = 'nobody'}), '0', 'nobody has used nothing');

# Row security of tasks: also when what a policy depends on changes within one statement.
sql(q{SELECT qwen_task_create('hers', labels => '["one", "two"]', description => 'somebody');
	GRANT SELECT, INSERT, UPDATE, DELETE ON qwen3dm.tasks TO somebody; GRANT EXECUTE ON FUNCTION qwen_task_alter, qwen_task_create, qwen_task_drop TO somebody;
	ALTER TABLE qwen3dm.tasks ENABLE ROW LEVEL SECURITY;
	CREATE POLICY tenant ON qwen3dm.tasks USING (description = current_setting('app.tenant', true))});
my $task = q{qwen_classify('x', task => 'hers')};
like(as_role('somebody', "SELECT $task"), qr/task "hers" does not exist/, 'row security hides a task');
like(as_role('somebody', "SET app.tenant = 'somebody'; SELECT $task"), qr/^(one|two)$/, 'and shows it');
like(as_role('somebody', qq{DO \$\$ BEGIN SET app.tenant = 'somebody'; PERFORM $task; SET app.tenant = 'x'; PERFORM $task; END \$\$}),
	qr/task "hers" does not exist/, 'and hides it again in the same statement');
like(as_role('somebody', q{SELECT count(qwen_classify(i::text, task => 'hers')) FROM set_config('app.tenant', 'somebody', false), generate_series(1, 300) AS i}), qr/^300$/,
	'many rows under row security');
for my $sql (q{SELECT qwen_task_alter('hers', 'mine')}, q{SELECT qwen_task_drop('hers')})
{
	like(as_role('somebody', $sql), qr/task "hers" does not exist/, "hidden: $sql");
}
like(as_role('somebody', q{SELECT qwen_task_create('other', description => 'x')}), qr/new row violates row-level security policy/, 'nor can one be made beyond it');
sql('DROP POLICY tenant ON qwen3dm.tasks; ALTER TABLE qwen3dm.tasks DISABLE ROW LEVEL SECURITY');

# Row security of a table with a statement trigger, which fills its column with an UPDATE.
sql(q{CREATE TABLE letters (id int PRIMARY KEY, note text, kind kind); GRANT ALL ON letters TO somebody; ALTER TABLE letters ENABLE ROW LEVEL SECURITY;
	CREATE POLICY writing ON letters FOR INSERT WITH CHECK (true); CREATE POLICY reading ON letters FOR SELECT USING (true);
	CREATE TRIGGER kind AFTER INSERT ON letters REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('note', 'kind')});
like(as_role('somebody', q{INSERT INTO letters VALUES (1, 'one')}), qr/ERROR: +row-level security keeps trigger "kind" from filling column "kind" of table "letters"/,
	'policies let nobody write around a trigger');
sql(q{CREATE POLICY changing ON letters FOR UPDATE USING (id < 3)});
like(as_role('somebody', q{INSERT INTO letters VALUES (2, 'two'), (3, 'three')}), qr/ERROR: +row-level security/, 'not one row');
is(as_role('somebody', q{INSERT INTO letters VALUES (1, 'one'), (2, NULL); SELECT id, kind IS NULL FROM letters ORDER BY id}), "1|f\n2|t", 'and what they allow is filled');

# ---------------------------------------------------------------------------------------------
# Plans that outlive what they ask about
# ---------------------------------------------------------------------------------------------

sql(q{SELECT qwen_task_create('changing', labels => '["a0", "b0"]')});
# An enum that lacks the best label, until it is added.
my @words = qw(red green blue white black);
my $best = sql("SELECT qwen_classify('x', '{" . join(',', @words) . "}'::text[])");
my ($first, @others) = grep { $_ ne $best } @words;
sql("CREATE TYPE color AS ENUM ('$first')");
sql(q{CREATE FUNCTION color_of_x() RETURNS color LANGUAGE plpgsql AS $$ BEGIN RETURN qwen_classify('x', NULL::color); END $$});
is(as_role('postgres', q{PREPARE c AS SELECT qwen_classify('x', NULL::color); }
	  . ('EXECUTE c; SELECT color_of_x(); ' x 6) . join('', map { "ALTER TYPE color ADD VALUE '$_'; " } @others, $best)
	  . "EXECUTE c; SELECT color_of_x(); ALTER TYPE color RENAME VALUE '$best' TO 'another'; ALTER TYPE color RENAME VALUE '$first' TO '$best';
		ALTER TYPE color RENAME VALUE 'another' TO '$first'; EXECUTE c; SELECT color_of_x()"),
	join("\n", ($first) x 12, ($best) x 4), 'plans of an enum with values added and renamed');
is(as_role('postgres', q{
	PREPARE t AS SELECT substr(qwen_classify('x', task => 'changing'), 2); PREPARE s AS SELECT qwen_infer('x', task => 'changing');
	CREATE FUNCTION changing() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN substr(qwen_classify('x', task => 'changing'), 2); END $$;
	EXECUTE t; EXECUTE t; EXECUTE t; EXECUTE t; EXECUTE t; EXECUTE t; SELECT changing();
	SELECT qwen_task_alter('changing', labels => '["a1", "b1"]'); EXECUTE t; SELECT changing();
	UPDATE qwen3dm.tasks SET labels = '["a2", "b2"]', schema = '{"const": 42}' WHERE name = 'changing'; EXECUTE t; SELECT changing(); EXECUTE s;}),
	join("\n", (0) x 7, '', 1, 1, 2, 2, 42), 'plans of a task that changes');
is(as_role('postgres', q{
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	DO $$ BEGIN
		PERFORM set_config('app.before', changing(), false);
		BEGIN
			PERFORM qwen_task_alter('changing', labels => '["a9", "b9"]');
			ASSERT changing() = '9';
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN NULL; END;
		PERFORM set_config('app.after', changing(), false);
	END $$;
	SELECT current_setting('app.before') || ',' || current_setting('app.after');
	ROLLBACK;}), '2,2', 'what a subtransaction made of it is gone with that');
like(as_role('postgres', q{PREPARE t AS SELECT qwen_classify('x', task => 'changing'); EXECUTE t; SELECT qwen_task_drop('changing'); EXECUTE t}),
	qr/task "changing" does not exist/, 'a plan of a task that is dropped');
like(as_role('postgres', q{SELECT changing()}), qr/task "changing" does not exist/, 'in PL/pgSQL, too');

# ---------------------------------------------------------------------------------------------
# The most labels and examples
# ---------------------------------------------------------------------------------------------

my %labels = (
	array => q{(SELECT array_agg('l' || i) FROM generate_series(1, %d) AS i)},
	jsonb => q{(SELECT jsonb_object_agg('l' || i, '') FROM generate_series(1, %d) AS i)},
	enum => q{NULL::of_%d});
sql(join('', map { my $n = $_; "CREATE TYPE of_$n AS ENUM (" . join(', ', map { "'l$_'" } 1 .. $n) . ');' } 1000, 1001));
my $examples = q{examples => (SELECT jsonb_agg(jsonb_build_object('input', i::text, 'label', 'l' || i)) FROM generate_series(1, %d) AS i)};
for my $form (sort keys %labels)
{
	my $call = sub { sprintf("SELECT qwen_classify('x', $labels{$form}, $examples)", @_) };
	like(as_role('postgres', $call->(1000, 100)), qr/^l\d+$/, "$form: 1,000 labels and 100 examples");
	like(as_role('postgres', $call->(1001, 100)), qr/ERROR: +there must be 1 to 1000 labels, not 1001/, "$form: 1,001 labels");
	like(as_role('postgres', $call->(1000, 101)), qr/ERROR: +there must be at most 100 examples, not 101/, "$form: 101 examples");
}
is(sql(sprintf("SELECT count(*), round(sum(probability)::numeric, 9) FROM qwen_classify_probs('x', $labels{array}, $examples)", 1000, 100)),
	'1000|1.000000000', 'a probability for each of 1,000 labels');
like(as_role('postgres', sprintf("SELECT qwen_task_create('large', labels => $labels{jsonb})", 1001)), qr/there must be 1 to 1000 labels, not 1001/, 'a task of 1,001 labels');
sql(sprintf("SELECT qwen_task_create('large', labels => $labels{jsonb}, $examples)", 1000, 100));
is(sql("SELECT qwen_classify('x', task => 'large') = " . sprintf("qwen_classify('x', $labels{jsonb}, $examples)", 1000, 100)), 't', 'a task of 1,000 labels and 100 examples');

# ---------------------------------------------------------------------------------------------
# A standby
# ---------------------------------------------------------------------------------------------

my $question = q{SELECT qwen_classify('x', task => 'which'), qwen_score('x', task => 'fraud'), count(qwen_classify(note, NULL::kind, on_error => 'null')) FROM notes};
my $answer = sql($question);
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
wait_for_state($standby, 'ready');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $question), $answer, 'a standby knows the tasks');
for my $sql (q{SELECT qwen_task_create('x')}, q{SELECT qwen_task_alter('which', 'x')}, q{SELECT qwen_task_drop('which')}, q{SELECT qwen_grant('nobody')},
	q{INSERT INTO notes VALUES (8, 'eight')})
{
	my $command = $sql =~ /create|INSERT/ ? 'INSERT' : $sql =~ /alter/ ? 'UPDATE' : $sql =~ /drop/ ? 'DELETE' : 'GRANT';
	(undef, undef, $errors) = $standby->psql('postgres', $sql);
	like($errors, $command eq 'GRANT' ? qr/ERROR: +cannot execute GRANT ROLE|ERROR: +cannot execute GRANT in a read-only transaction|ERROR: +cannot execute GRANT during recovery/
		: qr/ERROR: +cannot execute $command in a read-only transaction/, "a standby: $sql");
}
sql(q{SELECT qwen_task_alter('which', labels => '["other"]', reset => '{examples}')});
$node->wait_for_catchup($standby);
like($standby->safe_psql('postgres', $question), qr/^other\|/, 'and their changes');
$standby->stop;
$node->stop;

# ---------------------------------------------------------------------------------------------
# Whatever ends a call
# ---------------------------------------------------------------------------------------------

$node = qwen_node('slow_surface', model => slow_model(), conf => "max_parallel_workers_per_gather = 2\nqwen3dm.trigger_on_error = 'raise'\n");
my $file = PostgreSQL::Test::Utils::tempdir() . '/texts';
append_to_file($file, join('', map { my $i = $_; "$i\t" . join(' ', map { 'word' . $i * $_ . " runs over $_" } 1 .. 60) . "\n" } 1 .. 300));
sql(qq{
	CREATE TYPE kind AS ENUM ('gift', 'food', 'rent'); CREATE TYPE invoice AS (note text, amount numeric, day date);
	CREATE TABLE texts (id int PRIMARY KEY, body text); COPY texts FROM '$file'; ANALYZE texts;
	CREATE TABLE target (id int PRIMARY KEY, note text, kind kind);
	CREATE TRIGGER kind AFTER INSERT ON target REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('note', 'kind');});
my $parallel = 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;';
like(sql("$parallel EXPLAIN SELECT qwen_reduce_agg(body, 'List the words') FROM texts"), qr/Gather/, 'a parallel aggregate');

my @calls = (
	[ 'extraction', 'SET max_parallel_workers_per_gather = 0;', 'SELECT count(qwen_extract(body, NULL::invoice, max_tokens => 2000)) FROM texts' ],
	[ 'a summary', 'SET max_parallel_workers_per_gather = 0;', 'SELECT qwen_summarize_agg(body) FROM texts' ],
	[ 'a parallel reduction', $parallel, q{SELECT qwen_reduce_agg(body, 'List the words') FROM texts} ],
	[ 'parallel vectors', $parallel, 'SELECT count(qwen_embed(body)) FROM texts' ],
	[ 'ranking', '', q{SELECT * FROM qwen_rerank('which', (SELECT array_agg(body) FROM texts))} ],
	[ 'COPY under a trigger', '', "COPY target (id, note) FROM '$file'" ]);
my $pids = q{FROM pg_stat_activity WHERE application_name = 'victim' AND backend_type = 'client backend'};
my %ends = (
	cancel => [ sub { sql("SELECT pg_cancel_backend(pid) $pids") }, qr/canceling statement due to user request/ ],
	terminate => [ sub { sql("SELECT pg_terminate_backend(pid) $pids") }, qr/terminating connection due to administrator command/ ],
	'kill -9' => [ sub { kill('KILL', engine_pid($node)) }, qr/the qwen3dm engine stopped/ ],
	timeout => [ undef, qr/canceling statement due to statement timeout/ ]);

# Ends a statement; the next one of its session works, and nothing is left. The time is when psql goes
# on: after the end of an engine the next call waits for a new one.
sub end_by
{
	my ($how, $what, $settings, $sql) = @_;
	my ($act, $error) = @{ $ends{$how} };
	my $limit = $act ? 0 : 400;
	my $call = start_call($node, "$settings\n\\set ON_ERROR_STOP 0\nSET statement_timeout = $limit;\n$sql;\n\\! date '+ended %s.%N'\n"
		  . "SET statement_timeout = 0;\nSELECT 'then', qwen_count_tokens('abc');", name => 'victim');
	my $since = $call->{started};

	if ($act)
	{
		within(10, sub { running($node) > 0 }) || BAIL_OUT("$what does not run");
		$since = time();
		$act->();
	}
	my (undef, $output, $messages, $seconds) = finish_call($call, $since);
	like($messages, $error, "$how of $what");
	$seconds = $1 - $since if $output =~ /^ended ([0-9.]+)$/m;
	took($seconds, $act ? 1 : 1.4, "$how of $what");
	like($output, qr/^then\|3$/m, "$how of $what: the session goes on") || diag($messages) unless $how eq 'terminate';
	ok(within(1, sub { running($node) == 0 }), "$how of $what: nothing is left");
}

for my $call (@calls)
{
	end_by($_, @$call) for qw(cancel timeout terminate);
}
for my $call (@calls)
{
	end_by('kill -9', @$call);
}
is(sql('SELECT count(*) FROM target'), '0', 'nothing is written');

# Caught in the same transaction, nothing goes on either.
for my $call (@calls[0 .. 4])
{
	my ($what, $settings, $sql) = @$call;
	$sql =~ s/^SELECT/PERFORM/;
	my $run = start_call($node, "$settings DO \$\$ BEGIN
			BEGIN $sql; EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END;
			RAISE NOTICE 'then %', qwen_count_tokens('abc');
			FOR i IN 1 .. 50 LOOP
				EXIT WHEN NOT EXISTS (SELECT FROM qwen_stat_activity);
				PERFORM pg_sleep(0.02);
			END LOOP;
			RAISE NOTICE 'left %', (SELECT count(*) FROM qwen_stat_activity);
		END \$\$;", name => 'victim');
	within(10, sub { running($node) > 0 }) || BAIL_OUT("$what does not run");
	sql("SELECT pg_cancel_backend(pid) $pids");
	my (undef, undef, $messages) = finish_call($run);
	like($messages, qr/caught.*then 3.*left 0/s, "$what: canceled and caught");
}
ok(idle($node), 'nothing is held');
$node->stop;
done_testing();
