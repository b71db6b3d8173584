#!/usr/bin/env python3
"""Writes held-out rows of the three jobs, to ask a model through SQL.

    write_rows.py OUT [--seed 7] [--rows 2000] [--job payments] [--answers]

OUT gets questions.csv (question, job, kind, hard, task, instruction, labels as JSON, schema as JSON) and rows.csv (id,
question, text, truth). A question is what one SQL query asks of many rows: of a task classify, instruction is the
system text ('' is the default) and labels the labels; of filter, instruction is the condition and the truth is yes or
no; of extract there is a schema. Every job has --rows rows, half of them easy and half hard; with --answers there are
rows of extract and answer besides (answer: instruction is the question about the text, asked as the system text).
"""
import argparse
import csv
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from jobs import kinds  # noqa: E402
from jobs.common import system_text  # noqa: E402

WORDINGS = 4  # questions of a kind


def rows_like(rng, kind, first, n):
    """n rows with the question of first; the first is among them."""
    rows = [first]
    while len(rows) < n:
        row = kinds.same_question(rng, "eval", kind, (6, 9), first)
        if row is not None:
            rows.append(row)
    return rows


def questions(seed, kind, n):
    """[rows] of every question of a kind, n rows together."""
    rng = random.Random(f"evaluation {seed} {kind}")
    found, seen = [], set()
    wordings = n if kind in kinds.OTHER else WORDINGS
    for i in range(wordings):
        for _ in range(50):
            first = kinds.make_row(rng, "eval", kind)
            if system_text(first) not in seen or kind in kinds.OTHER:
                break
        seen.add(system_text(first))
        found.append(rows_like(rng, kind, first, n // wordings + (i < n % wordings)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seed", default="7")
    parser.add_argument("--rows", type=int, default=2000, help="of each job")
    parser.add_argument("--job", default="", help="only this one")
    parser.add_argument("--answers", action="store_true", help="rows of extract and answer, too: a tenth more of each")
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "questions.csv"), "w", newline="") as q, open(os.path.join(a.out, "rows.csv"), "w", newline="") as r:
        ask, tell = csv.writer(q), csv.writer(r)
        ask.writerow(("question", "job", "kind", "hard", "task", "instruction", "labels", "schema"))
        tell.writerow(("id", "question", "text", "truth"))
        n_questions = n_rows = 0
        for kind in kinds.EASY + kinds.HARD + (kinds.OTHER if a.answers else ()):
            if not kind.startswith(a.job):
                continue
            for rows in questions(a.seed, kind, a.rows // (10 if kind in kinds.OTHER else 4)):
                n_questions += 1
                row = rows[0]
                ask.writerow((n_questions, row.job, kind.split(" ")[1], row.hard, row.task, row.instruction, json.dumps(row.labels),
                              json.dumps(row.schema)))
                for row in rows:
                    n_rows += 1
                    tell.writerow((n_rows, n_questions, row.text, row.answer))
    print(f"{a.out}: {n_questions} questions, {n_rows} rows")


if __name__ == "__main__":
    main()
