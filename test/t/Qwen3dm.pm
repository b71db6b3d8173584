# Qwen3dm.pm: what the server tests share: clusters with the extension, long answers, stopwatches.
#
# The test runner passes models: Q3_TINY_MODEL answers at once; Q3_SLOW_MODEL takes tens of
# seconds for a long answer, so that something can happen to it meanwhile; Q3_THINKING_MODEL thinks;
# Q3_EMBEDDING_MODEL is for vectors of 64 coordinates; Q3_DEMO_MODEL is one that knows a language,
# or empty; Q3_JOBS is a folder with the model of the three jobs, their rows and queries.
package Qwen3dm;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  tiny_model slow_model thinking_model embedding_model qwen_node wait_for_state wait_for_server status_of engine_pid running idle
  start_call start_long_call finish_call wait_running took process_exists wait_gone within
);

# A prompt and options for which the slow model does not stop by itself.
our $LONG = q{qwen_infer('Tell me everything that you know.', max_tokens => 3000,
	temperature => 0, mode => 'precise')};

sub tiny_model { return $ENV{Q3_TINY_MODEL} || die "Q3_TINY_MODEL is not set"; }
sub thinking_model { return $ENV{Q3_THINKING_MODEL} || die "Q3_THINKING_MODEL is not set"; }
sub embedding_model { return $ENV{Q3_EMBEDDING_MODEL} || die "Q3_EMBEDDING_MODEL is not set"; }
sub slow_model { return $ENV{Q3_SLOW_MODEL} || die "Q3_SLOW_MODEL is not set"; }

# A started cluster with the extension in database postgres and a main model that is ready.
# Options: model, conf (lines), preload (0: not), ready (0: do not wait), streaming (1: for standbys)
sub qwen_node
{
	my ($name, %opt) = @_;
	my $model = defined $opt{model} ? $opt{model} : tiny_model();
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => $opt{streaming});
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'qwen3dm'\n")
	  unless defined $opt{preload} && !$opt{preload};
	$node->append_conf('postgresql.conf', "qwen3dm.model = '$model'\nqwen3dm.threads = 2\n"
		  . "restart_after_crash = on\n" . ($opt{conf} || ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION qwen3dm');
	wait_for_state($node, 'ready') unless defined $opt{ready} && !$opt{ready};
	return $node;
}

sub wait_for_state
{
	my ($node, $state) = @_;
	return $node->poll_query_until('postgres', q{SELECT state FROM qwen_model_status WHERE service = 'main'}, $state)
	  || BAIL_OUT("the model does not become $state: "
		  . $node->safe_psql('postgres', 'SELECT * FROM qwen_model_status'));
}

# Waits for the end of crash recovery.
sub wait_for_server
{
	my ($node) = @_;
	return within(60, sub { system_log('pg_isready', '-q', '-d', $node->connstr) == 0 });
}

# Of the main model, as the next ones.
sub status_of
{
	my ($node, $columns) = @_;
	return $node->safe_psql('postgres', "SELECT $columns FROM qwen_model_status WHERE service = 'main'");
}

sub engine_pid { return status_of($_[0], 'engine_pid'); }

# Number of requests that the engines are working on.
sub running { return $_[0]->safe_psql('postgres', 'SELECT count(*) FROM qwen_stat_activity'); }

# Nothing runs, and nothing is held: true within the second or two that the status lags behind, else
# false.
sub idle
{
	my ($node) = @_;
	return within(
		3,
		sub {
			$node->safe_psql('postgres', q{SELECT NOT EXISTS (SELECT FROM qwen_stat_activity)
				AND bool_and(running = 0 AND queued = 0 AND kv_cache_used = 0) FROM qwen_model_status}) eq 't';
		});
}

# Calls the code until it returns true; false after so many seconds.
sub within
{
	my ($seconds, $code) = @_;
	my $end = time() + $seconds;
	until ($code->())
	{
		return 0 if time() > $end;
		sleep(0.02);
	}
	return 1;
}

# Starts psql with the given statements; the handle goes to finish_call.
# Options: dbname, user, name (application_name)
sub start_call
{
	my ($node, $sql, %opt) = @_;
	my %call = (out => '', err => '', started => time());
	# From a file: IPC::Run feeds a pipe only while somebody waits for the program.
	my $file = PostgreSQL::Test::Utils::tempdir() . '/call.sql';
	append_to_file($file, "$sql\n");
	my $connstr = $node->connstr($opt{dbname} || 'postgres');

	$connstr .= " user=$opt{user}" if $opt{user};
	$connstr .= " application_name=" . ($opt{name} || 'call');
	$call{handle} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $connstr ],
		'<', '/dev/null', '>', \$call{out}, '2>', \$call{err});
	return \%call;
}

# Starts an answer that takes long, and returns when it is being written.
sub start_long_call
{
	my ($node, %opt) = @_;
	my $call = start_call($node, ($opt{before} || '') . "SELECT length($LONG);", %opt);
	wait_running($node) || BAIL_OUT("the long call does not run: $call->{err}");
	return $call;
}

# Waits until so many answers (default: one) are being written.
sub wait_running
{
	my ($node, $count) = @_;
	$count ||= 1;
	return $node->poll_query_until('postgres',
		"SELECT count(*) >= $count FROM qwen_stat_activity WHERE output_tokens > 0");
}

# Waits for the end of a call: its exit status, output and errors, and the seconds since $since.
sub finish_call
{
	my ($call, $since) = @_;
	eval { IPC::Run::finish($call->{handle}); };
	my $status = $call->{handle}->full_result(0);
	chomp($call->{out}, $call->{err});
	return ($status >> 8, $call->{out}, $call->{err}, time() - ($since || $call->{started}));
}

# Passes when it took less than the limit; says how long in any case.
sub took
{
	my ($seconds, $limit, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	diag(sprintf("%s: %.0f ms", $what, $seconds * 1000));
	return cmp_ok($seconds, '<', $limit, "$what within $limit s");
}

# Exists and is no zombie.
sub process_exists
{
	my ($pid) = @_;
	open(my $stat, '<', "/proc/$pid/stat") or return 0;
	my $line = <$stat> // '';
	close($stat);
	return $line =~ /\) [^ZX] / ? 1 : 0;
}

sub wait_gone
{
	my ($pid, $seconds) = @_;
	return within($seconds, sub { !process_exists($pid) });
}

1;
