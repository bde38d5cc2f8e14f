"""A run folder: one recipe, one process, facts only (see the list of its files below)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aligner.errors import Interrupted, Problem, RunError
from aligner.recipe.stage import StageRecipe
from aligner.run.changes import asks_more, changed, changes_since, recipe_values
from aligner.run.lines import JsonLines
from aligner.run.lock import FolderLock
from aligner.run.manifest import (
    Manifest,
    Status,
    content_of,
    current_commit,
    current_hardware,
    current_versions,
    rows_of,
    sha256_tree,
)
from aligner.run.metrics import Metrics, check_finite, parse_result_key
from aligner.run.write import mend_leftovers, remove_path, write_json, write_text

OWNED = (
    "recipe.yaml", "metrics.jsonl", "samples.jsonl", "instructions.jsonl", "scores.jsonl", "results.json",
    "report.html", "value_head.safetensors", "model", "base", "checkpoints", "plots", "spikes.jsonl",
)  # fmt: skip


class RunFolder:
    """The folder one stage writes to, locked until `close` (or the end of a `with`).

    `leads`: this process writes; of several that were launched together the first does.
    """

    def __init__(self, path: Path, lock: FolderLock | None, manifest: Manifest) -> None:
        """Use `RunFolder.open`. Without a lock this is a process beside the one that has it, and nothing is written."""
        self.path = path
        self.manifest = manifest
        self.leads = lock is not None
        self.metrics = Metrics(path / "metrics.jsonl", seconds=self.seconds, writes=self.leads)
        self.samples = JsonLines(self.samples_path, writes=self.leads)
        self.spikes = JsonLines(path / "spikes.jsonl", writes=self.leads)
        self._lock = lock
        self._opened = time.monotonic()
        # A killed session wrote no seconds to the manifest, but its metrics have them.
        self._seconds_before = max(
            [manifest.seconds, *(row.get("seconds", 0.0) for row in self.metrics.rows()[-1:])]
        )

    @classmethod
    def open(cls, recipe: StageRecipe, *, recipe_text: str, fresh: bool = False) -> RunFolder:
        """Make or reopen `recipe.output`, lock it, and write the complete recipe into it.

        RunError when another process has it, when it holds something else than a run, or when it was made with
        another recipe (one that asks for more of the same goes on); `fresh` throws away the run that is there.
        """
        path = Path(recipe.output)
        _make(path)
        lock = FolderLock(path)
        try:
            _mend(path)
            if fresh and (path / "manifest.json").exists():
                manifest = _fresh_manifest(path, recipe)
            else:
                manifest = _agreed_manifest(path, recipe)
            write_text(path / "recipe.yaml", recipe_text)
            return cls(path, lock, manifest)
        except BaseException:
            lock.release()
            raise

    @property
    def model_dir(self) -> Path:
        """The trained model; loads with plain transformers or peft."""
        return self.path / "model"

    @property
    def base_dir(self) -> Path:
        """A merged base that the adapter in `model_dir` stands on, where the stage made one."""
        return self.path / "base"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples_path(self) -> Path:
        """samples.jsonl: generations."""
        return self.path / "samples.jsonl"

    @property
    def results_path(self) -> Path:
        """results.json: flat, `area/metric_unit` or `area/metric_unit[qualifier]`: number."""
        return self.path / "results.json"

    @property
    def finished(self) -> bool:
        """Whether this recipe has run to its end here; then there is nothing to do."""
        return self.manifest.status == "finished"

    def seconds(self) -> float:
        """Wall-clock seconds of all sessions of this run, this one included."""
        return float(self._seconds_before + time.monotonic() - self._opened)

    def start(self, *, parents: Mapping[str, str], data: Mapping[str, Any], seed: int) -> None:
        """Note what the stage stands on, before it logs anything.

        Where there is no checkpoint to go on from, what a dead session logged is dropped.
        `parents`: identity of each model taken over, by role; `data`: the data report as JSON.
        RunError when there is a checkpoint made from other parents or data.
        """
        if self._has_checkpoint():
            self._check_unchanged(parents, data)
        else:
            self.metrics.cut_back(-1)
            self.samples.clear()
        self._note(
            status="running", message="", seed=seed, parents=dict(parents), data=json.loads(json.dumps(data)),
            versions=current_versions(), commit=current_commit(), hardware=current_hardware(),
            started=self.manifest.started or _now(), ended="",
        )  # fmt: skip

    def note_sources(self, sources: Sequence[Mapping[str, Any]]) -> None:
        """Note what is read of each source in the whole training."""
        self._note(sources=[dict(source) for source in sources])

    def write_results(self, results: Mapping[str, float]) -> None:
        """results.json; TrainingError for a value that is not finite, ValueError for a key of another form."""
        numbers = {key: float(value) for key, value in results.items()}
        for key in numbers:
            parse_result_key(key)
        check_finite(numbers, where="results")
        write_json(self.results_path, numbers)

    def results(self) -> dict[str, float]:
        """What results.json says; {} before there is one."""
        return read_results(self.path)

    def finish(self, results: Mapping[str, float]) -> None:
        """Results and hashes of the weights into the manifest; from now on the run is `finished`."""
        self.write_results(results)
        self._note(
            status="finished", message="", results=self.results(), artifacts=sha256_tree(self.model_dir),
            ended=_now(), seconds=round(self.seconds(), 3),
        )  # fmt: skip

    def fail(self, status: str, message: str) -> None:
        """Note why the run stopped: `status` is "interrupted" or "failed"."""
        assert status in ("interrupted", "failed"), status
        self._note(status=status, message=message, ended=_now(), seconds=round(self.seconds(), 3))

    def close(self) -> None:
        """Give the folder back to other processes."""
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self.manifest.status in ("new", "running"):
                stopped = isinstance(error, Interrupted | KeyboardInterrupt)
                self.fail("interrupted" if stopped else "failed", str(error) or type(error).__name__)
        finally:
            self.close()

    def _note(self, **changes: Any) -> None:
        self.manifest = replace(self.manifest, **changes)
        if self.leads:
            self.manifest.write(self.path)

    def _has_checkpoint(self) -> bool:
        return self.checkpoints.is_dir() and any(
            child.is_dir() and child.name.startswith(("step-", "checkpoint-"))
            for child in self.checkpoints.iterdir()
        )

    def _check_unchanged(self, parents: Mapping[str, str], data: Mapping[str, Any]) -> None:
        changes = [
            f"{name} was {before}, is {parents.get(name, 'left out')}"
            for name, before in self.manifest.parents.items()
            if content_of(before) != content_of(parents.get(name, ""))
        ]
        if rows_of(self.manifest.data) != rows_of(json.loads(json.dumps(data))):
            changes.append("the data rows are not the ones the checkpoint was trained on")
        if changes and self.manifest.parents | self.manifest.data:
            raise RunError(changed(self.path, changes))


def read_results(folder: Path) -> dict[str, float]:
    """results.json of any run folder, no lock needed; {} where there is none."""
    path = folder / "results.json"
    if not path.exists():
        return {}
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(
            Problem(str(path), f"damaged ({error})", "run the stage again with --fresh")
        ) from error


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            Problem(str(path), f"cannot be made ({error.strerror})", "name another output")
        ) from error


def _mend(path: Path) -> None:
    for folder in (path, path / "checkpoints"):
        if folder.is_dir():
            mend_leftovers(folder)


def _fresh_manifest(path: Path, recipe: StageRecipe) -> Manifest:
    """Remove what the old run owned; a stage's own folder below a pipeline's, and a user's notes, stay.

    The manifest goes last, replaced in one step: while one stands, the folder is known as ours.
    """
    for name in OWNED:
        if not (path / name / "manifest.json").exists():
            remove_path(path / name)
    return _new_manifest(path, recipe)


def _agreed_manifest(path: Path, recipe: StageRecipe) -> Manifest:
    if not (path / "manifest.json").exists():
        _check_empty(path)
        return _new_manifest(path, recipe)
    manifest = Manifest.read(path)
    changes = changes_since(manifest.recipe, recipe)
    if changes and recipe.stage == manifest.stage == "pipeline":
        return _new_manifest(path, recipe)  # the folders of its stages are asked, each for itself
    if changes and nothing_to_lose(path):
        return _new_manifest(path, recipe)
    if changes:
        raise RunError(changed(path, changes))
    if asks_more(manifest.recipe, recipe):
        manifest = _more_of(manifest, recipe)
        manifest.write(path)
    return manifest


def nothing_to_lose(path: Path) -> bool:
    """Whether the run here ended by a fault or Ctrl-C before it wrote anything: a mended recipe takes its place."""
    visible = {child.name for child in path.iterdir() if not child.name.startswith(".")}
    ended = Manifest.read(path).status in ("failed", "interrupted")
    return ended and visible <= {"manifest.json", "recipe.yaml"}


def _more_of(manifest: Manifest, recipe: StageRecipe) -> Manifest:
    """The manifest of a run that is to go on under a recipe that asks for more: it is not finished any longer."""
    status: Status = "interrupted" if manifest.status == "finished" else manifest.status
    return replace(manifest, recipe=recipe_values(recipe), status=status)


def _new_manifest(path: Path, recipe: StageRecipe) -> Manifest:
    values = recipe_values(recipe)
    manifest = Manifest(stage=str(values["stage"]), recipe=values, seed=recipe.seed)
    manifest.write(path)
    return manifest


def _check_empty(path: Path) -> None:
    """Only hidden files and stages' own folders may lie where a run is to begin."""
    foreign = sorted(
        child.name
        for child in path.iterdir()
        if not child.name.startswith(".")
        and child.name != "recipe.yaml"
        and not (child / "manifest.json").exists()
    )
    if foreign:
        what = f"not a run folder, and not empty ({', '.join(foreign[:3])})"
        raise RunError(Problem(str(path), what, "name a new folder as output"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
