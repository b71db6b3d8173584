#!/usr/bin/env python3
"""Support messages for benchmarks: make_messages.py --rows 10000 --seed 1 > messages.csv

CSV with a header (id, body, truth): English messages of customers, 10 to 60 words each, no two equal; truth is what
the message is about, one of TOPICS. The same seed gives the same messages. Every message says what it is about; about
one in eight touches another topic in passing, so that words alone do not tell.
"""
import argparse
import csv
import random
import sys

TOPICS = ("billing", "delivery", "technical", "account", "cancellation")
WORDS = (10, 60)
UNCLEAR = 0.12

FIRST = """Ada Amir Anna Bela Carlos Chidi Clara Daniel Dora Elif Emil Eva Farah Felix Greta Hana Hugo Ines Ivan Jana
Jonas Karim Lara Leo Lena Marek Maria Milan Nadia Nils Nora Omar Oskar Paula Petra Rafael Rosa Samir Sofia Stefan
Tariq Tessa Tomas Ursula Viktor Wanda Yara Yusuf Zoe""".split()
LAST = """Adler Bauer Becker Costa Dvorak Eriksen Farkas Garcia Haddad Horvat Ivanov Jensen Keller Kovacs Lang Lindqvist
Marino Meier Moreau Nagy Novak Okafor Olsen Park Peters Quinn Rossi Santos Schmidt Silva Tanaka Urban Varga Weber Winter
Yilmaz Zeman""".split()
PRODUCTS = ("espresso machine", "standing desk", "desk lamp", "noise-cancelling headset", "hiking backpack",
            "air purifier", "garden hose", "kitchen scale", "running shoes", "bicycle helmet", "robot vacuum",
            "winter jacket", "tea kettle", "mechanical keyboard", "phone case", "yoga mat", "toolbox", "camping stove",
            "photo printer", "baby monitor", "electric toothbrush", "bookshelf", "office chair", "smart thermostat",
            "wireless charger", "rain coat", "pasta maker", "fish tank", "sewing machine", "guitar stand")
APPS = ("the mobile app", "the web shop", "your Android app", "your iPhone app", "the customer portal",
        "the desktop app", "the browser extension", "the smart home app")
PLANS = ("Basic plan", "Family plan", "Premium plan", "Student plan", "Business plan", "yearly plan", "monthly plan",
         "trial subscription", "newsletter box", "coffee subscription")
PLACES = ("Bremen", "Cork", "Ghent", "Graz", "Leeds", "Lyon", "Malmo", "Porto", "Poznan", "Tartu", "Turin", "Utrecht",
          "Vigo", "Zadar", "Aarhus", "Bristol", "Dresden", "Geneva", "Krakow", "Linz")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")
COURIERS = ("the courier", "the driver", "your delivery partner", "the parcel service", "the postman")
CURRENCY = ("euros", "dollars", "pounds", "francs")

OPENINGS = ("Hello,", "Hi there,", "Hi,", "Good morning,", "Good afternoon,", "Dear support team,", "Dear team,",
            "To whom it may concern,", "Hey,", "Hello support,", "", "", "", "")
CLOSINGS = ("Thanks, {first}", "Thank you, {first} {last}", "Best regards, {first} {last}", "Regards, {first}",
            "Kind regards, {first} {last}, {place}", "{first} from {place}", "Many thanks", "Please answer soon.",
            "I look forward to your answer.", "You can reach me after {hour} o'clock.", "Thanks in advance!", "",
            "", "")

# Of each topic: what it is about, then what may follow.
MATTERS = {
    "billing": (
        "I was charged {amount} {currency} twice for the {product} on {month} {day}.",
        "My invoice {number} shows {amount} {currency}, but the price on your page was {amount2}.",
        "The refund of {amount} {currency} for the {product} is still not on my bank statement.",
        "Why did the price of my {plan} go from {amount2} to {amount} {currency} in {month}?",
        "The discount code from your newsletter was not taken off the bill for the {product}.",
        "Our accountant needs invoice {number} again, because the tax number on it is wrong.",
        "My credit card was debited {amount} {currency} by you on {weekday}, and I do not know what for.",
        "I paid for order {number} by bank transfer in {month}, yet I got a payment reminder for {amount} {currency}.",
        "You billed the {plan} for two users, although I am the only one.",
        "Please send me a receipt over {amount} {currency} for the {product} I bought in {month}.",
        "The late fee of {amount2} {currency} on invoice {number} is not justified.",
        "Can I pay the {amount} {currency} for the {product} in three instalments?"),
    "delivery": (
        "My {product} was supposed to come on {weekday}, and there is still no sign of it.",
        "The tracking page for order {number} has not changed since {weekday}.",
        "The parcel with the {product} arrived with a big hole in the box.",
        "{courier_} left the {product} at a neighbour whom I do not know.",
        "I ordered a {product}, but in the parcel there was a {product2}.",
        "Order {number} was sent to my old address in {place} instead of {place2}.",
        "How long does shipping of a {product} to {place} take at the moment?",
        "{courier_} says that nobody was at home on {weekday}, which is not true.",
        "Only {count} of the {count2} parcels of order {number} were delivered.",
        "Your mail says that the {product} was delivered on {month} {day}, but I received nothing.",
        "Can the {product} be dropped at a pick-up point in {place} instead of my door?",
        "The parcel with my {product} has been stuck at customs in {place} for {count2} days."),
    "technical": (
        "{app_} crashes as soon as I open the settings, since the update on {weekday}.",
        "The {product} does not connect to my wireless network any more.",
        "I only get error {code} when I try to upload a photo in {app}.",
        "Since {month} the {product} switches itself off after about {count2} minutes.",
        "{app_} shows a blank page in my browser, whatever I click on.",
        "How do I reset the {product}? The manual that came with it does not say.",
        "The firmware update of the {product} stops at {percent} percent every time.",
        "Search in {app} finds nothing, even when I type the exact name of the {product}.",
        "Pairing the {product} with my phone fails with message {code}.",
        "The display of the {product} flickers, and the buttons on the left do not react.",
        "{app_} has become so slow that every screen takes {count2} seconds to load.",
        "Notifications from {app} come hours late, or do not come at all."),
    "account": (
        "I cannot log in, because the mail to reset my password never arrives.",
        "Please change the email address of my profile, I no longer use the old one at {last}.example.",
        "My user name is locked after {count} wrong passwords. Could you unlock it?",
        "How do I add my partner {first2} as a second user to my profile?",
        "I have two profiles with different email addresses and would like to merge them.",
        "Somebody logged in to my profile from {place} on {weekday}, and it was not me.",
        "The code for two-step login is sent to my old phone number, which ends in {percent}.",
        "My name is spelled {last2} in your records, but it should be {last}.",
        "Where in my profile can I change the language and the time zone?",
        "I moved from {place} to {place2} and cannot edit the address in my profile.",
        "I forgot the answer to my security question, so your page does not let me in.",
        "Please tell me which personal data you have stored about me, customer number {number}."),
    "cancellation": (
        "I want to cancel my {plan} at the end of {month}.",
        "Please stop order {number}, I do not need the {product} any more.",
        "How much notice do I have to give to end the {plan}?",
        "I withdraw from the purchase of the {product} within the {count2} days that the law allows.",
        "The button to end my {plan} is grey, so I am cancelling it in writing.",
        "Do not renew my {plan} in {month}, I have found something else.",
        "I cancelled the {plan} in {month}, and you still treat me as a subscriber.",
        "Please confirm that my contract {number} ends on {month} {day}.",
        "We are closing our office in {place} and have to terminate the {plan}.",
        "I would like to send the {product} back unopened and undo the order.",
        "I never wanted the {plan} to go on after the trial, so please end it now.",
        "Please delete order {number} before it is packed, I clicked twice by mistake."),
}
DETAILS = {
    "billing": (
        "My bank says that the payment went through.", "I attach a copy of the bank statement.",
        "The amount should be {amount2} {currency}.", "Please correct the invoice and send it again.",
        "I have always paid on time.", "If this is not refunded by {weekday}, I will dispute the charge.",
        "The money was taken from card number ending in {percent}."),
    "delivery": (
        "The tracking number is {number}.", "It is meant as a birthday present for {first2}.",
        "I stayed at home the whole day for nothing.", "Please send a new one, or tell me where it is.",
        "My neighbours have not seen anybody either.", "I paid extra for express shipping.",
        "The address is correct, other parcels do arrive."),
    "technical": (
        "I have restarted it {count} times already.", "It worked fine until {weekday}.",
        "Reinstalling did not help.", "My phone has the latest system version.",
        "A colleague of mine sees the same thing.", "I can send screenshots if that helps.",
        "Is there a setting that I have overlooked?"),
    "account": (
        "I have looked in the spam folder, too.", "I have been a customer since {year}.",
        "My user name is {first}{percent}.", "I can send a copy of my passport if you need one.",
        "The help pages do not say how.", "Please call me if you need to check who I am.",
        "I tried it in {count} different browsers."),
    "cancellation": (
        "Please confirm this in writing.", "I hardly ever used it.", "It has nothing to do with your service.",
        "I have read the terms, and the notice period is {count} weeks.", "Please do not call me to change my mind.",
        "My customer number is {number}.", "I would like to have the confirmation by {weekday}."),
}
# Of another topic, said in passing.
ASIDES = {
    "billing": ("The invoice itself was fine, by the way.", "I have already paid, so that is not the point.",
                "The refund for last time arrived, thank you for that."),
    "delivery": ("The parcel came on time, which was nice.", "Shipping was quick, I have to say.",
                 "The courier was very friendly, by the way."),
    "technical": ("The app works well otherwise.", "Apart from that the {product} runs without any error.",
                  "The update last week did fix the other problem."),
    "account": ("Logging in is no problem.", "My profile and password are all right.",
                "You have my address on file."),
    "cancellation": ("I do not want to cancel anything.", "This is no reason for me to end the contract yet.",
                     "I thought about sending it back, but I like it."),
}
FILLERS = ("I am a bit disappointed.", "This is rather urgent for me.", "I hope that you can help me.",
           "I wrote to you about this on {weekday} already and got no answer.", "What can I do?",
           "This is the {ordinal} time that this happens.", "Sorry for the trouble.", "Could you please look into it?",
           "The {product} is otherwise exactly what I wanted.", "Nobody answered the phone when I called.",
           "I found nothing about this on your pages.", "My colleague {first2} told me to write to you.")


def pick_two(dice, values):
    return dice.sample(values, 2)


def blanks(dice):
    """What the sentences of one message are filled with."""
    product, product2 = pick_two(dice, PRODUCTS)
    place, place2 = pick_two(dice, PLACES)
    first, first2 = pick_two(dice, FIRST)
    last, last2 = pick_two(dice, LAST)
    app, courier = dice.choice(APPS), dice.choice(COURIERS)
    cents = dice.choice(("", ".50", ".90", ".95", ".99"))
    low = dice.randint(3, 400)
    return {
        "product": product, "product2": product2, "place": place, "place2": place2, "first": first, "first2": first2,
        "last": last, "last2": last2, "app": app, "app_": app[0].upper() + app[1:], "courier_": courier[0].upper()
        + courier[1:], "plan": dice.choice(PLANS), "weekday": dice.choice(DAYS), "month": dice.choice(MONTHS),
        "day": dice.randint(1, 28), "year": dice.randint(2009, 2024), "hour": dice.randint(2, 6),
        "number": f"{dice.choice('ABCDEFGHKLMNPRSTUVWXYZ')}{dice.randint(10000, 9999999)}",
        "code": f"{dice.choice('EFHX')}{dice.randint(10, 999)}", "percent": dice.randint(10, 99),
        "amount": f"{low + dice.randint(2, 60)}{cents}", "amount2": f"{low}{cents}",
        "currency": dice.choice(CURRENCY), "count": dice.randint(2, 5), "count2": dice.randint(6, 30),
        "ordinal": dice.choice(("second", "third", "fourth")),
    }


def body(dice, topic):
    """Sentences of a message, which may be too short or too long."""
    middle = dice.sample(DETAILS[topic], dice.randint(0, 2)) + dice.sample(FILLERS, dice.randint(0, 2))
    dice.shuffle(middle)
    matter = [dice.choice(MATTERS[topic])]
    if dice.random() < UNCLEAR:
        aside = dice.choice(ASIDES[dice.choice([t for t in TOPICS if t != topic])])
        matter.insert(dice.randint(0, 1), aside)
    sentences = [dice.choice(OPENINGS)] + matter + middle + [dice.choice(CLOSINGS)]
    return " ".join(s for s in sentences if s).format_map(blanks(dice))


def messages(rows, seed):
    """(id, body, truth) of so many rows."""
    dice = random.Random(f"messages {seed}")
    seen = set()
    while len(seen) < rows:
        topic = dice.choice(TOPICS)
        text = body(dice, topic)
        if WORDS[0] <= len(text.split()) <= WORDS[1] and text not in seen:
            seen.add(text)
            yield len(seen), text, topic


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=10000)
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("id", "body", "truth"))
    out.writerows(messages(o.rows, o.seed))


if __name__ == "__main__":
    main()
