"""Bases that a recipe names by their pretrain recipe: where they are kept, and under which fingerprint.

The fingerprint covers everything that decides the weights: the complete recipe (folders aside), the names and bytes of
its data and word files, the package's own code for data, models and pretraining, and the libraries' versions.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aligner
from aligner.data.cleaning.perplexity import scores_file
from aligner.data.readers import source_files, source_identity
from aligner.data.readers.files import files_sha256, find_files
from aligner.recipe.stages import PretrainRecipe
from aligner.run.home import cache_home

CODE_THAT_MATTERS = (
    "data", "sandbox", "run/seed.py",
    *(f"models/{name}.py" for name in ("small", "tokenizer", "attention", "padding", "wrapped")),
    *(f"recipe/{name}.py" for name in ("model", "data", "place", "clean", "mixture", "training", "stages")),
    *(f"stages/{name}.py" for name in ("pretrain", "stage", "loop", "resume", "order", "optimizer")),
    *(f"stages/{name}.py" for name in ("losses", "batches", "callback")),
)  # fmt: skip
LIBRARIES_THAT_MATTER = ("torch", "transformers", "tokenizers", "accelerate")
# Those that cleaning asks for, by the key that does.
LIBRARIES_OF_CLEANING = {"repair": "ftfy", "languages": "py3langid"}
_PATHS = {"__all__": {"path"}}
_PLACES: dict[str, Any] = {
    "output": True,
    "root": True,
    "data": {
        "train": _PATHS, "curriculum": {"sources": _PATHS}, "holdout": {"sources": _PATHS},
        "clean": {"words": True, "perplexity": {"scores"}}, "decontaminate": {"against": _PATHS},
    },
}  # fmt: skip


def base_folder(recipe: PretrainRecipe) -> Path:
    """Where the base of this recipe lies, or will lie."""
    return cache_home() / "bases" / pretrain_fingerprint(recipe)


def pretrain_fingerprint(recipe: PretrainRecipe) -> str:
    """16 hex digits that change with anything that changes the trained base, and not with where its data lies."""
    digest = hashlib.sha256()
    digest.update(json.dumps(recipe.model_dump(exclude=_PLACES), sort_keys=True).encode())
    clean = recipe.data.clean
    evaluations = recipe.data.decontaminate.against if recipe.data.decontaminate else []
    sources = [*recipe.data.sources, *evaluations]
    for identity in filter(None, map(source_identity, sources)):
        digest.update(identity.encode())
    words = [find_files(clean.words)] if clean.words else []
    scores = [[scores_file(clean.perplexity.scores)]] if clean.perplexity else []
    for files in [*map(source_files, sources), *words, *scores]:
        digest.update(json.dumps([file.name for file in files]).encode())
        digest.update(files_sha256(files).encode())
    for path in code_files():
        digest.update(path.read_bytes())
    asked = [library for key, library in LIBRARIES_OF_CLEANING.items() if getattr(clean, key)]
    digest.update(json.dumps({name: _version(name) for name in (*LIBRARIES_THAT_MATTER, *asked)}).encode())
    return digest.hexdigest()[:16]


def _version(library: str) -> str | None:
    """The version that is installed; a library that is missing is told of by the step that needs it."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def code_files() -> list[Path]:
    """The package's own files that decide a base's weights."""
    root = Path(aligner.__file__).parent
    files: list[Path] = []
    for part in CODE_THAT_MATTERS:
        path = root / part
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return files
