"""YAML in and out: values, places, and what a recipe may not contain."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner.recipe.text import MapNode, parse, parse_value, places, plain, scalar, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("true", True), ("False", False), ("tRue", "tRue"),
        ("", None), ("~", None), ("NULL", None), ("1e-3", 1e-3), ("1.0e-3", 1e-3), (".5", 0.5), ("5.", 5.0),
        ("+7", 7), ("-0", 0), ("010", 10), ("0o10", 8), ("0xff", 255), ("1_000", "1_000"), ("1:30", "1:30"),
        ("-.inf", -math.inf), ("2024-01-01", "2024-01-01"), ("1e", "1e"), ("-", "-"), ("٣", "٣"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    got = scalar(text)
    assert got == value
    assert type(got) is type(value)


def test_quoted_scalars_are_text() -> None:
    tree, problems = parse("a: '1'\nb: \"true\"\nc: |\n  2\n", "f")
    assert tree is not None and not problems
    assert plain(tree) == {"a": "1", "b": "true", "c": "2\n"}


def test_every_value_knows_its_place() -> None:
    tree, _ = parse("a:\n  - x: 1\n    y: [2,\n      3]\n", "f")
    assert tree is not None
    assert dict(places(tree)) == {
        "": "f:1:1", "a": "f:1:1", "a.0": "f:2:5", "a.0.x": "f:2:8", "a.0.y": "f:3:5", "a.0.y.0": "f:3:9", "a.0.y.1": "f:4:7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\na: 2\n", "f:2:1", 'the key "a" is given twice'),
        ("a: &x 1\n", "f:1:4", "an anchor (&x)"),
        ("a: *.jsonl\n", "f:1:5", "text that starts with * or & needs quotes"),
        ("a: *x\n", "f:1:4", "an alias (*x)"),
        ("a: !!int '3'\n", "f:1:4", "a tag"),
        ("a: !python/object:os.system 3\n", "f:1:4", "a tag"),
        ("? [a, b]\n: 1\n", "f:1:3", "a key that is not a word"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "a second document"),
        ("a: @sft\n", "f:1:4", "text that starts with this character needs quotes"),
        ("a:\n\t- 1\n", "f:2:1", "a tab"),
        ("a: b: c\n", "f:1:5", "a colon that does not belong here"),
        ("a: [1\n", "f:2:1", "not YAML"),
        ("a: 1\nb: \x07\n", "f:2", "a character that text files do not hold"),
        ("[" * 200, "f:1:32", "nested too deeply"),
    ],
)
def test_what_would_mislead_is_refused_at_its_place(text: str, where: str, what: str) -> None:
    _, (problem,) = parse(text, "f")
    assert problem.where == where
    assert what in problem.what
    assert problem.remedy


def test_a_key_given_twice_says_where_it_was_first() -> None:
    tree, (problem,) = parse("a: 1\nb: 2\na: 3\n", "f")
    assert problem.remedy == "first on line 1; keep one"
    assert isinstance(tree, MapNode) and plain(tree) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("@sft", "@sft"), ("*.jsonl", "*.jsonl"), ("a: b", "a: b"), ("1e-4", 1e-4), ("null", None), ("", None),
        ("[1, a]", [1, "a"]), ("{rank: 8}", {"rank": 8}), ("'12'", "12"), ("!x", "!x"), ("# no", "# no"),
    ],
)  # fmt: skip
def test_an_override_needs_no_quotes(text: str, value: object) -> None:
    node, problems = parse_value(text, "-s k")
    assert node is not None and not problems
    assert plain(node) == value
    assert {place for _, place in places(node)} == {"-s k"}


def test_a_broken_override_points_to_itself() -> None:
    _, (problem,) = parse_value("[1, 2", "-s k")
    assert problem.where == "-s k"


KEYS = st.text(min_size=1, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(VALUES)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    tree, problems = parse(write(value), "f")
    assert not problems and tree is not None
    assert plain(tree) == value
    assert repr(plain(tree)) == repr(value)  # 1 is not 1.0, nor true


@pytest.mark.parametrize(
    "text",
    ["no", "1e-3", "0o7", "null", "~", "", " a", "a: b", "#a", "- a", "é", "a\nb", "\u2028", "@x", "---"],
)
def test_text_stays_text(text: str) -> None:
    tree, problems = parse(write({"k": text}), "f")
    assert not problems and tree is not None
    assert plain(tree) == {"k": text}
