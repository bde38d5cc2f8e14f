"""What this machine offers, what of it will be used, and why: `aligner doctor`. Trains and downloads nothing."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

import aligner
from aligner.run.home import cache_home, rows_home

State = Literal["ok", "note", "problem"]
NEEDED_PYTHON = (3, 11)
SCARCE_GIB = 5  # of disk: a checkpoint of a small model and the two before it


class Finding(NamedTuple):
    """One line: `value` is what is there or will be used, `why` what that rests on or what would mend it."""

    name: str
    value: str
    why: str
    state: State = "ok"


class Section(NamedTuple):
    """Lines that belong together."""

    title: str
    findings: list[Finding]


def examine(folder: Path) -> list[Section]:
    """Everything there is to say, with `folder` as the place where runs would be written."""
    sections = [Section("software", list(_software()))]
    if _installed("torch"):
        sections.append(Section("machine", list(_machine())))
    return [*sections, Section("places", list(_places(folder))), Section("hub", list(_hub()))]


def versions_tested(lock: Path | None = None) -> dict[str, str]:
    """The versions all tests ran with, by library: requirements.lock of the package or its checkout; {} without one."""
    package = Path(aligner.__file__).parent
    for path in (
        [lock] if lock else [package / "starter/requirements.lock", package.parent / "requirements.lock"]
    ):
        if path.exists():
            pinned = re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            return {_plain(name): number for name, number in pinned}
    return {}


def library_finding(name: str, found: str | None, needed: str, tested: str | None, *, extra: str) -> Finding:
    """How one library stands: `needed` as in a requirement (">=2.10"), `extra` the extra that asks for it, or ""."""
    from packaging.specifiers import SpecifierSet

    if found is None:
        remedy = (
            f"pip install 'aligner[{extra}]' if you need it" if extra else f"pip install '{name}{needed}'"
        )
        return Finding(name, "not there", remedy, "note" if extra else "problem")
    if not SpecifierSet(needed).contains(found, prereleases=True):
        return Finding(
            name, found, f"too old or too new: needs {needed}; pip install '{name}{needed}'", "problem"
        )
    if tested and found.partition("+")[0] != tested:
        return Finding(name, found, f"tested with {tested}", "note")
    return Finding(name, found, "as tested" if tested else f"needs {needed or 'any version'}")


def _software() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    python = platform.python_version_tuple()
    enough = (int(python[0]), int(python[1])) >= NEEDED_PYTHON
    yield Finding("python", platform.python_version(), "needs 3.11 or later", "ok" if enough else "problem")
    yield Finding("aligner", aligner.__version__, str(Path(aligner.__file__).parent))
    tested = versions_tested()
    for line in _requirements():
        wanted = Requirement(line)
        extra = _extra(line)
        if extra != "dev":
            name = _plain(wanted.name)
            yield library_finding(
                name, _installed(wanted.name), str(wanted.specifier), tested.get(name), extra=extra
            )


def _requirements() -> list[str]:
    """What the package asks for, as its metadata says, or the pyproject.toml of the checkout it runs from."""
    project = Path(aligner.__file__).parents[1] / "pyproject.toml"
    if not project.exists():
        return requires("aligner") or []
    asked = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = asked["optional-dependencies"].items()
    return [
        *asked["dependencies"],
        *(f'{line}; extra == "{name}"' for name, lines in extras for line in lines),
    ]


def _machine() -> Iterator[Finding]:
    import torch

    from aligner.run.machine import main_memory
    from aligner.run.manifest import current_hardware
    from aligner.stages.stage import resolve_precision

    hardware = current_hardware()
    able = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    yield Finding("processor", hardware.cpu, f"{hardware.cores} cores for this process; {', '.join(able)}")
    said = os.environ.get("OMP_NUM_THREADS")
    why = f"OMP_NUM_THREADS is {said}" if said else "torch's choice; OMP_NUM_THREADS=N changes it"
    idle = hardware.threads < hardware.cores and not torch.cuda.is_available()
    yield Finding("threads", str(hardware.threads), why, "note" if idle else "ok")
    if not torch.cuda.is_available():
        built = (
            "this torch is built without CUDA"
            if torch.version.cuda is None
            else "no driver or device is seen"
        )
        yield Finding("gpu", "none: the processor trains", built, "note")
    for number in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(number)
        used = "used" if number == 0 else "used under a launcher (accelerate launch), one process a device"
        yield Finding(
            f"gpu {number}", torch.cuda.get_device_name(number), f"{_gib(free)} of {_gib(whole)} free; {used}"
        )
    precision = resolve_precision("auto")
    yield Finding("precision: auto", precision.name, precision.reason)
    memory = main_memory()
    yield Finding("memory", f"{_gib(memory.free)} of {_gib(memory.whole)} free", memory.of)


def _places(folder: Path) -> Iterator[Finding]:
    yield _disk("runs", folder)
    yield _durable(folder)
    home = cache_home()
    yield _disk("cache", home)._replace(name="cache (ALIGNER_HOME)")
    yield _disk("rows in preparation (TMPDIR)", Path(tempfile.gettempdir()))
    rows = rows_home()
    value, why = (str(rows), "ALIGNER_KEEP_ROWS=0 keeps none") if rows else ("none", "ALIGNER_KEEP_ROWS is 0")
    yield Finding("tokenised rows kept", value, why)


def _disk(name: str, folder: Path) -> Finding:
    there = _there(folder)
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding(name, str(folder), "cannot be written to; name another place", "problem")
    scarce = free < SCARCE_GIB * 2**30
    return Finding(name, str(folder), f"{_gib(free)} free", "note" if scarce else "ok")


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there already."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _durable(folder: Path) -> Finding:
    """Whether this file system has the locks, fsync and renames that run folders stand on."""
    try:
        with tempfile.NamedTemporaryFile(dir=_there(folder), prefix=".aligner-doctor-") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(b"x" * 4096)
            began = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            took = time.perf_counter() - began
    except OSError as error:
        return Finding("locks and fsync", "missing", f"{error.strerror}: put runs on a local disk", "problem")
    return Finding("locks and fsync", "work", f"4 KiB are on the disk after {1000 * took:.1f} ms")


def _hub() -> Iterator[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    yield Finding(
        "hub", "offline" if offline else "asked where a recipe names it", "HF_HUB_OFFLINE=1 keeps it out"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()
    kept = "HF_TOKEN" in os.environ or Path(os.environ.get("HF_TOKEN_PATH") or home / "token").exists()
    value = "there" if kept else "none"
    yield Finding("token", value, "needed to publish and for gated models: hf auth login, or HF_TOKEN")
    yield _disk("hub cache", home)._replace(name="hub cache (HF_HOME)")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    """A distribution's name as the index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _extra(requirement: str) -> str:
    found = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
    return found[1] if found else ""


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
