# Tasks across sessions, dumps and standbys.
use strict;
use warnings;
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Utils;
use Qwen3dm;
use Test::More;

my $node = qwen_node('tasks', streaming => 1);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{SELECT qwen_task_create('tickets', 'Which department?', '["billing", "outage"]', '[{"input": "My invoice", "label": "billing"}]',
	description => E'it''s\ta "test"', latency_target => '100 ms')});
sql(q{INSERT INTO qwen3dm.tasks (name, instruction, owner, changed) VALUES ('old', 'Old?', 'somebody', '2001-01-01')});

# What one session changes counts for the next statement of another.
my $other = $node->background_psql('postgres', on_error_stop => 0);
my $ask = q{SELECT qwen_classify('x', task => 'tickets')};
like($other->query_safe($ask), qr/^(billing|outage)$/, 'another session uses the task');
sql(q{SELECT qwen_task_alter('tickets', labels => '["only"]', reset => '{examples}')});
is($other->query_safe($ask), 'only', 'and sees a change');
$other->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql(q{SELECT qwen_task_alter('tickets', labels => '["newer"]')});
is($other->query_safe($ask), 'only', 'but not in the middle of its snapshot');
$other->query_safe('COMMIT');
is($other->query_safe($ask), 'newer', 'but after it');
sql(q{SELECT qwen_task_drop('tickets')});
$other->query($ask);
like($other->{stderr}, qr/task "tickets" does not exist/, 'a dropped task is gone');
$other->quit;
sql(q{SELECT qwen_task_create('tickets', 'Which department?', '["billing", "outage"]', '[{"input": "My invoice", "label": "billing"}]',
	description => E'it''s\ta "test"', latency_target => '100 ms')});

# A role without any rights on them.
sql('CREATE ROLE nobody_special LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO nobody_special');
my ($rc, $out, $err) = $node->psql('postgres', $ask, extra_params => [ '-U', 'nobody_special' ]);
like($err, qr/permission denied for schema qwen3dm/, 'a role without rights cannot use tasks');
is($node->safe_psql('postgres', q{SELECT qwen_classify('x', '{only}')}, extra_params => [ '-U', 'nobody_special' ]),
	'only', 'but it can do without');

# pg_dump and back, in a schema of its own.
my $rows = q{SELECT t::text FROM qwen3dm.tasks AS t ORDER BY name};
my $before = sql($rows);
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
is($node->safe_psql('restored', $rows), $before, 'the dump has all tasks');
like($node->safe_psql('restored', $ask), qr/^(billing|outage)$/, 'which work');
sql('CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', q{CREATE SCHEMA "My Schema"; CREATE EXTENSION qwen3dm SCHEMA "My Schema";
	CREATE TABLE notes (id int PRIMARY KEY, note text, kind text);
	CREATE TRIGGER t AFTER INSERT ON notes REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION "My Schema".qwen_classify_trigger('note', 'kind', 'x')});
$node->safe_psql('elsewhere', q{SELECT "My Schema".qwen_task_create('x', labels => '["a", "b"]'); INSERT INTO notes VALUES (1, 'x')});
is($node->safe_psql('elsewhere', q{SELECT kind IN ('a', 'b') FROM notes}), 't', 'an extension in another schema');
$node->safe_psql('elsewhere', 'DROP TABLE notes; DROP EXTENSION qwen3dm');
is($node->safe_psql('elsewhere', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'qwen3dm'}), '0', 'which leaves nothing behind');
$node->safe_psql('elsewhere', q{CREATE SCHEMA qwen3dm; CREATE EXTENSION qwen3dm SCHEMA qwen3dm});
is($node->safe_psql('elsewhere', q{SELECT count(*) FROM qwen3dm.tasks}), '0', 'an extension in the schema of its tables');

# On a standby tasks are read, not changed.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('tasks_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
wait_for_state($standby, 'ready');
like($standby->safe_psql('postgres', $ask), qr/^(billing|outage)$/, 'a standby uses the task');
sql(q{SELECT qwen_task_alter('tickets', labels => '["newest"]', reset => '{examples}')});
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $ask), 'newest', 'and sees changes');
($rc, $out, $err) = $standby->psql('postgres', q{SELECT qwen_task_drop('tickets')});
like($err, qr/cannot execute DELETE in a read-only transaction/, 'but makes none');
$standby->stop;
$node->stop;
done_testing();
