# Triggers that fill a column: COPY in batches, many sessions at once, an engine that dies, cancel.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = qwen_node('triggers', conf => "max_connections = 120\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $columns = '(id int PRIMARY KEY, note text, risk float8, kind kind)';
sql(qq{
	CREATE TYPE kind AS ENUM ('gift', 'food', 'rent');
	CREATE TABLE by_row $columns;
	CREATE TABLE by_statement $columns;});
sql(q{SELECT qwen_task_create('fraud', 'It looks like card fraud.')});
sql(q{
	CREATE TRIGGER risk BEFORE INSERT OR UPDATE ON by_row FOR EACH ROW
		EXECUTE FUNCTION qwen_score_trigger('note', 'risk', 'fraud');
	CREATE TRIGGER kind BEFORE INSERT OR UPDATE ON by_row FOR EACH ROW
		EXECUTE FUNCTION qwen_classify_trigger('note', 'kind');
	CREATE TRIGGER risk AFTER INSERT ON by_statement REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
		EXECUTE FUNCTION qwen_score_trigger('note', 'risk', 'fraud');
	CREATE TRIGGER kind AFTER INSERT ON by_statement REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
		EXECUTE FUNCTION qwen_classify_trigger('note', 'kind');
	CREATE TRIGGER again AFTER UPDATE ON by_statement REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
		FOR EACH STATEMENT EXECUTE FUNCTION qwen_classify_trigger('note', 'kind');});

# COPY of 1,000 rows.
my $file = PostgreSQL::Test::Utils::tempdir() . '/rows.csv';
append_to_file($file, join('', map { "$_,payment number $_\n" } 1 .. 1000));
my %seconds;
for my $table (qw(by_row by_statement))
{
	my $since = time();
	sql("\\copy $table (id, note) FROM '$file' (FORMAT csv)");
	$seconds{$table} = time() - $since;
	diag(sprintf('COPY of 1,000 rows, %s: %.2f s', $table, $seconds{$table}));
}
is(sql('SELECT count(*), count(risk), count(kind) FROM by_statement'), '1000|1000|1000', 'COPY: all rows have values');
is(sql('SELECT count(*) FROM by_row AS r JOIN by_statement AS s USING (id) WHERE r.risk = s.risk AND r.kind = s.kind'),
	'1000', 'COPY: the same values either way');
is(sql(q{SELECT count(*) FROM by_row WHERE risk = qwen_score(note, task => 'fraud')}), '1000', 'COPY: and those of the function');
ok(idle($node), 'nothing is held');

# A plan of the trigger's own UPDATE, as it is logged, has the batching node.
$node->safe_psql('postgres', q{
	LOAD 'auto_explain';
	SET auto_explain.log_min_duration = 0;
	SET auto_explain.log_nested_statements = on;
	SET auto_explain.log_analyze = on;
	INSERT INTO by_statement SELECT i, 'more ' || i FROM generate_series(2001, 2100) AS i});
like(slurp_file($node->logfile), qr/UPDATE public\.by_statement AS t SET risk.*?Qwen Batch.*?Requests: 100 in/s,
	'rows of a statement are asked about together');

# Many sessions, each row by row.
my @sessions = map { start_call($node, join('', map { "INSERT INTO by_row VALUES ($_, 'session ' || $_);" } 10000 + 10 * $_ .. 10009 + 10 * $_)) } 1 .. 100;
my @failed = grep { (finish_call($_))[0] != 0 } @sessions;
is(scalar(@failed), 0, '100 sessions insert at once');
is(sql(q{SELECT count(*) FROM by_row WHERE id > 10000 AND risk = qwen_score(note, task => 'fraud')}), '1000', 'with the right values');
ok(idle($node), 'nothing is held');

# Memory: the same session again and again.
sql(q{CREATE TABLE memory (n serial, bytes bigint)});
my $bytes = q{INSERT INTO memory (bytes) SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'qwen3dm%' OR name IN ('TopMemoryContext', 'SPI Plan', 'CacheMemoryContext');};
my $rounds = q{INSERT INTO by_row SELECT i, 'again ' || i % 5 FROM generate_series(20001, 20500) AS i; DELETE FROM by_row WHERE id > 20000;
	SELECT count(qwen_classify(i::text, NULL::kind, calibrate => true)) FROM generate_series(1, 500) AS i;
	SELECT count(qwen_score('x', i::text, calibrate => true)) FROM generate_series(1, 500) AS i;};
sql("$rounds $bytes " . ($rounds x 6) . $bytes);
cmp_ok(sql('SELECT max(bytes) - min(bytes) FROM memory'), '<', 200_000, '10,000 calls leave nothing behind but a larger buffer');

# kill -9 of the engine under a write.
sub kill_under
{
	my ($table, $setting) = @_;
	my $engine = engine_pid($node);
	sql("TRUNCATE $table");
	my $call = start_call($node, "SET qwen3dm.trigger_on_error = '$setting';
		SELECT qwen_count_tokens('connected'); SELECT pg_sleep(1);
		INSERT INTO $table SELECT i, 'killed ' || i FROM generate_series(1, 300) AS i;");
	sleep(0.5);
	kill('STOP', $engine); # so that nothing is answered before
	sleep(1);
	kill('KILL', $engine);
	my ($status, undef, $errors) = finish_call($call);
	$node->poll_query_until('postgres', "SELECT state = 'ready' AND engine_pid <> $engine FROM qwen_model_status")
	  || BAIL_OUT('no new engine');
	return ($status, $errors);
}

for my $table (qw(by_row by_statement))
{
	my ($status, $errors) = kill_under($table, 'raise');
	isnt($status, 0, "$table, raise: the write fails");
	like($errors, qr/ERROR: +the qwen3dm engine stopped/, "$table, raise: with the engine's error");
	is(sql("SELECT count(*) FROM $table"), '0', "$table, raise: and nothing is written");

	my $log_size = -s $node->logfile;
	($status, $errors) = kill_under($table, 'null');
	is($status, 0, "$table, null: the write passes") || diag($errors);
	is(sql("SELECT count(*), count(kind) BETWEEN 0 AND 299 FROM $table"), '300|t', "$table, null: all rows are there, not all with values");
	is(sql("SELECT count(*) FROM $table WHERE kind <> qwen_classify(note, NULL::kind)"), '0', "$table, null: values that are there are right");
	my $log = substr(slurp_file($node->logfile), $log_size);
	my $lines = () = $log =~ /LOG: +trigger "kind" stored NULL in column "kind" of table "$table"/g;
	is($lines, 1, "$table, null: one line in the log");
	unlike($log, qr/killed \d/, "$table, null: without the rows' text");
	sql("UPDATE $table SET note = note WHERE kind IS NULL"); # triggers fire in the order of their names
	is(sql("SELECT count(kind) FROM $table"), '300', "$table: an update later fills the gaps");
}

# No engine at all.
sql(q{ALTER SYSTEM SET qwen3dm.model = ''});
$node->reload;
wait_for_state($node, 'no model');
for my $table (qw(by_row by_statement))
{
	my (undef, undef, $errors) = $node->psql('postgres', "INSERT INTO $table VALUES (901, 'no model')");
	like($errors, qr/ERROR: /, "$table, no model: the write fails");
	my $since = time();
	sql("SET qwen3dm.trigger_on_error = 'null'; INSERT INTO $table SELECT i, 'no model' FROM generate_series(901, 1100) AS i");
	took(time() - $since, 5, "$table, no model: 200 rows pass");
	is(sql("SELECT count(*), count(risk), count(kind) FROM $table WHERE id > 900"), '200|0|0', "$table, no model: with NULL");
}
sql(q{ALTER SYSTEM RESET qwen3dm.model});
$node->stop;

# A write can be canceled while it waits, in both settings.
$node = qwen_node('triggers_slow', model => slow_model());
sql(q{CREATE TABLE notes (id int PRIMARY KEY, note text, risk float8);
	CREATE TRIGGER risk BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('note', 'risk', 'fraud')});
sql(q{SELECT qwen_task_create('fraud', 'It looks like card fraud.')});
for my $setting (qw(raise null))
{
	my $engine = engine_pid($node);
	kill('STOP', $engine);
	my $call = start_call($node, "SET qwen3dm.trigger_on_error = '$setting'; INSERT INTO notes VALUES (1, 'canceled');", name => 'writer');
	sleep(0.5);
	my $since = time();
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer'});
	my ($status, undef, $errors, $seconds) = finish_call($call, $since);
	kill('CONT', $engine);
	like($errors, qr/canceling statement due to user request/, "$setting: canceled");
	took($seconds, 1, "$setting: cancel");
	is(sql('SELECT count(*) FROM notes'), '0', "$setting: nothing is written");
}
$node->stop;
done_testing();
