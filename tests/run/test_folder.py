"""One recipe, one process, one folder; what changed is told with both values."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligner.errors import Interrupted, Problem, RunError, TrainingError
from aligner.recipe.stage import StageRecipe
from aligner.run.folder import RunFolder
from aligner.run.manifest import Manifest, rows_of
from tests.run.fake import sft_recipe


def opened(recipe: StageRecipe, *, fresh: bool = False) -> RunFolder:
    return RunFolder.open(recipe, recipe_text="stage: sft\n", fresh=fresh)


def started(
    recipe: StageRecipe, *, parents: dict[str, str] | None = None, data: dict[str, object] | None = None
) -> RunFolder:
    run = opened(recipe)
    try:
        run.start(parents=parents or {"base": "runs/base#aaaa"}, data=data or {"rows": 3}, seed=7)
    except RunError:
        run.close()
        raise
    return run


def test_a_run_from_open_to_finished(tmp_path: Path) -> None:
    with started(sft_recipe(tmp_path / "run")) as run:
        run.metrics.log(1, {"train/loss_nats": 2.0})
        run.samples.append([{"step": 1, "text": "hello"}])
        run.model_dir.mkdir()
        (run.model_dir / "model.safetensors").write_bytes(b"weights")
        run.finish({"sft/loss_nats": 0.5})
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert (manifest["status"], manifest["stage"], manifest["seed"]) == ("finished", "sft", 7)
    assert manifest["parents"] == {"base": "runs/base#aaaa"} and manifest["data"] == {"rows": 3}
    # printf weights | sha256sum
    assert manifest["artifacts"] == {
        "model.safetensors": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    }
    assert manifest["versions"]["python"].startswith("3.") and manifest["hardware"]["cores"] >= 1
    assert manifest["recipe"]["train"]["learning_rate"] == 1e-3 and manifest["seconds"] >= 0
    assert (tmp_path / "run/recipe.yaml").read_text() == "stage: sft\n"
    with opened(sft_recipe(tmp_path / "run")) as again:
        assert again.finished and again.results() == {"sft/loss_nats": 0.5}


def test_a_changed_recipe_is_refused_with_both_values_and_the_remedies(tmp_path: Path) -> None:
    started(sft_recipe(tmp_path)).close()
    with pytest.raises(RunError) as caught:
        opened(sft_recipe(tmp_path, learning_rate=2e-3, seed=1))
    text = str(caught.value)
    assert "train.learning_rate: was 0.001, is 0.002" in text
    assert "seed: was 0, is 1" in text
    assert "epochs" not in text and "--fresh" in text and "output" in text
    with opened(sft_recipe(tmp_path)) as run:  # the refusal gave the lock back
        assert not run.finished


def test_a_run_that_failed_before_it_wrote_anything_gives_its_place_to_a_mended_recipe(
    tmp_path: Path,
) -> None:
    with opened(sft_recipe(tmp_path)) as run:
        run.fail("failed", "30 rows cannot be held out of 20")
    with opened(sft_recipe(tmp_path, learning_rate=2e-3)) as run:
        assert run.manifest.recipe["train"]["learning_rate"] == 2e-3
        run.metrics.log(1, {"train/loss_nats": 1.0})
        run.fail("failed", "the disk is full")
    with pytest.raises(RunError, match=r"was 0\.002, is 0\.003"):
        opened(sft_recipe(tmp_path, learning_rate=3e-3))


def test_an_option_that_came_after_the_run_is_no_change_at_its_default(tmp_path: Path) -> None:
    started(sft_recipe(tmp_path)).close()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["recipe"]["model"]["lora"]["dropout"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    opened(sft_recipe(tmp_path)).close()
    manifest["recipe"]["model"]["lora"]["since_removed"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="since_removed: was 1, is left out"):
        opened(sft_recipe(tmp_path))


def test_another_spelling_of_the_output_is_no_change(tmp_path: Path) -> None:
    started(sft_recipe(tmp_path / "run")).close()
    (tmp_path / "x").mkdir()
    with opened(sft_recipe(tmp_path / "x" / ".." / "run")) as run:
        assert run.manifest.status == "running" and not run.finished


def test_fresh_throws_away_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = started(sft_recipe(tmp_path))
    run.metrics.log(1, {"train/loss_nats": 2.0})
    (run.checkpoints / "step-1").mkdir(parents=True)
    run.close()
    (tmp_path / "notes.txt").write_text("mine")
    started(sft_recipe(tmp_path / "base")).close()  # a stage of a pipeline, which happens to be called base
    with opened(sft_recipe(tmp_path, seed=3), fresh=True) as again:
        assert again.metrics.rows() == [] and not again.checkpoints.exists()
        assert again.manifest.seed == 3
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert Manifest.read(tmp_path / "base").status == "running"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_with_other_things_is_never_taken(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not a run folder, and not empty \(thesis.tex\)"):
        opened(sft_recipe(tmp_path), fresh=fresh)
    assert (tmp_path / "thesis.tex").exists()


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    with opened(sft_recipe(tmp_path)):
        with pytest.raises(RunError, match=f"process {os.getpid()} on .*, since"):
            opened(sft_recipe(tmp_path))
        with pytest.raises(RunError, match=f"process {os.getpid()}"):  # the first refusal wiped nothing
            opened(sft_recipe(tmp_path))
    opened(sft_recipe(tmp_path)).close()


def test_the_lock_of_a_killed_process_is_taken_over_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # the owner forks a worker that outlives it, as data loaders do
    script = (
        "import os, sys, time; from pathlib import Path; from aligner.run.lock import FolderLock\n"
        f"lock = FolderLock(Path({str(tmp_path)!r}))\n"
        "worker = os.fork()\n"
        "if worker: print(worker, flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker = int(owner.stdout.readline())
    time.sleep(0.1)
    try:
        with pytest.raises(RunError, match=f"process {owner.pid}"):
            opened(sft_recipe(tmp_path))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        capfd.readouterr()
        opened(sft_recipe(tmp_path)).close()
        assert f"process {owner.pid}" in capfd.readouterr().err
    finally:
        os.kill(worker, signal.SIGKILL)
        owner.stdout.close()
    opened(sft_recipe(tmp_path)).close()
    assert capfd.readouterr().err == ""  # a released lock is nobody's death


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted(Problem("", "stopped")), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError("x"), "failed"),
    ],
)
def test_how_a_run_stopped_is_noted(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), started(sft_recipe(tmp_path)):
        raise error
    assert Manifest.read(tmp_path).status == status


def test_without_a_checkpoint_a_restart_drops_what_the_dead_session_logged(tmp_path: Path) -> None:
    run = started(sft_recipe(tmp_path))
    run.metrics.log(5, {"train/loss_nats": 2.0})
    run.samples.append([{"step": 5}])
    run.close()
    with started(sft_recipe(tmp_path)) as again:
        assert again.metrics.rows() == [] and again.samples.rows() == []


def test_a_checkpoint_is_not_continued_on_other_data_or_another_base(tmp_path: Path) -> None:
    run = started(sft_recipe(tmp_path), data={"path": "data/a", "sha256": "11"})
    (run.checkpoints / "step-1").mkdir(parents=True)
    run.metrics.log(1, {"train/loss_nats": 2.0})
    run.close()
    moved = {"path": "elsewhere/a", "sha256": "11"}
    with started(sft_recipe(tmp_path), parents={"base": "moved/base#aaaa"}, data=moved) as again:
        assert len(again.metrics.rows()) == 1
    with pytest.raises(RunError, match="base was moved/base#aaaa, is runs/base#bbbb"):
        started(sft_recipe(tmp_path), parents={"base": "runs/base#bbbb"}, data=moved)
    with pytest.raises(RunError, match="data rows are not the ones"):
        started(sft_recipe(tmp_path), data={"path": "data/a", "sha256": "22"})


def test_results_are_finite_numbers_under_keys_of_one_form(tmp_path: Path) -> None:
    with opened(sft_recipe(tmp_path)) as run:
        with pytest.raises(TrainingError, match="sft/loss_nats is nan"):
            run.write_results({"sft/loss_nats": float("nan")})
        for key in ("loss", "sft/", "sft/x[", "sft/x[]", "a/b/c"):
            with pytest.raises(ValueError, match="not of the form"):
                run.write_results({key: 1.0})
        assert run.results() == {}
        run.write_results({"sft/exact_match_share[items.fact]": 0.5})
        assert run.results() == {"sft/exact_match_share[items.fact]": 0.5}


def test_a_damaged_manifest_is_a_message_and_fresh_mends_it(tmp_path: Path) -> None:
    opened(sft_recipe(tmp_path)).close()
    (tmp_path / "manifest.json").write_text('{"stage": ')
    with pytest.raises(RunError, match="damaged"):
        opened(sft_recipe(tmp_path))
    opened(sft_recipe(tmp_path), fresh=True).close()


def test_opening_and_reporting_facts_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; import aligner.run.folder, aligner.run.checkpoint, aligner.run.seed, aligner.run.progress\n"
        "import aligner.run.report\n"
        "bad = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_remarks_of_a_newer_version_on_the_rows_do_not_make_them_others(tmp_path: Path) -> None:
    before = {"train": [{"path": "a.jsonl", "sha256": "1", "rows_used": 3}]}
    now = {
        "train": [
            {"path": "b.jsonl", "sha256": "1", "rows_used": 3, "noted": {"repeated_pair": 1}, "agreement": {}}
        ]
    }
    assert rows_of(before) == rows_of(now) != rows_of({"train": [{"sha256": "1", "rows_used": 4}]})
