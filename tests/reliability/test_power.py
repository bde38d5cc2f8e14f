"""After a power cut at any moment the newest finished checkpoint is there, whatever of the rest was lost."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.write import mend_leftovers
from tests.reliability.power import images, snapshot, watched

IMAGES = 6  # of each moment


def save(folder: Path, step: int) -> None:
    save_checkpoint(folder, step, {"a": torch.arange(30.0) + step}, {"step": step})


class Cut:
    """Looks at what a power cut would leave, and remembers what was wrong with it."""

    def __init__(self, folder: Path, images_folder: Path) -> None:
        self.root, self.image = snapshot(folder), images_folder
        self.finished, self.states = 2, 0
        self.lost: list[str] = []
        self.chooser = random.Random(0)

    def look(self) -> None:
        for write in images(self.root, at_most=IMAGES, chooser=self.chooser):
            self.states += 1
            write(self.image)
            mend_leftovers(self.image)
            found = load_newest(self.image)
            if found is None or found.step < self.finished or float(found.tensors["a"][0]) != found.step:
                self.lost.append(f"state {self.states}: {found and found.step}, finished was {self.finished}")
            shutil.rmtree(self.image)


def test_no_finished_checkpoint_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save(folder, step)
    cut = Cut(folder, tmp_path / "image")
    with watched(folder, cut.root, cut.look):
        for step in (3, 4, 5):  # the third and later ones push older ones out
            save(folder, step)
            cut.finished = step
            cut.look()
    assert cut.states > 300 and cut.lost == []


def test_the_model_loses_what_was_not_made_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same saves without fsync are lost in it: what it lets through is not let through for nothing."""
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save(folder, step)
    cut = Cut(folder, tmp_path / "image")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    with watched(folder, cut.root, lambda: None):
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        save(folder, 3)
        cut.finished = 3
        cut.look()
    assert cut.lost
