# Who may see and do what: requests of others, the model's path, settings.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('privileges', model => slow_model());
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE monitor LOGIN;
	GRANT pg_monitor TO monitor');

sub as_user
{
	my ($user, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $user ]);
	return $rc == 0 ? $out : $err;
}

# Nobody may ask who has not been granted it.
my $ask = q{SELECT qwen_infer('a', max_tokens => 2) IS NOT NULL};
like(as_user('alice', $ask), qr/permission denied for function qwen_infer/, "without a grant: PostgreSQL's own error");
like(as_user('monitor', $ask), qr/permission denied for function qwen_infer/, 'nor may those who watch');
like(as_user('alice', q{SELECT qwen_grant('alice')}), qr/permission denied/, 'one cannot grant it to oneself');
$node->safe_psql('postgres', q{SELECT qwen_grant('alice')});
is(as_user('alice', $ask), 't', 'with a grant one may ask');
like(as_user('alice', q{SELECT qwen_grant('bob')}), qr/permission denied/, 'but not pass it on');
like(as_user('alice', q{SELECT qwen_unpin_prefixes()}), qr/permission denied for function/, 'nor do what concerns all');
like(as_user('alice', q{SELECT qwen_stat_reset()}), qr/permission denied for function/, 'or forget what was used');
$node->safe_psql('postgres', q{SELECT qwen_grant('alice', admin => true)});
is(as_user('alice', q{SELECT qwen_unpin_prefixes() IS NOT NULL}), 't', 'unless that is granted too');

# A role that has the right through another one.
$node->safe_psql('postgres', q{CREATE ROLE analysts; GRANT analysts TO bob; SELECT qwen_grant('analysts')});
is(as_user('bob', $ask), 't', 'a member of a role that may ask');

# Grants are dumped and restored, and so is what was taken back.
$node->safe_psql('postgres', 'REVOKE EXECUTE ON FUNCTION qwen_tokenize(text) FROM alice');
my $rights = q{SELECT string_agg(r || ' ' || f.function, ',' ORDER BY r, f.function::text)
	FROM qwen3dm_functions() AS f, unnest(ARRAY['alice', 'bob', 'analysts', 'monitor']) AS r
	WHERE has_function_privilege(r, f.function, 'EXECUTE')};
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'is restored');
is($node->safe_psql('restored', $rights), $node->safe_psql('postgres', $rights), 'with the same rights');
$node->safe_psql('postgres', q{SELECT qwen_revoke('analysts')});
like(as_user('bob', $ask), qr/permission denied for function qwen_infer/, 'what is revoked is gone');

# In a schema of its own, which is opened with the functions.
$node->safe_psql('postgres', 'CREATE DATABASE apart');
$node->safe_psql('apart', 'CREATE SCHEMA models; CREATE EXTENSION qwen3dm SCHEMA models');
my $apart = q{SELECT models.qwen_infer('a', max_tokens => 2) IS NOT NULL};
my ($rc, $out, $err) = $node->psql('apart', $apart, extra_params => [ '-U', 'alice' ]);
like($err, qr/permission denied for schema models/, 'a schema of its own is closed');
$node->safe_psql('apart', q{SELECT models.qwen_grant('alice')});
($rc, $out, $err) = $node->psql('apart', $apart, extra_params => [ '-U', 'alice' ]);
is($out, 't', 'and opened by the grant');
$node->safe_psql('postgres', 'DROP DATABASE apart');

my $call = start_long_call($node, user => 'alice');
my $rows = q{SELECT count(*) FROM qwen_stat_activity WHERE output_tokens IS NOT NULL};
is(as_user('alice', $rows), '1', 'alice sees her request');
is(as_user('bob', $rows), '0', 'bob does not');
is(as_user('monitor', $rows), '1', 'a role with pg_read_all_stats does');
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM qwen_stat_activity');
finish_call($call);

is(as_user('alice', 'SELECT state FROM qwen_model_status'), 'ready', 'anybody sees whether there is a model');
my $row = as_user('alice', 'SELECT s::text FROM qwen_model_status s');
unlike($row, qr/\Q@{[ slow_model() ]}\E/, "but not the model's path");
like(as_user('alice', 'SHOW qwen3dm.model'), qr/permission denied|must be superuser/, 'nor the setting');
like(as_user('alice', q{SET qwen3dm.model = '/etc/passwd'}),
	qr/permission denied|cannot be changed/, 'and cannot set it');
like(as_user('alice', q{ALTER ROLE alice SET qwen3dm.model = '/etc/passwd'}),
	qr/permission denied|cannot be changed/, 'nor for her role');
is(as_user('alice', q{SET qwen3dm.max_tokens = 5; SHOW qwen3dm.max_tokens}), '5', 'her own limits she sets herself');
like(as_user('alice', 'CREATE EXTENSION qwen3dm'), qr/ERROR/, 'the extension is for superusers to create');
is(as_user('alice', q{LOAD 'qwen3dm'}) =~ /permission|access/ ? 1 : 0, 1, 'nor can she LOAD it by path');

# The socket belongs to the server's user alone.
my $engine = engine_pid($node);
my $name = '';
open(my $unix, '<', '/proc/net/unix') or die;
my %inodes = map { readlink($_) =~ /^socket:\[(\d+)\]/ ? ($1 => 1) : () }
  grep { defined readlink($_) } glob("/proc/$engine/fd/*");
while (my $line = <$unix>)
{
	my @field = split ' ', $line;
	$name = $field[7] if defined $field[7] && $inodes{ $field[6] } && $field[7] ne '';
}
close($unix);
# The engine knows it by a path from the data directory.
my $path = $node->data_dir . "/$name";
ok($name ne '' && -S $path, "the engine's socket has a path in the data directory");
is((stat($path))[4], $>, "it belongs to the server's user");
is((stat($path))[2] & 0077, 0, "only the server's user can reach the socket");
is((stat($node->data_dir))[2] & 0077, 0, 'nor does anybody else reach the data directory');

# What a user writes never reaches the log.
($rc, $out, $err) = $node->psql('postgres',
	q{SET log_min_error_statement = 'panic'; SELECT qwen_infer(repeat('secretword ', 100000))});
like($err, qr/ERROR: .*(token|context)/, 'input that is too long is refused');
unlike($err, qr/secretword/, 'without repeating it to the client');
unlike(slurp_file($node->logfile), qr/ERROR:.*secretword|DETAIL:.*secretword/, 'or the log');

$node->stop;
done_testing();
