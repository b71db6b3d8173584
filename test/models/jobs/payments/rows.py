"""Payments: single card payments, and histories of an account.

The hidden rule. A payment earns points: 2 if it is abroad, 2 if it is of 500 or more, 1 by night (before six), 1 from a
new device; three points are fraud. Over a history an account has a risk that begins at 0 and never falls below it:
a small payment at home takes 1 away, a large one adds 1, abroad a small one adds 2 and a large one 3, a declined
payment adds 1, a new device adds 1, a refund changes nothing, and a call in which the customer confirms the payments
sets it to 0. At the end 4 or more is block, 2 or 3 review, less clear. Of all truths 3 in 100 are wrong: that is the noise.
"""
from ..common import Row, amount, balanced, extraction, name, number, phrase, shuffled

NOISE = 0.03
LARGE = 500
COUNTRIES = ("DE", "FR", "US", "GB", "BR", "IT", "ES", "NL", "PL", "SE", "JP", "TR", "IN", "CN", "ZA", "MX")
CHANNELS = ("web", "shop", "atm", "app")
CURRENCIES = ("EUR", "USD", "GBP", "CHF")
TRADES = ("Foods", "Electronics", "Travel", "Books", "Motors", "Hotel", "Games", "Tools")

CONDITIONS = (
    "This payment is fraud.", "The payment looks like fraud.", "The payment looks like card fraud", "The card was probably stolen.",
    "looks like card fraud", "The payment is fraudulent.", "This is a fraudulent payment", "This payment should raise a fraud alarm.",
    "fraud", "The payment is suspicious", "Somebody else uses this card.", "This looks like fraud",
    "It is likely that this payment is fraud.", "The transaction is fraud.", "suspicious payment", "It is likely that the transaction is suspicious.",
)
SINGLE_INSTRUCTIONS = (
    "", "Is this card payment fraud or not?", "Tell whether the payment is fraud.", "Decide whether this payment is fraud or not.",
    "Judge the card payment that the user gives.", "You check card payments for fraud.", "Find fraud among payments.", "You judge payments. Tell whether this payment is fraud.",
    "Score this transaction.", "Look at the payment and tell what it is.", "Check the transaction for fraud.", "Check the card payment that the user gives for fraud.",
)
SINGLE_LABELS = (("ok", "fraud"), ("legitimate", "fraud"), ("normal", "suspicious"), ("genuine", "fraudulent"), ("accept", "reject"))
HISTORY_INSTRUCTIONS = (
    "", "Review the history of this account.", "What should be done with the account?", "Review this account and tell what should be done.",
    "You review card accounts. Decide what to do with this one.", "Look at the events of the account and decide.", "Decide about the account.", "Look at the history of the card account and decide.",
    "Read the events in their order and tell what to do.", "Judge the account by its history.", "Account review", "Judge the events of this account in their order.",
)
HISTORY_CONDITIONS = (
    "The account must be blocked.", "This account should be blocked", "The account has to be blocked.", "After this history the account should be blocked.",
    "block the account", "The history calls for a block.", "The card should be blocked now.", "The history shows that the card must be blocked.",
)
HISTORY_LABELS = ("clear", "review", "block")
PROPERTIES = {"amount": "integer", "currency": "string", "merchant": "string", "country": "string", "channel": "string", "home": "string"}
QUESTIONS = {
    "amount": ("What is the amount?", "How much was paid?", "Which amount was paid?", "How much is the amount?"),
    "country": ("In which country was it paid?", "Which country was the payment in?", "What is the country of the payment?", "Which is the country of the payment?"),
    "merchant": ("Who is the merchant?", "Which merchant was paid?", "Name the merchant.", "Who was paid?"),
    "home": ("What is the home country of the card?", "Where is the card at home?", "Which is the home country?", "Which country is the home of the card?"),
}


def single(rng, split):
    """A payment: its fields, its steps and whether the rule calls it fraud."""
    home = rng.choice(COUNTRIES)
    abroad = rng.random() < 0.45
    night = rng.random() < 0.3
    new = rng.random() < 0.35
    large = rng.random() < 0.45
    p = {
        "amount": amount(rng, split, LARGE, 4999) if large else amount(rng, split, 5, LARGE - 1),
        "currency": rng.choice(CURRENCIES),
        "merchant": name(rng, split) + " " + rng.choice(TRADES),
        "country": rng.choice([c for c in COUNTRIES if c != home]) if abroad else home,
        "channel": rng.choice(CHANNELS),
        "home": home,
        "hour": rng.randint(0, 5) if night else rng.randint(6, 23),
        "minute": rng.randint(0, 59),
        "device": "new device" if new else "known device",
    }
    points, lines = 0, []
    for yes, worth, word, other in ((abroad, 2, "abroad", "home"), (large, 2, "large", "small"), (night, 1, "night", "day"), (new, 1, "new", "known")):
        points += worth * yes
        lines.append(f"{word if yes else other} {points}")
    p["trace"], p["truth"] = "\n".join(lines), points >= 3
    return p


def write_single(rng, p):
    """The text of a payment, in one of four forms. It says whether the payment crosses a border; a history leaves that to the reader."""
    form, time = rng.randrange(4), f"{p['hour']:02}:{p['minute']:02}"
    border = "domestic" if p["country"] == p["home"] else "foreign"
    if form == 0:
        return f"{p['channel']} {p['amount']} {p['currency']} {p['merchant']} {p['country']}, home {p['home']} ({border}), {time}, {p['device']}"
    if form == 1:
        return (f"{p['amount']} {p['currency']} at {p['merchant']} in {p['country']} ({p['channel']}), {border}, card from {p['home']}, {time}, "
                f"{p['device']}")
    if form == 2:
        return (f"amount={p['amount']} currency={p['currency']} merchant={p['merchant']} country={p['country']} home={p['home']} "
                f"border={border} channel={p['channel']} time={time} device={p['device'].split()[0]}")
    return (f"{time} {border} {p['channel']} payment of {p['amount']} {p['currency']} to {p['merchant']}, country {p['country']}, home {p['home']}, "
            f"{p['device']}")


def event(rng, split, home):
    """(text, words for the trace, change of the risk or None for a confirmation)"""
    roll = rng.random()
    if roll < 0.07:
        return "call confirmed", "confirmed", None
    if roll < 0.15:
        return "new device", "device", 1
    large, abroad = rng.random() < 0.35, rng.random() < 0.4
    money = number(rng, split, LARGE, 999) if large else number(rng, split, 10, LARGE - 1)
    country = rng.choice([c for c in COUNTRIES if c != home]) if abroad else home
    text = f"{rng.choice(CHANNELS)} {money} {country}"
    if roll < 0.25:
        return text + " declined", "declined", 1
    if roll < 0.32:
        return f"refund {money} {country}", "refund", 0
    compared = f"{country} {home} {'abroad' if abroad else 'home'} {'large' if large else 'small'}"
    return text, compared, (3 if large else 2) if abroad else (1 if large else -1)


def history(rng, split, n):
    """An account's events, its steps and what the rule calls for."""
    home, risk = rng.choice(COUNTRIES), 0
    events, lines = [f"account {number(rng, split, 1000, 9999)} home {home}"], []
    for i in range(1, n + 1):
        text, word, change = event(rng, split, home)
        risk = 0 if change is None else min(9, max(0, risk + change))
        events.append(f"{i} {text}")
        lines.append(f"{i} {word} {risk}")
    truth = "block" if risk >= 4 else "review" if risk >= 2 else "clear"
    return {"text": "\n".join(events), "trace": "\n".join(lines), "truth": truth}


def single_row(rng, split, task):
    wanted = rng.random() < 0.5
    p = balanced(rng, wanted, lambda: single(rng, split))
    truth = wanted != (rng.random() < NOISE)
    text = write_single(rng, p)
    if task == "filter":
        return Row("payments", "single", False, task, phrase(rng, split, CONDITIONS), text, "yes" if truth else "no", p["trace"])
    labels = rng.choice(SINGLE_LABELS)
    return Row("payments", "single", False, task, phrase(rng, split, SINGLE_INSTRUCTIONS), text, labels[truth], p["trace"], shuffled(rng, labels))


def history_row(rng, split, task, length):
    n = rng.randint(*length)
    wanted = rng.choice(HISTORY_LABELS if task == "classify" else ("clear", "review", "block", "block"))
    h = balanced(rng, wanted, lambda: history(rng, split, n))
    truth = rng.choice([x for x in HISTORY_LABELS if x != wanted]) if rng.random() < NOISE else wanted
    if task == "filter":
        return Row("payments", "history", True, task, phrase(rng, split, HISTORY_CONDITIONS), h["text"], "yes" if truth == "block" else "no", h["trace"])
    return Row("payments", "history", True, task, phrase(rng, split, HISTORY_INSTRUCTIONS), h["text"], truth, h["trace"], shuffled(rng, HISTORY_LABELS))


def extract_row(rng, split):
    p = single(rng, split)
    return extraction(rng, split, "payments", write_single(rng, p), PROPERTIES, p, "payment")


def answer_row(rng, split):
    p = single(rng, split)
    key = rng.choice(list(QUESTIONS))
    return Row("payments", "answer", False, "answer", phrase(rng, split, QUESTIONS[key]), write_single(rng, p), str(p[key]), f"{key} {p[key]}")


def row(rng, split, kind, length=(6, 9)):
    """kind: single/filter, single/classify, history/classify, history/filter, extract or answer; length: events of a history."""
    what, _, task = kind.partition("/")
    if what == "single":
        return single_row(rng, split, task)
    if what == "history":
        return history_row(rng, split, task, length)
    return extract_row(rng, split) if what == "extract" else answer_row(rng, split)
