#!/usr/bin/env python3
"""What "make eval" runs: accuracy and speed of both modes on the three jobs' held-out rows, through SQL.

    evaluate_jobs.py --bin DIR --socket DIR --json FILE [--seed 7] [--rows 2000]

run.sh starts the cluster, which has the extension and the model. Every question of write_rows.py (a wording, with its
labels) is one SELECT over its rows, asked in mode efficient, in precise, and in precise with thinking, in turn, so that
what else the machine does meets all three. Intervals are Wilson's for a share, and for a lift that of paired shares
(normal approximation), all of 95 %. Then payments are inserted one by one into a table that a trigger scores.
"""
import argparse
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "models"))
from bench import machine  # noqa: E402
from cluster import Cluster, quote  # noqa: E402
from jobs import kinds  # noqa: E402
from write_rows import questions  # noqa: E402

WAYS = {  # what the table calls it: options of the call
    "efficient": "mode => 'efficient'",
    "precise": "mode => 'precise', thinking => false",
    "thinking": "mode => 'precise', thinking => true, thinking_budget => 250",
}
JOBS = ("payments", "machines", "triage")
PARTS = ("easy", "hard")
INSERTS = 300
Z = 1.959964


def share(right, n):
    """(share, lower, upper): E. B. Wilson's interval, J. Amer. Statist. Assoc. 22 (1927)."""
    p, z2 = right / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return p, middle - half, middle + half


def lift(before, after):
    """(difference, lower, upper) of the shares of two answers to the same rows."""
    n = len(before)
    gained = sum(b > a for a, b in zip(before, after))
    lost = sum(b < a for a, b in zip(before, after))
    d = (gained - lost) / n
    half = Z * math.sqrt(max(0.0, gained + lost - n * d * d)) / n
    return d, d - half, d + half


def percentile(values, part):
    """Nearest rank."""
    values = sorted(values)
    return values[max(0, math.ceil(part * len(values)) - 1)]


def milliseconds(line):
    """Of psql's "Time: 1234.567 ms (00:01.235)"."""
    return float(line.split()[1])


class Evaluation:
    def __init__(self, cluster, seed, rows):
        self.cluster, self.seed, self.rows = cluster, seed, rows
        self.right = {}    # (job, part, way) -> [0 or 1 of each row]
        self.answers = {}  # the same -> [answer]
        self.seconds = {}  # the same -> seconds of all rows

    def call(self, question, way):
        if question.task == "filter":
            return f"CASE WHEN qwen_filter(body, {quote(question.instruction)}, {WAYS[way]}) THEN 'yes' ELSE 'no' END"
        labels = ", ".join(map(quote, question.labels))
        system = quote(question.instruction) if question.instruction else "NULL"
        return f"qwen_classify(body, ARRAY[{labels}], system => {system}, {WAYS[way]})"

    def ask(self, rows):
        """All rows of a question, in every way."""
        question = rows[0]
        part = "hard" if question.hard else "easy"
        self.cluster.fill([r.text.replace("\\", "\\\\").replace("\n", "\\n") for r in rows])
        for way in WAYS:
            statement = f"SELECT {self.call(question, way)} FROM r ORDER BY id"
            role = f"SET ROLE eval_{way}"  # for which nothing is kept of what another way has read
            self.cluster.sql(role, statement.replace("ORDER BY id", "WHERE id = 1"))  # its beginning is known, as in daily use
            *found, time_line = self.cluster.sql(role, "\\timing on", statement).split("\n")
            key = question.job, part, way
            self.seconds[key] = self.seconds.get(key, 0) + milliseconds(time_line) / 1000
            if len(found) != len(rows):
                raise RuntimeError(f"{len(found)} answers to {len(rows)} rows")
            self.answers.setdefault(key, []).extend(found)
            self.right.setdefault(key, []).extend(int(f == r.answer) for f, r in zip(found, rows))

    def ask_all(self):
        for kind in kinds.EASY + kinds.HARD:
            for rows in questions(self.seed, kind, self.rows // 4):
                self.ask(rows)
            print(f"  {kind}", file=sys.stderr, flush=True)

    def written(self):
        """Shares of right answers that the model writes, at once: JSON under a schema, and short ones."""
        found = {}
        for kind in kinds.OTHER:
            rows = [r for group in questions(self.seed, kind, self.rows // 10) for r in group]
            for way in ("efficient", "precise"):
                calls = [f"qwen_extract({quote(r.text)}, {quote(json.dumps(r.schema))}::json, {WAYS[way]})" if r.schema else
                         f"translate(qwen_infer({quote(r.text)}, system => {quote(r.instruction)}, {WAYS[way]}), E'\\n', ' ')" for r in rows]
                told = self.cluster.sql(*(f"SELECT {c}" for c in calls)).split("\n")
                right = sum(json.loads(t) == json.loads(r.answer) if r.schema else t == r.answer for t, r in zip(told, rows, strict=True))
                found[f"{kind} {way}"] = {"rows": len(rows), "share": share(right, len(rows))}
        return found

    def triggers(self):
        """Milliseconds of single INSERTs of payments, which a BEFORE ROW trigger scores, the ways in turn."""
        made = {way: [] for way in WAYS}
        payments = [r.text for rows in questions(f"{self.seed} trigger", "payments single/filter", INSERTS) for r in rows]
        setup = []
        for way in WAYS:
            mode, thinking = ("efficient", "false") if way == "efficient" else ("precise", str(way == "thinking").lower())
            setup += [f"SELECT qwen_task_create('fraud_{way}', 'This payment is fraud.', mode => '{mode}', thinking => {thinking})",
                      f"CREATE TABLE payments_{way} (body text, risk float8)",
                      f"CREATE TRIGGER s BEFORE INSERT ON payments_{way} FOR EACH ROW "
                      f"EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud_{way}')"]
        self.cluster.sql(*setup)
        for first in range(0, len(payments), 50):
            for way in WAYS:
                inserts = [f"INSERT INTO payments_{way} (body) VALUES ({quote(p)})" for p in payments[first:first + 50]]
                told = self.cluster.sql("INSERT INTO payments_%s (body) VALUES ('first')" % way, "\\timing on", *inserts)
                made[way] += [milliseconds(line) for line in told.split("\n") if line.startswith("Time:")]
        return made

    def result(self):
        found = {"accuracy": {}, "lift": {}, "agreement": {}, "speed": {}}
        for job in JOBS:
            for part in PARTS:
                keys = [(job, part, way) for way in WAYS]
                name = f"{job} {part}"
                for key in keys:
                    n = len(self.right[key])
                    found["accuracy"][f"{name} {key[2]}"] = {"rows": n, "share": share(sum(self.right[key]), n)}
                    found["speed"][f"{name} {key[2]}"] = {"ms": 1000 * self.seconds[key] / n, "rows/s": n / self.seconds[key]}
                found["lift"][name] = {"thinking over precise": lift(self.right[keys[1]], self.right[keys[2]]),
                                       "thinking over efficient": lift(self.right[keys[0]], self.right[keys[2]])}
            both = [(a, b) for part in PARTS for a, b in zip(self.answers[job, part, "efficient"], self.answers[job, part, "precise"])]
            found["agreement"][job] = share(sum(a == b for a, b in both), len(both))
        return found


def percents(x):
    return f"{100 * x[0]:.1f} % ({100 * x[1]:.1f}–{100 * x[2]:.1f})"


def points(x):
    return f"{100 * x[0]:+.1f} ({100 * x[1]:+.1f} to {100 * x[2]:+.1f})"


def print_tables(found):
    print("\n| rows | `efficient` | `precise` | `precise`, thinking | lift of thinking over `precise`, points |\n| --- | --- | --- | --- | --- |")
    for name, lifts in found["lift"].items():
        cells = [percents(found["accuracy"][f"{name} {way}"]["share"]) for way in WAYS]
        print(f"| {name} | {' | '.join(cells)} | {points(lifts['thinking over precise'])} |")
    print("\n| rows | `efficient`, ms a row (rows/s) | `precise` | `precise`, thinking |\n| --- | --- | --- | --- |")
    for name in found["lift"]:
        cells = [found["speed"][f"{name} {way}"] for way in WAYS]
        print(f"| {name} | " + " | ".join(f"{c['ms']:.1f} ({c['rows/s']:.0f})" for c in cells) + " |")
    print("\n| agreement of `efficient` with `precise` | |\n| --- | --- |")
    for job, agreement in found["agreement"].items():
        print(f"| {job} | {percents(agreement)} |")
    print("\n| answers that are written | `efficient` | `precise` |\n| --- | --- | --- |")
    for kind in kinds.OTHER:
        print(f"| {kind} | " + " | ".join(percents(found["written"][f"{kind} {way}"]["share"]) for way in ("efficient", "precise")) + " |")
    print("\n| one payment inserted, scored by a trigger, ms | p50 | p95 |\n| --- | --- | --- |")
    for way, x in found["trigger"].items():
        print(f"| {way} | {x['p50']:.1f} | {x['p95']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--seed", default="7")
    parser.add_argument("--rows", type=int, default=2000, help="of each job, half of them easy")
    a = parser.parse_args()
    Cluster(a.bin, a.socket, "postgres").sql("CREATE DATABASE eval")
    cluster = Cluster(a.bin, a.socket, "eval")
    cluster.sql(*(f"CREATE ROLE eval_{way} SUPERUSER" for way in WAYS))
    cluster.sql("CREATE EXTENSION qwen3dm", "SELECT qwen_count_tokens('wait for the model')")
    e = Evaluation(cluster, a.seed, a.rows)
    e.ask_all()
    found = e.result()
    found["written"] = e.written()
    found["trigger"] = {way: {"p50": percentile(ms, 0.5), "p95": percentile(ms, 0.95)} for way, ms in e.triggers().items()}
    status = dict(zip(("name", "digest", "isa", "threads"), cluster.status("name", "digest", "isa", "threads")))
    with open(a.json, "w") as f:
        json.dump({"seed": a.seed, "rows": a.rows, "model": status, "machine": machine(), **found}, f, indent=1)
    print(f"{status['name']}, {a.rows} rows of each job, seed {a.seed}, {status['threads']} threads, {status['isa']}")
    print_tables(found)
    print(f"\n{a.json}")


if __name__ == "__main__":
    main()
