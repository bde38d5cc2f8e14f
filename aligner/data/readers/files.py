"""Which files a source means, and their bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import Any, BinaryIO, cast

from aligner.errors import DataError, Problem, at

TEXT_SUFFIXES = (".txt", ".text", ".md")
TABLE_SUFFIXES = (".csv", ".tsv")
PAGE_SUFFIXES = (".html", ".htm")
SUFFIXES = (*TEXT_SUFFIXES, *TABLE_SUFFIXES, *PAGE_SUFFIXES, ".json", ".jsonl", ".parquet", ".warc")
ROW_SUFFIXES = (".jsonl", *TABLE_SUFFIXES, ".parquet")  # of files that are read row by row
TASK_SUFFIXES = (".yaml", ".yml")
_PACKED = (".gz", ".zst")
_NOT_READ = (".bz2", ".xz", ".lz4", ".zip", ".7z")  # packed in ways that are not read
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}  # how packed files begin
BUFFER_BYTES = 1 << 17
UNPACKED_TIMES = 300  # text packs to a tenth, hardly ever to a hundredth
UNPACKED_BYTES = 1 << 27  # up to which it does not matter
_NOT_DATA = ("license", "readme", "copying", "notice")


def find_files(paths: str | list[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files of a source, in a fixed order, each once; a path that matches nothing is a `DataError`.

    suffixes: those of the files that are meant in a folder.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        files = list(_matches(path, suffixes))
        if not files:
            kinds = ", ".join(suffixes)
            raise DataError(
                Problem(
                    path, "no such data file", f"give a file, a folder with {kinds} (.gz, .zst), or a glob"
                )
            )
        found += files
    return list(dict.fromkeys(found))


def joined(paths: str | list[str]) -> str:
    """A source's paths as reports name them."""
    return paths if isinstance(paths, str) else ", ".join(paths)


def _matches(path: str, suffixes: tuple[str, ...]) -> Iterator[Path]:
    if has_magic(path) and not Path(path).exists():
        yield from (file for name in sorted(glob(path, recursive=True)) if (file := Path(name)).is_file())
    elif Path(path).is_dir():
        yield from sorted(_in_folder(Path(path), suffixes))
    elif Path(path).is_file():
        yield Path(path)


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The data files in a folder and the folders in it, hidden ones (.git, .ipynb_checkpoints) aside.

    `DataError` where one is packed in a way that is not read, and does not lie there unpacked, too.
    """
    for file in folder.rglob("*"):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if _is_data(file, suffixes):
            yield file
        elif _is_closed_data(file, suffixes):
            what, remedy = f"{file.suffix} files are not read", "unpack it, or pack it as .gz or .zst"
            raise DataError(Problem(at(file), what, remedy))


def _is_closed_data(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether it holds data, packed in a way that is not read, which does not lie beside it unpacked."""
    packed = file.suffix.lower() in _NOT_READ and Path(file.stem).suffix.lower() in suffixes
    return packed and not file.with_suffix("").is_file()


def plain_suffix(path: Path) -> str:
    """The suffix that says how the file is written, `.gz` or `.zst` aside, in lower case."""
    return _plain(path).suffix.lower()


def plain_stem(path: Path) -> str:
    """The file's name without its suffixes: "add" of add.jsonl.gz."""
    return _plain(path).stem


def _plain(path: Path) -> Path:
    return Path(path.stem if path.suffix.lower() in _PACKED else path.name)


def _is_data(path: Path, suffixes: tuple[str, ...]) -> bool:
    about = path.name.lower().startswith(_NOT_DATA) and plain_suffix(path) in (*TEXT_SUFFIXES, *PAGE_SUFFIXES)
    return plain_suffix(path) in suffixes and not about


def files_sha256(files: list[Path]) -> str:
    """One hash for the bytes of all files, in order."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked where its name ends in `.gz` or `.zst`."""
    with opened(path) as file:
        return file.read()


def read_lines(path: Path, longest: int) -> Iterator[bytes]:
    """The file's lines one after the other, unpacked as `read_bytes` does; the whole is never in memory.

    Of a line of more than `longest` bytes so many and one more are given.
    """
    with opened(path) as file:
        while line := file.readline(longest + 1):
            yield line
            while len(line) > longest and not line.endswith(b"\n"):
                line = file.readline(longest + 1)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, unpacked as it is read where its name ends in `.gz` or `.zst`; `DataError` where it cannot be."""
    try:
        packed = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    suffix = path.suffix.lower()
    try:
        with packed:
            _check_packing(path, packed.read(4), suffix)
            packed.seek(0)
            with _unpacked(path, packed, suffix) as file:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        if suffix not in _PACKED:
            raise _unreadable(path, error) from error
        what = f"not a whole {'gzip' if suffix == '.gz' else 'zstd'} file ({error})"
        problem = Problem(at(path), what, "fetch the file again, or rename it if it is plain")
        raise DataError(problem) from error


def _check_packing(path: Path, start: bytes, suffix: str) -> None:
    """`DataError` where a file is packed and its name does not say so: it would be read as if it were text."""
    found = next((packing for magic, packing in _MAGIC.items() if start.startswith(magic)), suffix)
    if found != suffix and plain_suffix(path) != ".warc":  # whose reader unpacks
        name = f"{path.stem if suffix in _PACKED else path.name}{found}"
        raise DataError(Problem(at(path), f"the file is packed as {found}", f"rename it to {name}"))


def _unreadable(path: Path, error: Exception) -> DataError:
    what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return DataError(Problem(at(path), what, "check the path and its permissions"))


def _unpacked(path: Path, packed: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return _Unpacked(path, packed, cast(BinaryIO, gzip.GzipFile(fileobj=packed))).buffered()
    if suffix != ".zst":
        return packed
    import pyarrow as pa

    return _Unpacked(path, packed, cast(BinaryIO, pa.CompressedInputStream(packed, "zstd"))).buffered()


class _Unpacked(io.RawIOBase):
    """What a packed file unpacks to, as long as that is no bomb: `DataError` where it is too much for so few bytes."""

    def __init__(self, path: Path, packed: BinaryIO, unpacked: BinaryIO) -> None:
        self._path, self._packed, self._from = path, packed, unpacked
        self._given = 0

    def buffered(self) -> BinaryIO:
        """As a file that is read by lines, too."""
        return cast(BinaryIO, io.BufferedReader(self, BUFFER_BYTES))

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase` has it."""
        data = self._from.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        if self._given > max(UNPACKED_BYTES, UNPACKED_TIMES * self._packed.tell()):
            what = f"unpacks to more than {UNPACKED_TIMES} times its size"
            raise DataError(Problem(at(self._path), what, "unpack it yourself, if it is what you think"))
        return len(data)
