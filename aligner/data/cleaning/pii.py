"""Personal data in text: found by form and check digits, replaced by placeholders such as `<email>`.

Forms are found, not meanings: names and addresses stay. A number of a phone is taken for one by its international or
national form, or by a word beside it ("call", "fax"); numbers in other forms stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address


@dataclass(frozen=True, order=True)
class Found:
    """A piece of personal data: text[start:end], and its kind."""

    start: int
    end: int
    kind: str


_EMAIL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![A-Za-z0-9])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
# 12 to 19 digits in one run, in fours, or as American Express writes them; the first digits of the known issuers.
_CARD = re.compile(
    r"(?<![\w.+-])(?=[2-6]|1800)"
    r"(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?!\w|[.,-]\d)"
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(r"(?<![\w./@#$€£%-])(?<!\d,)\+?\(?\d(?:[ .()-]{0,2}\d){6,14}(?!\w|[.,%/]\d)")
_AMERICAN = re.compile(r"(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}")
_TRUNK = re.compile(r"\(?0\d{1,4}\)?(?:[ ./-]\d{2,8}){1,4}")  # a national number after the prefix 0
_NO_PHONE = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./-]\d{1,2}[./-]\d{4}.*|\d{3}-\d\d-\d{4}|\d{4} ?- ?\d{4}")
_BEFORE = re.compile(
    r"\b(?:phone|telephone|tel|call|dial|fax|mobile|cell|contact|whatsapp|sms|text|messages?|hotline|telefon)\b",
    re.IGNORECASE,
)
_AFTER = re.compile(r"[\s,-]{0,2}\(?(?:office|fax|mobile|cell|home|work)\b", re.IGNORECASE)
_CONTEXT_CHARS = 40


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Places of e-mail addresses."""
    return (match.span() for match in _EMAIL.finditer(text))


def find_ibans(text: str) -> Iterator[tuple[int, int]]:
    """Places of bank accounts that pass the check of ISO 13616: the number is 1 modulo 97."""
    for match in _IBAN.finditer(text):
        ends = [
            end for end in range(match.end(), match.start() + 14, -1) if not text[end : end + 1].isalnum()
        ]
        for end in ends:  # the longest first: words in capitals may follow
            compact = text[match.start() : end].replace(" ", "")
            if text[end - 1] != " " and 15 <= len(compact) <= 34 and is_iban(compact):
                yield match.start(), end
                break


def is_iban(compact: str) -> bool:
    """Whether letters and digits pass the check of ISO 13616 (A is 10, Z is 35, the first four go last)."""
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def find_cards(text: str) -> Iterator[tuple[int, int]]:
    """Places of card numbers that pass Luhn's check (ISO/IEC 7812-1)."""
    return (match.span() for match in _CARD.finditer(text) if passes_luhn(_digits(match[0])))


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is right: every second from the right is doubled, and 10 divides the sum of digits."""
    doubled = [int(digit) * (1 + i % 2) for i, digit in enumerate(reversed(digits))]
    return sum(n // 10 + n % 10 for n in doubled) % 10 == 0


def find_ips(text: str) -> Iterator[tuple[int, int]]:
    """Places of IPv4 and IPv6 addresses; "::1" and such are too like code to be taken for one."""
    for pattern, kind in ((_IPV4, IPv4Address), (_IPV6, IPv6Address)):
        for match in pattern.finditer(text):
            try:
                kind(match[0])
            except AddressValueError:
                continue
            if kind is IPv4Address or (len(re.sub(":", "", match[0])) >= 5 and _digits(match[0])):
                yield match.span()


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """Places of telephone numbers."""
    for match in _PHONE.finditer(text):
        before = text[max(0, match.start() - _CONTEXT_CHARS) : match.start()]
        if _is_phone(match[0], before, text[match.end() : match.end() + _CONTEXT_CHARS]):
            yield match.span()


def _is_phone(text: str, before: str, after: str) -> bool:
    digits = _digits(text)
    if _NO_PHONE.fullmatch(text) or len(set(digits)) == 1:
        return False
    if text.startswith("+") or (digits.startswith("00") and digits != text):
        return len(digits) >= 8
    if _AMERICAN.fullmatch(text) or (_TRUNK.fullmatch(text) and 9 <= len(digits) <= 11):
        return True
    return len(digits) <= 12 and bool(_BEFORE.search(before) or _AFTER.match(after))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


# What has check digits comes before phones, which have none: where two overlap, the earlier kind is right.
FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "email": find_emails,
    "iban": find_ibans,
    "card": find_cards,
    "ip": find_ips,
    "phone": find_phones,
}


def find_pii(text: str, kinds: Sequence[str]) -> list[Found]:
    """The personal data of these kinds, in the order of the text; no two overlap."""
    found: list[Found] = []
    taken = bytearray(len(text))  # 1 where a character belongs to a piece
    for kind, finder in FINDERS.items():
        for start, end in finder(text) if kind in kinds else ():
            if 1 not in taken[start:end]:
                found.append(Found(start, end, kind))
                taken[start:end] = b"\1" * (end - start)
    return sorted(found)


def mask_pii(text: str, kinds: Sequence[str]) -> tuple[str, Counter[str]]:
    """The text with `<kind>` in place of personal data, and how many of each kind; masking again changes nothing."""
    masked: Counter[str] = Counter()
    while found := find_pii(text, kinds):  # again: what stood beside a masked piece may now be found as well
        parts, last = [], 0
        for piece in found:
            parts += [text[last : piece.start], f"<{piece.kind}>"]
            last = piece.end
        text = "".join(parts) + text[last:]
        masked.update(piece.kind for piece in found)
    return text, masked
