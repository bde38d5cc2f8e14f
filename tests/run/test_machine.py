"""Memory that a container has left."""

from pathlib import Path

import psutil
import pytest

from aligner.run import machine

MIB = 2**20


@pytest.mark.parametrize(("cached", "left"), [(0, 10), (60, 70), (95, 100)])
def test_files_that_a_container_keeps_in_memory_are_free_for_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int, left: int
) -> None:
    """A limit of 100 MiB, 90 taken: of which so many are files that were read."""
    assert psutil.virtual_memory().available > 100 * MIB
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{90 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached * MIB}\nactive_file 7\n")
    assert machine.main_memory() == machine.Room(left * MIB, 100 * MIB, "this container")
