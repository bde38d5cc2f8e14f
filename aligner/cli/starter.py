"""The starter recipes and their data, copied out of the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import aligner
from aligner.errors import AlignerError, Problem


def copy_starter(folder: Path) -> tuple[int, int]:
    """Copy recipes and data that are not there yet; how many were written, and how many were there."""
    if folder.exists() and not folder.is_dir():
        raise AlignerError(Problem(str(folder), "is a file", "name a folder, which may be new"))
    root = _starter_root()
    sources = [
        *sorted(path for path in root.glob("recipes/**/*") if path.suffix in (".yaml", ".jsonl")),
        *root.glob("recipes/README.md"),
        *sorted(path for path in root.glob("data/**/*") if path.is_file()),
    ]
    copied = kept = 0
    for source in sources:
        target = folder / source.relative_to(root)
        if target.exists():
            kept += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        copied += 1
    return copied, kept


def _starter_root() -> Path:
    """The folder with recipes/ and data/: inside the installed package, or the checkout it runs from."""
    package = Path(aligner.__file__).parent
    installed = package / "starter"
    return installed if installed.is_dir() else package.parent
