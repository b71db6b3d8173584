"""Machines: windows of sensor values, and histories of windows.

T is the temperature (degrees), V the vibration (tenths of mm/s), I the current (amperes) and S the speed (per cent). A
machine tells its limits: largest T, V and I, and smallest S. A window is an alarm if any value is beyond its limit. A
history has a fault if a sign is there in three windows running: cooling (T too high), bearing (V too high) or overload
(I too high while S is too low); single windows beyond a limit mean nothing. At most one fault is there.
"""
from ..common import Row, balanced, extraction, number, phrase, shuffled

TYPES = ("pump", "fan", "press", "mill", "lathe", "mixer", "conveyor", "compressor")
SENSORS = "TVIS"
RANGES = {"T": (55, 85), "V": (25, 60), "I": (25, 70), "S": (30, 70)}
LONG = {"T": "temperature", "V": "vibration", "I": "current", "S": "speed"}
FAULTS = ("none", "bearing", "cooling", "overload")

CONDITIONS = (
    "The window is an alarm.", "A value is beyond its limit.", "Some value breaks its limit.", "Some value is beyond the limit.",
    "This machine needs attention.", "alarm", "A limit is broken", "The machine breaks a limit.",
    "Raise an alarm", "The sensor values are not normal.", "There is a value beyond its limit", "The values call for an alarm.",
)
WINDOW_INSTRUCTIONS = (
    "", "Is this sensor window an alarm?", "Check the sensor values against the limits.", "Check the window of sensor values.",
    "You watch machines. Judge the window.", "Compare the values with their limits.", "Tell the state of the machine.", "You watch machines. Compare the values with their limits.",
)
WINDOW_LABELS = (("normal", "alarm"), ("ok", "alarm"), ("fine", "warning"), ("good", "bad"))
HISTORY_INSTRUCTIONS = (
    "", "Which fault does the machine have?", "Find the fault in the history of the machine.", "Which fault is in this history of sensor values?",
    "You diagnose machines from sensor values.", "Tell the fault that the windows show.", "Diagnose the machine.", "You diagnose machines. Find the fault.",
    "Read the windows in their order and name the fault.", "Class of the fault", "What is wrong with this machine?", "Read the windows and tell the fault of the machine.",
)
HISTORY_CONDITIONS = {
    "bearing": ("The bearing is faulty.", "The machine has a bearing fault", "There is a bearing fault.", "The history shows a bearing fault."),
    "cooling": ("The cooling is faulty.", "The machine has a cooling fault", "There is a cooling fault.", "The history shows a cooling fault."),
    "overload": ("The machine is overloaded.", "The machine has an overload fault", "There is an overload.", "The history shows an overload."),
}
PROPERTIES = {"machine": "string", "type": "string", "temperature": "integer", "vibration": "integer", "current": "integer", "speed": "integer"}
QUESTIONS = {
    "temperature": ("What is the temperature?", "How hot is the machine?", "Tell the temperature.", "How hot is it?"),
    "vibration": ("What is the vibration?", "How strong is the vibration?", "Tell the vibration.", "Which vibration is there?"),
    "current": ("What is the current?", "How many amperes are there?", "Tell the current.", "Which current is there?"),
    "speed": ("What is the speed?", "How fast is the machine?", "Tell the speed.", "How fast is it?"),
    "machine": ("Which machine is it?", "What is the name of the machine?", "Name the machine.", "What is the machine?"),
}


def value(rng, split, limits, sensor, beyond, close=0.5):
    """A reading within or beyond the limit; that part of the latter is close to it."""
    above = beyond == (sensor != "S")
    near, far = limits[sensor], (99 if above else 10)
    if rng.random() < close:
        far = max(10, min(99, near + (9 if above else -9)))
    return number(rng, split, near + 1, max(far, near + 3)) if above else number(rng, split, min(far, near - 3), near - 1)


def machine(rng, split):
    m = {"type": rng.choice(TYPES), "machine": rng.choice("ABCDEFGHKLMNPRTW") + str(number(rng, split, 10, 99))}
    return m, {s: number(rng, split, *RANGES[s]) for s in SENSORS}


def header(m, limits):
    return f"{m['type']} {m['machine']}, max T{limits['T']} V{limits['V']} I{limits['I']}, min S{limits['S']}"


def window(rng, split):
    """A window: its fields, its steps and whether it is an alarm."""
    m, limits = machine(rng, split)
    beyond = {s: rng.random() < 0.17 for s in SENSORS}
    values = {s: value(rng, split, limits, s, beyond[s], close=0.15) for s in SENSORS}
    steps = [f"{s}{values[s]} {limits[s]} {'beyond' if beyond[s] else 'ok'}" for s in SENSORS]
    return {**m, **{LONG[s]: values[s] for s in SENSORS}, "limits": limits, "trace": "\n".join(steps), "truth": any(beyond.values())}


def write_window(rng, w):
    if rng.random() < 0.5:
        return header(w, w["limits"]) + "\n" + " ".join(f"{s}{w[LONG[s]]}" for s in SENSORS)
    return header(w, w["limits"]) + "\n" + ", ".join(f"{LONG[s]} {w[LONG[s]]}" for s in SENSORS)


def longest_run(bits):
    best = run = 0
    for bit in bits:
        run = run + 1 if bit else 0
        best = max(best, run)
    return best


def pattern(rng, n, fault):
    """In which windows a sign is there: as often with a fault as without, only then three times running."""
    while True:
        bits = [rng.random() < 0.45 for _ in range(n)]
        if (longest_run(bits) >= 3) == fault and sum(bits) <= 5 and (fault or rng.random() < (0.3 if sum(bits) < 3 else 1)):
            return bits


def history(rng, split, n, truth):
    """The windows of a machine with the fault that is wanted, and its steps."""
    m, limits = machine(rng, split)
    signs = {f: pattern(rng, n, f == truth) for f in FAULTS[1:]}
    texts, lines, run = [header(m, limits)], [], dict.fromkeys(FAULTS, 0)
    for i in range(n):
        overload = signs["overload"][i]
        current, slow = (True, True) if overload else rng.choice(((True, False), (False, True), (False, False)))
        beyond = {"T": signs["cooling"][i], "V": signs["bearing"][i], "I": current, "S": slow}
        texts.append(f"{i + 1} " + " ".join(f"{s}{value(rng, split, limits, s, beyond[s])}" for s in SENSORS))
        for f in signs:
            run[f] = run[f] + 1 if signs[f][i] else 0
        lines.append(f"{i + 1} T{run['cooling']} V{run['bearing']} I{run['overload']}")
    return {"text": "\n".join(texts), "trace": "\n".join(lines)}


def window_row(rng, split, task):
    wanted = rng.random() < 0.5
    w = balanced(rng, wanted, lambda: window(rng, split))
    text = write_window(rng, w)
    if task == "filter":
        return Row("machines", "window", False, task, phrase(rng, split, CONDITIONS), text, "yes" if wanted else "no", w["trace"])
    labels = rng.choice(WINDOW_LABELS)
    return Row("machines", "window", False, task, phrase(rng, split, WINDOW_INSTRUCTIONS), text, labels[wanted], w["trace"], shuffled(rng, labels))


def history_row(rng, split, task, length):
    n = max(3, rng.randint(*length))
    if task == "classify":
        truth = rng.choice(FAULTS)
        h = history(rng, split, n, truth)
        return Row("machines", "history", True, task, phrase(rng, split, HISTORY_INSTRUCTIONS), h["text"], truth, h["trace"], shuffled(rng, FAULTS))
    asked = rng.choice(FAULTS[1:])
    yes = rng.random() < 0.5
    h = history(rng, split, n, asked if yes else rng.choice([f for f in FAULTS if f != asked]))
    return Row("machines", "history", True, task, phrase(rng, split, HISTORY_CONDITIONS[asked]), h["text"], "yes" if yes else "no", h["trace"])


def extract_row(rng, split):
    w = window(rng, split)
    return extraction(rng, split, "machines", write_window(rng, w), PROPERTIES, w, "machine")


def answer_row(rng, split):
    w = window(rng, split)
    key = rng.choice(list(QUESTIONS))
    return Row("machines", "answer", False, "answer", phrase(rng, split, QUESTIONS[key]), write_window(rng, w), str(w[key]), f"{key} {w[key]}")


def row(rng, split, kind, length=(6, 9)):
    """kind: window/filter, window/classify, history/classify, history/filter, extract or answer; length: windows of a history."""
    what, _, task = kind.partition("/")
    if what == "window":
        return window_row(rng, split, task)
    if what == "history":
        return history_row(rng, split, task, length)
    return extract_row(rng, split) if what == "extract" else answer_row(rng, split)
