"""Every test runs offline and on one thread: sockets reach this machine only, the Hub client stays offline."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pair import Pair

# Before torch or transformers are imported; subprocesses inherit it.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
)
LOCAL_HOSTS = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", b"localhost", b"127.0.0.1"}


class NetworkBlockedError(RuntimeError):
    """A test reached for the network."""


def _check(host: object) -> None:
    if host not in LOCAL_HOSTS:
        raise NetworkBlockedError(f"tests are offline: connection to {host!r} refused")


@pytest.fixture(scope="session", autouse=True)
def _sockets_stay_on_this_machine() -> Iterator[None]:
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        _check(address[0] if isinstance(address, tuple) else None)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        _check(address[0] if isinstance(address, tuple) else None)
        return connect_ex(self, address)

    def checked_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked_connect)
        patch.setattr(socket.socket, "connect_ex", checked_connect_ex)
        patch.setattr(socket, "getaddrinfo", checked_getaddrinfo)
        yield


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes, started when the first test asks for them."""
    found = Pair()
    yield found
    found.close()
