"""Triage: short complaints, and long notes about a customer, to a department and an urgency.

A short complaint has one matter and one hint at its urgency. A note about matters lists points that are opened, settled
and opened again, often by their number only; one is open at the end, and its department is asked. A note about urgency
tells four facts, some of which are corrected later: a gold contract earns 1, waiting seven days or more 1, three
contacts or more 1, and the damage 0 (cosmetic), 1 (work is slow) or 2 (work has stopped). Four and more are high, two
and three normal, less is low.
"""
from ..common import Row, extraction, held_out, name, number, phrase, shuffled

DEPARTMENTS = ("billing", "delivery", "technical", "account", "returns")
URGENCIES = ("low", "normal", "high")

NOUNS = {
    "billing": ("invoice", "bill", "direct debit", "monthly fee", "receipt", "credit note", "discount"),
    "delivery": ("parcel", "shipment", "courier", "delivery slot", "tracking number", "package", "delivery address"),
    "technical": ("printer", "router", "app", "screen", "update", "connection", "battery"),
    "account": ("password", "login", "user name", "profile", "e-mail address", "access code", "registration"),
    "returns": ("exchange", "refund", "return label", "warranty claim", "returned item", "replacement", "broken article"),
}
TROUBLES = ("is wrong", "does not work", "is missing", "is not right", "was changed without a word", "still causes trouble", "never came",
            "is not what was agreed", "was mixed up", "has a problem", "is late", "was forgotten", "makes no sense", "was refused")
FRAMES = (
    "The {} {}.", "My {} {}.", "I write because my {} {}.", "I complain because the {} {}.",
    "Hello, the {} {}.", "It seems that the {} {}.", "Again the {} {}.", "Hello, it seems that my {} {}.",
    "Since Monday the {} {}.", "As I said on the phone, the {} {}.", "Please help, my {} {}.", "Please help, since Monday my {} {}.",
)
HINTS = {
    "high": ("We cannot work.", "I need an answer today.", "This is very urgent.", "I need this very urgent, today.", "The whole office stands still.",
             "Please call me at once.", "We lose money every hour.", "We cannot work, please call at once."),
    "normal": ("Please answer this week.", "I expect an answer soon.", "Please look at it in the next days.", "Please look at it this week.",
               "A reply by Friday would be good.", "I would like to hear from you soon.", "Please see to it.", "I expect a reply by Friday."),
    "low": ("There is no hurry.", "It is not urgent.", "Whenever you have time.", "There is no hurry, it is not urgent.",
            "It can wait until next month.", "Take your time.", "I only wanted to tell you.", "Take your time, it can wait."),
}
DEPARTMENT_INSTRUCTIONS = (
    "", "Which department should answer this complaint?", "Send the complaint to a department.", "To which department should the complaint be sent?",
    "You sort complaints by department.", "Who should handle this?", "Route the message.", "You route complaints. Which department should handle this?",
    "Choose the department for this message.", "Department of the complaint", "Triage this complaint to a department.", "Choose a department for the complaint.",
)
URGENCY_INSTRUCTIONS = (
    "How urgent is this complaint?", "Tell the urgency of the message.", "You judge how urgent complaints are.", "You judge the urgency of this complaint.",
    "Urgency of the complaint", "How soon must we answer?", "Rate the urgency.", "Rate how urgent the complaint is.",
)
NOTE_INSTRUCTIONS = (
    "", "Which department has to act on the open point?", "One point of this note is open. Which department is it for?", "Which department is the open point for?",
    "Route the note by its open point.", "Find the department of the point that is still open.", "You sort notes by department.", "Find the open point of the note and its department.",
)
NOTE_URGENCY_INSTRUCTIONS = (
    "How urgent is this note?", "Tell the urgency of this customer's note.", "You judge how urgent notes are.", "You judge the urgency of this note.",
    "Urgency of the note", "How soon must we act on this note?", "Rate the urgency of the note.", "Rate how urgent the note is.",
)
CONDITIONS = {
    "billing": ("It is about billing.", "The complaint is about billing", "This is for the billing department.", "The complaint is for the billing department."),
    "delivery": ("It is about a delivery.", "The complaint is about delivery", "This is for the delivery department.", "The complaint is for the delivery department."),
    "technical": ("It is about a technical matter.", "The complaint is technical", "This is for the technical department.", "The complaint is for the technical department."),
    "account": ("It is about the account.", "The complaint is about an account", "This is for the account department.", "The complaint is for the account department."),
    "returns": ("It is about returns.", "The complaint is about returns", "This is for the returns department.", "The complaint is for the returns department."),
    "urgent": ("It is urgent.", "The complaint is urgent", "This must be answered today.", "The complaint must be answered today."),
}
CLOSED = ("is settled", "was solved", "can be closed", "is solved and closed", "was a mistake", "is done", "needs nothing more", "was done and needs nothing more")
REOPENED = ("is open again", "came back", "was not solved after all", "came back and is open", "is back", "must be looked at again", "is not done after all", "is open after all")
FILLERS = ("{} was friendly on the phone.", "{} called in the morning.", "{} will be back on Monday.", "In the morning {} was friendly.",
           "The courier was polite.", "The last invoice was paid.", "{} praised the app.", "The last invoice was praised.")
PROPERTIES = {"name": "string", "order": "integer", "department": "string", "urgency": "string"}
QUESTIONS = {
    "order": ("What is the order number?", "Which order is it?", "Tell the number of the order.", "Which is the number of the order?"),
    "name": ("Who wrote this?", "What is the name of the customer?", "Name the customer.", "Who is the customer?"),
    "department": ("Which department is it for?", "Which department should answer?", "Name the department.", "Which department is to answer?"),
    "urgency": ("How urgent is it?", "What is the urgency?", "Is the urgency low, normal or high?", "What urgency is it?"),
}


def matter(rng, split, department):
    """(noun, trouble) of a department; every eighth pair is for the evaluation only, which has no others."""
    while True:
        pair = rng.choice(NOUNS[department]), rng.choice(TROUBLES)
        if held_out(" ".join(pair)) == (split == "eval"):
            return pair


def complaint(rng, split):
    """A short complaint: its fields, text and steps."""
    c = {"department": rng.choice(DEPARTMENTS), "urgency": rng.choice(URGENCIES), "name": name(rng, split), "order": number(rng, split, 1000, 99999)}
    noun, trouble = matter(rng, split, c["department"])
    parts = [phrase(rng, split, FRAMES).format(noun, trouble)]
    hint = phrase(rng, split, HINTS[c["urgency"]])
    parts.insert(0 if rng.random() < 0.2 else 1, hint)
    parts.insert(rng.choice((0, len(parts))), rng.choice((f"Order {c['order']}.", f"Order number {c['order']}.", f"It is about order {c['order']}.")))
    c["text"] = " ".join(parts) + rng.choice((f" {c['name']}", f" Regards, {c['name']}", f" Yours, {c['name']}"))
    c["trace"] = f"{noun}: {c['department']}\n{hint} {c['urgency']}"
    return c


def point_states(rng, n, events):
    """What happens to n points: (point, what), opened in order, one open at the end; that takes an odd number of events."""
    while True:
        states, story = {}, []
        for _ in range(events):
            opened = [p for p in states if states[p]]
            closed = [p for p in states if not states[p]]
            moves = ["open"] * 2 * (len(states) < n) + ["close"] * 2 * bool(opened) + ["reopen"] * bool(closed)
            move = rng.choice(moves)
            p = len(states) + 1 if move == "open" else rng.choice(opened if move == "close" else closed)
            states[p] = move != "close"
            story.append((p, move))
        if len(states) == n and sum(states.values()) == 1:
            return story, next(p for p in states if states[p])


def matters_note(rng, split, length):
    """A note about several matters of which one is open at the end."""
    who, n = name(rng, split), rng.randint(3, 4) if length[1] > 5 else 2
    story, last = point_states(rng, n, max(rng.randint(*length), 2 * n - 1) | 1)
    departments = dict(zip(range(1, n + 1), rng.sample(DEPARTMENTS, n)))
    parts, lines = [f"Customer {who}."], []
    for p, what in story:
        noun, trouble = matter(rng, split, departments[p])
        if what == "open":
            parts.append(f"Point {p}: the {noun} {trouble}.")
            lines.append(f"{p} open {departments[p]}")
        else:
            parts.append(f"Point {p} {phrase(rng, split, CLOSED if what == 'close' else REOPENED)}.")
            lines.append(f"{p} {'closed' if what == 'close' else 'open'}")
        if rng.random() < 0.25:
            parts.append(phrase(rng, split, FILLERS).format(who))
    lines.append(f"{last} {departments[last]}")
    return {"text": " ".join(parts), "trace": "\n".join(lines), "truth": departments[last]}


def facts(rng, split):
    """(fact, points, word for the trace, how to tell it, how to correct it) of the four facts."""
    gold, days, contacts, damage = rng.random() < 0.5, number(rng, split, 1, 15), rng.randint(1, 6), rng.randrange(3)
    days = number(rng, split, 7, 15) if rng.random() < 0.3 else days
    level, effect = ("gold" if gold else "basic"), ("cosmetic", "slow", "stopped")[damage]
    return [
        ("contract", int(gold), level, rng.choice((f"The contract is {level}.", f"{level.capitalize()} contract."))),
        ("days", int(days >= 7), str(days), rng.choice((f"Waiting for {days} days.", f"Waits since {days} days."))),
        ("contacts", int(contacts >= 3), str(contacts), rng.choice((f"{contacts} contacts so far.", f"Number of contacts: {contacts}."))),
        ("damage", damage, effect, rng.choice({"cosmetic": ("The damage is cosmetic.", "It is a cosmetic fault."), "slow": ("Work is slow.", "Work got slow."),
                                               "stopped": ("Work has stopped.", "Work is stopped.")}[effect])),
    ]


def urgency_note(rng, split, length):
    """A note whose facts add up to an urgency; the last word about a fact counts."""
    who, final = name(rng, split), facts(rng, split)
    corrections = rng.randint(0, 2) if length[1] > 5 else 0
    corrected = set(rng.sample(range(4), corrections))
    first = facts(rng, split)
    noun, trouble = matter(rng, split, rng.choice(DEPARTMENTS))
    told = [(first if i in corrected else final)[i][3] for i in rng.sample(range(4), 4)]
    told.insert(rng.randint(0, 2), f"The {noun} {trouble}.")
    if length[1] > 5:
        told.insert(rng.randint(0, len(told)), phrase(rng, split, FILLERS).format(who))
    told += [rng.choice(("Correction: ", "Now: ", "Update: ")) + final[i][3] for i in shuffled(rng, corrected)]
    points, lines = 0, []
    for fact, worth, word, _ in final:
        points += worth
        lines.append(f"{fact} {word} {points}")
    truth = "high" if points >= 4 else "normal" if points >= 2 else "low"
    return {"text": f"Customer {who}. " + " ".join(told), "trace": "\n".join(lines), "truth": truth}


def complaint_row(rng, split, task):
    c = complaint(rng, split)
    if task == "filter":
        asked = rng.choice(list(CONDITIONS))
        yes = rng.random() < 0.5
        while (c["urgency"] == "high" if asked == "urgent" else c["department"] == asked) != yes:
            c = complaint(rng, split)
        answer = "yes" if yes else "no"
        return Row("triage", "complaint", False, task, phrase(rng, split, CONDITIONS[asked]), c["text"], answer, f"{c['trace']}\n{asked}: {answer}")
    field, labels, instructions = rng.choice((("department", DEPARTMENTS, DEPARTMENT_INSTRUCTIONS), ("urgency", URGENCIES, URGENCY_INSTRUCTIONS)))
    return Row("triage", "complaint", False, task, phrase(rng, split, instructions), c["text"], c[field], c["trace"], shuffled(rng, labels))


def note_row(rng, split, what, length):
    if what == "matters":
        n = matters_note(rng, split, length)
        return Row("triage", "matters", True, "classify", phrase(rng, split, NOTE_INSTRUCTIONS), n["text"], n["truth"], n["trace"], shuffled(rng, DEPARTMENTS))
    wanted = rng.choice(URGENCIES)
    n = urgency_note(rng, split, length)
    while n["truth"] != wanted:
        n = urgency_note(rng, split, length)
    return Row("triage", "urgency", True, "classify", phrase(rng, split, NOTE_URGENCY_INSTRUCTIONS), n["text"], wanted, n["trace"], shuffled(rng, URGENCIES))


def extract_row(rng, split):
    c = complaint(rng, split)
    return extraction(rng, split, "triage", c["text"], PROPERTIES, c, "complaint")


def answer_row(rng, split):
    c = complaint(rng, split)
    key = rng.choice(list(QUESTIONS))
    return Row("triage", "answer", False, "answer", phrase(rng, split, QUESTIONS[key]), c["text"], str(c[key]), f"{key} {c[key]}")


def row(rng, split, kind, length=(6, 9)):
    """kind: complaint/filter, complaint/classify, matters, urgency, extract or answer; length: events of a note."""
    what, _, task = kind.partition("/")
    if what == "complaint":
        return complaint_row(rng, split, task)
    if what in ("matters", "urgency"):
        return note_row(rng, split, what, length)
    return extract_row(rng, split) if what == "extract" else answer_row(rng, split)
