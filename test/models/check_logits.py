#!/usr/bin/env python3
"""Compares the engine's logits and vectors with reference.py on models built from a seed.

    check_logits.py ENGINE WORKDIR [--only TEXT] [--keep]

For every architecture and tensor type, and for some unusual shapes, builds a small random model in WORKDIR, runs
`ENGINE logits` on a prompt, and prints the relative error ||logits - reference|| / ||reference|| of the worst position:
in mode precise with F32 keys and values (limit 1e-4) and with F16 ones (1e-3), on packed weights (1e-4; 1e-3 where
packing rounds: weights of 16 and 32 bits), and in mode efficient with 8 and with 4 bits. The limits for efficient only
tell rounding from mistakes: random weights suffer more from it than trained ones.

Then runs `ENGINE embed` on a text of the same length, and prints the cosine between its vectors and the reference's:
the end token's and the mean of all, in mode precise with packed weights (at least 0.9999) and in mode efficient. Long
texts are computed in pieces. Exit status 1 if anything is beyond its limit.
"""
import argparse
import json
import os
import subprocess
import sys

import gguf
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reference  # noqa: E402
import tiny_model  # noqa: E402

WAYS = {  # name of the column, options of the engine
    "KV f32": "--mode precise --kv f32",
    "KV f16": "--mode precise --kv f16",
    "packed": "--mode precise --kv f32 --packed",
    "8 bits": "--mode efficient --kv f32",
    "4 bits": "--mode efficient --kv f32 --efficient-bits 4",
}
VECTORS = {  # name of the column, options of the engine, least cosine
    "last": ("--mode precise --packed", 0.9999),
    "mean": ("--mode precise --packed --mean", 0.9999),
    "last 8": ("--mode efficient", 0.999),
    "mean 8": ("--mode efficient --mean", 0.999),
}
ARCHITECTURES = ("qwen3", "qwen2", "llama")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
STD = "--std 0.05"  # of the weights; real ones have 0.02 to 0.05, and larger ones amplify the rounding of F16 itself
K_SHAPE = "--L 2 --H 256 --F 512 --nh 4 --nkv 2 --hd 64"  # rows of every matrix are a multiple of 256

SHAPES = (  # name, arguments, length of the prompt
    ("heads wider than H/nh", "--H 128 --F 384 --nh 4 --nkv 2 --hd 64", 24),
    ("one KV head", "--H 128 --F 256 --nh 4 --nkv 1 --hd 32", 24),
    ("a KV head per head", "--H 128 --F 256 --nh 4 --nkv 4 --hd 32", 24),
    ("half of a head rotated", "--H 128 --F 256 --nh 4 --nkv 2 --hd 64 --rope-dims 32", 24),
    ("no power of two", "--H 160 --F 352 --nh 6 --nkv 3 --hd 48", 24),
    ("narrow Q8_0", "--H 96 --F 160 --nh 3 --nkv 1 --hd 32 --dtype Q8_0", 24),
    ("Q4_K with Q6_K head", K_SHAPE + " --dtype Q4_K --embd-dtype Q6_K --tied 0", 24),
    ("heads of 128, theta 1e4", "--H 128 --F 256 --nh 2 --nkv 1 --hd 128 --theta 1e4 --L 1", 24),
    ("one token", "--L 2 --dtype Q8_0", 1),
    ("300 tokens", "--L 2 --H 64 --F 128 --nh 2 --nkv 1 --hd 32", 300),
)


def cases():
    """(label, arguments of tiny_model, length of the prompt) of every model."""
    for arch in ARCHITECTURES:
        for i, dtype in enumerate(TYPES):
            yield f"{arch} {dtype}", f"--arch {arch} --dtype {dtype} {K_SHAPE} --tied {i % 2}", 24
    for arch in ARCHITECTURES:
        yield f"{arch} Q8_0 other head", f"--arch {arch} --dtype Q8_0 {K_SHAPE} --tied 0", 24
        for name, args, n in SHAPES:
            yield f"{arch} {name}", f"--arch {arch} {args}", n


def limits(tensors_of_16_bits):
    """The largest error of each way."""
    packed = 1e-3 if tensors_of_16_bits else 1e-4
    return {"KV f32": 1e-4, "KV f16": 1e-3, "packed": packed, "8 bits": 0.1, "4 bits": 1.0}


def engine_logits(engine, model, tokens, options, out):
    """Logits of every position as the engine computes them."""
    if os.path.exists(out):
        os.remove(out)
    command = [engine, "logits", "-m", model, "--tokens", ",".join(map(str, tokens)), "--all", "--raw", out, *options.split()]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[:300]}")
    return np.fromfile(out, "<f4").astype(np.float64).reshape(len(tokens), -1)


def engine_vector(engine, model, text, options, out):
    """The vector of a text as the engine computes it, in steps of at most 64 tokens."""
    command = [engine, "embed", "-m", model, "--raw", out, "--context-length", "512", "--max-batch-tokens", "64",
               *options.split()]
    if os.path.exists(out):
        os.remove(out)
    done = subprocess.run(command, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[:300]}")
    return np.fromfile(out, "<f4").astype(np.float64)


def tokens_of_text(engine, model, meta, text):
    """As the engine's tokenizer has them, and the end token: <|endoftext|>, because the file asks for no other."""
    done = subprocess.run([engine, "tokenize", "-m", model], input=text, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout) + [meta["tokenizer.ggml.tokens"].index("<|endoftext|>")]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check_vectors(engine, model, meta, tensors, length, out):
    """For each column of VECTORS its cosine, whether that is enough, and a note; the vector must have length 1."""
    text = "".join(np.random.default_rng(length).choice(list("abcdeinorst  "), 2 * length))
    states = reference.hidden_states(meta, tensors, tokens_of_text(engine, model, meta, text))
    for way, (options, least) in VECTORS.items():
        vector = engine_vector(engine, model, text, options, out)
        got = cosine(vector, states.mean(axis=0) if "mean" in options else states[-1])
        length_is_1 = abs(np.linalg.norm(vector) - 1) < 1e-6
        yield got, got >= least and length_is_1, "" if length_is_1 else f"    {way}: length {np.linalg.norm(vector)}"


def has_wide_matrices(model):
    """Whether any matrix has weights of 16 or 32 bits."""
    return any(len(t.shape) == 2 and t.tensor_type.name in ("F32", "F16", "BF16") for t in gguf.GGUFReader(model).tensors)


def worst_error(logits, expected):
    if logits.shape != expected.shape:
        raise RuntimeError(f"{logits.shape} logits instead of {expected.shape}")
    error = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(np.inf if np.isnan(error).any() else error.max())


def check(engine, workdir, label, args, length, keep):
    """Prints one line of the table; the numbers of passed and failed comparisons."""
    model, out = os.path.join(workdir, label.replace(" ", "_").replace("/", "_") + ".gguf"), os.path.join(workdir, "logits")
    tiny_model.main(["--out", model, *STD.split(), *args.split()])
    meta, tensors = reference.load(model)
    tokens = np.random.default_rng(length).integers(0, len(tensors["token_embd.weight"]), length).tolist()
    expected = reference.forward(meta, tensors, tokens)
    columns, passed, failed, notes = [], 0, 0, []
    allowed = limits(has_wide_matrices(model))
    for way, options in WAYS.items():
        try:
            error = worst_error(engine_logits(engine, model, tokens, options, out), expected)
            columns.append(f"{error:.2e}")
            passed, failed = passed + (error <= allowed[way]), failed + (error > allowed[way])
        except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as problem:
            columns.append("-")
            failed += 1
            notes.append(f"    {way}: {problem}")
    try:
        for got, good, note in check_vectors(engine, model, meta, tensors, length, out):
            columns.append(f"{got:.6f}")
            passed, failed, notes = passed + good, failed + (not good), notes + [note] * bool(note)
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as problem:
        columns.append("-")
        failed += 1
        notes.append(f"    vectors: {problem}")
    head = "output" if "output.weight" in tensors else "tied"
    print(f"{label:34} {head:7} {' '.join(f'{c:>9}' for c in columns)}  {'FAILED' if failed else 'ok'}", flush=True)
    print(*notes, sep="\n", end="\n" if notes else "")
    if not keep:
        os.remove(model)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="path of qwen3dm-engine")
    parser.add_argument("workdir", help="folder for models and outputs; made if it is not there")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--keep", action="store_true", help="leave the models in the folder")
    a = parser.parse_args()
    os.makedirs(a.workdir, exist_ok=True)
    print(f"{'model':34} {'head':7} {' '.join(f'{way:>9}' for way in [*WAYS, *VECTORS])}")
    passed = failed = 0
    for label, args, length in cases():
        if a.only in label:
            ok, bad = check(a.engine, a.workdir, label, args, length, a.keep)
            passed, failed = passed + ok, failed + bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
