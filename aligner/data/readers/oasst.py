"""Format `oasst`: {"message_tree_id", "prompt": {"text", "role", "replies": [...]}} trees (arXiv:2304.07327)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from aligner.data.readers.rankings import scored_pairs
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Pair, Turn

_ROLES: dict[str, Literal["user", "assistant"]] = {"prompter": "user", "assistant": "assistant"}
Turns = tuple[Turn, ...]


def read_oasst(record: Record) -> Iterator[Pair | Dropped]:
    """All pairs of the ranked answers to each message of the user's, at every depth; rank 0 is the best.

    A pair's prompt is the path from the root, on which no message is deleted; what comes after a deleted one is not
    read. Dropped, one for each answer: `deleted` (also a tree whose root is), `unranked` (it has no rank),
    `single_answer` (there is no other to compare with); a tree without an answer is `no_answer`; two answers of one
    rank are a `tie`; and drops as in `pairs`.
    """
    root = _root(record)
    if _deleted(root):
        yield Dropped(record.origin, "deleted")
        return
    waiting: list[tuple[Turns, Record]] = [((), root)]
    answers = 0
    while waiting:  # no recursion: a tree may be as deep as JSON allows
        path, message = waiting.pop()
        path = (*path, _turn(message))
        replies = _replies(message)
        waiting += [(path, reply) for reply in reversed(replies) if not _deleted(reply)]
        if path[-1].role == "user":
            answers += len(replies)
            yield from _compared(record, path, replies)
    if not answers:
        yield Dropped(record.origin, "no_answer")


def read_oasst_chats(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a tree: the best path down from the root.

    At each of the user's messages it takes the answer of the best rank (the first one where none has a rank), at
    each answer the user's first reply that was answered; deleted messages are not there. A message without text
    drops it as `empty_turn`, a deleted root as `deleted`, a tree without an answer as `no_answer`.
    """
    message = _root(record)
    if _deleted(message):
        yield Dropped(record.origin, "deleted")
        return
    turns = [_turn(message)]
    while answers := _left(message):
        best = min(answers, key=_rank)
        turns.append(_turn(best))
        going_on = [reply for reply in _left(best) if _left(reply)]
        if not going_on:
            break
        message = going_on[0]
        turns.append(_turn(message))
    if len(turns) == 1:
        yield Dropped(record.origin, "no_answer")
    elif not all(turn.content for turn in turns):
        yield Dropped(record.origin, "empty_turn")
    else:
        yield Conversation(record.origin, tuple(turns), "oasst")


def _compared(record: Record, path: Turns, replies: list[Record]) -> Iterator[Pair | Dropped]:
    """The pairs among the answers to the last turn of a path."""
    there = [reply for reply in replies if not _deleted(reply)]
    yield from (Dropped(record.origin, "deleted") for _ in replies[len(there) :])
    if len(there) == 1:
        yield Dropped(record.origin, "single_answer")
        return
    ranked = [(_turn(reply).content, -rank) for reply in there if (rank := reply.number("rank")) is not None]
    yield from (Dropped(record.origin, "unranked") for _ in there[len(ranked) :])
    if len(ranked) == 1:
        yield Dropped(record.origin, "single_answer")
    yield from scored_pairs(record.origin, path, ranked, kind="")


def _root(record: Record) -> Record:
    root = Record(record.origin, record.mapping("prompt"))
    if _turn(root).role != "user":
        raise fault(record.origin, "the tree starts with an answer", "start it with the prompter's message")
    return root


def _turn(message: Record) -> Turn:
    role = message.text("role")
    if role not in _ROLES:
        raise fault(message.origin, f'unknown role "{role}"', f"valid: {', '.join(_ROLES)}")
    return Turn(_ROLES[role], message.text("text").strip())


def _replies(message: Record) -> list[Record]:
    """The replies to a message, which must be of the other side."""
    replies = message.records("replies") if message.value.get("replies") else []
    if any(reply.value.get("role") == message.value.get("role") for reply in replies):
        what = f"a reply of the same role ({message.text('role')})"
        raise fault(message.origin, what, "prompter and assistant must take turns")
    return replies


def _left(message: Record) -> list[Record]:
    """The replies that are not deleted."""
    return [reply for reply in _replies(message) if not _deleted(reply)]


def _deleted(message: Record) -> bool:
    return message.value.get("deleted") is True


def _rank(message: Record) -> float:
    rank = message.number("rank")
    return float("inf") if rank is None else rank
