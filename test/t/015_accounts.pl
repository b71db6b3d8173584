# What each role has used: exact to the token over many sessions, whatever becomes of them; and it
# survives restarts.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(sleep);

my $node = qwen_node('accounts', conf => "max_connections = 60\nqwen3dm.flush_interval = 1s\n"
	  . "qwen3dm.max_accounts = 100\n");
my $file = $node->data_dir . '/pg_stat/qwen3dm.stat';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carl LOGIN;
	SELECT qwen_grant(r::regrole) FROM unnest(ARRAY['alice', 'bob', 'carl']) AS r;
	CREATE TABLE told (who name, prompt_tokens int, cached_tokens int, output_tokens int);
	GRANT ALL ON told TO PUBLIC;});

# ---- Exact: what the calls told their sessions is what is in the view, at once ----
my $session = 0;

# A session that notes what its calls told. Prompts differ, so that nothing is deduplicated.
sub note_calls
{
	my ($user, $rows, $tokens) = @_;
	$session++;
	return start_call($node, qq{INSERT INTO told SELECT current_user, d.prompt_tokens, d.cached_tokens, d.output_tokens
		FROM generate_series(1, $rows) AS i,
		qwen_infer_details('Session $session asks about number ' || i, max_tokens => $tokens + i % 5) AS d;},
		user => $user);
}

my $told = q{SELECT who, count(*), sum(prompt_tokens), sum(cached_tokens), sum(output_tokens) FROM told GROUP BY who ORDER BY who};
my $counted = q{SELECT usename, requests, prompt_tokens, cached_tokens, output_tokens
	FROM qwen_stat_roles WHERE usename IN ('alice', 'bob') ORDER BY usename};

# Meanwhile carl gives up again and again, at any moment: whole batches, streams, single calls.
sub restless
{
	my ($i) = @_;
	my $sql = "\\set ON_ERROR_STOP off\n";
	for my $round (1 .. 15)
	{
		my $ms = 2 + ($i * 37 + $round * 17) % 60;
		my $what = "'Restless $i, round $round, row ' || n";
		$sql .= "SET statement_timeout = '${ms}ms';\n";
		$sql .= "SELECT count(qwen_infer($what, max_tokens => 4)) FROM generate_series(1, 60) AS n;\n";
		$sql .= "SET statement_timeout = 0;\n";
		$sql .= "SELECT 1 FROM generate_series(1, 30) AS n WHERE qwen_infer('first ' || $what, max_tokens => 3) IS NOT NULL LIMIT 2;\n";
		$sql .= "BEGIN; SAVEPOINT a; DECLARE c CURSOR FOR SELECT qwen_stream('stream ' || $what, max_tokens => 200) FROM generate_series(1, 1) AS n;\n";
		$sql .= "FETCH 2 FROM c; ROLLBACK TO a; SELECT count(qwen_infer('after ' || $what, max_tokens => 1)) FROM generate_series(1, 3) AS n; COMMIT;\n";
		$sql .= "DO \$\$ BEGIN PERFORM qwen_infer('bad $i, $round, ' || n, max_tokens => 2), 1 / (5 - n) FROM generate_series(1, 9) AS n; EXCEPTION WHEN division_by_zero THEN NULL; END \$\$;\n";
	}
	return start_call($node, $sql, user => 'carl');
}

my @calls = ((map { note_calls($_ % 2 ? 'alice' : 'bob', 20, $_) } 1 .. 8), map { restless($_) } 1 .. 3);
for my $call (@calls[ 0 .. 7 ])
{
	my ($status, $out, $err) = finish_call($call);
	is($err, '', 'a session that notes what it is told has no error');
}
is(sql($counted), sql($told), 'the view says what the calls told, to the token');
finish_call($_) for @calls[ 8 .. 10 ];

# All roles together are what the engine itself has counted, what was given up included.
my $engine_total = q{SELECT requests || ' ' || prompt_tokens || ' ' || output_tokens FROM qwen_model_status};
my $view_total = q{SELECT sum(requests) || ' ' || sum(prompt_tokens) || ' ' || sum(output_tokens) FROM qwen_stat_roles};
ok(idle($node), 'nothing runs any more');
sleep(1.5); # the status lags behind by a second
diag(sql(q{SELECT string_agg(usename || ': ' || requests || ' requests, ' || canceled || ' canceled', '; ') FROM qwen_stat_roles}));
is(sql($view_total), sql($engine_total), 'requests and tokens of all roles are those of the engine');
cmp_ok(sql(q{SELECT canceled FROM qwen_stat_roles WHERE usename = 'carl'}), '>', 20, 'some were given up');
cmp_ok(sql(q{SELECT requests - canceled FROM qwen_stat_roles WHERE usename = 'carl'}), '>', 20, 'and some were not');
is(sql($counted), sql($told), 'which changed nothing for others');

# ---- An engine that is killed takes requests with it: errors without tokens ----
my $before = sql($counted);
my $errors = sql(q{SELECT sum(errors) FROM qwen_stat_roles});
my $call = start_call($node, q{SELECT count(qwen_infer('kill ' || i, max_tokens => 3000)) FROM generate_series(1, 300) AS i;}, user => 'carl');
ok(wait_running($node), 'a batch is being answered');
kill('KILL', engine_pid($node));
my ($status, $out, $err) = finish_call($call);
like($err, qr/engine stopped/, 'the engine is killed');
wait_for_state($node, 'ready');
cmp_ok(sql(q{SELECT sum(errors) FROM qwen_stat_roles}), '>', $errors, 'what it had not answered are errors');
is(sql($counted), $before, 'nothing else is lost');

# ---- Restarts ----
my $all = q{SELECT * FROM qwen3dm_accounts() ORDER BY usesysid, datid, kind, mode};
$before = sql($all);
$node->restart;
wait_for_state($node, 'ready');
is(sql($all), $before, 'a restart keeps everything');

sub wait_written
{
	my $then = -M $file;
	return within(10, sub { -e $file && -M $file < $then });
}

ok(sql(q{SELECT qwen_count_tokens('a') > 0}), 'one more request');
ok(wait_written(), 'is written within the interval');
$before = sql($all);
$node->stop('immediate');
$node->start;
wait_for_state($node, 'ready');
is(sql($all), $before, 'an immediate stop keeps what was written');

# kill -9 of everything
sql(q{SELECT qwen_count_tokens('a')});
ok(wait_written(), 'another one is written');
$before = sql($all);
my @pids = split /\n/, sql(q{SELECT pid FROM pg_stat_activity UNION ALL SELECT engine_pid FROM qwen_model_status});
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
$node->kill9;
kill('KILL', @pids);
ok(within(10, sub { !grep { process_exists($_) } $postmaster, @pids }), 'everything is killed');
within(10, sub { !grep { kill(0, $_) } $postmaster, @pids }); # and reaped
$node->start;
wait_for_state($node, 'ready');
is(sql($all), $before, 'kill -9 of everything keeps what was written');

# A crash of a backend restarts all processes, and the memory with them.
sql(q{SELECT qwen_count_tokens('a')});
ok(wait_written(), 'a third one is written');
$before = sql($all);
my $victim = $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0);
kill('KILL', $victim->query_safe('SELECT pg_backend_pid()'));
eval { $victim->quit; };
ok(wait_for_server($node), 'a crash of a backend');
wait_for_state($node, 'ready');
is(sql($all), $before, 'keeps what was written');

# The worker alone: the memory stays, written or not.
sql(q{SELECT qwen_count_tokens('a')});
$before = sql($all);
my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'qwen3dm'});
sql("SELECT pg_terminate_backend($worker)");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'qwen3dm' AND pid <> $worker");
wait_for_state($node, 'ready');
is(sql($all), $before, 'a new worker changes nothing');

# ---- A file that is no good ----
sub start_with_file
{
	my ($content, $what) = @_;
	$node->stop;
	unlink($file);
	append_to_file($file, $content) if defined $content;
	my $log = -s $node->logfile;
	$node->start;
	wait_for_state($node, 'ready');
	my $told = slurp_file($node->logfile, $log) =~ /ignoring file "pg_stat\/qwen3dm.stat"/;
	return (sql('SELECT coalesce(sum(requests), 0) FROM qwen_stat_roles'), $told ? 1 : 0);
}

$node->stop;
my $good = slurp_file($file);
$node->start;
my $requests = sql('SELECT sum(requests) FROM qwen_stat_roles');
is(join(' ', start_with_file($good)), "$requests 0", 'a good file');
is(join(' ', start_with_file(substr($good, 0, length($good) - 20))), '0 1', 'a file that is too short is ignored, with a message');
is(join(' ', start_with_file($good . 'x')), '0 1', 'one that is too long');
my $flipped = $good;
substr($flipped, length($good) / 2, 1) ^= "\x01";
is(join(' ', start_with_file($flipped)), '0 1', 'one with a wrong bit');
is(join(' ', start_with_file('')), '0 1', 'an empty one');
is(join(' ', start_with_file("\x71\x51\x77\x33\x01\0\0\0\x90\0\0\0\xff\xff\xff\xff")), '0 1', 'one that promises too much');
is(join(' ', start_with_file(undef)), '0 0', 'none');
is(join(' ', start_with_file($good)), "$requests 0", 'the good one again');

# ---- More accounts than there is room for: nothing is lost, but whose it was ----
sql(q{SELECT qwen_stat_reset();
	DO $$ BEGIN FOR i IN 1..60 LOOP EXECUTE 'CREATE ROLE many' || i; PERFORM qwen_grant(('many' || i)::regrole);
	EXECUTE 'SET ROLE many' || i; PERFORM qwen_count_tokens('a'), qwen_tokenize('a'); RESET ROLE; END LOOP; END $$});
is(sql(q{SELECT sum(requests), count(*) FROM qwen3dm_accounts()}), '120|101', 'a full table: every request is counted');
is(sql(q{SELECT requests, usesysid FROM qwen_stat_roles WHERE usename IS NULL}), '20|', 'those without a place together');
sql(q{SELECT qwen_stat_reset()});
is(sql(q{SELECT count(*) FROM qwen3dm_accounts()}), '0', 'a reset makes room');
$node->stop;

# ---- A live request is beside its statement in pg_stat_statements ----
my $slow = qwen_node('statements', model => slow_model(),
	conf => "shared_preload_libraries = 'pg_stat_statements, qwen3dm'\n");
$slow->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements; CREATE ROLE dora LOGIN; CREATE ROLE eve LOGIN');
$slow->safe_psql('postgres', "SELECT qwen_grant('dora')");
# once to its end, so that the statement is known
$slow->safe_psql('postgres', q{SELECT length(qwen_infer('short', max_tokens => 2))}, extra_params => [ '-U', 'dora' ]);
$call = start_call($slow, q{SELECT length(qwen_infer('Tell me everything that you know.', max_tokens => 3000));}, user => 'dora');
ok(wait_running($slow), 'an answer is being written');
is($slow->safe_psql('postgres', q{SELECT s.query FROM qwen_stat_activity AS a JOIN pg_stat_statements AS s USING (queryid)}),
	'SELECT length(qwen_infer($1, max_tokens => $2))', 'which statement asks is known by its queryid');
is($slow->safe_psql('postgres', q{SELECT count(*) FROM qwen_stat_activity AS a JOIN pg_stat_activity AS p ON p.pid = a.pid AND p.query_id = a.queryid}),
	'1', 'as in pg_stat_activity');
my ($rc, $seen) = $slow->psql('postgres', 'SELECT count(*) FROM qwen_stat_activity', extra_params => [ '-U', 'eve' ]);
is($seen, '0', 'others see nothing of it');
$slow->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM qwen_stat_activity');
finish_call($call);
ok( $slow->poll_query_until('postgres',
		q{SELECT canceled = 1 AND requests = 2 AND output_tokens > 2 FROM qwen_stat_roles WHERE usename = 'dora'}),
	'what was written until it was canceled is counted');
$slow->stop;
done_testing();
