# qwen_embed beside pgvector, where that is installed: its own assignment cast takes a real[].
use strict;
use warnings;
use Qwen3dm;
use Test::More;

my $node = qwen_node('pgvector', conf => "qwen3dm.embedding_model = '" . embedding_model() . "'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

plan skip_all => 'pgvector is not installed'
  unless sql(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'});

sql('CREATE EXTENSION vector; CREATE TABLE texts (body text, v vector(64), short vector(16))');
sql(q{INSERT INTO texts (body, v, short) SELECT body, qwen_embed(body), qwen_embed(body, dimensions => 16)
	FROM (SELECT 'Text ' || i AS body FROM generate_series(1, 50) AS i) AS t});
is(sql('SELECT count(v), count(short), bool_and(abs(vector_norm(v) - 1) < 1e-6 AND abs(vector_norm(short) - 1) < 1e-6) FROM texts'),
	'50|50|t', 'INSERT ... SELECT qwen_embed(...)');
is(sql(q{SELECT body FROM texts ORDER BY v <=> qwen_embed('Text 7')::vector LIMIT 1}), 'Text 7', 'nearest neighbour');
is(sql(q{SELECT bool_and(abs(1 - (v <=> qwen_embed('a')::vector) - qwen_similarity(body, 'a')) < 1e-6) FROM texts}),
	't', 'its cosine is that of qwen_similarity');
sql('CREATE INDEX ON texts USING hnsw (v vector_cosine_ops)');
is(sql(q{SET enable_seqscan = off; SET hnsw.ef_search = 100;
	SELECT body FROM texts ORDER BY v <=> (SELECT qwen_embed('Text 7')::vector) LIMIT 1}), 'Text 7', 'through an index');
sql(q{UPDATE texts SET v = qwen_embed(body || '!')});
is(sql(q{SELECT count(*) FROM texts WHERE v::real[] = qwen_embed(body || '!')}), 50, 'UPDATE, with the same bits');
my ($rc, $out, $err) = $node->psql('postgres', q{INSERT INTO texts (v) SELECT qwen_embed('a', dimensions => 63)});
like($err, qr/expected 64 dimensions, not 63/, 'a wrong number of dimensions is an error of pgvector');
$node->stop;
done_testing();
