"""llama.cpp's server on the loopback interface, and clients that keep their connection (for rows.py)."""
import collections
import contextlib
import http.client
import json
import socket
import subprocess
import tempfile
import threading
import time

from cluster import resident_mb


class LlamaServer:
    """Runs while the with block does: 4 slots, prompt cache on, everything else as it chooses."""

    def __init__(self, program, model, threads):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = tempfile.TemporaryFile(mode="w+", errors="replace")
        self.process = subprocess.Popen(
            [program, "-m", model, "-t", str(threads), "--parallel", "4", "-c", "4096", "--host", "127.0.0.1",
             "--port", str(self.port)], stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(600):
            with contextlib.suppress(OSError), contextlib.closing(self.connect()) as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.__exit__()
        raise RuntimeError(f"llama-server did not start: {self.output()}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def output(self):
        self.log.seek(0)
        return self.log.read()[-300:]

    def memory_mb(self):
        return resident_mb(self.process.pid)

    def ask(self, connection, tokens):
        """One token more after these; True when the server gave one."""
        body = json.dumps({"prompt": tokens, "n_predict": 1, "temperature": 0, "cache_prompt": True})
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        return response.status == 200 and answer.get("tokens_predicted") == 1

    def client(self, queue, latencies):
        with contextlib.closing(self.connect()) as connection, contextlib.suppress(IndexError):
            while True:
                tokens = queue.popleft()
                start = time.perf_counter()
                if self.ask(connection, tokens):
                    latencies.append((time.perf_counter() - start) * 1000)

    def measure(self, prompts, connections):
        """Rows per second, and the latencies in milliseconds; one request for each list of tokens."""
        queue, latencies = collections.deque(prompts), []
        threads = [threading.Thread(target=self.client, args=(queue, latencies)) for _ in range(connections)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        if len(latencies) != len(prompts):
            raise RuntimeError(f"llama-server answered {len(latencies)} of {len(prompts)}: {self.output()}")
        return len(prompts) / seconds, latencies
