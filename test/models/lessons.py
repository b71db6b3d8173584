"""Rows of the three jobs as batches to learn from.

Rows that share their system text form a tree: the system text, behind it the rows, behind each row the answer without
and the answer with thinking. A tree is written in one piece, each token knowing what it is behind of, so that what is
shared is computed once. Pieces fill rows of fixed length.
"""
import random

import torch
from jobs.common import system_text
from jobs.kinds import EASY, EXERCISE, HARD, OTHER, make_row, same_question

SLOW = {"triage complaint/filter": 5, "payments extract": 4, "triage extract": 2}  # kinds that take more rows than others
LAST = 0.88  # from this part on all kinds come about alike
FORM = 0.22  # part of the training that is about form and copying
DIRECT_WEIGHT, ANSWER_WEIGHT = 3.0, 1.5  # of the loss of an answer's tokens, without and with thinking before


class Piece:
    """Tokens of a tree: position, number of the row (-1: shared), branch (-1: shared by the row's answers), weight as a target."""

    def __init__(self):
        self.tokens, self.position, self.row, self.branch, self.weight = [], [], [], [], []

    def add(self, tokens, position, row, branch, weights=None):
        self.tokens += tokens
        self.position += range(position, position + len(tokens))
        self.row += [row] * len(tokens)
        self.branch += [branch] * len(tokens)
        self.weight += weights or [0.0] * len(tokens)
        return position + len(tokens)

    def cut(self, n):
        for values in (self.tokens, self.position, self.row, self.branch, self.weight):
            del values[n:]


def add_row(piece, chat, number, row, prompt, start):
    """A row's prompt and its two answers."""
    at = piece.add(prompt + chat.opening(), start, number, -1)
    answer = chat.text(row.answer) + [chat.end]
    closed = chat.no_thoughts()
    piece.add(closed + answer, at, number, 0, [0.0] * len(closed) + [DIRECT_WEIGHT] * len(answer))
    if row.trace is None:
        return
    thoughts = chat.thoughts(row.trace)
    piece.add(thoughts + answer, at, number, 1, [1.0] * len(thoughts) + [ANSWER_WEIGHT] * len(answer))


def make_piece(rng, chat, kind, length, width):
    """A tree of one to three rows of a kind, of at most width tokens."""
    piece, first = Piece(), make_row(rng, "train", kind, length)
    if rng.random() < (0.5 if first.task in ("extract", "answer") else 0.05):  # as qwen_infer(prompt) asks, without a system text
        order = (first.text, system_text(first)) if first.task == "answer" and rng.random() < 0.5 else (system_text(first), first.text)
        add_row(piece, chat, 0, first, chat.turn("user", "\n".join(order)), 0)
        return piece
    shared = chat.turn("system", system_text(first))
    rows = [first]
    if first.task in ("classify", "filter"):
        rows += [r for r in (same_question(rng, "train", kind, length, first) for _ in range(2)) if r]
        if rng.random() < 0.08:  # an example before the question
            example = rows.pop()
            shared += chat.turn("user", example.text) + chat.turn("assistant", example.answer)
    start = piece.add(shared, 0, -1, -1)
    for number, row in enumerate(rows):
        before = len(piece.tokens)
        add_row(piece, chat, number, row, chat.turn("user", row.text), start)
        if len(piece.tokens) > width:
            piece.cut(before)
            break
    return piece


def choose_kind(rng, progress):
    """First the form and to copy from the text, then the reasoning, then all together."""
    kinds, share = (HARD, EASY, OTHER), (10, 20, 45) if progress < FORM else (46, 36, 12) if progress < LAST else (30, 30, 36)
    chosen = rng.choices((*kinds, (EXERCISE,)), (*share, 100 - sum(share)))[0]
    return rng.choices(chosen, [SLOW.get(kind, 1) for kind in chosen])[0]


def choose_length(progress):
    """Events of histories and notes: short ones first."""
    return (2, 4) if progress < 0.04 else (2, 6) if progress < 0.12 else (3, 9) if progress < 0.25 else (4, 10)


def make_batch(chat, seed, step, progress, rows, width):
    """Tensors of rows x width, the same for the same arguments; the largest pieces first, a few small ones find no room."""
    rng = random.Random(f"lessons {seed} {step}")
    pieces, total = [], 0
    while total < 0.97 * rows * width:
        pieces.append(make_piece(rng, chat, choose_kind(rng, progress), choose_length(progress), width))
        total += len(pieces[-1].tokens)
    packed, room = [[] for _ in range(rows)], [width] * rows
    for piece in sorted(pieces, key=lambda p: -len(p.tokens)):
        fits = [i for i in range(rows) if room[i] >= len(piece.tokens)]
        if fits:
            i = min(fits, key=lambda k: room[k])
            packed[i].append(piece)
            room[i] -= len(piece.tokens)
    return to_tensors(packed, width)


def to_tensors(packed, width):
    """tokens, positions, mask, targets, weights; a target is the token that follows in the same tree's path."""
    shape = (len(packed), width)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    tree, row, branch = (torch.full(shape, v, dtype=torch.int16) for v in (-1, -1, -1))
    sources, targets, weights = [], [], []
    for r, pieces in enumerate(packed):
        at = 0
        for number, p in enumerate(pieces):
            end = at + len(p.tokens)
            tokens[r, at:end], positions[r, at:end] = torch.tensor(p.tokens), torch.tensor(p.position)
            tree[r, at:end], row[r, at:end], branch[r, at:end] = number, torch.tensor(p.row, dtype=torch.int16), torch.tensor(p.branch, dtype=torch.int16)
            fork = 0
            for i, w in enumerate(p.weight):
                if i and p.branch[i] == -1:
                    fork = i  # the last token of the prompt: what both answers follow
                if w > 0:
                    sources.append(r * width + at + (fork if p.branch[i - 1] != p.branch[i] else i - 1))
                    targets.append(p.tokens[i])
                    weights.append(w)
            at = end
    sees = (tree[:, :, None] == tree[:, None, :]) & ((row[:, None, :] == -1) | (row[:, :, None] == row[:, None, :]))
    sees &= (branch[:, None, :] == -1) | (branch[:, :, None] == branch[:, None, :])
    sees &= torch.ones(width, width, dtype=torch.bool).tril()
    return tokens, positions, sees[:, None], torch.tensor(sources), torch.tensor(targets), torch.tensor(weights)
