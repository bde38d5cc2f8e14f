"""The seen families as task files: tables of fields under the phrasings of `phrasings.SEEN`, for `format: tasks`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.world.bank import Bank
from scripts.world.items import LISTS, Item
from scripts.world.noise import clean
from scripts.world.phrasings import SEEN

TASK_ROWS = 600
# The fields that say it all, without a word around them: what `templates: none` shows.
INPUTS: dict[str, tuple[str, ...]] = {
    "fact": ("q0",),
    "reading": ("text", "q"),
    "entail": ("text", "c"),
    "sentiment": ("text",),
    "add": ("x",),
    "steps": ("x",),
    "sort": ("x",),
    "copy": ("x",),
    "edit": ("s", "a", "b"),
    "extract": ("text", "what"),
    "classify": ("x", "c"),
    "kind": ("w", "c1", "c2"),
    "complete": ("x",),
    "compare": ("a", "b", "w"),
    "unsafe": ("act",),
}


@dataclass(frozen=True)
class Task:
    """A table of fields and the task file over it; a family whose items are put in two ways has two."""

    name: str
    text: str
    rows: list[dict[str, str]]


def tasks(bank: Bank) -> Iterator[Task]:
    """The tasks of every family, clean answers only."""
    for family in bank.families:
        rng = bank.rng(f"tasks/{family}")
        by_layout: dict[str, list[Item]] = {}
        for item in bank.distinct(family, "train", rng, TASK_ROWS):
            by_layout.setdefault(item.layout, []).append(item)
        for layout, items in sorted(by_layout.items()):
            name = family if family == layout or len(by_layout) == 1 else f"{family}_{layout}"
            fields = dict.fromkeys(re.findall(r"{(\w+)}", " ".join(SEEN[layout])))
            rows = [{k: item.slots[k] for k in fields} | {"answer": clean(item, rng)} for item in items]
            yield Task(name, _task_file(name, family, layout), rows)


def _task_file(name: str, family: str, layout: str) -> str:
    lines = [f"name: {name}", f"family: {family}", f"rows: {name}.jsonl.gz"]
    lines += [f"inputs: [{', '.join(INPUTS[layout])}]", 'target: "{{ answer }}"', "templates:"]
    lines += [
        f'  - {{name: s{number}, input: "{_jinja(phrasing, layout)}"}}'
        for number, phrasing in enumerate(SEEN[layout])
    ]
    return "\n".join(lines) + "\n"


def _jinja(phrasing: str, layout: str) -> str:
    """The phrasing as Jinja; like `Item.prompt`, it begins with a capital letter, where it is no list."""
    text = re.sub(r"{(\w+)}", r"{{ \1 }}", phrasing)
    if layout in LISTS:
        return text
    return re.sub(r"^{{ (\w+) }}", r"{{ \1[0] | upper }}{{ \1[1:] }}", text)
