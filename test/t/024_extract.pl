# Extraction never fails to cast: rows of random composite types, on a model of random weights; and
# aggregates over more text than the context has room for, in parallel plans, too.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('extract', conf => "qwen3dm.max_tokens = 1500\nmin_parallel_table_scan_size = 0\n"
	  . "parallel_setup_cost = 0\nparallel_tuple_cost = 0\n");
my $seed = $ENV{Q3_SEED} || 20261124;
srand($seed);
diag("seed $seed");

my @scalars = ('smallint', 'int', 'bigint', 'numeric', 'numeric(6, 2)', 'numeric(3, 3)', 'numeric(4)', 'real',
	'double precision', 'text', 'varchar(3)', 'char(2)', 'boolean', 'date', 'timestamp', 'timestamptz', 'uuid',
	'mood', 'color', 'needed', 'small', 'truth', 'price', 'ratio');
$node->safe_psql('postgres', q{
	CREATE TYPE mood AS ENUM ('fine', 'so "so"', U&'\00e9t\00e9', 'a\b');
	CREATE DOMAIN color AS text CHECK (VALUE IN ('red', 'green'));
	CREATE DOMAIN needed AS varchar(2) NOT NULL;
	CREATE DOMAIN small AS int CHECK (VALUE IN (1, 2, 30));
	CREATE DOMAIN truth AS boolean CHECK (VALUE IN (true, false));
	CREATE DOMAIN price AS money CHECK (VALUE IN ('1.5', '2'));
	CREATE DOMAIN ratio AS real CHECK (VALUE IN ('NaN', 1.5, 3));});

# A random composite type of so many levels, by name.
my $types = 0;
my @statements;

sub random_type
{
	my ($levels) = @_;
	my $name = 't' . ++$types;
	my @columns;
	for my $i (1 .. 1 + int(rand(4)))
	{
		my $type = $scalars[ rand(@scalars) ];
		$type = random_type($levels - 1) if $levels > 0 && rand() < 0.3;
		$type .= '[]' if rand() < 0.1 && $type ne 'needed';
		push @columns, sprintf('"c %d%s" %s%s', $i, rand() < 0.1 ? '""' : '', $type, rand() < 0.6 ? ' NOT NULL' : '');
	}
	push @statements, "CREATE TABLE $name (" . join(', ', @columns) . ');';
	return $name;
}

# Every call gives a row, or says that max_tokens were too few; a few of those are to be expected.
my $n = 200;
my @roots = map { random_type(2) } 1 .. $n;
$node->safe_psql('postgres', join("\n", @statements));
$node->safe_psql('postgres', q{
	CREATE TABLE outcomes (type text, outcome text);
	CREATE PROCEDURE try(type text, i int) LANGUAGE plpgsql AS $$
	DECLARE outcome text;
	BEGIN
		EXECUTE format('INSERT INTO %I SELECT (qwen_extract(%L, NULL::%I, mode => %L, seed => %s, temperature => %s)).*',
			type, 'text ' || i, type, CASE WHEN i % 2 = 0 THEN 'efficient' ELSE 'precise' END, i, CASE WHEN i % 3 = 0 THEN 0 ELSE 1 END);
		INSERT INTO outcomes VALUES (type, 'row');
	EXCEPTION WHEN program_limit_exceeded THEN
		INSERT INTO outcomes VALUES (type, 'max_tokens');
	WHEN OTHERS THEN
		INSERT INTO outcomes VALUES (type, SQLSTATE || ' ' || SQLERRM);
	END $$;});
$node->safe_psql('postgres', join("\n", map { my $t = $_; map { "CALL try('$t', $_);" } 1 .. 5 } @roots));
diag('outcomes of ' . 5 * $n . ' extractions: ' . $node->safe_psql('postgres',
	'SELECT outcome, count(*) FROM outcomes GROUP BY 1 ORDER BY 2 DESC'));
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT type || ': ' || outcome, E'\n') FROM outcomes
	WHERE outcome NOT IN ('row', 'max_tokens')}), '', 'nothing fails to cast');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM outcomes WHERE outcome = 'row'}), '>', 5 * $n / 2,
	'more than half of the calls give a row');

# A check that the schema does not know, in a parallel plan: an error of the row.
$node->safe_psql('postgres', q{
	CREATE DOMAIN odd AS int NOT NULL CHECK (VALUE > 2147483646);
	CREATE TYPE odds AS (n odd);
	CREATE TABLE texts WITH (parallel_workers = 2) AS SELECT i, 'text number ' || i AS t FROM generate_series(1, 2000) AS i;
	CREATE TABLE page WITH (parallel_workers = 2) AS SELECT * FROM texts WHERE i <= 60;
	ANALYZE texts, page;});
my $parallel = 'SET force_parallel_mode = on; SET max_parallel_workers_per_gather = 2;';
is($node->safe_psql('postgres', "$parallel SELECT count(*), count(x) FROM (SELECT qwen_extract(t, NULL::odds, "
		. "on_error => 'null') AS x FROM texts WHERE i <= 20) AS s"), '20|0', 'on_error in a parallel plan');

# One that leaves a function half way is not to be passed over there, where nothing could clean up.
$node->safe_psql('postgres', q{
	CREATE FUNCTION is_odd(i int) RETURNS bool LANGUAGE plpgsql PARALLEL SAFE AS 'DECLARE n odd; BEGIN n := i; RETURN true; END';
	CREATE DOMAIN checked AS int NOT NULL CHECK (is_odd(VALUE));
	CREATE TYPE checks AS (n checked);});
my $checks = "SELECT count(*), count(x) FROM (SELECT qwen_extract(t, NULL::checks, on_error => 'null') AS x FROM texts WHERE i <= 20) AS s";
my (undef, undef, $complaints) = $node->psql('postgres', "$parallel $checks");
like($complaints, qr/ERROR: +the answer cannot be cast to type checks\n/, 'a function that fails below a check, in a parallel plan');
unlike($complaints, qr/WARNING/, 'without warnings');
is($node->safe_psql('postgres', "SET max_parallel_workers_per_gather = 0; $checks"), '20|0', 'and in a serial one');

# An aggregate of a table of one page, which one worker reads, is the serial one.
$node->append_conf('postgresql.conf', "qwen3dm.max_tokens = 20\nqwen3dm.context_length = 1024\n");
$node->reload;
ok(within(30, sub { status_of($node, 'context_length || state') eq '1024ready' }), 'a smaller context');
my $aggregate = q{SELECT md5(qwen_reduce_agg(t, 'List them.')) FROM page};
my $long = q{SELECT md5(qwen_summarize_agg(t)) FROM texts};
my $serial = $node->safe_psql('postgres', "SET max_parallel_workers_per_gather = 0; $aggregate");
my $one = 'SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2;';
like($node->safe_psql('postgres', "$one EXPLAIN (COSTS OFF) $aggregate"), qr/Partial Aggregate/, 'a parallel plan');
is($node->safe_psql('postgres', "$one $aggregate"), $serial, 'parallel and serial give the same');
my $whole = $node->safe_psql('postgres', "SET max_parallel_workers_per_gather = 0; $long");
is($node->safe_psql('postgres', "SET max_parallel_workers_per_gather = 0; $long"), $whole,
	'more than the context has room for: the same every time');
like($node->safe_psql('postgres', 'SET max_parallel_workers_per_gather = 2; ' . $long), qr/^[0-9a-f]{32}$/,
	'and in several workers it has an answer');

# Cancel, and nothing is left.
my $call = start_call($node, 'SET statement_timeout = 300; SELECT qwen_summarize_agg(repeat(t, 20)) FROM texts, generate_series(1, 50);');
my ($status, $out, $err, $seconds) = finish_call($call);
like($err, qr/statement timeout/, 'a canceled aggregate');
took($seconds, 2, 'the cancel');
ok(idle($node), 'nothing is held');

$node->stop;
done_testing();
