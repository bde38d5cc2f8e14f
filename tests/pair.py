"""Two processes on this machine that do the same at the same time, as a launcher starts them: gloo, CPU."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

WAIT_SECONDS = 90  # for the slowest job, and for two imports of torch on a busy machine


class Pair:
    """Started once; each call runs a function of a test module in both and gives the results by rank."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        port = _free_port()
        self._ways: list[Connection] = []
        self._processes = []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, port), daemon=True)
            process.start()
            theirs.close()
            self._ways.append(ours)
            self._processes.append(process)

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `work` gave on rank 0 and 1; an AssertionError with the traceback of each that raised."""
        for way in self._ways:
            way.send_bytes(pickle.dumps((work, arguments)))
        answers = []
        for rank, way in enumerate(self._ways):
            if not way.poll(WAIT_SECONDS):
                self.close()
                self._start()
                raise AssertionError(f"rank {rank} does not answer: it waits for the other")
            answers.append(pickle.loads(way.recv_bytes()))
        faults = [f"rank {rank}:\n{fault}" for rank, (_, fault) in enumerate(answers) if fault]
        assert not faults, "\n".join(faults)
        return [value for value, _ in answers]

    def close(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _serve(way: Connection, rank: int, port: int) -> None:
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in said.items()})
    from aligner.rl.ranks import ranks_of_launch

    assert ranks_of_launch().count == 2
    while True:
        try:
            work, arguments = pickle.loads(way.recv_bytes())
        except EOFError:
            return
        try:
            answer = (work(*arguments), "")
        except Exception:
            answer = (None, traceback.format_exc())
        way.send_bytes(pickle.dumps(answer))
