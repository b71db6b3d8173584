#!/usr/bin/env python3
"""Writes a trained model as GGUF in BF16, and checks that the engine computes the same with it.

    export_model.py WORKDIR OUT.gguf [--engine PATH]

The weights are the average of the last steps, rounded to BF16 (norms stay in F32). With --engine, tokens of many
strings and logits of some prompts are compared with those of the tokenizers library and of PyTorch on the rounded
weights: a logit may differ by 1e-3 of the largest of its position, with keys and values in F32.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from evaluate_model import load, prompt  # noqa: E402
from jobs.kinds import EASY, HARD, OTHER, make_row  # noqa: E402
from small_qwen3 import EPS, causal  # noqa: E402
from tiny_model import real_vocabulary  # noqa: E402

LICENSE = "PostgreSQL"
LIMIT = 1e-3


def round_weights(model):
    """Matrices to what BF16 can hold."""
    for p in model.parameters():
        if p.dim() == 2:
            p.data = p.data.bfloat16().float()


def write(model, tokenizer, out, trained):
    c = model.config
    w = gguf.GGUFWriter(out, "qwen3")
    w.add_name("qwen3dm three jobs")
    w.add_description("Small Qwen3 trained on generated rows of three jobs: payments, machines, triage. " + trained)
    w.add_license(LICENSE)
    w.add_block_count(c.n_layer)
    w.add_context_length(c.n_ctx)
    w.add_embedding_length(c.n_embd)
    w.add_feed_forward_length(c.n_ff)
    w.add_head_count(c.n_head)
    w.add_head_count_kv(c.n_head_kv)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_freq_base(c.theta)
    w.add_rope_dimension_count(c.head_dim)
    w.add_layer_norm_rms_eps(EPS)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    tokens, types, merges = real_vocabulary(tokenizer, c.n_vocab)
    w.add_vocab_size(c.n_vocab)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_bos_token_id(tokens.index("<|endoftext|>"))
    w.add_pad_token_id(tokens.index("<|endoftext|>"))
    w.add_add_bos_token(False)
    for name, p in model.named_parameters():
        x = p.detach().numpy()
        if p.dim() == 2:
            w.add_tensor(name, gguf.quants.quantize(x, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(name, x.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def some_strings(n):
    """Rows of both splits, and texts that no row is like."""
    rng = random.Random("strings")
    kinds = EASY + HARD + OTHER
    alphabet = "abc XYZ 0123 .,;:!?'\"-_/\\{}[]()\n\n\t  äöüßéñ ÅΩжя中文字 日本 한국 🙂🚀 \u200b\u00a0 don't we'll I'M"
    for i in range(n):
        if i % 2:
            row = make_row(rng, rng.choice(("train", "eval")), rng.choice(kinds))
            yield rng.choice((row.text, row.trace, row.instruction or row.text, row.answer))
        else:
            yield "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 80)))


def check_tokens(engine, model, chat, n=1000):
    wrong = 0
    for text in some_strings(n):
        done = subprocess.run([engine, "tokenize", "-m", model], input=text.encode(), capture_output=True, check=True)
        wrong += json.loads(done.stdout) != chat.text(text)
    print(f"tokens: {n - wrong} of {n} strings as the tokenizers library has them")
    return wrong == 0


def check_logits(engine, path, model, chat, n=12):
    rng, worst = random.Random("logits"), 0.0
    kinds = HARD + EASY
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits")
        for i in range(n):
            tokens = prompt(chat, make_row(rng, "eval", kinds[i % len(kinds)])) + chat.no_thoughts()
            subprocess.run([engine, "logits", "-m", path, "--tokens", ",".join(map(str, tokens)), "--all", "--raw", out, "--mode", "precise",
                            "--kv", "f32"], check=True, stdout=subprocess.DEVNULL)
            found = np.fromfile(out, "<f4").reshape(len(tokens), -1)
            with torch.no_grad():
                ids = torch.tensor([tokens])
                expected = model.logits(model(ids, *causal(ids)))[0].numpy()
            worst = max(worst, float((np.abs(found - expected).max(1) / np.abs(expected).max(1)).max()))
    print(f"logits: worst difference {worst:.2e} of the largest logit of a position, over {n} prompts")
    return worst <= LIMIT


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("out")
    parser.add_argument("--engine", help="path of qwen3dm-engine, to compare with")
    a = parser.parse_args()
    chat, model, state = load(a.workdir)
    round_weights(model)
    trained = f"{state['step']} steps, {state['tokens']:,} tokens, seed {state['arguments']['seed']}."
    write(model, os.path.join(a.workdir, "tokenizer.json"), a.out, trained)
    print(f"{a.out}: {os.path.getsize(a.out) / 1e6:.1f} MB, {trained}")
    if a.engine:
        good = [check_tokens(a.engine, a.out, chat), check_logits(a.engine, a.out, model, chat)]
        return 0 if all(good) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
