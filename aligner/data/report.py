"""What became of the rows: in = used + dropped, for every source."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from aligner.data.agreement import agreement_by_criterion
from aligner.data.costs import ANSWER_CUT, PROMPT_CUT, REWRITTEN, Costs, Places
from aligner.data.readers import SourceRows
from aligner.data.rows import Dropped, Row

NO_COPIES: Places = np.zeros(0, np.int64)


@dataclass(frozen=True)
class SourceReport:
    """One source's accounts.

    `rows_read` = `rows_used` + the sum of `dropped` (by reason). `rows_per_epoch`, `tokens` and
    `supervised_tokens` count copies (weights), pieces of documents that are too long for one row, and in a mixture
    what an epoch reads; tokens are 0 for documents to pretrain on, which are tokenised later.
    `prompts_cut` and `answers_cut` count used rows that were too long. `noted` counts rows that were not dropped for
    what was found in them (see `settle_pairs` and `TokenRow.rewritten`), `changed` what cleaning changed in the rows
    that were read, dropped later or not (see `clean_sources`). `agreement`: Krippendorff's alpha by criterion, over all
    the answers in the files that several annotators could rate. `identity`: of a data set on the Hub its id,
    configuration, split and commit. `bad_rows`: "file:line: what is wrong" of each row that could not be read and is
    left out. `samples`: a few dropped rows by reason, to look at,
    never written.
    """

    path: str
    format: str
    rows_read: int
    rows_used: int
    dropped: dict[str, int]
    rows_per_epoch: int
    tokens: int
    supervised_tokens: int
    prompts_cut: int
    answers_cut: int
    sha256: str
    noted: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, float | None] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    identity: str = ""
    bad_rows: list[str] = field(default_factory=list)
    samples: dict[str, list[Row | Dropped]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class DataReport:
    """The accounts of all sources, trained on and held out; `curriculum`: trained on early alone.

    `words`: path and sha256 of word files and scores that the rows were cleaned with. `against`: the evaluations whose
    rows were looked for among them.
    """

    train: list[SourceReport] = field(default_factory=list)
    holdout: list[SourceReport] = field(default_factory=list)
    curriculum: list[SourceReport] = field(default_factory=list)
    words: list[dict[str, str]] = field(default_factory=list)
    against: list[SourceReport] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values for a manifest, without samples: a manifest is published, rows may not be."""
        parts = {"train": self.train, "holdout": self.holdout, "curriculum": self.curriculum}
        plain: dict[str, Any] = {part: [_plain(source) for source in given] for part, given in parts.items()}
        if self.against:
            plain["against"] = [_plain(source) for source in self.against]
        return plain | ({"words": self.words} if self.words else {})


def _plain(source: SourceReport) -> dict[str, Any]:
    plain = asdict(replace(source, samples={}))
    del plain["samples"]
    # a run of an older version, which had none, goes on from its checkpoint
    for key in ("changed", "identity", "bad_rows"):
        if not plain[key]:
            del plain[key]
    return plain


def report_source(source: SourceRows, costs: Costs | None = None, copies: Places = NO_COPIES) -> SourceReport:
    """The accounts of one source, whose rows cost and are copied as given (one entry a row), if they cost anything."""
    costs = Costs() if costs is None else costs
    prompts_cut, answers_cut, rewritten = (
        int(costs.cut(how).sum()) for how in (PROMPT_CUT, ANSWER_CUT, REWRITTEN)
    )
    noted = source.noted + Counter({"earlier_answers_not_learnt": rewritten})
    return SourceReport(
        path=source.path,
        format=source.format,
        rows_read=source.rows_read,
        rows_used=len(source.rows),
        dropped=dict(sorted(source.dropped.items())),
        rows_per_epoch=int(copies.sum()),
        tokens=int(costs.tokens @ copies),
        supervised_tokens=int(costs.supervised_tokens @ copies),
        prompts_cut=prompts_cut,
        answers_cut=answers_cut,
        sha256=source.sha256(),
        noted=dict(sorted(noted.items())),
        agreement=agreement_by_criterion(source.rated),
        changed=dict(sorted(source.changed.items())),
        identity=source.identity,
        bad_rows=[f"{row.origin}: {row.what}" for row in source.bad_rows],
        samples=source.samples,
    )
