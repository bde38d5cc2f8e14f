"""Which weights a model folder holds; told without torch, so that what is finished is compared in no time."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"


def has_config(folder: Path) -> bool:
    """Whether a model, or an adapter, lies right here."""
    return (folder / CONFIG).is_file() or (folder / ADAPTER_CONFIG).is_file()


def model_in(folder: Path) -> Path:
    """`folder`, or the model/ of a run folder."""
    return folder if has_config(folder) else folder / "model"


def folder_identity(folder: Path) -> str:
    """ "folder#first 12 digits of the weights' sha256" of a folder with a model right in it."""
    return f"{folder}#{weights_sha256(folder)[:12]}"


def weights_sha256(folder: Path) -> str:
    """One sha256 over the names and bytes of the folder's safetensors files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
