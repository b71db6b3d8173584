"""What the three jobs share: rows, held-out names and numbers, and prompts as the SQL functions phrase them.

Everything is made by random.Random objects that the caller seeds. The split "train" never draws a name, number or
phrasing that is held out; the split "eval" draws names and phrasings only from what is held out, and numbers from all.
"""
import hashlib
import json
from dataclasses import dataclass, field

SPLITS = ("train", "eval")
SYLLABLES = [c + v for c in ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z") for v in "aeiou"]
CODAS = ("n", "r", "l", "s", "x", "m", "")


@dataclass
class Row:
    """One question with its truth: answer, and trace, the steps that lead to it."""
    job: str
    kind: str
    hard: bool
    task: str  # classify, filter, extract or answer
    instruction: str  # of classify: its system text; of filter: the condition; else what is wanted
    text: str
    answer: str
    trace: str
    labels: list = field(default_factory=list)
    schema: dict = None  # of extract


def held_out(text):
    """Whether a name or number belongs to the evaluation only: one in eight, fixed for all time."""
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 3


def name(rng, split):
    """An invented name, of two or three syllables."""
    while True:
        word = "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))) + rng.choice(CODAS)
        if held_out(word) == (split == "eval"):
            return word.capitalize()


def number(rng, split, low, high):
    """A whole number from low to high. Those of one digit are never held out."""
    while True:
        n = rng.randint(low, high)
        if split == "eval" or n < 10 or not held_out(str(n)):
            return n


def amount(rng, split, low, high):
    """Like number(), every order of magnitude as likely."""
    while True:
        n = round(low * (high / low) ** rng.random())
        if split == "eval" or not held_out(str(n)):
            return n


def phrase(rng, split, choices):
    """One of the choices; every fourth, from the fourth on, is for the evaluation only."""
    return rng.choice([c for i, c in enumerate(choices) if (i % 4 == 3) == (split == "eval")])


def balanced(rng, wanted, make):
    """The first result of make() whose "truth" is as wanted."""
    while True:
        made = make()
        if made["truth"] == wanted:
            return made


def shuffled(rng, items):
    return rng.sample(list(items), len(items))


# ---------------------------------------------------------------------------------------------------------------------
# Prompts
# ---------------------------------------------------------------------------------------------------------------------

EXTRACT_SYSTEM = (
    # what qwen_extract says, and with a system text of the caller's
    "Extract what the text that the user gives says about the properties below. Take values from the text only; where it says nothing about a "
    "property that may be null, the value is null.\nAnswer with JSON, and nothing else. It has to follow this JSON Schema:\n{}",
    "Extract the facts.\nAnswer with JSON, and nothing else. It has to follow this JSON Schema:\n{}",
    "Read the text that the user gives and fill in this JSON schema. Write only the JSON:\n{}",
    "What does the text say?\nAnswer with JSON, and nothing else. It has to follow this JSON Schema:\n{}",
    "Write the data in the text as JSON. The JSON schema is:\n{}",
    "Return JSON that is valid under this schema:\n{}\nTake the values from the text of the user.",
    "From the text, make a JSON value that fits the schema. Write nothing else.\nSchema: {}",
    "Return the values that the text tells, as JSON. Schema:\n{}",
    "Schema:\n{}\nGive the values that the text tells, as JSON.",
)


def schema_of(properties):
    return {"type": "object", "properties": {k: {"type": t} for k, t in properties.items()}, "required": list(properties)}


def write_schema(rng, properties):
    """A JSON schema as people and jsonb write it: jsonb puts shorter keys first and spaces after colons."""
    schema = schema_of(properties)
    if rng.random() < 0.3:
        del schema["required"]
    if rng.random() < 0.5:
        schema = dict(sorted(schema.items(), key=lambda kv: (len(kv[0]), kv[0])))
    if rng.random() < 0.2:
        return ", ".join(properties)
    return json.dumps(schema, separators=(",", ":") if rng.random() < 0.4 else None)


def system_text(row):
    """The system text as src/extension makes it for the row's task."""
    if row.task == "classify":
        return (row.instruction or "Classify the text that the user gives.") + \
            "\nAnswer with one of these labels, and nothing else:\n" + "".join(label + "\n" for label in row.labels)
    if row.task == "filter":
        return f"Is this true of the text that the user gives?\n{row.instruction}\nAnswer yes or no, and nothing else."
    return row.instruction


def extraction(rng, split, job, text, properties, values, note):
    """A row that asks for some of the values as JSON."""
    keys = rng.sample(list(properties), rng.randint(1, len(properties)))
    if rng.random() < 0.6:
        keys.sort(key=lambda k: (len(k), k))
    chosen = {k: properties[k] for k in keys}
    answer = json.dumps({k: values[k] for k in keys})
    return Row(job, "extract", False, "extract", phrase(rng, split, EXTRACT_SYSTEM).format(write_schema(rng, chosen)), text, answer,
               trace=note + "\n" + "\n".join(f"{k} {values[k]}" for k in keys), schema=schema_of(chosen))
