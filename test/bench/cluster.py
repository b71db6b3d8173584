"""A running PostgreSQL server and its engine, spoken to with the server's own psql and pgbench (for rows.py)."""
import contextlib
import glob
import os
import re
import subprocess
import tempfile
import time

from bench import run

COUNTERS = ("requests", "prompt_tokens", "output_tokens", "cached_tokens", "deduplicated", "classified")


def quote(text):
    return "'" + text.replace("'", "''") + "'"


class Cluster:
    def __init__(self, programs, socket_dir, database):
        self.programs, self.database = programs, database
        self.connection = ["-h", socket_dir, "-U", "postgres"]
        self.loaded = None

    def command(self, *options):
        return [os.path.join(self.programs, "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", *self.connection, "-d",
                self.database, *options]

    def sql(self, *statements, stdin=None):
        """What the statements return, one session for all of them."""
        return run(self.command(*(part for s in statements for part in ("-c", s))), stdin=stdin).strip()

    def timed(self, statement, rows, *settings):
        """Seconds that a statement takes for the client; it must return so many rows, and no empty value last."""
        *found, time_line = self.sql(*settings, "\\pset recordsep_zero", "\\timing on", statement).split("\0")
        if len(found) != rows or any(row.endswith("|") for row in found):
            raise RuntimeError(f"{len(found)} rows, not {rows}, or empty answers among them")
        return float(re.fullmatch(r"\s*Time: ([\d.]+) ms.*", time_line).group(1)) / 1000

    def fill(self, texts):
        """Table r: a text a row."""
        self.sql("DROP TABLE IF EXISTS r", "CREATE TABLE r (id int PRIMARY KEY, body text NOT NULL)")
        self.sql("COPY r FROM STDIN", stdin="".join(f"{i}\t{text}\n" for i, text in enumerate(texts, 1)))
        self.sql("VACUUM ANALYZE r")

    def pgbench_init(self, scale):
        run([os.path.join(self.programs, "pgbench"), *self.connection, "-i", "-q", "-s", str(scale), self.database])

    def pgbench(self, *options):
        """Transactions per second (connecting not counted), and their latencies in milliseconds."""
        with tempfile.TemporaryDirectory() as folder:
            out = run([os.path.join(self.programs, "pgbench"), *self.connection, "-n", "-l", "--log-prefix",
                       os.path.join(folder, "log"), *options, self.database])
            latencies = []
            for path in glob.glob(os.path.join(folder, "log*")):
                with open(path) as f:
                    latencies += [int(line.split()[2]) / 1000 for line in f]
        return float(re.search(r"tps = ([\d.]+) \(without", out).group(1)), latencies

    # -- the engine ------------------------------------------------------------------------

    def status(self, *columns):
        return self.status_of("main", *columns)

    def status_of(self, service, *columns):
        return self.sql(f"SELECT {', '.join(columns)} FROM qwen_model_status WHERE service = '{service}'").split("|")

    def load(self, model, threads):
        """Gives the engine this model and so many threads, and waits until it is ready; False: it has them."""
        if self.loaded == (model, threads):
            return False
        old = self.status("engine_pid")[0]
        self.sql(f"ALTER SYSTEM SET qwen3dm.model = {quote(model)}", f"ALTER SYSTEM SET qwen3dm.threads = {threads}",
                 "SELECT pg_reload_conf()")
        for _ in range(1200):
            state, pid, has = self.status("state", "engine_pid", "threads")
            if state == "failed":
                raise RuntimeError(f"the model cannot be loaded: {self.status('message', 'detail')}")
            if state == "ready" and pid != old and int(has) == threads:
                self.loaded = (model, threads)
                return True
            time.sleep(0.1)
        raise RuntimeError("the model was not loaded within two minutes")

    @contextlib.contextmanager
    def embedding_model(self, model):
        """An engine for embeddings with this model, for as long as the block takes."""
        setting = "ALTER SYSTEM SET qwen3dm.embedding_model = "
        self.sql(setting + quote(model), "SELECT pg_reload_conf()")
        try:
            for _ in range(1200):
                state = self.status_of("embedding", "state")[0]
                if state == "ready":
                    break
                if state == "failed":
                    raise RuntimeError("the embedding model cannot be loaded")
                time.sleep(0.1)
            else:
                raise RuntimeError("the embedding model was not loaded within two minutes")
            yield
        finally:
            self.sql(setting + "''", "SELECT pg_reload_conf()")

    def counters(self):
        return dict(zip(COUNTERS, map(int, self.status(*COUNTERS))))

    def settled_counters(self):
        """When nothing is under way: the engine tells them once a second."""
        time.sleep(1.5)
        return self.counters()

    def grown(self, before):
        """What the counters have grown by since then."""
        return {name: value - before[name] for name, value in self.settled_counters().items()}

    def engine_mb(self):
        return resident_mb(self.status("engine_pid")[0])


class Load:
    """A session in the midst of a long statement, for as long as the block takes."""

    def __init__(self, cluster, statement):
        self.cluster, self.statement = cluster, statement

    def __enter__(self):
        self.process = subprocess.Popen(
            self.cluster.command("-c", self.statement), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PGAPPNAME": "load"})
        for _ in range(100):
            if self.process.poll() is not None:
                break
            if int(self.cluster.sql("SELECT count(*) FROM qwen_stat_activity")) > 0:
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"the load did not start: {self.process.stderr.read()[-300:]}")

    def __exit__(self, *_):
        self.ran_out = self.process.poll() is not None
        self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'load'")
        self.process.wait(30)


def resident_mb(pid):
    """Memory that a process has resident, shared pages included, in MiB."""
    with open(f"/proc/{pid}/status") as f:
        return next((int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS:")), None)
