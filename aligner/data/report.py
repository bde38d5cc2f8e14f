"""What became of the rows: in = used + dropped, for every source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aligner.data.agreement import agreement_by_criterion
from aligner.data.readers import SourceRows
from aligner.data.rows import Dropped, Row
from aligner.recipe.plan import PlanRow


@dataclass(frozen=True)
class SourceReport:
    """One source's accounts.

    `rows_read` = `rows_used` + the sum of `dropped` (by reason). `rows_per_epoch`, `tokens` and
    `supervised_tokens` count copies (weights); tokens are 0 for documents, which are tokenised later.
    `prompts_cut` and `answers_cut` count used rows that were too long. `noted` counts rows that were not dropped for
    what was found in them (see `settle_pairs` and `TokenRow.rewritten`), `changed` what cleaning changed in the rows
    that were read, dropped later or not (see `clean_sources`). `agreement`: Krippendorff's alpha by criterion, over all
    the answers in the files that several annotators could rate. `templates`, `shots`: how often each template of a task
    ("task/template") wrote a row, and how often a row came behind how many solved ones, in all epochs that are
    rendered; tokens are those of the first. `samples`: a few dropped rows by reason, to look at, never written.
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
    templates: dict[str, int] = field(default_factory=dict)
    shots: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Row | Dropped]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class DataReport:
    """The accounts of all sources, trained on and held out; `curriculum`: trained on early alone.

    `words`: path and sha256 of the word files that the rows were cleaned with.
    """

    train: list[SourceReport] = field(default_factory=list)
    holdout: list[SourceReport] = field(default_factory=list)
    curriculum: list[SourceReport] = field(default_factory=list)
    words: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values for a manifest, without samples: a manifest is published, rows may not be."""
        parts = {"train": self.train, "holdout": self.holdout, "curriculum": self.curriculum}
        plain: dict[str, Any] = {part: [_plain(source) for source in given] for part, given in parts.items()}
        return plain | ({"words": self.words} if self.words else {})


def _plain(source: SourceReport) -> dict[str, Any]:
    plain = asdict(replace(source, samples={}))
    del plain["samples"]
    later = ("changed", "templates", "shots")  # a run of an older version, which had no such keys, goes on
    return {key: value for key, value in plain.items() if value or key not in later}


def template_rows(report: DataReport) -> list[PlanRow]:
    """How often each template of each training task is used, and how many solved rows come before a row."""
    by_task: dict[str, dict[str, int]] = {}
    shots: Counter[str] = Counter()
    for source in report.train:
        shots.update(source.shots)
        for label, count in source.templates.items():
            task, _, name = label.partition("/")
            by_task.setdefault(task, {})[name] = count
    rows = [
        PlanRow(f"task {task}", f"{sum(used.values()):,}", _counts(used) + "; all epochs together")
        for task, used in by_task.items()
    ]
    if set(shots) - {"0"}:
        rows.append(PlanRow("shots", _counts(shots), "how often so many solved rows come before a row"))
    return rows


def _counts(used: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in used.items())


@dataclass(frozen=True)
class RowCost:
    """What one row takes and gives: ids, supervised ids, and whether it was cut to fit or is not learnt whole."""

    tokens: int = 0
    supervised_tokens: int = 0
    prompt_cut: bool = False
    answer_cut: bool = False
    rewritten: bool = False


def report_source(source: SourceRows, costs: Sequence[RowCost], copies: Sequence[int]) -> SourceReport:
    """The accounts of one source, whose rows cost and are copied as given (one entry a row)."""
    rewritten = sum(cost.rewritten for cost in costs)
    noted = source.noted + Counter({"earlier_answers_not_learnt": rewritten})
    return SourceReport(
        path=source.path,
        format=source.format,
        rows_read=source.rows_read,
        rows_used=len(source.rows),
        dropped=dict(sorted(source.dropped.items())),
        rows_per_epoch=sum(copies),
        tokens=sum(cost.tokens * n for cost, n in zip(costs, copies, strict=True)),
        supervised_tokens=sum(cost.supervised_tokens * n for cost, n in zip(costs, copies, strict=True)),
        prompts_cut=sum(cost.prompt_cut for cost in costs),
        answers_cut=sum(cost.answer_cut for cost in costs),
        sha256=source.sha256(),
        noted=dict(sorted(noted.items())),
        agreement=agreement_by_criterion(source.rated),
        changed=dict(sorted(source.changed.items())),
        templates=dict(sorted(source.templates.items())),
        shots={str(number): count for number, count in sorted(source.shots.items())},
        samples=source.samples,
    )
