"""The filter: bounds by hand, quantiles by numpy, rows without a score named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from aligner.data.clean import clean_sources, cleaning_files
from aligner.data.cleaning.perplexity import (
    PerplexityFilter,
    bounds_of,
    measured_text,
    quantile,
    read_scores,
    scores_file,
    text_key,
)
from aligner.data.readers import SourceRows
from aligner.data.rows import Conversation, Document, Origin, Pair, Row
from aligner.errors import DataError
from aligner.recipe.clean import CleanSpec, PerplexitySpec, RowCleanSpec
from tests.data.chats import chat

ORIGIN = Origin("a.jsonl", 1)


def write_scores(folder: Path, scores: dict[str, float]) -> str:
    rows = [{"text": text_key(text), "bits_per_byte": bits, "bytes": 1} for text, bits in scores.items()]
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def cleaned(spec: CleanSpec, *rows: Row) -> SourceRows:
    source = SourceRows("a.jsonl", "documents", [], list(rows))
    clean_sources([source], spec)
    return source


def asked(scores: str, **bounds: object) -> RowCleanSpec:
    return RowCleanSpec(perplexity=PerplexitySpec(scores=scores, **bounds))  # type: ignore[arg-type]


SCORES = {"easy": 0.5, "at the low bound": 1.0, "fine": 1.5, "at the high bound": 2.0, "hard": 2.1}


def test_rows_outside_the_bounds_go_by_name_and_the_bounds_themselves_stay(tmp_path):
    spec = asked(write_scores(tmp_path, SCORES), min_bits_per_byte=1.0, max_bits_per_byte=2.0)
    source = cleaned(spec, *(Document(ORIGIN, text) for text in SCORES))
    assert [row.text for row in source.rows] == ["at the low bound", "fine", "at the high bound"]
    assert source.dropped == {"low_perplexity": 1, "high_perplexity": 1} and source.rows_read == 5
    assert [row.text for row in source.samples["high_perplexity"]] == ["hard"]


def test_one_bound_alone_leaves_the_other_side_open(tmp_path):
    scores = write_scores(tmp_path, SCORES)
    rows = [Document(ORIGIN, text) for text in SCORES]
    assert cleaned(asked(scores, max_bits_per_byte=1.2), *rows).dropped == {"high_perplexity": 3}
    assert cleaned(asked(scores, min_bits_per_byte=1.2), *rows).dropped == {"low_perplexity": 2}


def test_quantiles_are_numpys_and_the_narrower_bounds_hold(tmp_path):
    values = np.random.default_rng(0).gamma(2, size=101)
    for share in (0.0, 0.013, 0.5, 0.995, 1.0):
        assert quantile(sorted(values), share) == pytest.approx(float(np.quantile(values, share)), abs=1e-12)
    assert quantile([1, 2, 4, 8], 0.25) == 1.75 and quantile([3.0], 0.7) == 3.0
    scores = {f"text {i}": bits for i, bits in enumerate(values.tolist())}
    given = read_scores(scores_file(write_scores(tmp_path, scores)))
    spec = PerplexitySpec(scores=str(tmp_path), quantiles=[0.1, 0.9])
    assert bounds_of(spec, given) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])))
    both = PerplexitySpec(scores=str(tmp_path), quantiles=[0.1, 0.9], max_bits_per_byte=0.9)
    assert bounds_of(both, given) == pytest.approx((np.quantile(values, 0.1), 0.9))
    kept = cleaned(RowCleanSpec(perplexity=spec), *(Document(ORIGIN, text) for text in scores)).rows
    assert len(kept) == 81  # ten of 101 below the one, ten above the other


def test_a_row_of_several_contents_is_one_text_and_one_without_text_is_left_alone(tmp_path):
    pair = Pair(ORIGIN, chat("Who?"), "Me.", "You.")
    talk = Conversation(ORIGIN, chat("Hi", "Ho", system="s"))
    assert (measured_text(pair), measured_text(talk)) == ("Who?\nMe.\nYou.", "s\nHi\nHo")
    spec = asked(write_scores(tmp_path, {"Who?\nMe.\nYou.": 9.0, "s\nHi\nHo": 1.0}), max_bits_per_byte=2.0)
    source = cleaned(spec, pair, talk, Document(ORIGIN, ""))
    assert source.dropped == {"high_perplexity": 1} and source.rows == [talk, Document(ORIGIN, "")]


def test_rows_are_judged_as_they_stand_in_their_files(tmp_path):
    scores = write_scores(tmp_path, {"Grüße von me@here.org": 1.0, "grÃ¼n": 3.0})
    spec = RowCleanSpec(
        perplexity=PerplexitySpec(scores=scores, max_bits_per_byte=2.0), repair=True, mask=["email"]
    )
    source = cleaned(spec, Document(ORIGIN, "Grüße von me@here.org"), Document(ORIGIN, "grÃ¼n"))
    assert [row.text for row in source.rows] == ["Grüße von <email>"]
    assert source.dropped == {"high_perplexity": 1} and source.changed == {"masked_email": 1}


def test_rows_without_a_score_are_named_by_file_and_line(tmp_path):
    spec = asked(write_scores(tmp_path, SCORES), max_bits_per_byte=2.0)
    rows = [Document(Origin("b.jsonl", line), f"text {line}") for line in range(1, 6)]
    with pytest.raises(DataError) as caught:
        cleaned(spec, Document(ORIGIN, "fine"), *rows)
    places = [problem.where for problem in caught.value.problems]
    assert places == ["b.jsonl:1", "b.jsonl:2", "b.jsonl:3", str(tmp_path / "scores.jsonl")]
    assert "5 rows have no score" in str(caught.value) and "perplexity recipe" in str(caught.value)
    with pytest.raises(DataError) as caught:  # fine and fine! are not one text: case and spaces count
        cleaned(spec, Document(ORIGIN, "Fine"))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a", "bits_per_byte": 1}\n{"text": "b"}\n', r"scores.jsonl:2: no score of a text"),
        ('{"text": "a", "bits_per_byte": 1}\n{"te', r"scores.jsonl:2: no score of a text"),
        ("3\n", r"scores.jsonl:1: no score of a text"),
        ("", "there are no scores"),
    ],
)
def test_what_is_no_score_is_told_with_its_line(tmp_path, content, said):
    (tmp_path / "scores.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        PerplexityFilter(PerplexitySpec(scores=str(tmp_path), max_bits_per_byte=1.0))


def test_scores_are_a_run_or_a_file_and_their_bytes_are_in_the_report(tmp_path):
    folder = write_scores(tmp_path, SCORES)
    file = tmp_path / "scores.jsonl"
    assert scores_file(folder) == scores_file(str(file)) == file
    with pytest.raises(DataError, match="aligner perplexity"):
        scores_file(str(tmp_path / "other"))
    (entry,) = cleaning_files(asked(folder, max_bits_per_byte=1.0))
    assert entry["path"] == folder and len(entry["sha256"]) == 64
    write_scores(tmp_path, {"fine": 1.0})
    assert cleaning_files(asked(folder, max_bits_per_byte=1.0)) != [entry]
    assert cleaning_files(RowCleanSpec()) == []


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"min_bits_per_byte": 2.0, "max_bits_per_byte": 1.0},
        {"quantiles": [0.1]},
        {"quantiles": [0.9, 0.1]},
        {"quantiles": [0.0, 1.1]},
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds):
    with pytest.raises(ValidationError):
        PerplexitySpec(scores="x", **bounds)
