from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner.data.cleaning.pii import FINDERS, Found, find_pii, is_iban, mask_pii, passes_luhn
from tests.data.real import presidio_scores

ALL = list(FINDERS)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to a.b+c@mail.here.org.", "write to <email>."),
        ("メールはme@here.jpまで", "メールは<email>まで"),
        ("pay GB82 WEST 1234 5698 7654 32 NOW", "pay <iban> NOW"),  # the example of ISO 13616
        ("DE89370400440532013000, please", "<iban>, please"),
        ("card 4111 1111 1111 1111!", "card <card>!"),
        ("3782-822463-10005 or 378282246310005", "<card> or <card>"),
        ("from 192.0.2.1 and 2001:db8::1.", "from <ip> and <ip>."),
        ("(555) 123-4567, 555.123.4567", "<phone>, <phone>"),
        ("+49 (0)30 123456 or 0049 30 123456", "<phone> or <phone>"),
        ("at 0171 234 56 78", "at <phone>"),
        ("call 123 45 67", "call <phone>"),
        ("123 45 67 (fax)", "<phone> (fax)"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert mask_pii(text, ALL)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "me@here",
        "GB82 WEST 1234 5698 7654 33",
        "4111 1111 1111 1112",
        "a run of 1234567890123456",
        "version v1.2.3.4 or 1.2.3.4.5 or 300.1.1.1",
        "x[1::2], std::vector, 12:30:45, a::b",
        "123 45 67",
        "on 2021-03-04 or 04.03.2021, call 1999-2005",
        "1,000,000,000 or 3.14159265358 or $1000000000",
        "450000-2000=448000",
        "ISBN 9780306406157",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    assert mask_pii(text, ALL) == (text, {})


def test_check_digits_by_hand():
    # 79927398713 (ISO/IEC 7812-1's customary example): 3 1 7 8 9 3 7 2 9 9 7, doubled: 2 16 6 4 18 -> 2+7+6+4+9 = 28,
    # the others 3+7+9+7+9+7 = 42, together 70
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")
    assert is_iban("GB82WEST12345698765432") and not is_iban("GB28WEST12345698765432")


def test_only_the_kinds_that_are_asked_for_are_masked_and_counted():
    text = "me@here.org, you@here.org, 192.0.2.1"
    assert mask_pii(text, ["email"]) == ("<email>, <email>, 192.0.2.1", {"email": 2})
    assert mask_pii(text, ALL)[1] == {"email": 2, "ip": 1}
    assert find_pii(text, ["ip"]) == [Found(27, 36, "ip")]


@given(st.text(alphabet=st.characters(exclude_categories=("Nd", "No"), exclude_characters="@"), max_size=200))
def test_text_without_digits_and_at_signs_never_changes(text):
    assert mask_pii(text, ALL) == (text, {})


PIECES = st.sampled_from(
    ["a@b.org", "+49 30 1234567", "4111111111111111", "192.0.2.1", "DE89370400440532013000", "call ", " ", "x", "1", "(", "-", "."]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8).map("".join))
def test_masking_twice_changes_nothing_more(text):
    once, _ = mask_pii(text, ALL)
    assert mask_pii(once, ALL) == (once, {})


# A little under what was measured: 1.0 for all, but for phones' precision (0.97: part of an address looks like one).
FLOORS = {
    "email": (0.99, 0.99),
    "iban": (0.99, 0.99),
    "card": (0.99, 0.98),
    "ip": (0.99, 0.99),
    "phone": (0.94, 0.93),
}


@pytest.mark.parametrize("kind", ALL)
def test_precision_and_recall_on_public_data_hold(kind):
    precision, recall = presidio_scores()[kind]
    assert precision >= FLOORS[kind][0] and recall >= FLOORS[kind][1]
