"""Small task files for tests."""

from __future__ import annotations

import json
from pathlib import Path

# Two ways to ask, one that turns the task around, one that gives reasons.
NLI = """\
name: nli
family: entailment
rows: nli.jsonl
inputs: [premise, hypothesis]
target: "{{ answer_choices[label] }}"
answer_choices: [yes, no]
templates:
  - name: claim
    input: "{{ premise }} Claim: {{ hypothesis }} True?"
  - name: options
    input: |
      {{ premise }}
      {{ hypothesis }}
      {% for choice in shuffled_choices %}- {{ choice }}
      {% endfor %}
  - name: write
    inverts: true
    input: "Write a claim whose answer is {{ answer_choices[label] }}: {{ premise }}"
    target: "{{ hypothesis }}"
  - name: steps
    rationale: true
    input: "{{ premise }} Claim: {{ hypothesis }} Think first."
    target: "{{ why }} So {{ answer_choices[label] }}."
"""


def nli_rows(count: int) -> list[dict[str, object]]:
    return [
        {"id": i, "premise": f"Tom has {i} cats.", "hypothesis": f"Tom has {i + i % 2} cats.", "label": i % 2, "why": f"{i} is {i}."}
        for i in range(count)
    ]  # fmt: skip


def write_task(
    folder: Path, text: str = NLI, rows: list[dict[str, object]] | None = None, name: str = "nli"
) -> str:
    """A task file and its rows; the path of the task file."""
    folder.mkdir(parents=True, exist_ok=True)
    given = nli_rows(40) if rows is None else rows
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / f"{name}.yaml")
