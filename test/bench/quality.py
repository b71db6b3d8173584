#!/usr/bin/env python3
"""How far mode efficient is from mode precise on a real model and real sentences.

    quality.py ENGINE WORKDIR [MODEL.gguf] [--as TYPE] [--bits 8,4] [--sentences N] [--json OUT]

Every position of the sentences in sentences.txt (in groups of whole paragraphs of about 400 tokens, each a context of
its own) is computed in mode precise and in mode efficient; printed are the mean over all positions of the
Kullback-Leibler divergence KL(precise || efficient) in nats, how often both find the same token most likely, and the
perplexity of both. The limits at 8 bits are 0.002 and 98 %; the exit status is 1 if one is exceeded.

The default model is SmolLM2, in the cache that "make demo MODEL=smollm2" fills. Its file type, Q4_1, has one precision only (the
modes differ in the activations), so it is also measured after conversion to BF16, whose weights the engine packs in
planes: --as BF16 (or Q8_0, F16, F32), or --as file for the file as it is. Default: both.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QT
from gguf.quants import dequantize, quantize

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
DEMO = os.path.join(CACHE, "qwen3dm", "SmolLM2-135M-Instruct.Q4_1.gguf")
GROUP = 400  # tokens of a context
LIMITS = {"kl": 0.002, "agreement": 0.98}  # at 8 bits


def convert(source, dtype, target):
    """The same model with its matrices in another type."""
    if os.path.exists(target):
        return target
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target + ".new", reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type",
                                                            "general.quantization_version"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind,
                             field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        x = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if x.ndim < 2 or dtype == "F32":
            writer.add_tensor(tensor.name, x)
        else:
            writer.add_tensor(tensor.name, quantize(x, QT[dtype]), raw_dtype=QT[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(target + ".new", target)
    return target


def engine(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:6])}: exit status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def contexts(program, model, limit):
    """The sentences' tokens, in groups of whole paragraphs; and the number of sentences."""
    with open(os.path.join(HERE, "sentences.txt"), encoding="utf-8") as file:
        paragraphs = file.read().strip().split("\n\n")
    groups, sentences = [[]], 0
    for paragraph in paragraphs:
        lines = paragraph.split("\n")[:limit - sentences if limit else None]
        if not lines:
            break
        sentences += len(lines)
        # About 1.35 tokens a word: near enough to choose where a group ends.
        if sum(len(p.split()) for p in groups[-1]) + len(paragraph.split()) > GROUP / 1.35:
            groups.append([])
        groups[-1].append(" ".join(lines))
    return [json.loads(engine([program, "tokenize", "-m", model], input="\n".join(g))) for g in groups], sentences


def logits(program, model, tokens, mode, out):
    engine([program, "logits", "-m", model, "--tokens", ",".join(map(str, tokens)), "--all", "--raw", out, *mode])
    rows = np.fromfile(out, "<f4").reshape(len(tokens), -1)
    os.remove(out)
    return rows


def log_softmax(rows):
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def compare(precise, other, tokens):
    """Per position: divergence, agreement; and the log-probability of the next token in both."""
    p, q, agree = log_softmax(precise), log_softmax(other), precise.argmax(axis=1) == other.argmax(axis=1)
    divergence = (np.exp(p) * (p - q)).sum(axis=1, dtype=np.float64)
    at = (np.arange(len(tokens) - 1), np.array(tokens[1:]))
    return divergence, agree, p[at], q[at]


def measure(program, model, bits, groups, workdir):
    """bits -> the four arrays of compare(), over all positions."""
    modes = {b: ["--mode", "efficient", "--efficient-bits", str(b)] for b in bits}
    results = {b: [[], [], [], []] for b in bits}

    def work(tokens):
        with tempfile.TemporaryDirectory(dir=workdir) as folder:
            precise = logits(program, model, tokens, ["--mode", "precise", "-t", "1"], os.path.join(folder, "p"))
            return [compare(precise, logits(program, model, tokens, modes[b] + ["-t", "1"], os.path.join(folder, "e")),
                            tokens) for b in bits]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for parts in pool.map(work, groups):
            for b, part in zip(bits, parts):
                for values, more in zip(results[b], part):
                    values.append(more)
    return {b: [np.concatenate(v) for v in values] for b, values in results.items()}


def report(name, b, arrays):
    divergence, agree, p, q = arrays
    row = {"model": name, "bits": b, "positions": len(divergence), "kl": float(divergence.mean()),
           "kl_median": float(np.median(divergence)), "kl_99": float(np.quantile(divergence, 0.99)),
           "agreement": float(agree.mean()), "perplexity_precise": float(np.exp(-p.mean())),
           "perplexity_efficient": float(np.exp(-q.mean()))}
    passed = b != 8 or (row["kl"] <= LIMITS["kl"] and row["agreement"] >= LIMITS["agreement"])
    print(f"{name:24} {b:>4} {row['kl']:10.6f} {row['kl_median']:10.6f} {row['kl_99']:10.6f} {row['agreement']:10.4%} "
          f"{row['perplexity_precise']:10.3f} {row['perplexity_efficient']:10.3f}  "
          f"{'' if b != 8 else 'ok' if passed else 'FAILED'}", flush=True)
    row["passed"] = passed
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="path of qwen3dm-engine")
    parser.add_argument("workdir", help="folder for converted models and logits; made if it is not there")
    parser.add_argument("model", nargs="?", default=DEMO)
    parser.add_argument("--as", dest="types", action="append", choices=("file", "BF16", "F16", "F32", "Q8_0"))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--sentences", type=int, default=0, help="only so many of them")
    parser.add_argument("--json", help="write the figures to this file")
    a = parser.parse_args()
    os.makedirs(a.workdir, exist_ok=True)
    if not os.path.exists(a.model):
        sys.exit(f"{a.model} is not there; \"make demo MODEL=smollm2\" fetches SmolLM2")
    bits, rows = [int(b) for b in a.bits.split(",")], []
    groups, sentences = contexts(a.engine, a.model, a.sentences)
    print(f"{os.path.basename(a.model)}: {sentences} sentences, {sum(map(len, groups))} positions, "
          f"{len(groups)} contexts")
    print(f"{'weights':24} {'bits':>4} {'mean KL':>10} {'median':>10} {'99 %':>10} {'same top':>10} "
          f"{'ppl prec.':>10} {'ppl eff.':>10}")
    for dtype in a.types or ("file", "BF16"):
        stem = os.path.splitext(os.path.basename(a.model))[0]
        model = a.model if dtype == "file" else convert(a.model, dtype, os.path.join(a.workdir, f"{stem}-as-{dtype}.gguf"))
        name = "the file's own" if dtype == "file" else f"converted to {dtype}"
        for b, arrays in measure(a.engine, model, bits, groups, a.workdir).items():
            rows.append(report(name, b, arrays))
    if a.json:
        with open(a.json, "w", encoding="utf-8") as file:
            json.dump({"model": os.path.basename(a.model), "sentences": sentences, "rows": rows}, file, indent=1)
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
