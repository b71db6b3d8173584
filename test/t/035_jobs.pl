# The model in test/models and the three jobs that it was trained for: the queries of each job run and find the truth,
# and thinking finds it where an answer at once does not. Rows are held-out ones, 160 of each job.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $jobs = $ENV{Q3_JOBS} or die 'Q3_JOBS is not set';
my $node = qwen_node('jobs', model => "$jobs/three-jobs.gguf");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(qq{
	CREATE TABLE questions (question int, job text, kind text, hard bool, task text, instruction text, labels jsonb, schema text);
	CREATE TABLE held_out (id int, question int, body text, truth text);
	COPY questions FROM '$jobs/questions.csv' CSV HEADER;
	COPY held_out FROM '$jobs/rows.csv' CSV HEADER;
	CREATE TABLE answers (id int, way text, answer text);
	-- Every question is one query over its rows.
	CREATE PROCEDURE ask(way text, options text) LANGUAGE plpgsql AS \$\$
	DECLARE q record; call text;
	BEGIN
		FOR q IN SELECT * FROM questions LOOP
			call := CASE q.task WHEN 'filter'
				THEN format('CASE WHEN qwen_filter(body, %L, %s) THEN ''yes'' ELSE ''no'' END', q.instruction, options)
				ELSE format('qwen_classify(body, %L::jsonb, system => %L, %s)', q.labels, nullif(q.instruction, ''), options) END;
			EXECUTE format('INSERT INTO answers SELECT id, %L, %s FROM held_out WHERE question = %s', way, call, q.question);
		END LOOP;
	END \$\$;
	CALL ask('efficient', 'mode => ''efficient''');
	CALL ask('precise', 'mode => ''precise''');
	CALL ask('thinking', 'mode => ''precise'', thinking => true, thinking_budget => 250');});
is(sql('SELECT count(*), count(answer) FROM answers'), '1440|1440', 'every row is answered in every way');

# Share of right answers.
sub right
{
	my ($job, $hard, $way) = @_;
	my $share = sql(qq{SELECT round(avg((answer = truth)::int), 3) FROM answers JOIN held_out USING (id) JOIN questions USING (question)
		WHERE job = '$job' AND hard = $hard AND way = '$way'});
	diag("$job, " . ($hard eq 'true' ? 'hard' : 'easy') . " rows, $way: $share");
	return $share;
}

my $lifted = 0; # in the jobs whose histories have to be added up; make eval measures it on more rows
for my $job ('payments', 'machines', 'triage')
{
	my %easy = map { $_ => right($job, 'false', $_) } ('efficient', 'precise', 'thinking');
	my %hard = map { $_ => right($job, 'true', $_) } ('efficient', 'precise', 'thinking');
	cmp_ok($easy{efficient}, '>=', 0.85, "$job: mode efficient finds the truth of easy rows");
	cmp_ok($hard{thinking}, '>=', 0.8, "$job: thinking finds that of hard rows");
	$lifted += ($hard{thinking} - $hard{precise}) / 2 if $job ne 'triage';
	cmp_ok(sql(qq{SELECT avg((e.answer = p.answer)::int) FROM answers AS e JOIN answers AS p USING (id) JOIN held_out USING (id)
			JOIN questions USING (question) WHERE e.way = 'efficient' AND p.way = 'precise' AND job = '$job'}),
		'>=', 0.93, "$job: the modes agree");
}
cmp_ok($lifted, '>=', 0.03, 'thinking pays where there is something to add up');

# What a user would write: schema.sql and queries.sql of each job.
my %histories = (
	payments => q{INSERT INTO accounts (history, truth) SELECT body, truth FROM held_out JOIN questions USING (question)
		WHERE job = 'payments' AND kind = 'history/classify' AND instruction = (SELECT max(instruction) FROM questions WHERE job = 'payments' AND kind = 'history/classify')},
	machines => q{INSERT INTO machine_histories (body, truth) SELECT body, truth FROM held_out JOIN questions USING (question)
		WHERE job = 'machines' AND kind = 'history/classify'},
	triage => q{INSERT INTO notes (body, truth) SELECT body, truth FROM held_out JOIN questions USING (question) WHERE job = 'triage' AND kind = 'matters'});
my %expect = (
	payments => ['SELECT string_agg((risk > 0.5)::text, \' \' ORDER BY id) FROM payments', 'true false',
		'SELECT avg((action = truth)::int) FROM accounts'],
	machines => ['SELECT string_agg(state, \' \' ORDER BY id) FROM windows', 'normal alarm',
		'SELECT avg((fault = truth)::int) FROM machine_histories'],
	triage => ['SELECT string_agg(department || \' \' || urgency, \' \' ORDER BY id) FROM complaints', 'billing high delivery low',
		'SELECT avg((department = truth)::int) FROM notes']);
for my $job ('payments', 'machines', 'triage')
{
	my ($query, $answer, $share) = @{ $expect{$job} };
	sql("SET search_path = public; \\i $jobs/$job/schema.sql");
	sql($histories{$job});
	my ($rc, $out, $err) = $node->psql('postgres', "\\i $jobs/$job/queries.sql", extra_params => ['-v', 'ON_ERROR_STOP=1']);
	is("$rc $err", '0 ', "$job: its queries run");
	is(sql($query), $answer, "$job: the triggers answer");
	cmp_ok(sql($share), '>=', 0.75, "$job: and the review, after thinking");
}

$node->stop;
done_testing();
