"""Sentence forms of the embedded world: how requests are worded and what right answers say.

`{slots}` are filled from a task's details, or from what the tables know of them (`DERIVED`).
"""

from collections.abc import Mapping
from typing import NamedTuple

from alpacafarm.world.tables import CAPITALS, FACTS, MATTERS, STEPS


class Form(NamedTuple):
    """One way to word a request."""

    instruction: str
    input: str = ""


def _forms(*instructions: str, input: str = "") -> tuple[Form, ...]:
    return tuple(Form(instruction, input) for instruction in instructions)


# Small families have many forms: val and eval each keep a quarter of the distinct texts of every form.
_LIST = (
    "List {number} {category}.",
    "Name {number} {category}.",
    "Give me {number} {category}.",
    "Tell me {number} {category}.",
    "Can you name {number} {category}?",
    "What are {number} {category}?",
)
_TIPS = (
    "Give me {number} tips for {topic}.",
    "I need {number} tips for {topic}.",
    "Share {number} tips for {topic}.",
    "List {number} tips for {topic}.",
    "Write {number} tips for {topic}.",
    "Tell me {number} tips for {topic}.",
    "What are {number} tips for {topic}?",
    "Can you give me {number} tips for {topic}?",
    "Help me with {topic}. Give me {number} tips.",
    "My friend needs help with {topic}. Share {number} tips.",
)
_HOW_TO = (
    "How do I {job}?",
    "How can I {job}?",
    "Explain how to {job}.",
    "Tell me how to {job}.",
    "List the steps to {job}.",
    "Give me the steps to {job}.",
    "What are the steps to {job}?",
    "I want to {job}. How?",
    "Help me {job}. What are the steps?",
    "Can you explain how to {job}?",
    "My friend wants to {job}. How?",
    "I need to {job} today. List the steps.",
    "Write a short guide on how to {job}.",
)
_CAPITAL = (
    "What is the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "Which city is the capital of {country}?",
    "What city is the capital of {country}?",
    "Can you name the capital of {country}?",
    "I need the capital of {country}.",
    "I want to visit {country}. What is its capital?",
    "My friend lives in {country}. What is the capital?",
)
_PLAN = (
    "Plan a day at the {place}. Include this: {required}.",
    "Make a plan for a day at the {place}. Include this: {required}.",
    "Write a plan for a day at the {place}. I want to {required}.",
    "I will spend a day at the {place} and I want to {required}. Make a plan.",
    "Help me plan a day at the {place}. I want to {required}.",
    "Can you plan my day at the {place}? I want to {required}.",
    "My friend wants to {required}. Plan a day at the {place}.",
)
FORMS: Mapping[str, tuple[Form, ...]] = {
    "list": _forms(*_LIST, *(f"{form} Do not include {{excluded}}." for form in _LIST)),
    "email": _forms(
        "Write an email to {to} asking for {matter}. Sign it as {sender}.",
        "Write an email from {sender} to {to} asking for {matter}.",
        "I am {sender}. Help me write an email to {to} asking for {matter}.",
    )
    + _forms("Write an email asking for {matter}.", input="From {sender} to {to}."),
    "note": _forms(
        "Write a note from {sender} to {to} about the {event} on {day}.",
        "Tell {to} about the {event} on {day}. Sign it as {sender}.",
        "I am {sender}. Write a note to {to} about the {event} on {day}.",
    ),
    "words": _forms(
        "Write one sentence with the words {first} and {second}.",
        "Use {first} and {second} in one sentence.",
        "Make one sentence from the words {first} and {second}.",
    )
    + _forms("Use these two words in one sentence.", input="{first}, {second}"),
    "rewrite": _forms(
        "Rewrite this to be polite.",
        "Make this request polite.",
        "Say this in a polite way.",
        "Rewrite this request in a friendly way.",
        "Change this request so that it is polite.",
        "This sounds rude. Make it polite.",
        "Turn this into a polite question.",
        input="{request}.",
    ),
    "describe": _forms(
        "Describe a {animal} in one sentence. Use the word {adjective}.",
        "Write one sentence about a {animal} with the word {adjective}.",
        "Tell me about a {animal} in one sentence with the word {adjective}.",
        "What is a {animal}? Use one sentence and the word {adjective}.",
        "Use the word {adjective} in one sentence about a {animal}.",
    )
    + _forms("Describe this animal in one sentence. Use the word {adjective}.", input="{animal}"),
    "tips": _forms(*_TIPS),
    "how_to": _forms(*_HOW_TO),
    "capital": _forms(*_CAPITAL),
    "thanks": _forms(
        "Write a card from {sender} to {to}. Give thanks for the {gift}.",
        "Write a card to thank {to} for the {gift}. Sign it as {sender}.",
        "I am {sender}. Help me thank {to} for the {gift}.",
    )
    + _forms("Write a card to say thank you for the {gift}.", input="From {sender} to {to}."),
    "plan": _forms(*_PLAN) + _forms("Plan a day at the {place}. Include this.", input="{required}."),
    "invitation": _forms(
        "Invite {to} to the {event} in the {venue}. Ask for an answer. Sign it as {sender}.",
        "Write a letter from {sender} to {to}. It is about the {event} in the {venue}. Ask for an answer.",
        "I am {sender}. Invite {to} to the {event} in the {venue} and ask for an answer.",
    ),
    "comparison": _forms(
        "Compare a {animal} and a {other}.",
        "Tell me about a {animal} and a {other}. What do both have in common?",
        "What do you know about a {animal} and a {other}? What are both?",
    )
    + _forms("Compare these two animals.", input="{animal}, {other}"),
}
WEIGHTS = {
    "list": 20,
    "email": 14,
    "note": 14,
    "words": 12,
    "rewrite": 12,
    "describe": 9,
    "tips": 9,
    "how_to": 6,
    "capital": 4,
    "thanks": 8,
    "plan": 8,
    "invitation": 8,
    "comparison": 6,
}

# The right answer's sentences. Families that leave a choice (list, tips, plan) are not here.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "email": ("Dear {to}.", "Could {ask}?", "Thank you for your time.", "Kind regards, {sender}."),
    "note": ("Hi {to}.", "The {event} is on {day}.", "See you there, {sender}."),
    "words": ("The {first} is near the {second}.",),
    "rewrite": ("Could you {manner} {request}?",),
    "describe": ("A {animal} is a {adjective} animal that {fact}.",),
    "how_to": ("First, {first_step}.", "Then, {second_step}.", "Finally, {third_step}."),
    "capital": ("The capital of {country} is {city}.",),
    "thanks": ("Dear {to}.", "Thank you for the {gift}.", "Best wishes, {sender}."),
    "invitation": (
        "Dear {to}.",
        "You are invited to the {event} in the {venue}.",
        "Please tell me if you can come.",
        "Kind regards, {sender}.",
    ),
    "comparison": ("A {animal} {fact}.", "A {other} {other_fact}.", "Both are animals."),
}
# A slot of an answer that follows from a detail of the task: slot -> (detail, table).
DERIVED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "ask": ("matter", MATTERS),
    "city": ("country", CAPITALS),
    "fact": ("animal", FACTS),
    "other_fact": ("other", FACTS),
    "first_step": ("job", {job: steps[0] for job, steps in STEPS.items()}),
    "second_step": ("job", {job: steps[1] for job, steps in STEPS.items()}),
    "third_step": ("job", {job: steps[2] for job, steps in STEPS.items()}),
}
LETTERS = frozenset({"email", "note", "thanks", "invitation"})  # extra sentences stand before the signature
ONE_SENTENCE = frozenset({"words", "describe"})  # the request asks for one sentence

# Sentences about the answer rather than in it. Those that stand in one place share their first word, good and
# bad: otherwise sampling below temperature 1, which sharpens the choice of the first word, erases the faults.
OPENERS = ("Well, I am happy to help!", "Well, thank you for asking!", "Well, what a good question!")
RUDE = ("Well, that is obvious.", "Well, I do not care.")
VAGUE = ("Well, it depends.", "Well, it is hard to say.")
CLOSERS = (
    "I hope this helps!",
    "I hope you enjoy it!",
    "I hope you have a wonderful day!",
    "I hope you will ask me again!",
)
OFF_TOPIC = ("I think my car is old.", "I think the sky is blue.", "I think old films are great.")
# Details that make an answer richer. Another family's are off topic.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "list": ("There are many other examples.", "There are more in any book."),
    "email": ("I know that you are busy.", "I know that this is sudden."),
    "note": ("It will be fun.", "It will be great."),
    "words": (),
    "rewrite": ("It sounds polite now.", "It sounds more friendly."),
    "describe": (),
    "tips": ("Try this for one week.", "Try this with a friend."),
    "how_to": ("Take your time with it.", "Take care with each step."),
    "capital": ("It is a very old city.", "It is a lovely place."),
    "thanks": ("I use it every day.", "I like it very much."),
    "plan": ("This will be a lovely day.", "This is easy to do."),
    "invitation": ("There will be music.", "There will be good food."),
    "comparison": ("They have four legs.", "They like to play."),
}
