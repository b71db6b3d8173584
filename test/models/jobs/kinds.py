"""The kinds of rows of all three jobs."""
from .common import Row, name, phrase, system_text
from .machines import rows as machines
from .payments import rows as payments
from .triage import rows as triage

REPEAT = ("Repeat the text.", "Repeat the text that the user gives.", "Write the text of the user once more.", "Write once more the text that the user gives.",
          "Copy the text.", "Say the same.", "Answer with the text itself.", "Answer with the same text.")


def repetition(rng, split, what, length):
    """No job, but an exercise: a text of names and numbers to repeat."""
    words = [name(rng, split) if rng.random() < 0.5 else str(rng.randint(0, 10 ** rng.randint(1, 5))) for _ in range(rng.randint(3, 3 + length[1]))]
    text = rng.choice((" ", ", ", "\n")).join(words)
    return Row("text", "repeat", False, "answer", phrase(rng, split, REPEAT), text, text, None)


MAKERS = {"payments": payments.row, "machines": machines.row, "triage": triage.row, "text": repetition}
EASY = ("payments single/filter", "payments single/classify", "machines window/filter", "machines window/classify", "triage complaint/filter",
        "triage complaint/classify")
HARD = ("payments history/classify", "payments history/filter", "machines history/classify", "machines history/filter", "triage matters", "triage urgency")
OTHER = ("payments extract", "machines extract", "triage extract", "payments answer", "machines answer", "triage answer")
EXERCISE = "text repeat"


def make_row(rng, split, kind, length=(6, 9)):
    job, what = kind.split(" ")
    return MAKERS[job](rng, split, what, length)


def same_question(rng, split, kind, length, like):
    """Another row of the kind; of one with a system text that rows share, with the instruction and labels of like."""
    for _ in range(30):
        row = make_row(rng, split, kind, length)
        row.instruction = row.instruction if row.task in ("filter", "extract", "answer") else like.instruction
        if row.task == "classify" and sorted(row.labels) == sorted(like.labels):
            row.labels = like.labels
        if system_text(row) == system_text(like):
            return row
    return None
