# A hot standby answers too, and goes on answering when it is promoted.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $ask = q{SELECT qwen_infer('What is it?', max_tokens => 16, temperature => 0)};
my $primary = qwen_node('primary', streaming => 1);
my $answer = $primary->safe_psql('postgres', $ask);

# The model loads while the base backup is taken: the socket and the engine are no obstacle.
my ($stdout, $stderr) =
  run_command([ 'pg_basebackup', '-D', $primary->backup_dir . '/b1', '-h', $primary->host,
		'-p', $primary->port, '-c', 'fast', '-X', 'stream', '--no-sync' ]);
is($stderr, '', 'pg_basebackup has nothing to complain about');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b1', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
wait_for_state($standby, 'ready');
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', 'it is a standby');
is($standby->safe_psql('postgres', $ask), $answer, 'the standby gives the same answer');
isnt(engine_pid($standby), engine_pid($primary), 'by an engine of its own');
$standby->safe_psql('postgres', 'SELECT qwen_stat_reset()');
$standby->safe_psql('postgres', $ask);
is($standby->safe_psql('postgres', 'SELECT requests FROM qwen_stat_roles'), '1', 'with counters of its own');

my $engine = engine_pid($standby);
$primary->stop;
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'it is promoted');
is($standby->safe_psql('postgres', $ask), $answer, 'the same answer after the promotion');
is(engine_pid($standby), $engine, 'by the same engine: the model was not loaded again');
is( $standby->safe_psql('postgres',
		"CREATE TABLE t AS $ask AS a; SELECT a = (SELECT a FROM t) FROM t"),
	't', 'and its answers can be stored');

$standby->stop;
done_testing();
