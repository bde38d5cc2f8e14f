"""How hard rows are for a model: bits per byte of each, for the filter of `data/cleaning/perplexity.py`.

What is measured is kept text by text, so an interrupted run goes on with the texts that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from aligner.data.cleaning.perplexity import SCORES_FILE, measured_text, quantile, text_key
from aligner.data.readers import read_source
from aligner.data.readers.kinds import kind_read
from aligner.data.report import DataReport, report_source
from aligner.data.rows import Document
from aligner.errors import Interrupted, Problem
from aligner.evals.perplexity import bits_of_each
from aligner.models.load import LoadedModel, load_trained
from aligner.models.wrapped import context_length
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.run.folder import RunFolder
from aligner.run.lines import JsonLines, JsonRow
from aligner.run.manifest import content_of
from aligner.run.progress import progress, say
from aligner.stages.stage import StageResult
from aligner.stages.stop import gentle_stop

LONGEST_BLOCK = 1024  # tokens, as held-out documents are measured (evals/suites.py)
PASSES_KEPT_TOGETHER = 16
QUANTILES = (5, 25, 50, 75, 95)  # of the scores, in percent: what bounds are chosen by


@dataclass(frozen=True)
class Texts:
    """What is measured: each different text as a plain document, by its key; `rows` have it in all."""

    documents: dict[str, Document]
    rows: int
    report: DataReport


def measure_perplexity(recipe: PerplexityRecipe, run: RunFolder) -> StageResult:
    """Write bits per byte of every text of the sources to `scores.jsonl`, each text once.

    Raises Interrupted (after what is measured is written) at Ctrl-C, DataError for sources that cannot be read.
    """
    texts = read_texts(recipe)
    loaded = load_trained(recipe.model.base, recipe.model.revision)
    scores = JsonLines(run.path / SCORES_FILE)
    if content_of(run.manifest.parents.get("base", "")) != content_of(loaded.identity):
        scores.clear()  # another model's
    run.start(parents={"base": loaded.identity}, data=texts.report.to_json(), seed=recipe.seed)
    known = {str(row["text"]) for row in scores.rows()}
    left = [document for key, document in texts.documents.items() if key not in known]
    done = len(texts.documents) - len(left)
    if done:
        say(f"{run.path}: goes on after {done:,} of {len(texts.documents):,} texts")
    _measure(recipe, loaded, left, scores, done=done)
    found = {str(row["text"]): row for row in scores.rows()}
    return StageResult(None, _results([found[key] for key in texts.documents], rows=texts.rows))


def read_texts(recipe: PerplexityRecipe) -> Texts:
    """The texts of the sources' rows, read as the recipe reads them that is to drop some; empty ones left out."""
    sources = [read_source(source, kind_read(source, recipe.kind)) for source in recipe.sources]
    documents: dict[str, Document] = {}
    for row in (row for source in sources for row in source.rows):
        if text := measured_text(row):
            documents.setdefault(text_key(text), Document(row.origin, text))
    report = DataReport(train=[report_source(source) for source in sources])
    return Texts(documents, sum(len(source.rows) for source in sources), report)


def _measure(
    recipe: PerplexityRecipe, loaded: LoadedModel, left: list[Document], scores: JsonLines, *, done: int
) -> None:
    block_length = recipe.block_length or min(context_length(loaded.model), LONGEST_BLOCK)
    together = PASSES_KEPT_TOGETHER * recipe.rows_per_device
    with progress("perplexity", done + len(left), done=done) as bar, gentle_stop() as stop:
        for start in range(0, len(left), together):
            part = left[start : start + together]
            found = bits_of_each(
                loaded.model,
                loaded.tokenizer,
                part,
                block_length=block_length,
                batch_size=recipe.rows_per_device,
            )
            scores.append(
                [
                    {"text": text_key(document.text), "bits_per_byte": one.bits, "bytes": one.bytes}
                    for document, one in zip(part, found, strict=True)
                ]
            )
            bar.advance(len(part))
            if stop.asked and start + together < len(left):
                fault = f"stopped; the scores of {done + start + len(part):,} texts are in {SCORES_FILE}"
                raise Interrupted(Problem(str(recipe.output), fault, "the same command goes on from there"))


def _results(measured: list[JsonRow], *, rows: int) -> dict[str, float]:
    """Bits per byte of all texts together, and of the text at each share of them."""
    results: dict[str, float] = {"perplexity/rows_measured": rows, "perplexity/texts_measured": len(measured)}
    if not measured:
        return results
    size = sum(row["bytes"] for row in measured)
    results["perplexity/bits_per_byte"] = sum(row["bits_per_byte"] * row["bytes"] for row in measured) / size
    ordered = sorted(row["bits_per_byte"] for row in measured)
    shares = {f"perplexity/text_bits_per_byte[{n}%]": quantile(ordered, n / 100) for n in QUANTILES}
    return results | shares
