#!/usr/bin/env python3
"""Measures llama.cpp as bench.py asks: run_llama.py MODEL THREADS TEST... with a Python that has llama-cpp-python.

Tests and output are those of bench.py: for every test one JSON line {"test": ..., "tokens_per_second": [one a run]}.
Only the C interface is used: batches of token ids, no sampling, logits of the last token of each sequence, flash
attention and everything else as the library chooses. A short decode before the clock starts warms each context up.
"""
import ctypes
import json
import re
import sys
import time

import llama_cpp as lc

CHUNK = 512  # tokens of a batch, as the engine's default


def parse(test):
    """pp64@512x3 -> kind, n, depth, runs; tg64@512, tg8/32 (8 steps of 32 sequences)."""
    kind, n, batch, depth, runs = re.fullmatch(r"(pp|tg)(\d+)(?:/(\d+))?(?:@(\d+))?(?:x(\d+))?", test).groups()
    return kind, int(n), int(batch or 1), int(depth or 0), int(runs or 1)


class Context:
    """A context with its KV cache; one buffer of tokens serves all batches."""

    def __init__(self, model, threads, n_ctx, sequences):
        params = lc.llama_context_default_params()
        params.n_ctx = n_ctx * sequences
        params.n_batch = params.n_ubatch = CHUNK
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        self.ctx = lc.llama_init_from_model(model, params)
        if not self.ctx:
            raise RuntimeError("llama_init_from_model failed")
        self.batch = lc.llama_batch_init(CHUNK, 0, 1)
        self.n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
        self.state = 1

    def close(self):
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.ctx)

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.ctx), True)

    def token(self):
        self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self.state >> 8) % self.n_vocab

    def decode(self, entries):
        """entries: (sequence, position, wants logits)."""
        for i, (sequence, position, wanted) in enumerate(entries):
            self.batch.token[i] = self.token()
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = wanted
        self.batch.n_tokens = len(entries)
        status = lc.llama_decode(self.ctx, self.batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        lc.llama_synchronize(self.ctx)

    def feed(self, sequence, start, n):
        for done in range(0, n, CHUNK):
            part = min(CHUNK, n - done)
            self.decode([(sequence, start + done + i, done + i == n - 1) for i in range(part)])

    def step(self, sequences, position):
        self.decode([(s, position, True) for s in range(sequences)])


def measure(model, threads, test):
    kind, n, batch, depth, runs = parse(test)
    context = Context(model, threads, (depth + n + 63) // 32 * 32, batch)
    rates = []
    try:
        context.feed(0, 0, min(n, 32))
        for _ in range(runs):
            context.clear()
            for sequence in range(batch):
                context.feed(sequence, 0, depth)
            start = time.perf_counter()
            if kind == "pp":
                context.feed(0, depth, n)
            else:
                for i in range(n):
                    context.step(batch, depth + i)
            rates.append(n * batch / (time.perf_counter() - start))
    finally:
        context.close()
    return rates


def main():
    path, threads, tests = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    quiet = lc.llama_log_callback(lambda level, text, data: None)
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    params = lc.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama.cpp could not load {path}")
    for test in tests:
        print(json.dumps({"test": test, "tokens_per_second": measure(model, threads, test)}), flush=True)
    lc.llama_model_free(model)


if __name__ == "__main__":
    main()
