"""Data sets on a small Hub on this machine: commits, branches, file lists and files, as the real client asks for them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]


@dataclass
class DataSets:
    """By id: the files of each commit, and the commit of each branch and tag; `asked`: every request."""

    commits: dict[str, dict[str, Files]]
    refs: dict[str, dict[str, str]]
    url: str = ""
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    data: DataSets
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Tests are quiet."""

    def _send(
        self, content: bytes, status: int = 200, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str, commit: str = "") -> None:
        more = {"X_Repo_Commit": commit} if commit else {}
        self._send(b"{}", 404, X_Error_Code=code, **more)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._answer(paths)

    def do_GET(self) -> None:
        self._answer([])

    def _answer(self, paths: list[str]) -> None:
        self.data.asked.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(
            r"(/api)?/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info|resolve)/([^/]+)(?:/(.*))?)?", path
        )
        if not found:
            return self._missing("EntryNotFound")
        hub_id, revision, name = found[2], found[4] or "main", found[5] or ""
        if hub_id not in self.data.commits:
            return self._missing("RepoNotFound")
        commit = self.data.refs[hub_id].get(revision, revision)
        if commit not in self.data.commits[hub_id]:
            return self._missing("RevisionNotFound")
        self._of_commit(hub_id, commit, found[3] or "revision", name, paths)

    def _of_commit(self, hub_id: str, commit: str, what: str, name: str, paths: list[str]) -> None:
        files = self.data.commits[hub_id][commit]
        if what == "resolve":
            return self._file(files.get(name), commit)
        if what == "tree":
            below = f"{name}/" if name else ""
            entries = {path: entry for path, entry in _entries(files).items() if path.startswith(below)}
            if name and not entries:
                return self._missing("EntryNotFound", commit)
            deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            return self._json([e for path, e in entries.items() if deep or "/" not in path[len(below) :]])
        if what == "paths-info":
            return self._json([entry for path, entry in _entries(files).items() if path in paths])
        siblings = [{"rfilename": each} for each in files]
        plain = {"private": False, "disabled": False, "gated": False, "tags": [], "downloads": 0, "likes": 0}
        self._json({"_id": "1", "id": hub_id, "sha": commit, "siblings": siblings, **plain})

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode())

    def _file(self, content: bytes | None, commit: str) -> None:
        if content is None:
            return self._missing("EntryNotFound", commit)
        status, wanted = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        more = {"ETag": f'"{_oid(content)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            more["Content_Range"] = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
            status, content = 206, content[start : end + 1]
        self._send(content, status, "application/octet-stream", **more)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _entries(files: Files) -> dict[str, dict[str, object]]:
    """What the Hub says of each file, and of each folder that one is in."""
    found: dict[str, dict[str, object]] = {}
    for path, content in files.items():
        for folder in list(PurePosixPath(path).parents)[:-1]:
            found[str(folder)] = {"type": "directory", "path": str(folder), "size": 0, "oid": _oid(b"")}
        found[path] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
    return found


@contextmanager
def data_set_hub(data: DataSets) -> Iterator[DataSets]:
    """The server on a free port of the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"data": data}))
    server.daemon_threads = True
    data.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield data
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
