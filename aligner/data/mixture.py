"""What is trained on, how often, and what is withheld. Every choice is a function of (seed, file, row)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from aligner.data.clean import normalised_hash
from aligner.data.readers import SourceRows
from aligner.data.readers.files import plain_stem
from aligner.data.rows import Document, Example, Pair, Row, row_text, turns_text
from aligner.errors import DataError, Problem, nearest

T = TypeVar("T")


def chance(row: Row, *, seed: int, purpose: str) -> int:
    """A row's random number, 64 bits: a function of seed, purpose, file name, line and text alone.

    The file's name counts, not its folder, so that a project moved to another place draws the same rows.
    """
    key = f"{seed}|{purpose}|{Path(row.origin.path).name}|{row.origin.line}|{row_text(row)}"
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


def group_of(row: Row) -> bytes:
    """Rows with one key go together, withheld or weighed: the pairs of one prompt, or equal rows."""
    return normalised_hash(turns_text(row.prompt) if isinstance(row, Pair) else row_text(row))


def draw_holdout(sources: Sequence[SourceRows], rows: int, *, seed: int) -> list[SourceRows]:
    """Take `rows` rows out of the sources, at random over all of them, never to be trained on.

    Pairs are drawn by prompt: the other pairs of a withheld prompt are not trained on either. Dropped from
    the sources as `held_out` (drawn) and `in_holdout` (equal to a drawn row, or of its prompt).
    Returns what was drawn, one `SourceRows` a source it came from. Raises `DataError` where rows are too few.
    """
    groups: dict[bytes, list[tuple[int, Row]]] = defaultdict(list)
    for index, source in enumerate(sources):
        for row in source.rows:
            groups[group_of(row)].append((index, row))
    luck = {
        key: min(chance(row, seed=seed, purpose="holdout") for _, row in group)
        for key, group in groups.items()
    }
    drawn: list[SourceRows] = [SourceRows(source.path, source.format, source.files) for source in sources]
    taken: set[bytes] = set()
    held: set[int] = set()
    for key in sorted(groups, key=luck.__getitem__):
        for index, row in _unlike(groups[key])[: rows - len(held)]:
            drawn[index].rows.append(row)
            held.add(id(row))
        taken.add(key)
        if len(held) == rows:
            break
    if len(taken) >= len(groups):
        what = f"{rows} rows cannot be held out of {len(groups)}"
        raise DataError(Problem("data.holdout.rows", what, "hold out fewer rows, or add sources"))

    def reason_against(row: Row) -> str | None:
        if group_of(row) not in taken:
            return None
        return "held_out" if id(row) in held else "in_holdout"

    for source in sources:
        source.keep(reason_against)
    return [source for source in drawn if source.rows]


def _unlike(group: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """The rows of a group, equal ones once."""
    return list({normalised_hash(row_text(entry[1])): entry for entry in reversed(group)}.values())[::-1]


def drop_withheld(sources: Sequence[SourceRows], holdout: Sequence[SourceRows]) -> None:
    """Drop, as `in_holdout`, the training rows that a held-out source has too (whitespace and case aside).

    Pairs go by prompt, as in `draw_holdout`: no other pair or ranking of a held-out prompt is trained on.
    """
    withheld = {group_of(row) for source in holdout for row in source.rows}
    for source in sources if withheld else ():
        source.keep(lambda row: "in_holdout" if group_of(row) in withheld else None)


def withhold_families(sources: Sequence[SourceRows], families: Sequence[str]) -> list[SourceRows]:
    """Take all rows of these families out of the sources, dropped there as `held_out`.

    A row is of the family it says it is (of a pair: its `kind`) and of the one that its file is named after.
    Returns the rows, one `SourceRows` a source they came from. Raises `DataError` for families without rows.
    """
    known = {name for source in sources for row in source.rows for name in _families_of(row)}
    unknown = [
        Problem("data.holdout.families", f'no row is of family "{name}"', nearest(name, sorted(known)))
        for name in families
        if name not in known
    ]
    if unknown:
        raise DataError(unknown)
    wanted = set(families)
    held = [
        SourceRows(
            source.path,
            source.format,
            source.files,
            [row for row in source.rows if wanted & _families_of(row)],
        )
        for source in sources
    ]
    for source in sources:
        source.keep(lambda row: "held_out" if wanted & _families_of(row) else None)
    return [source for source in held if source.rows]


def _families_of(row: Row) -> set[str]:
    said = row.kind if isinstance(row, Pair) else "" if isinstance(row, Document) else row.family
    return {plain_stem(Path(row.origin.path)), said} - {""}


def keep_measured(holdout: Sequence[SourceRows], rows: int, *, seed: int) -> None:
    """Drop, as `not_measured`, held-out rows above this number, at random over all; 0: none."""
    every = [row for source in holdout for row in source.rows]
    kept = {id(row) for row in _lowest(every, rows, seed=seed, purpose="measured")}
    for source in holdout if rows else ():
        source.keep(lambda row: None if id(row) in kept else "not_measured")


def file_of(row: Row) -> str:
    """What a cap or a rate of its own is for."""
    return str(row.task.path) if isinstance(row, Example) else row.origin.path


def cap_files(source: SourceRows, cap: int | None, *, seed: int) -> None:
    """Keep at most `cap` random rows of each file or task (FLAN, arXiv:2109.01652, 2.1); the others drop as `cap`."""
    if cap is None:
        return
    by_file: dict[str, list[Row]] = defaultdict(list)
    for row in source.rows:
        by_file[file_of(row)].append(row)
    kept = {id(row) for rows in by_file.values() for row in _lowest(rows, cap, seed=seed, purpose="cap")}
    source.keep(lambda row: None if id(row) in kept else "cap")


def weigh(source: SourceRows, weight: float, *, seed: int) -> list[int]:
    """Copies of each row per epoch: the whole part of `weight`, one more for a random share (its fraction).

    Rows that get no copy are dropped as `weight`; the copies of the rows that stay are given, at least 1 each.
    """
    whole, fraction = int(weight), weight - int(weight)
    extra = round(fraction * len(source.rows))
    lucky = {id(row) for row in _lowest(source.rows, extra, seed=seed, purpose="weight")}
    if not whole:
        source.keep(lambda row: None if id(row) in lucky else "weight")
    return [whole + (id(row) in lucky) for row in source.rows]


def _lowest(rows: Sequence[Row], count: int, *, seed: int, purpose: str) -> list[Row]:
    return sorted(rows, key=lambda row: chance(row, seed=seed, purpose=purpose))[:count] if count else []


def shuffled(rows: Sequence[Row], values: Sequence[T], copies: Sequence[int], *, seed: int) -> list[T]:
    """Each row's value as often as it has copies, in one random order over all of them."""
    order = [
        (chance(row, seed=seed, purpose=f"order {copy}"), index)
        for index, row in enumerate(rows)
        for copy in range(copies[index])
    ]
    return [values[index] for _, index in sorted(order)]
