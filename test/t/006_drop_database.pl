# DROP DATABASE waits for every process to accept a barrier: ours must not make it wait.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;
use Time::HiRes qw(time);

my $node = qwen_node('dropdb', model => slow_model());

sub timed
{
	my ($sql, $what) = @_;
	my $since = time();
	is($node->psql('postgres', $sql), 0, $what);
	took(time() - $since, 1, $what);
	return;
}

$node->safe_psql('postgres', "CREATE DATABASE $_ STRATEGY file_copy") foreach qw(other used);
$node->safe_psql('used', 'CREATE EXTENSION qwen3dm');
is($node->safe_psql('used', q{SELECT qwen_infer('a', max_tokens => 2) IS NOT NULL}),
	't', 'a database that the model has answered');

my $call = start_long_call($node);
timed('DROP DATABASE other', 'DROP DATABASE of another database during an answer');
timed('DROP DATABASE used', 'DROP DATABASE of a database that used the model');

# The answer's own database, by force: that is pg_terminate_backend.
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->safe_psql('busy', 'CREATE EXTENSION qwen3dm');
(my $other = $Qwen3dm::LONG) =~ s/Tell me/Please tell me/; # an equal call would only share the first
my $busy = start_call($node, "SELECT length($other);", dbname => 'busy');
ok(wait_running($node, 2), 'two answers are written');
timed('DROP DATABASE busy WITH (FORCE)', 'DROP DATABASE FORCE of the database of an answer');
my ($status, $out, $err) = finish_call($busy);
isnt($status, 0, 'its call is terminated');
is(running($node), '1', 'the other call goes on');

timed('CREATE TABLESPACE ts LOCATION \'' . PostgreSQL::Test::Utils::tempdir() . '\'',
	'CREATE TABLESPACE');
timed('DROP TABLESPACE ts', 'DROP TABLESPACE');

$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM qwen_stat_activity');
finish_call($call);
$node->stop;
done_testing();
