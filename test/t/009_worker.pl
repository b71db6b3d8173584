# The background worker: visible, can be terminated, reloads its settings, leaves no litter.
use strict;
use warnings;
use File::Find qw(find);
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

# Everything below a folder, at any depth, that has our name, as paths from there.
sub ours
{
	my ($folder) = @_;
	my @found;
	find(
		{   no_chdir => 1,
			wanted => sub { push @found, substr($_, length($folder) + 1) if /qwen3dm[^\/]*$/ && $_ ne $folder; } },
		$folder);
	return sort @found;
}

my $node = qwen_node('worker');
my $me = q{pg_stat_activity WHERE backend_type = 'qwen3dm'};
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

is($node->safe_psql('postgres', "SELECT count(*), count(datname) FROM $me"),
	'1|0', 'the worker is visible, in no database');
my $worker = $node->safe_psql('postgres', "SELECT pid FROM $me");
my $engine = engine_pid($node);

# The engine is the worker's child, shares no memory with the server, and would be killed first.
like(slurp_file("/proc/$engine/stat"), qr/^$engine \(.*\) \S $worker /, "the engine is the worker's child");
unlike(slurp_file("/proc/$engine/maps"), qr{/dev/zero|SYSV|PostgreSQL\.}, 'it maps no memory of the server');
cmp_ok(slurp_file("/proc/$engine/oom_score_adj"), '>=', 500, 'the OOM killer prefers it');
my @fds = grep { defined } map { readlink($_) } glob("/proc/$engine/fd/*");
my $data_dir = $node->data_dir;
is(scalar(grep { m{^\Q$data_dir\E/(base|global|pg_wal)} } @fds), 0, 'it has no files of the cluster open');
my $threads = () = glob("/proc/$worker/task/*");
is($threads, 1, 'the worker has one thread');

$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok(wait_gone($engine, 3), 'a terminated worker takes the engine with it');
ok( $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM $me AND pid <> $worker"),
	'and is started again');
wait_for_state($node, 'ready');
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 3) IS NOT NULL}), 't', 'calls work again');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster_start, 'the server did not restart');

# A setting of the engine changes at a reload.
$node->safe_psql('postgres', 'ALTER SYSTEM SET qwen3dm.threads = 1');
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT state = 'ready' AND threads = 1 FROM qwen_model_status}),
	'threads change at a reload');

# A crash restart of the server by another process: everything comes back.
$engine = engine_pid($node);
my $victim = $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0);
kill('KILL', $victim->query_safe('SELECT pg_backend_pid()'));
ok(wait_gone($engine, 5), 'crash restart: the old engine is gone');
eval { $victim->quit; };
ok(wait_for_server($node), 'crash restart: the server is back');
wait_for_state($node, 'ready');
is($node->safe_psql('postgres', q{SELECT qwen_infer('a', max_tokens => 3) IS NOT NULL}), 't', 'crash restart: calls work');

$node->stop;

# Of ours only the counters stay in the data directory, and nothing beside the server's sockets.
is(join(' ', ours($node->data_dir)), 'pg_stat/qwen3dm.stat', 'no litter in the data directory');
is(join(' ', ours($node->host)), '', 'nor beside the sockets');

# max_worker_processes is exhausted: the server runs, and the functions say why they cannot.
$node->append_conf('postgresql.conf', "max_worker_processes = 0\n");
$node->start;
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT qwen_infer('a')});
isnt($rc, 0, 'no worker: the call fails');
like($err, qr/max_worker_processes/, 'no worker: and says why');
$node->stop;
done_testing();
