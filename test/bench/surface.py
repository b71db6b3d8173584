#!/usr/bin/env python3
"""What "make bench BENCH=surface" runs: what the functions beside qwen_infer cost through SQL.

    surface.py ENGINE PEAKS WORKDIR --bin DIR --socket DIR --plain-socket DIR --model FILE [--demo-model FILE]

The same cells for both models, run as rows.py runs its own (BENCH_ROUNDS, BENCH_ROWS, BENCH_ROWS_QUICK, BENCH_ONLY: see
there): qwen_classify with 2, 20 and 200 labels, answers with and without a schema, qwen_embed, and triggers per row and
per statement.
"""
import sys

import rows
from cluster import Cluster, quote
from rows import ROWS, Rows

LABELS = (2, 20, 200)
LABEL_ROWS = max(20, ROWS // 5)
ANSWER_ROWS, WRITTEN = max(16, ROWS // 16), 32
TRIGGER_ROWS = max(50, ROWS // 4)
FIRST = ("late", "lost", "wrong", "double", "broken", "slow", "angry", "new", "old", "lapsed")
SECOND = ("parcel", "invoice", "login", "refund", "export", "page", "account", "order", "card", "address", "coupon",
          "return", "price", "message", "password", "receipt", "report", "screen", "delivery", "contract")
# No answer of a few tokens can end it, so that as many are written as without a schema.
SCHEMA = '{"type": "string", "minLength": 4000}'


def labels(n):
    return [f"{first} {second}" for second in SECOND for first in FIRST][:n]


def classify(n):
    return f"qwen_classify(body, ARRAY[{', '.join(map(quote, labels(n)))}], mode => 'efficient')"


def embed(body):
    return f"qwen_embed({body}, mode => 'efficient')"


def infer(more):
    """True or false: whether there is no answer, which is an error under the schema."""
    return f"qwen_infer(body, mode => 'efficient', max_tokens => {WRITTEN}{more}) IS NULL"


TRIGGERS = {
    "row": "BEFORE INSERT ON scored FOR EACH ROW",
    "statement": "AFTER INSERT ON scored REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
}


class Surface(Rows):
    def prepare(self):
        Cluster(self.cluster.programs, self.cluster.connection[1], "postgres").sql("CREATE DATABASE bench")
        self.cluster.sql("CREATE EXTENSION qwen3dm",
                         "SELECT qwen_task_create('urgent', 'The customer is in a hurry.', mode => 'efficient')")

    def trigger(self, model, kind):
        """A COPY into a table that a trigger scores."""
        self.use(model)
        texts = self.messages(TRIGGER_ROWS)
        self.cluster.sql("DROP TABLE IF EXISTS scored",
                         "CREATE TABLE scored (id int PRIMARY KEY, body text NOT NULL, urgency float8)",
                         f"CREATE TRIGGER s {TRIGGERS[kind]} "
                         "EXECUTE FUNCTION qwen_score_trigger('body', 'urgency', 'urgent')")
        self.cluster.fill(texts)
        seconds = self.cluster.timed("INSERT INTO scored (id, body) SELECT id, body FROM r", 0)
        if self.cluster.sql("SELECT count(urgency) FROM scored") != str(len(texts)):
            raise RuntimeError("not all rows were scored")
        return {"rows/s": len(texts) / seconds}

    def embed_last(self, model):
        """By an engine for embeddings with the same model, whose counters are not these."""
        self.use(model)
        texts = self.messages(LABEL_ROWS)
        self.cluster.fill(texts)
        with self.cluster.embedding_model(self.models[model]):
            self.cluster.sql(f"SELECT {embed(quote('warm'))}")
            return {"rows/s": len(texts) / self.cluster.timed(f"SELECT id, {embed('body')} FROM r", len(texts))}

    def cells_of(self, model):
        for n in LABELS:
            yield f"{model} labels {n}", lambda n=n: self.statement(model, self.messages(LABEL_ROWS), classify(n))
        for name, more in (("free", ""), ("schema", f", schema => {quote(SCHEMA)}, on_error => 'null'")):
            yield (f"{model} answers {name}",
                   lambda more=more: self.statement(model, self.messages(ANSWER_ROWS), infer(more)))
        off = "SET qwen3dm.enable_batching = off"
        yield f"{model} embed", lambda: self.statement(model, self.messages(LABEL_ROWS), embed("body"))
        yield f"{model} embed off", lambda: self.statement(model, self.messages(LABEL_ROWS), embed("body"), off)
        yield f"{model} embed last", lambda: self.embed_last(model)
        for kind in TRIGGERS:
            yield f"{model} trigger {kind}", lambda kind=kind: self.trigger(model, kind)

    def cells(self):
        for model, path in self.models.items():
            if path:
                yield from self.cells_of(model)


def goals(surface, model):
    table = rows.Table(surface)

    def measured(cell, measure="rows/s"):
        return surface.values(f"{model} {cell}", measure)

    for n in LABELS:
        table.value(f"qwen_classify with {n} labels, rows/s", f"{model} labels {n}", "rows/s")
    table.versus("tokens/s of answers with a schema vs without", measured("answers schema", "written/s"),
                 measured("answers free", "written/s"), 0.95)
    table.value("qwen_embed (mean), rows/s", f"{model} embed", "rows/s")
    table.versus("  batching on vs off", measured("embed"), measured("embed off"), None)
    table.value("qwen_embed (last token, an engine of its own), rows/s", f"{model} embed last", "rows/s")
    table.versus("rows/s of a trigger per statement vs per row", measured("trigger statement"), measured("trigger row"),
                 1.25)
    return table.measured()


if __name__ == "__main__":
    sys.exit(rows.main(__doc__, Surface, "surface", goals))
