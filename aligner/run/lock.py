"""One folder, one process: a lock that dies with its owner."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from aligner.errors import Problem, RunError
from aligner.run.progress import say
from aligner.run.write import faults_told


class FolderLock:
    """An flock on `folder/.lock`, with the owner's name inside for the message to the second comer.

    The kernel drops an flock when its process dies, however it dies, so a dead owner needs no time-out; it
    only left its name in the file, and the taker says so. Network file systems must support flock.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._held_by = 0
        with faults_told(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with faults_told(self.path):
                self._take(folder)
        except BaseException:
            self.release()
            raise
        # A forked data worker would share the lock and keep it after its parent was killed.
        os.register_at_fork(after_in_child=self._close)

    def release(self) -> None:
        """Give the folder back; safe to call twice."""
        self._close()

    def _take(self, folder: Path) -> None:
        owner = self._owner()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                Problem(
                    str(folder),
                    f"in use by another process ({owner or 'it has not said its name yet'})",
                    "wait for it, stop it, or name another output",
                )
            ) from None
        except OSError as error:
            raise RunError(
                Problem(
                    str(folder),
                    f"this file system has no locks ({error.strerror})",
                    "put the output on a local disk",
                )
            ) from error
        if owner:
            say(f"{folder}: its last process ({owner}) died without a word; taken over.")
        self._sign()

    def _owner(self) -> str:
        content = os.pread(self._descriptor, 4096, 0)
        try:
            owner = json.loads(content)
            return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
        except (ValueError, KeyError, TypeError):
            return ""

    def _sign(self) -> None:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(owner).encode(), 0)
        self._held_by = os.getpid()

    def _close(self) -> None:
        """Close our handle. Only the owner wipes its name; a forked child or a refused comer merely lets go."""
        if self._descriptor < 0:
            return
        if self._held_by == os.getpid():
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1
