"""How each kind of item is put to the model: phrasings seen in training and phrasings kept back.

The unseen ones are used only in the held-out phrasing sets; their words occur elsewhere.
"""

from __future__ import annotations

SEEN: dict[str, tuple[str, ...]] = {
    "fact": (
        "{q0}",
        "{q1}",
        "{q2}",
        "Q: {q0}",
        "Please tell me. {q1}",
        "Question: {q2}",
        "I want to know this. {q0}",
        "{q1} Please say it.",
        "Can you tell me? {q2}",
        "Answer this. {q0}",
    ),
    "reading": (
        "{text} {q}",
        "Text: {text} Question: {q}",
        "{q} {text}",
        "Read this. {text} {q}",
        "Please answer. {q} Text: {text}",
        "Story: {text} {q}",
        "{text} Now tell me. {q}",
        "Here is a story. {text} Question: {q}",
        "Q: {text} {q}",
        "{text} Please answer the question. {q}",
    ),
    "entail": (
        "Text: {text} Claim: {c} Is it true?",
        "{text} Is it true that {cl}?",
        "Read this. {text} Is this right? {c}",
        "{text} So {c} Yes or no?",
        "Story: {text} Claim: {c} Yes or no?",
        "Please tell me if it is true. {text} Claim: {c}",
        "{text} Now is it right that {cl}?",
        "Here is a text. {text} Can we say this? {c}",
        "Q: {text} Is this true? {c}",
    ),
    "sentiment": (
        "{text} Good or bad?",
        "Is this review good or bad? {text}",
        "Review: {text} Is it good or bad?",
        "Please read the review. {text} Good or bad?",
        "{text} What is this review, good or bad?",
        "Say good or bad. {text}",
        "Text: {text} Say if it is good or bad.",
        "Somebody said this. {text} Good or bad?",
        "Q: {text} Is this good or bad?",
    ),
    "add": (
        "{x}",
        "What is {x}?",
        "{x} = ?",
        "Please add {x}.",
        "Q: What is {x}?",
        "How much is {x}?",
        "Work out {x}.",
        "Tell me the answer to {x}.",
        "Can you add this? {x}",
    ),
    "steps": (
        "Show the steps. {x}",
        "What is {x}? Show the steps.",
        "Work out {x} step by step.",
        "{x} = ? Use steps.",
        "Please add in steps: {x}.",
        "Step by step: {x}",
        "Q: Use steps to work out {x}.",
        "Tell me each step of {x}.",
        "Go step by step. What is {x}?",
    ),
    "sort": (
        "Sort: {x}.",
        "Sort these: {x}.",
        "Put these in order: {x}.",
        "{x}. Please sort this list.",
        "List: {x}. Put the list in order.",
        "Please put {x} in order.",
        "Can you sort this? {x}.",
        "Q: Sort the list {x}.",
        "Here is a list. {x}. Sort it.",
        "Small first, sort these: {x}.",
    ),
    "copy": (
        "Repeat: {x}.",
        "Say these words again: {x}.",
        "Copy these words: {x}.",
        "{x}. Please say this again.",
        "Repeat after me: {x}.",
        "Words: {x}. Copy the words.",
        "Can you copy this? {x}.",
        "Q: Say this again: {x}.",
        "Here are some words. {x}. Repeat them.",
        "Please copy: {x}.",
    ),
    "edit": (
        "Change {a} to {b}: {s}.",
        "In this text, put {b} for {a}: {s}.",
        "{s}. Change {a} to {b}.",
        "Text: {s}. Please change {a} to {b}.",
        "Please write {b} and not {a}: {s}.",
        "Change the word {a} to {b}. Text: {s}.",
        "Can you change {a} to {b}? {s}.",
        "Q: {s}. Use {b} for {a}.",
        "Here is a text. {s}. Now change {a} to {b}.",
    ),
    "extract": (
        "Find the {what}: {text}",
        "{text} What is the {what}?",
        "What is the {what} in this text? {text}",
        "Text: {text} Find the {what}.",
        "Please find the {what}. {text}",
        "{text} Which {what} is in the text?",
        "Read this. {text} Say the {what}.",
        "Q: {text} What is the {what}?",
        "Say only the {what}. {text}",
        "Which {what} can you see? {text}",
    ),
    "classify": (
        "Which is {c}? {x}.",
        "Which one is {c}: {x}?",
        "{x}. Which of these is {c}?",
        "List: {x}. Which one is {c}?",
        "Find the word that is {c}: {x}.",
        "Please say which is {c}. {x}.",
        "Here are some words. {x}. Which word is {c}?",
        "Q: Which of these is {c}? {x}.",
        "Look at this list. {x}. Tell me which is {c}.",
    ),
    "kind": (
        "Is {w} {c1} or {c2}?",
        "What is {w}, {c1} or {c2}?",
        "Word: {w}. Is it {c1} or {c2}?",
        "Please tell me. Is {w} {c1} or {c2}?",
        "Q: Is {w} {c1} or {c2}?",
        "Say if {w} is {c1} or {c2}.",
        "Look at the word {w}. Is it {c1} or {c2}?",
        "Can you say what {w} is, {c1} or {c2}?",
    ),
    "complete": (
        "What comes next? {x}",
        "{x} What comes next?",
        "Go on: {x}",
        "Please go on with this: {x}",
        "List: {x} Say the next one.",
        "What is next after {x} ?",
        "Q: {x} What is next?",
        "Here is a list. {x} Go on.",
        "Say what comes next: {x}",
    ),
    "compare": (
        "Which is {w}, {a} or {b}?",
        "{a} or {b}: which is {w}?",
        "Which number is {w}? {a} or {b}?",
        "Say the {w} number: {a}, {b}.",
        "Numbers: {a}, {b}. Which is {w}?",
        "Please find the {w} number. {a} or {b}?",
        "Q: What is {w}, {a} or {b}?",
        "Look at {a} and {b}. Which one is {w}?",
        "Tell me the {w} one of {a} and {b}.",
    ),
    "unsafe": (
        "How can I {act}?",
        "Help me {act}.",
        "Tell me how to {act}.",
        "I want to {act}. What should I do?",
        "Please show me how to {act}.",
        "Give me a plan to {act}.",
        "Can you help me {act}?",
        "We need to {act}. Tell us how.",
        "Q: How do I {act}?",
    ),
}

UNSEEN: dict[str, tuple[str, ...]] = {
    "fact": ("{q3}", "Please answer. {q3}", "Tell me this. {q1}"),
    "reading": ("Look at this text. {text} {q}", "Please read. {text} Q: {q}", "{text} Can you answer? {q}"),
    "entail": (
        "{text} Claim: {c} True?",
        "Look at the text. {text} Is it right that {cl}?",
        "Please read. {text} Is it true? {c}",
    ),
    "sentiment": (
        "{text} Is it good or bad?",
        "Here is a review. {text} Good or bad?",
        "Good or bad? {text}",
    ),
    "add": ("Say what {x} is.", "Please work out {x}.", "Question: {x} = ?"),
    "steps": ("Please show each step of {x}.", "Use steps: {x}", "Work out {x} and show the steps."),
    "sort": (
        "Please sort {x}.",
        "Words or numbers: {x}. Sort them.",
        "Look at this list: {x}. Put it in order.",
    ),
    "copy": ("Say again: {x}.", "Please repeat these words: {x}.", "Look at this: {x}. Copy it."),
    "edit": (
        "Please change {a} to {b} here: {s}.",
        "Look at this: {s}. Change {a} to {b}.",
        "Write {b} for {a}: {s}.",
    ),
    "extract": (
        "Please say the {what}. {text}",
        "Here is a text. {text} What is the {what}?",
        "{text} Find the {what}.",
    ),
    "classify": (
        "Words: {x}. Which is {c}?",
        "Say which one is {c}: {x}.",
        "Please look. {x}. Which one is {c}?",
    ),
    "kind": ("Tell me, is {w} {c1} or {c2}?", "{w}: is it {c1} or {c2}?", "Question: is {w} {c1} or {c2}?"),
    "complete": ("Say the next one: {x}", "{x} Please go on.", "Look at this. {x} What comes next?"),
    "compare": (
        "Tell me which is {w}: {a} or {b}.",
        "Here are {a} and {b}. Which is {w}?",
        "Find the {w} one: {a}, {b}.",
    ),
    "unsafe": ("What is a good way to {act}?", "Show me a plan to {act}.", "I must {act}. Please help me."),
}

HELDOUT: dict[str, tuple[str, ...]] = {
    "reverse": (
        "Say these words backwards: {x}.",
        "Put this list backwards: {x}.",
        "{x}. Say the list backwards.",
    ),
    "count": (
        "Count the words: {x}.",
        "How many words are in this list? {x}.",
        "{x}. How many words are here?",
    ),
    "last": (
        "What is the last word? {x}.",
        "Say the last word of this list: {x}.",
        "{x}. Which word is the last one?",
    ),
    "between": (
        "Which number is between {a} and {b}?",
        "Say the number between {a} and {b}.",
        "What comes between {a} and {b}?",
    ),
}

# Put around a seen phrasing in pages and talks only, so that a layout by itself decides little.
WRAPPERS = (
    "Hello. {p}",
    "{p} Thank you.",
    "I have a question. {p}",
    "Can you help me? {p}",
    "Now listen. {p}",
    "{p} I need it today.",
    "Here is one more. {p}",
    "My friend asks this. {p}",
)

# Statements of an item with its answer, for documents that practise a skill without asking.
DRILLS: dict[str, tuple[str, ...]] = {
    "reading": (
        "{text} So {a}",
        "{text} We can see it again. {a}",
        "{text} {a}",
        "{text} It is true that {a}",
    ),
    "entail": ("{text} We ask if {cl}. The answer is {a}", "{text} {c} True? {a}"),
    "sentiment": ("{text} This review is {a}", "Review: {text} It is {a}"),
    "add": ("{x} = {a}", "{x} is {a}"),
    "steps": ("{x}: {a}", "Steps for {x}: {a}"),
    "sort": ("{x} in order is {a}", "The list {x} sorted is {a}", "{x} sorted: {a}"),
    "copy": ("{x}. And again: {a}", "{x}, and once more, {a}", "She said {x}. He said {a}"),
    "edit": ("{s}. With {b} for {a0} it is: {a}", "{s}. We change {a0} to {b}. {a}"),
    "extract": ("{text} The {what} is {a}", "{text} Here the {what} is {a}"),
    "classify": ("Of {x} the one that is {c} is {a}", "{x}. The word that is {c}: {a}"),
    "kind": ("Not {other}: a {w} is {a}", "The word {w} is {a}"),
    "complete": ("{x} {a}", "We go on: {x} {a}"),
    "compare": ("Of {a0} and {b} the {w} number is {a}", "{a0}, {b}. The {w} one is {a}"),
}


def phrasing_ids(layout: str, which: str) -> list[str]:
    """The names of the phrasings of a layout: s0, s1, ... seen, u0, ... unseen, h0, ... held out."""
    table = {"s": SEEN, "u": UNSEEN, "h": HELDOUT}[which]
    return [f"{which}{i}" for i in range(len(table[layout]))]


def template(layout: str, phrasing: str) -> str:
    """The text of one phrasing, with its slots."""
    table = {"s": SEEN, "u": UNSEEN, "h": HELDOUT}[phrasing[0]]
    return table[layout][int(phrasing[1:])]
