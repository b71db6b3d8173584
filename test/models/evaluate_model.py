#!/usr/bin/env python3
"""Accuracy of a trained model on held-out rows, computed in PyTorch.

    evaluate_model.py WORKDIR [--rows 500] [--seed fresh] [--kinds TEXT]

Prints, for every kind of row, how many answers are right without thinking (direct) and with it (thought). An answer is
right if it is the truth, letter by letter; nothing keeps the model to the labels here. Truths of payments have noise.
"""
import argparse
import os
import random
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vocabulary  # noqa: E402
from jobs.common import system_text  # noqa: E402
from jobs.kinds import EASY, HARD, OTHER, make_row  # noqa: E402
from small_qwen3 import Config, SmallQwen3, generate  # noqa: E402

MAX_THOUGHT = 200
TOGETHER = 64  # rows that are answered together


def prompt(chat, row):
    return chat.turn("system", system_text(row)) + chat.turn("user", row.text) + chat.opening()


def right_answers(model, chat, rows, thinking):
    """How many of the rows are answered with their truth."""
    right = 0
    rows = sorted(rows, key=lambda r: len(r.text))
    for i in range(0, len(rows), TOGETHER):
        part = rows[i:i + TOGETHER]
        prompts = [prompt(chat, r) + ([] if thinking else chat.no_thoughts()) for r in part]
        longest = MAX_THOUGHT if thinking else max(len(chat.text(r.answer)) for r in part) + 1
        for row, ids in zip(part, generate(model, prompts, longest, chat.end)):
            if thinking:
                ids = ids[ids.index(chat.unthink) + 1:] if chat.unthink in ids else []
            right += chat.decode(ids).strip() == row.answer
    return right


def accuracy(model, chat, seed, n, kinds=EASY + HARD + OTHER):
    """{"kind direct": part that is right, "kind thought": ...} over n held-out rows of each kind."""
    found = {}
    for kind in kinds:
        rng = random.Random(f"evaluation {seed} {kind}")
        rows = [make_row(rng, "eval", kind) for _ in range(n)]
        for name, thinking in (("direct", False), ("thought", True)):
            if not thinking or kind not in OTHER:
                found[f"{kind} {name}"] = round(right_answers(model, chat, rows, thinking) / n, 4)
    return found


def load(workdir):
    chat = vocabulary.Chat(os.path.join(workdir, "tokenizer.json"))
    state = torch.load(os.path.join(workdir, "checkpoint.pt"), map_location="cpu")
    model = SmallQwen3(Config(**state["config"]))
    model.load_state_dict(state["average"])
    return chat, model.eval(), state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", default="fresh")
    parser.add_argument("--kinds", default="", help="only those whose name contains this")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    chat, model, state = load(a.workdir)
    print(f"step {state['step']}, {state['seconds'] / 60:.1f} minutes, {state['tokens']:,} tokens")
    for kind in (k for k in EASY + HARD + OTHER if a.kinds in k):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for key, part in accuracy(model, chat, a.seed, a.rows, (kind,)).items():
                print(f"{key:40} {100 * part:6.2f} %", flush=True)


if __name__ == "__main__":
    main()
