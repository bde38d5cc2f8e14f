"""Format `pairs`: {"prompt", "chosen", "rejected"} rows, with an optional "margin" and "kind"."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record
from aligner.data.readers.tool_calls import in_order
from aligner.data.rows import Dropped, Origin, Pair, Turn

Turns = tuple[Turn, ...]


def read_pairs(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row; an answer without text is `empty_answer`, twice the same answer `answers_equal`.

    Answers may be messages, as in TRL's preference forms: the one assistant message each, or two whole dialogues
    whose shared beginning is the prompt ("prompt" may be left out then). Further drops there: `no_common_prompt`
    (nothing shared, or what differs first is not the assistant's), `prompt_mismatch` (the dialogues do not share
    "prompt"), `roles_out_of_order` (the shared part does not end with the user), `further_turns` (more than one
    turn differs).
    """
    if isinstance(record.value.get("chosen"), list):
        split = _split(record)
    else:
        split = record.prompt(), record.text("chosen"), record.text("rejected")
    if isinstance(split, str):
        yield Dropped(record.origin, split)
        return
    margin, kind = record.number("margin"), record.text("kind", default="")
    yield pair_row(record.origin, *split, margin=margin, kind=kind)


def _split(record: Record) -> tuple[Turns, str, str] | str:
    """Prompt and both answers of a row in messages, or why they cannot be told apart."""
    chosen, rejected = record.turns("chosen"), record.turns("rejected")
    given = record.prompt() if record.value.get("prompt") is not None else ()
    border, prompt = 0, given
    if not given or chosen[0].role != "assistant":  # whole dialogues
        border = _shared(chosen, rejected)
        prompt = chosen[:border]
        if not prompt:
            return "no_common_prompt"
        if prompt[len(prompt) - len(given) :] != given:
            return "prompt_mismatch"
    if chosen[border].role != "assistant" or rejected[border].role != "assistant":
        return "no_common_prompt"
    if prompt[-1].role != "user":
        return "roles_out_of_order"
    if len(chosen) > border + 1 or len(rejected) > border + 1:
        return "further_turns"
    return prompt, chosen[border].content, rejected[border].content


def _shared(one: Turns, other: Turns) -> int:
    """How many turns two dialogues have in common at their beginning, the last one of the shorter aside."""
    most = min(len(one), len(other)) - 1
    return next((index for index in range(most) if one[index] != other[index]), most)


def pair_row(
    origin: Origin, prompt: Turns, chosen: str, rejected: str, *, margin: float | None, kind: str
) -> Pair | Dropped:
    """A pair, or why it teaches nothing: `roles_out_of_order` where user and assistant do not take turns, for one."""
    chosen, rejected = chosen.strip(), rejected.strip()
    if any(turn.empty for turn in prompt):
        return Dropped(origin, "empty_turn")
    if not in_order(prompt):
        return Dropped(origin, "roles_out_of_order")
    if not chosen or not rejected:
        return Dropped(origin, "empty_answer")
    if chosen == rejected:
        return Dropped(origin, "answers_equal")
    return Pair(origin, prompt, chosen, rejected, margin, kind)
