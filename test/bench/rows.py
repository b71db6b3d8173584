#!/usr/bin/env python3
"""What "make bench BENCH=rows" runs: one instruction over many short rows, in SQL and in llama.cpp's server.

    rows.py ENGINE PEAKS WORKDIR --bin DIR --socket DIR --plain-socket DIR --model FILE [--demo-model FILE]

run.sh starts the two throw-away clusters that it needs: one with the library and the extension in database bench, one
without either. Environment, besides BENCH_ROUNDS (3 here) and QWEN3DM_BENCH_PYTHON (see bench.py):
    BENCH_ROWS=N                 rows of one SELECT (1,000); other cells take a part of it
    BENCH_ROWS_QUICK=1           200 rows, one round: to see that everything runs
    BENCH_ONLY="TEXT, TEXT"      only cells whose name has one of these in it ("random select, server, planning")
    QWEN3DM_BENCH_LLAMA_SERVER   llama.cpp's llama-server (NOTES.md says how to get one)

A round runs every cell once, ours and llama.cpp's in turn; what counts is the ratio within a round, and the median over
the rounds. No two rows of a run have the same text, save where duplicates are measured: the only thing that a cache can
know of a row is the instruction before it. Results (JSON) are left in WORKDIR.
"""
import argparse
import datetime
import itertools
import json
import math
import os
import random
import signal
import sys
import time

QUICK = bool(os.environ.get("BENCH_ROWS_QUICK"))
os.environ["BENCH_ROUNDS"] = os.environ.get("BENCH_ROUNDS") or ("1" if QUICK else "3")
import bench  # noqa: E402
from bench import ROUNDS, divide, median  # noqa: E402
from cluster import Cluster, Load, quote  # noqa: E402
from llama_server import LlamaServer  # noqa: E402

ROWS = int(os.environ.get("BENCH_ROWS") or (200 if QUICK else 1000))
ONLY = [part.strip() for part in os.environ.get("BENCH_ONLY", "").split(",") if part.strip()]
SERVER = os.environ.get("QWEN3DM_BENCH_LLAMA_SERVER")
SIZE, DTYPE, THREADS = "0.6B", "Q8_0", 2
SERVER_ROWS = max(20, ROWS // 5)     # for each number of connections: how many does not change its rate
OFF_ROWS = max(20, ROWS // 4)        # without batching
INFER_ON, INFER_OFF, WRITTEN = max(32, ROWS // 8), max(4, ROWS // 64), 32  # with, without; tokens for each
TOGETHER, LONG = 32, 50 if QUICK else 200  # rows and tokens of what is compared with llama.cpp's batched decode
OLTP_SECONDS, OLTP_CLIENTS, OLTP_SCALE = (5 if QUICK else 15), 4, 10
CONNECTIONS = (8, 64)
PER_ROW = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "deduplicated")
UNRELATED = {  # what planning must not become slower for
    "one row": "SELECT abalance FROM pgbench_accounts WHERE aid = 42",
    "join": "SELECT b.bid, count(*), sum(t.tbalance) FROM pgbench_branches b JOIN pgbench_tellers t USING (bid) "
            "JOIN pgbench_accounts a ON a.aid = t.tid WHERE a.abalance < 100 GROUP BY b.bid ORDER BY 2 LIMIT 5",
    "function": "SELECT upper(left(filler, 10)), length(filler) FROM pgbench_accounts WHERE lower(filler) LIKE 'a%'",
}
FUNCTIONS = """
CREATE FUNCTION planning_us(query text, n int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE started timestamptz; took float8[];
BEGIN
	FOR i IN 1..n LOOP
		started := clock_timestamp();
		EXECUTE 'EXPLAIN ' || query;
		took := took || extract(epoch FROM clock_timestamp() - started)::float8;
	END LOOP;
	-- The clock tells microseconds: a mean tells less than one, and this one leaves out what came between.
	RETURN avg(x) * 1e6 FROM (SELECT x, ntile(10) OVER (ORDER BY x) AS tenth FROM unnest(took) AS x) AS t
		WHERE tenth BETWEEN 2 AND 6;
END $$;
CREATE FUNCTION added_ms(n int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE started timestamptz; engine float8; added float8[];
BEGIN
	FOR i IN 1..n LOOP
		started := clock_timestamp();
		engine := latency_ms FROM qwen_infer_details('Hi ' || i, mode => 'efficient', max_tokens => 1);
		added := added || (extract(epoch FROM clock_timestamp() - started) * 1000 - engine);
	END LOOP;
	RETURN percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM unnest(added) AS x;
END $$"""

LABELS = ("billing", "outage", "account", "shipping", "praise")
INSTRUCTION = (
    "You sort the messages that customers send to the support desk of an online shop. Decide which team has to deal "
    "with each: billing for payments and refunds; outage for errors and slow pages; account for passwords and access; "
    "shipping for parcels and delays; praise for thanks without a request. If two fit, take the more urgent one.")

SUBJECTS = ("The parcel", "My invoice", "The login page", "Your app", "The export", "My refund", "The new dashboard")
EVENTS = ("arrived damaged", "shows a wrong total", "crashes at once", "is very slow", "never came", "looks great",
          "asks for a password")
TIMES = ("since Monday", "after the update", "this morning", "for two weeks", "on my phone", "in every browser")
REQUESTS = ("please call me", "please check", "what can I do", "thank you", "I want my money back", "this is urgent")


def messages():
    """Endless short messages, the same in every run; the numbers make them different from their beginning on."""
    rng = random.Random(7)
    for i in itertools.count():
        yield (f"Case {i * 387420489 % 10**6}: {rng.choice(SUBJECTS)} {rng.choice(EVENTS)} {rng.choice(TIMES)}, "
               f"{rng.choice(REQUESTS)}.")


def classify(body):
    """The call that sorts one message, as SQL; the instruction is what all rows share."""
    labels = ", ".join(map(quote, LABELS))
    return f"qwen_classify({body}, ARRAY[{labels}], mode => 'efficient', system => {quote(INSTRUCTION)})"


def infer(body, tokens):
    return f"qwen_infer({body}, mode => 'efficient', max_tokens => {tokens})"


SYSTEM = "\n".join((INSTRUCTION, "Answer with one of these labels, and nothing else:", *LABELS, ""))


def chat(body):
    """The text that the model reads for classify(body)."""
    return (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{body}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n")


def percentile(values, share):
    """Nearest rank; None without values."""
    values = sorted(values)
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


class Rows(bench.Bench):
    def __init__(self, options):
        super().__init__(options.engine, options.peaks, options.workdir)
        self.cluster = Cluster(options.bin, options.socket, "bench")
        self.plain = Cluster(options.bin, options.plain_socket, "bench")
        self.models = {"random": options.model, "demo": options.demo_model}
        self.samples = {}  # cell -> [measure -> value, one dict a round]
        self.texts = messages()
        self.kv_bytes = int(Cluster(options.bin, options.socket, "postgres").sql(
            "SELECT pg_size_bytes(current_setting('qwen3dm.kv_cache_size'))"))

    def prepare(self):
        for cluster in (self.cluster, self.plain):
            Cluster(cluster.programs, cluster.connection[1], "postgres").sql("CREATE DATABASE bench")
            cluster.pgbench_init(OLTP_SCALE)
            cluster.sql(FUNCTIONS)
        self.cluster.sql("CREATE EXTENSION qwen3dm", "CREATE SEQUENCE next")

    def messages(self, n):
        """Texts that nothing else in this run has."""
        return list(itertools.islice(self.texts, n))

    # -- cells: each returns what it measured ----------------------------------------------

    def use(self, model, threads=THREADS):
        """Gives the engine this model; warm, and with the instruction read once."""
        if not self.cluster.load(self.models[model], threads):
            return
        texts = self.messages(8)
        self.cluster.fill(texts)
        before = self.cluster.settled_counters()
        self.cluster.sql(f"SELECT {classify('body')} FROM r")
        grown = self.cluster.grown(before)
        if model == "random" and grown["prompt_tokens"] != sum(map(len, self.tokens(texts))):
            raise RuntimeError("llama.cpp's server would not be asked what the engine is: see chat()")

    def statement(self, model, texts, call, *settings):
        """One SELECT over these rows."""
        self.use(model)
        self.cluster.fill(texts)
        before = self.cluster.settled_counters()
        seconds = self.cluster.timed(f"SELECT id, {call} FROM r", len(texts), *settings)
        grown = self.cluster.grown(before)
        found = {f"{name} per row": grown[name] / len(texts) for name in PER_ROW}
        return {"rows/s": len(texts) / seconds, "written/s": grown["output_tokens"] / seconds, **found,
                "engine MiB": self.cluster.engine_mb()}

    def select(self, model):
        return self.statement(model, self.messages(ROWS), classify("body"))

    def select_off(self, model):
        return self.statement(model, self.messages(OFF_ROWS), classify("body"), "SET qwen3dm.enable_batching = off")

    def infer(self, model):
        return self.statement(model, self.messages(INFER_ON), infer("body", WRITTEN))

    def infer_off(self, model):
        return self.statement(model, self.messages(INFER_OFF), infer("body", WRITTEN),
                              "SET qwen3dm.enable_batching = off")

    def together(self, model):
        return self.statement(model, self.messages(TOGETHER), infer("body", LONG))

    def engine_alone(self, model):
        """The engine's own scheduler with the rows that a SELECT would send it."""
        path = os.path.join(self.workdir, "rows.txt")
        with open(path, "w") as f:
            f.writelines(text + "\n" for text in self.messages(ROWS))
        command = [self.engine, "rows", "-m", self.models[model], "--mode", "efficient", "-t", str(THREADS), "-n",
                   str(ROWS), "--kv-bytes", str(self.kv_bytes), "--input", path, "--system", SYSTEM]
        for label in LABELS:
            command += ["--label", label]
        found = json.loads(bench.run(command))
        return {"rows/s": found["rows_per_second"],
                **{f"{name} per row": found[name] / ROWS for name in PER_ROW if name in found}}

    def twins(self, model, apart):
        """Every text twice: next to each other, or anywhere in the table."""
        texts = [text for text in self.messages(ROWS // 2) for _ in range(2)]
        if apart:
            random.Random(7).shuffle(texts)
        return self.statement(model, texts, classify("body"))

    def connections(self, model, n):
        each = math.ceil(ROWS / n)
        self.use(model)
        self.cluster.fill(self.messages(n * each))
        self.cluster.sql("ALTER SEQUENCE next RESTART")
        tps, latencies = self.script(f"SELECT {classify('body')} FROM r WHERE id = (SELECT nextval('next'))",
                                     "-c", str(n), "-j", "2", "-t", str(each))
        if len(latencies) != n * each:
            raise RuntimeError(f"pgbench: {len(latencies)} transactions, not {n * each}")
        return {"rows/s": tps, "p50 ms": percentile(latencies, 0.5), "p95 ms": percentile(latencies, 0.95)}

    def script(self, statement, *options):
        path = os.path.join(self.workdir, "rows.sql")
        with open(path, "w") as f:
            f.write(statement + ";\n")
        return self.cluster.pgbench("-f", path, *options)

    def tokens(self, texts):
        """What the model reads for these messages: the template's and their own tokens."""
        separator = "<|endoftext|>"  # nothing is tokenized across it
        command = [self.engine, "tokenize", "-m", self.models["random"], "--special"]
        ids = json.loads(bench.run(command, stdin=separator.join(map(chat, texts))))
        end = json.loads(bench.run(command, stdin=separator))[0]
        prompts = [[]]
        for token in ids:
            if token == end:
                prompts.append([])
            else:
                prompts[-1].append(token)
        return prompts

    def server(self):
        prompts = self.tokens(self.messages(SERVER_ROWS * 2 + 8))
        results = {"prompt_tokens per row": sum(map(len, prompts)) / len(prompts)}
        with LlamaServer(SERVER, self.models["random"], THREADS) as server:
            server.measure([prompts.pop() for _ in range(8)], 4)
            for n, part in ((1, prompts[:SERVER_ROWS]), (4, prompts[SERVER_ROWS:])):
                rate, latencies = server.measure(part, n)
                results |= {f"rows/s, {n}": rate, f"p95 ms, {n}": percentile(latencies, 0.95)}
            results["server MiB"] = server.memory_mb()
        return results

    def batched_decode(self):
        test = f"tg{LONG}/{TOGETHER}"
        return {"written/s": self.run_llama(self.models["random"], THREADS, [test])[test]}

    def added_latency(self, model):
        self.use(model)
        n = 50 if QUICK else 200
        return {"ms": float(self.cluster.sql("SELECT added_ms(10)", f"SELECT added_ms({n})").splitlines()[1])}

    def planning(self):
        """Microseconds a query: without the library, with it, and with batching off, in turn."""
        results = {}
        sides = {"none": (self.plain, ()), "on": (self.cluster, ()),
                 "off": (self.cluster, ("SET qwen3dm.enable_batching = off",))}
        for name, query in UNRELATED.items():
            times = {side: [] for side in sides}
            for _ in range(3 if QUICK else 9):
                for side, (cluster, settings) in sides.items():
                    times[side].append(float(cluster.sql(*settings, f"SELECT planning_us({quote(query)}, 1000)")))
            results[f"none, {name}"] = median(times["none"])
            for side in ("on", "off"):
                more = [a - b for a, b in zip(times[side], times["none"])]
                results[f"{side} more, {name}"] = median(more)
        return results

    def simple_update(self):
        tps, latencies = self.cluster.pgbench("-N", "-c", str(OLTP_CLIENTS), "-j", "2", "-T", str(OLTP_SECONDS))
        return {"tps": tps, "p50 ms": percentile(latencies, 0.5), "p99 ms": percentile(latencies, 0.99)}

    def oltp(self, fsync):
        """pgbench alone, then beside an engine that one statement keeps busy on one thread."""
        cluster = self.cluster
        self.use("random", 1)
        cluster.fill(self.messages(max(ROWS, 60 * OLTP_SECONDS)))
        cluster.sql(f"ALTER SYSTEM SET fsync = {fsync}", "SELECT pg_reload_conf()", "CHECKPOINT")
        alone = self.simple_update()
        with Load(cluster, f"SELECT {classify('body')} FROM r") as load:
            before = cluster.counters()
            beside = self.simple_update()
            rows = cluster.counters()["classified"] - before["classified"]
        if load.ran_out:
            raise RuntimeError("the load ended before pgbench did")
        return {**{f"{k}, alone": v for k, v in alone.items()}, **{f"{k}, beside": v for k, v in beside.items()},
                "rows/s beside": rows / OLTP_SECONDS}

    # -- rounds ----------------------------------------------------------------------------

    def cells_of(self, model):
        """In the order of a round: what is compared stands together."""
        yield f"{model} select", lambda: self.select(model)
        yield f"{model} engine alone", lambda: self.engine_alone(model)
        if model == "random" and SERVER:
            yield "server", self.server
        for n in CONNECTIONS:
            yield f"{model} connections {n}", lambda n=n: self.connections(model, n)
        yield f"{model} select off", lambda: self.select_off(model)
        yield f"{model} twins near", lambda: self.twins(model, False)
        yield f"{model} twins apart", lambda: self.twins(model, True)
        yield f"{model} infer", lambda: self.infer(model)
        yield f"{model} infer off", lambda: self.infer_off(model)
        if model == "random":
            yield "random together", lambda: self.together(model)
        if model == "random" and self.llama:
            yield "llama.cpp together", self.batched_decode
        yield f"{model} added latency", lambda: self.added_latency(model)

    def cells(self):
        for model, path in self.models.items():
            if path:
                yield from self.cells_of(model)
        yield "planning", self.planning
        yield "oltp on disk", lambda: self.oltp("on")
        yield "oltp in memory", lambda: self.oltp("off")

    def round(self, number):
        start = time.monotonic()
        self.loads.append(os.getloadavg()[0])
        self.peaks.append(json.loads(bench.run([self.peaks_program])))
        for name, cell in self.cells():
            if ONLY and not any(part in name for part in ONLY):
                continue
            results = {}
            try:
                results = cell()
            except (RuntimeError, OSError, ValueError) as problem:
                self.problems.append(f"{name}: {problem}")
            self.samples.setdefault(name, []).append(results)
            print(f"  {name:26} " + "  ".join(f"{k} {v:.4g}" for k, v in results.items() if v is not None)
                  + ("" if results else "failed"), flush=True)
        print(f"round {number} of {ROUNDS}: {time.monotonic() - start:.0f} s", flush=True)

    def values(self, cell, measure):
        return [results.get(measure) for results in self.samples.get(cell, [])]


class Table:
    """The rows of bench.py's tables: (claim, ours, other, ratios or values per round, goal, at least?)."""

    def __init__(self, rows):
        self.rows, self.lines = rows, []

    def versus(self, claim, ours, theirs, goal):
        self.lines.append((claim, median(ours), median(theirs), divide(ours, theirs), goal, True))

    def value(self, claim, cell, measure, goal=None):
        values = self.rows.values(cell, measure)
        self.lines.append((claim, median(values), None, values if goal is not None else [], goal, False))

    def measured(self):
        return [line for line in self.lines if line[1] is not None]


def goals(rows, model):
    table = Table(rows)
    versus, value = table.versus, table.value

    def rate(cell):
        return rows.values(f"{model} {cell}", "rows/s")

    select = rate("select")
    server = bench.best_of([v for v in (rows.values("server", f"rows/s, {n}") for n in (1, 4)) if v])
    if model == "random":
        versus("one SELECT, rows/s, vs the server's best", select, server, 5.0)
    versus("one SELECT, rows/s, vs the engine alone", select, rate("engine alone"), 0.9)
    for n in CONNECTIONS:
        versus(f"{n} connections, rows/s, vs one SELECT", rate(f"connections {n}"), select, 0.9)
        value("  their 95th percentile, ms", f"{model} connections {n}", "p95 ms")
    versus("classify, rows/s, batching on vs off", select, rate("select off"), 1.25)
    versus(f"{WRITTEN} tokens a row, rows/s, batching on vs off", rate("infer"), rate("infer off"), 4.0)
    versus("every row twice, next to each other, vs once", rate("twins near"), select, 1.9)
    versus("every row twice, anywhere, vs once", rate("twins apart"), select, 1.9)
    if model == "random":
        versus(f"{LONG} tokens of {TOGETHER} rows together, tokens/s", rows.values("random together", "written/s"),
               rows.values("llama.cpp together", "written/s"), 4.0)
    value("SQL's own latency, one short row, ms", f"{model} added latency", "ms", 1.0)
    if model == "random":
        common_goals(rows, versus, value)
    return table.measured()


def common_goals(rows, versus, value):
    """What does not depend on the model."""
    for query in UNRELATED:
        for side, what in (("on", ""), ("off", ", batching off")):
            value(f"planning ({query}) with the library{what}, us more", "planning", f"{side} more, {query}", 10.0)
    for cell in ("oltp on disk", "oltp in memory"):
        for measure in ("tps", "p99 ms"):
            versus(f"{cell}, {measure}, beside a busy engine vs alone", rows.values(cell, f"{measure}, beside"),
                   rows.values(cell, f"{measure}, alone"), None)
        value("  the engine meanwhile, rows/s", cell, "rows/s beside")
    value("memory of the engine after one SELECT, MiB", "random select", "engine MiB")
    value("memory of llama.cpp's server after its rows, MiB", "server", "server MiB")


def report(rows, started, name, goals):
    titles = {"random": f"Random model of Qwen3-{SIZE}'s shape, {DTYPE}", "demo": "SmolLM2"}
    tables = {model: goals(rows, model) for model in rows.models}
    for model, table in tables.items():
        if table:
            bench.print_goals(titles[model], table)
    return bench.save(rows, name, started, {
        "rows": ROWS, "rounds": ROUNDS, "quick": QUICK, "threads": THREADS,
        "goals": {model: bench.goal_records(table) for model, table in tables.items()}})


def arguments(doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("engine", "peaks", "workdir"):
        parser.add_argument(name)
    for name in ("bin", "socket", "plain-socket", "model"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--demo-model")
    return parser.parse_args()


def main(doc, kind, name, goals):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that with blocks end what they started
    started = datetime.datetime.now().isoformat(timespec="seconds")
    rows = kind(arguments(doc))
    bench.print_machine(rows)
    print(f"llama.cpp's server: {SERVER or 'not given (see QWEN3DM_BENCH_LLAMA_SERVER)'}")
    rows.prepare()
    for number in range(1, ROUNDS + 1):
        rows.round(number)
    report(rows, started, name, goals)
    return 1 if rows.problems else 0


if __name__ == "__main__":
    sys.exit(main(__doc__, Rows, "rows", goals))
