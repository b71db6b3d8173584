#!/usr/bin/env python3
"""What "make bench" runs: the engine, and llama.cpp where it is installed, on random models of Qwen3's exact shapes.

    bench.py ENGINE PEAKS WORKDIR
    bench.py --model SIZE TYPE WORKDIR      only builds a model, if it is not there yet, and prints its path

Environment:
    BENCH=quick             only the 0.6B shape, short prompts, three rounds: some minutes instead of half an hour
    BENCH_ROUNDS=N          rounds (5; quick: 3)
    BENCH_SIZES="0.6B 1.7B" shapes
    BENCH_ONLY=TEXT         only cells whose name contains this ("engine efficient 8", "t1", ...)
    QWEN3DM_BENCH_PYTHON    a Python that can import llama_cpp (PyPI: llama-cpp-python); default: the one that runs this

Every round measures the machine's peaks and then every cell (an engine, a file, a mode, a number of threads) in a
process of its own, the two engines alternating. What counts is the ratio within a round; the tables show medians over
the rounds. Tests: pp64 reads 64 tokens, pp64@512 after 512 others; tg64 writes 64 tokens one by one, tg64@512 after 512
others; tg8/32 writes 8 tokens of 32 sequences at once; "busy": beside one process that never sleeps. x3: three runs, of
which the median counts. All tokens per second. Models and results (JSON) are left in WORKDIR.
"""
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "models"))
import tiny_model  # noqa: E402

QUICK = os.environ.get("BENCH") == "quick"
ROUNDS = int(os.environ.get("BENCH_ROUNDS") or (3 if QUICK else 5))
SIZES = (os.environ.get("BENCH_SIZES") or ("0.6B" if QUICK else "0.6B 1.7B")).split()
ONLY = os.environ.get("BENCH_ONLY", "")
LLAMA_PYTHON = os.environ.get("QWEN3DM_BENCH_PYTHON") or sys.executable
VOCABULARY, HEAD_DIM, DEEP = 151936, 128, 4096
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 25, 30, 31, 32, 33, 40, 47, 48, 49, 56, 63, 64)


class Shape:
    """Weights, operations and bytes of a preset; matrices only."""

    def __init__(self, size):
        self.layers, self.hidden, ffn, heads, self.kv_heads, _ = tiny_model.PRESETS[size]
        self.q_dim, self.kv_dim = heads * HEAD_DIM, self.kv_heads * HEAD_DIM
        layer = self.hidden * (2 * self.q_dim + 2 * self.kv_dim + 3 * ffn)
        self.layer_weights, self.head_weights = self.layers * layer, VOCABULARY * self.hidden

    def prefill_ops(self, n):
        """Operations of the weights' products for n tokens; the head is computed for the last one only."""
        return 2 * (n * self.layer_weights + self.head_weights)

    def attention_ops(self, n, depth):
        return 4 * n * (depth + (n + 1) / 2) * self.q_dim * self.layers

    def kv_bytes(self, tokens, kind):
        return tokens * self.layers * 2 * self.kv_dim * (2 if kind == "f16" else 4)

    def weight_bytes(self, bits):
        return (self.layer_weights + self.head_weights) * bits / 8


class Cell:
    """One process of a round."""

    def __init__(self, engine, model, mode, threads, tests, busy=False):
        self.engine, self.model, self.mode, self.threads, self.busy = engine, model, mode, threads, busy
        self.tests = tests.split()
        name = f"{engine} {mode + ' ' if mode else ''}{model} t{threads}"
        self.name = name + (" busy" if busy else "")


def cells(size):
    """In the order of a round: those that are compared stand together."""
    e, ll = "engine", "llama.cpp"
    if size != "0.6B":
        return [
            Cell(e, "Q8_0", "efficient 8", 2, "pp64x2 pp512 tg32"), Cell(ll, "Q8_0", "", 2, "pp64x2 pp512 tg32"),
            Cell(e, "BF16", "efficient 4", 2, "tg32"), Cell(ll, "Q4_0", "", 2, "pp64x2 tg32"),
            Cell(e, "BF16", "precise", 2, "pp64x2 tg32"), Cell(ll, "BF16", "", 2, "pp64x2 tg32"),
        ]
    if QUICK:
        return [
            Cell(e, "Q8_0", "efficient 8", 2, "pp16x3 pp64x3 tg32"), Cell(ll, "Q8_0", "", 2, "pp16x3 pp64x3 tg32"),
            Cell(e, "BF16", "efficient 4", 2, "tg32"), Cell(ll, "Q4_0", "", 2, "pp64x3 tg32"),
            Cell(e, "BF16", "efficient 8", 2, "pp64x3 tg32"), Cell(e, "BF16", "precise", 2, "pp64x3 tg32"),
            Cell(ll, "BF16", "", 2, "pp64x3 tg32"),
            Cell(e, "Q8_0", "efficient 8", 1, "tg32"), Cell(ll, "Q8_0", "", 1, "tg32"),
            Cell(e, "Q8_0", "efficient 8", 1, "pp64x3 tg32", True),
            Cell(e, "Q8_0", "efficient 8", 2, "pp64x3 tg32", True),
        ]
    return [
        Cell(e, "Q8_0", "efficient 8", 2, "pp16x3 pp30x3 pp64x3 pp512x2 tg64 tg64@512 tg8/32"),
        Cell(ll, "Q8_0", "", 2, "pp16x3 pp30x3 pp64x3 pp512 tg64 tg64@512 tg8/32"),
        Cell(e, "BF16", "efficient 8", 2, "pp64x3 pp512 tg64"),
        Cell(ll, "BF16", "", 2, "pp16x3 pp64x3 pp512 tg64"),
        Cell(e, "BF16", "precise", 2, "pp64x3 pp512 tg64"),
        Cell(ll, "F32", "", 2, "pp16x3 pp64x3 pp512"),
        Cell(e, "BF16", "efficient 4", 2, "tg64 tg64@512"),
        Cell(ll, "Q4_0", "", 2, "pp16x3 pp64x3 pp512 tg64 tg64@512"),
        Cell(e, "BF16", "efficient 4", 1, "tg64"), Cell(ll, "Q4_0", "", 1, "tg64"),
        Cell(e, "Q8_0", "efficient 8", 1, "pp64x2 tg64"), Cell(ll, "Q8_0", "", 1, "pp64x2 tg64"),
        Cell(e, "Q8_0", "efficient 8", 1, "pp64x3 tg32", True), Cell(ll, "Q8_0", "", 1, "pp64x2 tg32", True),
        Cell(e, "Q8_0", "efficient 8", 2, "pp64x3 tg32", True), Cell(ll, "Q8_0", "", 2, "pp64x2 tg32", True),
        Cell(e, "Q8_0", "efficient 8", 2, f"pp64@{DEEP} tg32@{DEEP}"),
    ]


def bare(test):
    return re.sub(r"x\d+$", "", test)


def run(command, timeout=900, stdin=None):
    """What a command prints; RuntimeError if it fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               stdin=None if stdin is None else subprocess.PIPE)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"no answer within {timeout} s") from None
    if process.returncode != 0:
        raise RuntimeError(f"exit status {process.returncode}: {err.strip()[-300:]}")
    return out


def build_model(size, dtype, workdir):
    path = os.path.join(workdir, f"Qwen3-{size}-{dtype}.gguf")
    if not os.path.exists(path):
        print(f"building {path}", file=sys.stderr, flush=True)
        vocabulary = os.path.join(HERE, "..", "data", "qwen3-tokenizer", "tokenizer.json.gz")
        tiny_model.main(["--out", path + ".new", "--preset", size, "--dtype", dtype, "--std", "0.02",
                         "--same-layers", "--vocab", vocabulary])
        os.rename(path + ".new", path)
    return path


class Bench:
    def __init__(self, engine, peaks, workdir):
        self.peaks_program, self.workdir = peaks, workdir
        # A copy, so that a build meanwhile does not change what is measured.
        self.engine = shutil.copy(engine, os.path.join(workdir, "engine-under-test"))
        self.llama = self.find_llama()
        self.samples = {}  # size -> cell name -> test -> [tokens per second or None, one a round]
        self.loads = []  # the system's load before each round; what is over 1 from the second on is somebody else's
        self.peaks, self.problems, self.sweep, self.kv, self.isa = [], [], {}, "f32", None

    def find_llama(self):
        try:
            return run([LLAMA_PYTHON, "-c", "import llama_cpp; print(llama_cpp.__version__, '|', "
                        "llama_cpp.llama_print_system_info().decode())"]).strip()
        except (RuntimeError, OSError):
            return None

    def model(self, size, dtype):
        return build_model(size, dtype, self.workdir)

    def run_llama(self, path, threads, tests):
        script = os.path.join(HERE, "run_llama.py")
        out = run([LLAMA_PYTHON, script, path, str(threads), *tests])
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return {bare(line["test"]): statistics.median(line["tokens_per_second"]) for line in lines}

    def run_engine(self, path, mode, threads, tests):
        command = [self.engine, "bench", "-m", path, "--mode", mode.split()[0], "-t", str(threads)]
        if mode != "precise":
            command += ["--efficient-bits", mode.split()[1]]
        for test in tests:
            command += ["--test", test]
        lines = [json.loads(line) for line in run(command).splitlines()]
        for line in lines:
            self.kv, self.isa = line["kv"], line["isa"]
        return {bare(test): line["tokens_per_second"] for test, line in zip(tests, lines, strict=True)}

    def run_cell(self, size, cell):
        path = self.model(size, cell.model)
        busy = subprocess.Popen(["sh", "-c", "while :; do :; done"]) if cell.busy else None
        try:
            if cell.engine == "engine":
                return self.run_engine(path, cell.mode, cell.threads, cell.tests)
            return self.run_llama(path, cell.threads, cell.tests)
        except RuntimeError as problem:
            self.problems.append(f"{size} {cell.name}: {problem}")
            print(f"  {cell.name}: {problem}", flush=True)
            return {}
        finally:
            if busy:
                busy.kill()
                busy.wait()

    def wanted(self, size):
        return [c for c in cells(size) if ONLY in c.name and (c.engine == "engine" or self.llama)]

    def round(self, number):
        start = time.monotonic()
        self.loads.append(os.getloadavg()[0])
        self.peaks.append(json.loads(run([self.peaks_program])))
        for size in SIZES:
            store = self.samples.setdefault(size, {})
            for cell in self.wanted(size):
                results = self.run_cell(size, cell)
                for test in map(bare, cell.tests):
                    store.setdefault(cell.name, {}).setdefault(test, []).append(results.get(test))
        print(f"round {number} of {ROUNDS}: {time.monotonic() - start:.0f} s", flush=True)

    def run_sweep(self):
        """Prefill of every kind of length, once: is there a cliff?"""
        results = self.run_engine(self.model("0.6B", "Q8_0"), "efficient 8", 2, [f"pp{n}x7" for n in LENGTHS])
        self.sweep = {n: results[f"pp{n}"] for n in LENGTHS}

    # -- reading the samples ---------------------------------------------------------------

    def values(self, size, name, test):
        return self.samples.get(size, {}).get(name, {}).get(test) or []

    def peak(self, key, threads=2):
        return [next((p.get(key) for p in r["peaks"] if p["threads"] == threads), None) for r in self.peaks]


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def divide(above, below):
    """Per round; None where one of the two is missing."""
    return [a / b if a is not None and b else None for a, b in zip(above, below)]


def best_of(lists):
    return [max((v for v in row if v is not None), default=None) for row in zip(*lists)] if lists else []


def goals(bench, size):
    """The issue's table: (claim, ours, theirs, ratios per round, goal, at least?)."""
    def engine(mode, model, test, threads=2, busy=False):
        return bench.values(size, f"engine {mode} {model} t{threads}" + (" busy" if busy else ""), test)

    def llama(model, test, threads=2, busy=False):
        return bench.values(size, f"llama.cpp {model} t{threads}" + (" busy" if busy else ""), test)

    rows = []

    def versus(claim, ours, theirs, goal):
        rows.append((claim, median(ours), median(theirs), divide(ours, theirs), goal, True))

    shape, e8, e4 = Shape(size), "efficient 8", "efficient 4"
    decode = "tg64" if engine(e8, "Q8_0", "tg64") else "tg32"
    for n in (16, 30, 64, 512):
        versus(f"efficient 8-bit prefill {n} vs Q8_0", engine(e8, "Q8_0", f"pp{n}"), llama("Q8_0", f"pp{n}"),
               4.0 if n >= 64 else None)
    for n in (16, 64, 512):
        versus(f"efficient 8-bit prefill {n} vs its best type", engine(e8, "Q8_0", f"pp{n}"),
               best_of([v for v in (llama(t, f"pp{n}") for t in ("F32", "BF16", "Q8_0", "Q4_0")) if v]), 2.5)
    for n, goal in ((30, 0.5), (64, 0.6), (512, 0.6)):
        ops = [v and v / n * shape.prefill_ops(n) / 1e9 for v in engine(e8, "Q8_0", f"pp{n}")]
        versus(f"prefill {n}: share of the int8 peak (GOP/s)", ops, bench.peak("int8"), goal)
        versus(f"prefill {n}: share of the AMX int8 peak", ops, bench.peak("int8_amx"), None)
    for test, what in (("pp64", "prefill 64"), ("tg32", "decode")):
        versus(f"beside a busy process, {what}: 2 threads vs 1", engine(e8, "Q8_0", test, 2, True),
               engine(e8, "Q8_0", test, 1, True), 1.0)
        if llama("Q8_0", test, 2, True):
            versus(f"  llama.cpp's, {what}: 2 threads vs 1", llama("Q8_0", test, 2, True),
                   llama("Q8_0", test, 1, True), None)
    versus("decode, 1 thread, 8-bit vs Q8_0", engine(e8, "Q8_0", decode, 1), llama("Q8_0", decode, 1), 1.5)
    versus("decode, 1 thread, 4-bit vs Q4_0", engine(e4, "BF16", decode, 1), llama("Q4_0", decode, 1), 1.8)
    # Q8_0 reads 8.5 bits a weight; keys and values of half of the tokens that are written come on top.
    n = int(decode[2:])
    per_token = shape.weight_bytes(8.5) + shape.kv_bytes(n / 2, bench.kv)
    versus("decode, 2 threads, 8-bit: share of the read bandwidth (GB/s)",
           [v and v * per_token / 1e9 for v in engine(e8, "Q8_0", decode)], bench.peak("read"), 0.9)
    versus("decode, 2 threads, 8-bit vs Q8_0", engine(e8, "Q8_0", decode), llama("Q8_0", decode), None)
    versus("decode, 2 threads, 4-bit vs Q4_0", engine(e4, "BF16", decode), llama("Q4_0", decode), 1.3)
    versus("decode at depth 512, 8-bit vs Q8_0", engine(e8, "Q8_0", "tg64@512"), llama("Q8_0", "tg64@512"), None)
    versus("decode at depth 512, 4-bit vs Q4_0", engine(e4, "BF16", "tg64@512"), llama("Q4_0", "tg64@512"), None)
    versus("32 sequences together, 8-bit vs Q8_0", engine(e8, "Q8_0", "tg8/32"), llama("Q8_0", "tg8/32"), 4.0)
    for n in (64, 512):
        versus(f"precise prefill {n} vs F32", engine("precise", "BF16", f"pp{n}"), llama("F32", f"pp{n}"), 1.6)
    versus("precise decode vs BF16", engine("precise", "BF16", decode), llama("BF16", decode), 0.95)
    for n in (64, 512):
        versus(f"efficient vs our precise, prefill {n}", engine(e8, "BF16", f"pp{n}"),
               engine("precise", "BF16", f"pp{n}"), 3.0)
    versus("efficient vs our precise, decode, 8 bits", engine(e8, "BF16", decode), engine("precise", "BF16", decode), 1.8)
    versus("efficient vs our precise, decode, 4 bits", engine(e4, "BF16", decode), engine("precise", "BF16", decode), 3.0)
    rows += growth(bench, size, shape)
    return [row for row in rows if row[1] is not None]


def growth(bench, size, shape):
    """Cost per token at depth 4096 against depth 0, beside what bytes and operations dictate."""
    name, rows = "engine efficient 8 Q8_0 t2", []
    int8, fp32, read = (median(bench.peak(k)) for k in ("int8", "fp32", "read"))
    measured = divide(bench.values(size, name, "tg64"), bench.values(size, name, f"tg32@{DEEP}"))
    if median(measured) and read:
        near, far = (shape.weight_bytes(8.5) + shape.kv_bytes(n, bench.kv) for n in (32, DEEP + 16))
        ideal = far / near
        rows.append((f"growth of a decode step to depth {DEEP} vs bytes", median(measured), ideal,
                     [m and m / ideal for m in measured], 1.5, False))
    measured = divide(bench.values(size, name, "pp64"), bench.values(size, name, f"pp64@{DEEP}"))
    if median(measured) and int8 and fp32:
        near, far = (shape.prefill_ops(64) / int8 + shape.attention_ops(64, depth) / fp32 for depth in (0, DEEP))
        ideal = far / near
        rows.append((f"growth of 64 tokens of prefill to depth {DEEP} vs operations", median(measured), ideal,
                     [m and m / ideal for m in measured], 1.5, False))
    return rows


def print_samples(bench, size):
    print(f"\nQwen3-{size} shape, tokens per second: median [least, most] of {ROUNDS} rounds")
    for name, tests in bench.samples[size].items():
        line = []
        for test, values in tests.items():
            good = [v for v in values if v is not None]
            line.append(f"{test} {median(good):.4g} [{min(good):.4g}, {max(good):.4g}]" if good else f"{test} failed")
        print(f"  {name:28} " + "  ".join(line))


def print_goals(title, table):
    print(f"\n{title} against the goals: medians of the rounds; the ratio is the median of the rounds' ratios")
    print(f"  {'':60} {'ours':>8} {'other':>8} {'ratio':>7} {'goal':>7}")
    for claim, ours, other, ratios, goal, at_least in table:
        ratio = median(ratios)
        met = "" if goal is None or ratio is None else "met" if (ratio >= goal) == at_least or ratio == goal else "MISSED"
        print(f"  {claim:60} {ours:8.4g} {'-' if other is None else format(other, '.4g'):>8} "
              f"{'' if ratio is None else format(ratio, '.2f'):>7} "
              f"{'' if goal is None else ('>= ' if at_least else '<= ') + format(goal, 'g'):>7} {met}")


def print_sweep(bench):
    best, worst, at = 0, 1, None
    print("\nPrefill of n tokens, efficient 8-bit, Q8_0, 2 threads, once: n: tokens per second")
    print("  " + "  ".join(f"{n}: {v:.0f}" for n, v in bench.sweep.items()))
    for n, value in bench.sweep.items():
        if best and value / best < worst:
            worst, at = value / best, n
        best = max(best, value)
    note = f"the worst is {worst:.2f} of the best shorter prompt, at {at}" if at else "never slower than a shorter prompt"
    print(f"  no cliff: {note}")
    return worst


def print_peaks(bench):
    print("\nPeaks of this machine, median of the rounds")
    for p in bench.peaks[0]["peaks"]:
        t, parts = p["threads"], []
        for key, unit in (("fp32", "GFLOP/s"), ("bf16", "GFLOP/s"), ("int8", "GOP/s"),
                          ("int8_amx", "GOP/s"), ("read", "GB/s")):
            if key in p:
                instruction = f" ({p[key + '_instruction']})" if key + "_instruction" in p else ""
                parts.append(f"{key} {median(bench.peak(key, t)):.4g} {unit}{instruction}")
        print(f"  {t} thread{'s' if t > 1 else ' '}: " + ", ".join(parts))


def machine():
    name = platform.processor()
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return {"cpu": name, "cpus": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"}


def commit():
    try:
        return run(["git", "-C", HERE, "describe", "--always", "--dirty"]).strip()
    except (RuntimeError, OSError):
        return None


def report(bench, started):
    tables = {}
    print_peaks(bench)
    for size in SIZES:
        if bench.samples.get(size):
            print_samples(bench, size)
    cliff = print_sweep(bench) if bench.sweep else None
    for size in SIZES:
        tables[size] = goals(bench, size)
        if tables[size]:
            print_goals(f"Qwen3-{size} shape", tables[size])
    save(bench, "bench", started, {
        "rounds": ROUNDS, "quick": QUICK, "isa": bench.isa, "kv": bench.kv, "prefill_by_length": bench.sweep,
        "worst_step_down": cliff, "goals": {size: goal_records(rows) for size, rows in tables.items()}})


def goal_records(table):
    return [{"claim": c.strip(), "ours": o, "other": t, "ratios": r, "ratio": median(r), "goal": g, "at_least": a}
            for c, o, t, r, g, a in table]


def save(bench, name, started, result):
    """Writes everything that a run found, and says where and what went wrong."""
    result = {"started": started, "commit": commit(), "machine": machine(), "load": bench.loads, "llama.cpp": bench.llama,
              "peaks": bench.peaks, "samples": bench.samples, "problems": bench.problems, **result}
    path = os.path.join(bench.workdir, f"{name}-{started.replace(':', '').replace('-', '')}.json")
    with open(path, "w") as f:
        json.dump(result, f, indent=1)
    print(f"\n{path}")
    for problem in bench.problems:
        print(f"problem: {problem}")


def print_machine(bench):
    info = machine()
    print(f"{info['cpu']}, {info['cpus']} processors; commit {commit()}")
    print(f"llama.cpp: {bench.llama or 'not found, so ours alone (see QWEN3DM_BENCH_PYTHON)'}")
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is not quiet (load {os.getloadavg()[0]:.1f}): these figures will not mean much")


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "--model":
        os.makedirs(sys.argv[4], exist_ok=True)
        print(build_model(*sys.argv[2:]))
        return 0
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    started = datetime.datetime.now().isoformat(timespec="seconds")
    os.makedirs(sys.argv[3], exist_ok=True)
    bench = Bench(*sys.argv[1:])
    print_machine(bench)
    for size in SIZES:
        for cell in bench.wanted(size):
            bench.model(size, cell.model)
    for number in range(1, ROUNDS + 1):
        bench.round(number)
    if not QUICK and "0.6B" in SIZES and not ONLY:
        bench.run_sweep()
    report(bench, started)
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
