#!/usr/bin/env python3
"""Trains a small Qwen3 on the three jobs. The rows come from generators, without end: no row is seen twice.

    train_model.py WORKDIR [--minutes 90] [--size cpu] [--seed 1] ...

WORKDIR gets tokenizer.json, checkpoint.pt (every few minutes; a second call with the same arguments goes on from it),
log.csv (loss), accuracy.csv (on held-out rows) and curves.png. Training ends after --minutes of this clock, or after
--steps: the learning rate and the curriculum follow the part that is done. The seeds of rows to learn from and of
rows to test on are of different kinds, so that none can be in both.
"""
import argparse
import contextlib
import copy
import csv
import json
import math
import os
import random
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lessons  # noqa: E402
import vocabulary  # noqa: E402
from evaluate_model import accuracy  # noqa: E402
from jobs.common import system_text  # noqa: E402
from jobs.kinds import EASY, HARD, OTHER, make_row  # noqa: E402
from small_qwen3 import SIZES, Config, SmallQwen3  # noqa: E402

WARM_UP = 0.01  # part of the training in which the learning rate rises
AVERAGE = 0.995  # of the weights that are evaluated and shipped: an average over some hundred steps


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("workdir")
    arg("--size", default="cpu", choices=SIZES)
    arg("--minutes", type=float, default=90)
    arg("--steps", type=int, help="instead of --minutes")
    arg("--seed", type=int, default=1)
    arg("--vocabulary", type=int, default=4096)
    arg("--rows", type=int, default=16, help="of a batch")
    arg("--width", type=int, default=512, help="tokens of a row")
    arg("--rate", type=float, default=2e-3, help="largest learning rate of AdamW")
    arg("--matrix-rate", type=float, default=0.02, help="largest learning rate of Muon, for the matrices of the layers; 0: AdamW for all")
    arg("--checkpoint-minutes", type=float, default=4)
    arg("--evaluate-minutes", type=float, default=15)
    arg("--evaluate-rows", type=int, default=64, help="of each kind")
    arg("--threads", type=int, default=2)
    arg("--no-compile", action="store_true", help="slower, but starts at once and needs no C++ compiler")
    arg("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def make_vocabulary(path, size, seed):
    rng = random.Random(f"vocabulary {seed}")
    kinds = EASY + HARD + OTHER

    def texts():
        for _ in range(30000):
            row = make_row(rng, "train", rng.choice(kinds))
            yield f"system\n{system_text(row)}"
            yield f"user\n{row.text}"
            yield f"assistant\n{row.trace}\n"
            yield row.answer

    vocabulary.train(texts(), size).save(path)


def optimizers(model, a):
    """AdamW for embedding and norms, and for the matrices of the layers either Muon or AdamW too."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blk.")]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    embedding = [model.token_embd.weight]
    groups = [{"params": embedding, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    made = []
    if a.matrix_rate > 0:
        made.append(torch.optim.Muon(matrices, lr=a.matrix_rate, momentum=0.95, weight_decay=0.02))
    else:
        groups.append({"params": matrices, "weight_decay": 0.05})
    made.append(torch.optim.AdamW(groups, lr=a.rate, betas=(0.9, 0.98), eps=1e-9))
    for o in made:
        for g in o.param_groups:
            g["peak"] = g["lr"]
    return made


def rate_at(progress):
    """Cosine, after a warm-up; ends at a fiftieth."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


class Training:
    def __init__(self, a):
        self.a = a
        self.path = lambda name: os.path.join(a.workdir, name)
        os.makedirs(a.workdir, exist_ok=True)
        if not os.path.exists(self.path("tokenizer.json")):
            make_vocabulary(self.path("tokenizer.json"), a.vocabulary, a.seed)
        self.chat = vocabulary.Chat(self.path("tokenizer.json"))
        torch.manual_seed(a.seed)
        self.model = SmallQwen3(Config(self.chat.n_vocab, **SIZES[a.size])).to(a.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = optimizers(self.model, a)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        if os.path.exists(self.path("checkpoint.pt")):
            self.load()

    def compile(self):
        for layer in self.model.blk:
            layer.compile(dynamic=False)

    def autocast(self):
        return torch.autocast(self.a.device, dtype=torch.bfloat16)

    def progress(self):
        return self.step / self.a.steps if self.a.steps else self.seconds / (60 * self.a.minutes)

    def save(self):
        state = {"model": self.model.state_dict(), "average": self.average.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
                 "step": self.step, "seconds": self.seconds, "tokens": self.tokens, "config": vars(self.model.config), "arguments": vars(self.a)}
        torch.save(state, self.path("checkpoint.new"))
        os.replace(self.path("checkpoint.new"), self.path("checkpoint.pt"))

    def load(self):
        state = torch.load(self.path("checkpoint.pt"), map_location=self.a.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for o, s in zip(self.optimizers, state["optimizers"]):
            peaks = [g["peak"] for g in o.param_groups]
            o.load_state_dict(s)
            for g, peak in zip(o.param_groups, peaks):
                g["peak"] = peak
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]

    def learn(self):
        """One step; the loss, and how many tokens it read."""
        a, progress = self.a, self.progress()
        tokens, positions, mask, sources, targets, weights = (
            x.to(a.device) for x in lessons.make_batch(self.chat, a.seed, self.step, progress, a.rows, a.width))
        with self.autocast():
            hidden = self.model(tokens, positions, mask)
            logits = self.model.logits(hidden.flatten(0, 1)[sources])
        loss = (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for o in self.optimizers:
            for g in o.param_groups:
                g["lr"] = g["peak"] * rate_at(progress)
            o.step()
            o.zero_grad()
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)
        self.step += 1
        self.tokens += int((positions > 0).sum())
        return loss.item()

    def evaluate(self):
        self.average.eval()
        with self.autocast():
            found = accuracy(self.average, self.chat, f"watch {self.a.seed}", self.a.evaluate_rows)
        write_line(self.path("accuracy.csv"), {"step": self.step, "minutes": round(self.seconds / 60, 2), **found})
        print(json.dumps({"step": self.step, **found}), flush=True)

    def run(self):
        a, mark = self.a, time.monotonic()
        saved = evaluated = self.seconds
        losses = []
        while self.progress() < 1:
            losses.append(self.learn())
            now = time.monotonic()
            self.seconds, mark = self.seconds + now - mark, now
            if self.step % 20 == 0:
                write_line(self.path("log.csv"), {"step": self.step, "minutes": round(self.seconds / 60, 3), "tokens": self.tokens,
                                                  "progress": round(self.progress(), 5), "loss": round(sum(losses) / len(losses), 5)})
                losses = []
            if self.seconds - saved > 60 * a.checkpoint_minutes:
                saved = self.seconds
                self.save()
            if self.seconds - evaluated > 60 * a.evaluate_minutes:
                evaluated = self.seconds
                self.evaluate()
                plot(a.workdir)
        self.save()
        self.evaluate()
        plot(a.workdir)


def write_line(path, values):
    new = not os.path.exists(path)
    with open(path, "a", newline="") as f:
        writer = csv.DictWriter(f, values)
        if new:
            writer.writeheader()
        writer.writerow(values)


def plot(workdir):
    """curves.png: the loss, and the accuracies on held-out rows."""
    with contextlib.suppress(ImportError, OSError):
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        tested = os.path.exists(os.path.join(workdir, "accuracy.csv"))
        fig, axes = plt.subplots(1, 2 if tested else 1, figsize=(13 if tested else 7, 5), squeeze=False)
        left, right = axes[0][0], axes[0][-1]
        rows = list(csv.DictReader(open(os.path.join(workdir, "log.csv"))))
        left.semilogy([float(r["minutes"]) for r in rows], [float(r["loss"]) for r in rows])
        left.set(xlabel="minutes", ylabel="loss (weighted)", title="Loss")
        rows = [] if not tested else list(csv.DictReader(open(os.path.join(workdir, "accuracy.csv"))))
        for key in [k for k in (rows[0] if rows else ()) if k not in ("step", "minutes")]:
            right.plot([float(r["minutes"]) for r in rows], [100 * float(r[key]) for r in rows], "--" if "direct" in key else "-", label=key, marker=".")
        if tested:
            right.set(xlabel="minutes", ylabel="per cent", title="Right answers on held-out rows")
            right.legend(fontsize=6, ncol=2)
        fig.tight_layout()
        fig.savefig(os.path.join(workdir, "curves.png"), dpi=90)
        plt.close(fig)


def main(argv=None):
    a = arguments(argv)
    torch.set_num_threads(a.threads)
    training = Training(a)
    print(f"{sum(p.numel() for p in training.model.parameters()):,} parameters, {training.chat.n_vocab} tokens in the vocabulary, "
          f"step {training.step}", flush=True)
    if not a.no_compile:
        training.compile()
    training.run()


if __name__ == "__main__":
    main()
