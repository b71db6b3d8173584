#!/usr/bin/env python3
"""What "make bench BENCH=modes" runs: mode auto beside the fixed modes, through SQL, with what learning costs.

    modes.py --bin DIR --socket DIR --json FILE --jobs-model FILE --demo-model FILE [--rows 10000] [--seed 11] [--only TEXT]

Workloads: support messages with SmolLM2, and the three jobs with the model that was trained for them: of each job half of
the rows easy ones and half histories or notes, each half a task of its own; then the histories alone, where thinking is
allowed. A task is learned from rows that are not answered later (500, and up to 2,000 for the certificate), then all
rows are answered in auto, in precise and in efficient (with thinking, where that is the matter), in PIECES that take
turns. Seconds of learning count as auto's. Agreement is that of auto's answers with precise's, on all rows.
"""
import argparse
import csv
import io
import json
import os
import random
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "models"))
from bench import machine  # noqa: E402
from cluster import Cluster, quote  # noqa: E402
from evaluate_jobs import lift, milliseconds, share  # noqa: E402
from jobs import kinds  # noqa: E402
from write_rows import rows_like  # noqa: E402

PIECES = 4
LEARNED, CERTIFIED = 500, 2000
DEPARTMENTS = {"billing": "invoices, charges and refunds", "delivery": "parcels and shipping", "technical": "errors and broken functions",
               "account": "login, passwords and personal data", "cancellation": "ending a contract"}
HALVES = (("payments", "single/filter", "history/classify"), ("machines", "window/filter", "history/classify"),
          ("triage", "complaint/classify", "matters"))
OVERHEAD_ROWS = 20000


class Work:
    """Rows of one task: what is asked of them, and their truth."""

    def __init__(self, name, rows, labels=None, instruction=None, thinking=False):
        self.name, self.rows, self.labels, self.instruction, self.thinking = name, rows, labels, instruction, thinking

    def create(self):
        labels = f"labels => {quote(json.dumps(self.labels))}, " if self.labels else ""
        instruction = f"instruction => {quote(self.instruction)}, " if self.instruction else ""
        return f"SELECT qwen_task_create({quote(self.name)}, {instruction}{labels}thinking => {str(self.thinking).lower()}, thinking_budget => 250)"

    def call(self, options):
        if self.labels:
            return f"qwen_classify(body, task => {quote(self.name)}, {options})"
        return f"CASE WHEN qwen_filter(body, task => {quote(self.name)}, {options}) THEN 'yes' ELSE 'no' END"


def messages(n, seed):
    made = subprocess.run([sys.executable, os.path.join(HERE, "make_messages.py"), "--rows", str(n), "--seed", str(seed)], check=True,
                          capture_output=True, text=True).stdout
    rows = [(r["body"], r["truth"]) for r in csv.DictReader(io.StringIO(made))]
    return Work("messages", rows, DEPARTMENTS, "Which department has to answer this customer?")


def job(job_name, what, n, seed, thinking=False):
    """Rows of one wording that training has never seen."""
    kind = f"{job_name} {what}"
    rng = random.Random(f"modes {seed} {kind}")
    first = kinds.make_row(rng, "eval", kind)
    rows = [(r.text, r.answer) for r in rows_like(rng, kind, first, n)]
    return Work(f"{kind}{' thinking' if thinking else ''}", rows, first.labels or None, first.instruction or None, thinking)


class Modes:
    def __init__(self, cluster):
        self.cluster = cluster

    def copy(self, table, rows):
        text = "".join(f"{i}\t{b}\t{t}\n" for i, (b, t) in enumerate(((b.replace(chr(92), chr(92) * 2).replace(chr(10), chr(92) + "n"), t)
                                                                  for b, t in rows), 1))
        self.cluster.sql(f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} (id int PRIMARY KEY, body text NOT NULL, truth text)")
        self.cluster.sql(f"COPY {table} FROM STDIN", stdin=text)
        self.cluster.sql(f"VACUUM ANALYZE {table}")

    def learn(self, work):
        """Seconds, and what the two functions said. Only a task that may think needs to be told the truth."""
        truth = ", truth" if work.thinking else ""
        if work.thinking and not work.labels:
            truth = ", truth = 'yes'"
        query = quote(f"SELECT body{truth} FROM lessons")
        told, start = {}, time.monotonic()
        told["learn"] = json.loads(self.cluster.sql(f"SELECT to_json(l) FROM qwen_task_learn({quote(work.name)}, {query}, {LEARNED}) AS l"))
        told["learn_s"] = time.monotonic() - start
        if told["learn"]["threshold"] is not None and (told["learn"]["speedup"] or 2) > 1 / 0.9:
            start = time.monotonic()
            told["certify"] = json.loads(self.cluster.sql(
                f"SELECT to_json(l) FROM qwen_task_certify({quote(work.name)}, {quote('SELECT body FROM lessons')}, {CERTIFIED}) AS l"))
            told["certify_s"] = time.monotonic() - start
        return told

    def pieces(self, work):
        """Answers and seconds in each way, the ways in turn."""
        thinks = str(work.thinking).lower()
        ways = {"auto": "mode => 'auto'", "precise": f"mode => 'precise', thinking => {thinks}", "efficient": "mode => 'efficient'"}
        found = {way: {"answers": [], "s": 0.0} for way in ways}
        n = len(work.rows)
        # What one role's prompts begin with is not kept for another's: no way answers from what another has read.
        self.cluster.sql(*(f"DO $$BEGIN CREATE ROLE {way} SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END$$" for way in ways))
        for piece in range(PIECES):
            where = f"id > {n * piece // PIECES} AND id <= {n * (piece + 1) // PIECES}"
            order = list(ways) if piece % 2 == 0 else list(ways)[::-1]
            for way in order:
                *answers, time_line = self.cluster.sql(f"SET ROLE {way}", "\\timing on", f"SELECT {work.call(ways[way])} FROM work WHERE {where} ORDER BY id").split("\n")
                found[way]["answers"] += answers
                found[way]["s"] += milliseconds(time_line) / 1000
        return found

    def counters(self, work):
        told = self.cluster.sql(f"SELECT coalesce(sum(efficient), 0), coalesce(sum(precise), 0), coalesce(sum(thinking), 0), coalesce(sum(escalated), 0) "
                                f"FROM qwen_stat_decisions WHERE task = {quote(work.name)}")
        return dict(zip(("efficient", "precise", "thinking", "escalated"), map(int, told.split("|"))))

    def run(self, work):
        n = len(work.rows)
        lessons = min(LEARNED + CERTIFIED, n // 2)
        self.copy("lessons", work.rows[:lessons])
        work.rows = work.rows[lessons:]
        self.copy("work", work.rows)
        self.cluster.sql(work.create())
        self.cluster.sql(f"SELECT {work.call('mode => ' + quote('precise'))} FROM lessons WHERE id <= 64")  # warm
        told = self.learn(work)
        found = self.pieces(work)
        truth = [t for _, t in work.rows]
        right = {way: [int(a == t) for a, t in zip(f["answers"], truth, strict=True)] for way, f in found.items()}
        agreement = {way: [int(a == p) for a, p in zip(found[way]["answers"], found["precise"]["answers"])] for way in ("auto", "efficient")}
        learning = told["learn_s"] + told.get("certify_s", 0)
        rows = len(work.rows)
        best = "efficient" if sum(agreement["efficient"]) / rows >= 0.987 else "precise"
        return {"rows": rows, "told": told, "learning_s": learning, "seconds": {w: f["s"] for w, f in found.items()},
                "speedup": found["precise"]["s"] / (found["auto"]["s"] + learning),
                "speedup_without_learning": found["precise"]["s"] / found["auto"]["s"],
                "agreement": {w: share(sum(a), rows) for w, a in agreement.items()},
                "accuracy": {w: share(sum(r), rows) for w, r in right.items()},
                "accuracy_lost": lift(right["precise"], right["auto"]),
                "best_fixed": best, "cost_of_best_fixed": found["auto"]["s"] / found[best]["s"],
                "modes": self.counters(work)}

    def overhead(self):
        """Microseconds a row that a decision takes: one label needs no model, so little else is left."""
        self.copy("work", [(f"row {i} of many", "") for i in range(OVERHEAD_ROWS)])
        self.cluster.sql("SELECT qwen_task_create('overhead', 'Which?')")
        found = {}
        for _ in range(3):
            for way in ("auto", "precise"):
                told = self.cluster.sql("SELECT qwen_classify('warm', ARRAY['only'], task => 'overhead')", "\\timing on",
                                        f"SELECT count(qwen_classify(body, ARRAY['only'], task => 'overhead', mode => '{way}')) FROM work")
                found.setdefault(way, []).append(milliseconds(told.split("\n")[-1]) * 1000 / OVERHEAD_ROWS)
        return sorted(found["auto"])[1] - sorted(found["precise"])[1]


def percents(x):
    return f"{100 * x[0]:.2f} % ({100 * x[1]:.2f}–{100 * x[2]:.2f})"


def print_tables(found):
    print("\n| rows | auto vs precise, learning paid | without learning | agreement of auto; efficient | standing | answered efficient; escalated | accuracy auto − precise |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, f in found["work"].items():
        told = f["told"].get("certify") or f["told"]["learn"]
        modes, total = f["modes"], max(1, f["rows"])
        print(f"| {name}, {f['rows']} | {f['speedup']:.2f} | {f['speedup_without_learning']:.2f} | {percents(f['agreement']['auto'])}; "
              f"{100 * f['agreement']['efficient'][0]:.2f} % | {told['standing']}: {told['message']} | {modes['efficient'] - total}; {modes['escalated']} | "
              f"{100 * f['accuracy_lost'][0]:+.2f} ({100 * f['accuracy_lost'][1]:+.2f} to {100 * f['accuracy_lost'][2]:+.2f}) |")
    for name, f in found["work"].items():
        print(f"{name}: best fixed mode in hindsight {f['best_fixed']}, auto takes {f['cost_of_best_fixed']:.3f} of its time")
    if "overhead_us" in found:
        print(f"\na decision about a row of a known task: {found['overhead_us']:.1f} microseconds")


def works(a):
    """(model, [work]) one after the other."""
    yield a.demo_model, [messages(a.rows + LEARNED + CERTIFIED, a.seed)]
    jobs = []
    for name, easy, hard in HALVES:
        for what in (easy, hard):
            jobs.append(job(name, what, a.rows // 2 + LEARNED + CERTIFIED, a.seed))
        if name != "triage":
            jobs.append(job(name, hard, a.rows // 4 + LEARNED + CERTIFIED, f"{a.seed} thinking", thinking=True))
    yield a.jobs_model, jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--jobs-model", required=True)
    parser.add_argument("--demo-model", required=True)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--only", default="", help="workloads whose name this regular expression matches")
    a = parser.parse_args()
    Cluster(a.bin, a.socket, "postgres").sql("CREATE DATABASE bench")
    cluster = Cluster(a.bin, a.socket, "bench")
    cluster.sql("CREATE EXTENSION qwen3dm")
    modes = Modes(cluster)
    found = {"rows": a.rows, "seed": a.seed, "machine": machine(), "work": {}}
    for model, list_of_work in works(a):
        list_of_work = [w for w in list_of_work if re.search(a.only, w.name)]
        if not list_of_work:
            continue
        cluster.load(model, os.cpu_count())
        for work in list_of_work:
            found["work"][work.name] = f = modes.run(work)
            print(f"  {work.name}: {f['speedup']:.2f}", file=sys.stderr, flush=True)
            with open(a.json, "w") as out:
                json.dump(found, out, indent=1)
    found["overhead_us"] = modes.overhead()
    with open(a.json, "w") as out:
        json.dump(found, out, indent=1)
    print(f"{a.rows} rows, seed {a.seed}, {cluster.status('isa')[0]}, {cluster.status('threads')[0]} threads")
    print_tables(found)
    print(f"\n{a.json}")


if __name__ == "__main__":
    main()
