"""Format `text`: plain text files as documents."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from aligner.data.readers.files import read_bytes
from aligner.data.readers.records import fault
from aligner.data.rows import Document, Origin
from aligner.errors import at

GROUP_CHARS = 2000
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_START = re.compile(r"^\s*\*{3}\s*START OF (THIS|THE) PROJECT GUTENBERG EBOOK", re.IGNORECASE)
_OLD_START = re.compile(r"^\s*\*END\s?\*\s?THE SMALL PRINT", re.IGNORECASE)
_END = re.compile(
    r"^\s*(\*{3}\s*END OF (THIS|THE) PROJECT GUTENBERG EBOOK|End of (the )?Project Gutenberg)", re.IGNORECASE
)


def read_text(path: Path) -> Iterator[Document]:
    """Documents of a plain text file.

    Bytes are UTF-8 or, with its byte-order mark, UTF-16 (marks are skipped), or Latin-1 where they are not; line ends
    become "\\n". `DataError` where there are zero bytes, as in no text. What
    stands before Project Gutenberg's start marker and after its end marker goes, where such lines are there.
    Paragraphs (parted by blank lines) are put together, in order, as long as a document stays within 2000
    characters; a paragraph longer than that is taken line by line, and a line longer than that stays whole.
    `Origin.line` is the document's first line in the file.
    """
    text = _decode(read_bytes(path))
    if "\0" in text:
        raise fault(at(path), "no text: there are zero bytes in it", "save it as UTF-8, or leave it out")
    lines = text.splitlines()
    start, end = _body(lines)
    for first_line, text in _grouped(_units(lines, start, end)):
        yield Document(Origin(str(path), first_line), text=text)


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _body(lines: list[str]) -> tuple[int, int]:
    """First and past-the-last index of the lines that are the book itself (all of them in other files)."""
    start = next((i + 1 for i, line in enumerate(lines) if _START.match(line) or _OLD_START.match(line)), 0)
    if not start:
        return 0, len(lines)
    return start, next((i for i in range(start, len(lines)) if _END.match(lines[i])), len(lines))


def _units(lines: list[str], start: int, end: int) -> Iterator[tuple[int, str, str]]:
    """(line number from 1, text, what joins it to the text before): paragraphs, or lines of long ones."""
    index = start
    while index < end:
        if not lines[index].strip():
            index += 1
            continue
        first = index
        while index < end and lines[index].strip():
            index += 1
        paragraph = [line.rstrip() for line in lines[first:index]]
        if sum(map(len, paragraph)) + len(paragraph) <= GROUP_CHARS:
            yield first + 1, "\n".join(paragraph), "\n\n"
        else:
            yield from ((first + 1 + i, line, "\n" if i else "\n\n") for i, line in enumerate(paragraph))


def _grouped(units: Iterator[tuple[int, str, str]]) -> Iterator[tuple[int, str]]:
    group_line, group = 0, ""
    for line, text, joint in units:
        if group and len(group) + len(joint) + len(text) > GROUP_CHARS:
            yield group_line, group
            group = ""
        if group:
            group += joint + text
        else:
            group_line, group = line, text
    if group:
        yield group_line, group
