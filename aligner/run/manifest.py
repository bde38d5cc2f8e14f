"""Who made this run: status, recipe, versions, commit, seed, parents, data, machine, seconds, results, weights."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import aligner
from aligner.errors import Problem, RunError
from aligner.recipe.check import near_path
from aligner.run.write import write_json

Status = Literal["new", "running", "finished", "interrupted", "failed"]
LIBRARIES = ("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "safetensors", "numpy")


@dataclass(frozen=True)
class Hardware:
    """The machine: processor name, cores this process may use, torch threads (0: torch not loaded), memory, GPUs."""

    cpu: str
    cores: int
    threads: int
    memory_gib: float
    gpus: list[str]


@dataclass(frozen=True)
class Manifest:
    """manifest.json; times are UTC in ISO 8601, `seconds` counts all sessions of the run."""

    stage: str
    recipe: dict[str, Any]
    status: Status = "new"
    message: str = ""
    seed: int = 0
    parents: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    hardware: Hardware | None = None
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    results: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    format: int = 1

    def write(self, folder: Path) -> None:
        """Put manifest.json into `folder`, whole."""
        write_json(folder / "manifest.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a run folder; RunError when there is none or it cannot be read."""
        path = folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            hardware = Hardware(**values["hardware"]) if values.get("hardware") else None
            known = {f.name for f in fields(cls)}
            return cls(**{k: v for k, v in values.items() if k in known} | {"hardware": hardware})
        except FileNotFoundError:
            raise RunError(
                Problem(str(folder), "not a run folder (no manifest.json)", run_meant(folder))
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                Problem(str(path), f"damaged ({error})", "start the run again with --fresh")
            ) from error


def run_meant(folder: Path) -> str:
    """A remedy for a folder that holds no run."""
    return near_path(folder, folder) or "name a run's output folder"


def current_versions() -> dict[str, str]:
    """Python, aligner and the libraries that shape a model, read from package metadata without importing them."""
    found = {"python": platform.python_version(), "aligner": aligner.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def current_commit() -> str:
    """Commit of the checkout this package runs from, with "+changes" when files differ; "" for an installed wheel."""
    root = Path(aligner.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    return f"{commit}+changes" if commit and _git(root, "status", "--porcelain", "--", "aligner") else commit


def current_hardware() -> Hardware:
    """This machine. Asks torch only when a stage has loaded it: a manifest must not cost that import."""
    torch: Any = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []
    return Hardware(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads() if torch else 0,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpus=gpus,
    )


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative path; {} when there is no such folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def content_of(identity: str) -> str:
    """What a parent is, wherever it lies: the hash of "path#hash", the whole of "id@revision"."""
    return identity.rpartition("#")[2]


_SAID_OF_ROWS = ("path", "noted", "agreement", "changed", "identity", "bad_rows")


def rows_of(report: Any) -> Any:
    """A data report without its paths, so that a moved data folder is not a changed one, and without remarks on rows.

    Which rows are used is told by counts and hashes; a version that remarks on more does not change them.
    """
    if isinstance(report, Mapping):
        return {key: rows_of(value) for key, value in report.items() if key not in _SAID_OF_ROWS}
    if isinstance(report, list | tuple):
        return [rows_of(value) for value in report]
    return report


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
