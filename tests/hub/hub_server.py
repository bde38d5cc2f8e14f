"""A small Hub on this machine: create-repo, preupload, LFS batch, upload, verify, and commit, as the real client speaks them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HubState:
    """What the server was told."""

    token: str
    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    lfs_files: dict[str, dict[str, Any]] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    tokens_sent_to_storage: list[str] = field(default_factory=list)
    exists: bool = False
    session: int = 1  # of the client, as the test counts them
    sent: list[tuple[int, str]] = field(default_factory=list)  # session and oid of every blob that was sent
    commits: list[list[str]] = field(default_factory=list)  # paths
    lost: Callable[[int, int], bool] = lambda session, number: False  # whether the n-th blob does not arrive
    refuses: bool = False  # the storage takes nothing
    one_by_one: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    state: HubState

    def log_message(self, *arguments: Any) -> None:
        """Tests are quiet."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        session = self.state.session
        content, oid = self._body(), self.path.rpartition("/")[2]
        self.state.tokens_sent_to_storage += (
            [self.headers["Authorization"]] if self.headers["Authorization"] else []
        )
        with self.state.one_by_one:
            self.state.sent.append((session, oid))
            if self.state.refuses or self.state.lost(session, len(self.state.sent)):
                return self._answer({}, 403)
            whole = hashlib.sha256(content).hexdigest() == oid
            if whole:
                self.state.blobs[oid] = content
        self._answer({}, 200 if whole else 400)

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {self.state.token}":
            return self._answer({"error": "Invalid credentials"}, 401)
        found = {"id": "you/tiny", "sha": "1" * 40, "siblings": []}
        known = self.path.startswith("/api/models/you/tiny")
        self._answer(found if known else {"error": f"unknown {self.path}"}, 200 if known else 404)

    def do_POST(self) -> None:
        body = self._body()
        if self.headers["Authorization"] != f"Bearer {self.state.token}":
            return self._answer({"error": "Invalid credentials"}, 401)
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            self.state.cards.append(json.loads(body)["content"])
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            return self._answer({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._answer(
                {"transfer": "basic", "objects": [self._action(o) for o in json.loads(body)["objects"]]}
            )
        if path == "/lfs/verify":
            value = json.loads(body)
            return self._answer({}, 200 if len(self.state.blobs[value["oid"]]) == value["size"] else 400)
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/commit/main", path):
            return self._commit([json.loads(line) for line in body.splitlines()])
        return self._answer({"error": f"unknown {path}"}, 404)

    def _create(self, request: dict[str, Any]) -> None:
        self.state.created.append(request)
        url = f"{self.state.url}/{request['organization']}/{request['name']}"
        self._answer({"url": url}, 409 if self.state.exists else 200)

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        """How a file is to be sent, and what is there under its name: of a large one its sha256, else git's hash."""
        path = file["path"]
        mode, oid = "regular", None
        if path.endswith(".safetensors"):
            mode, oid = "lfs", self.state.lfs_files.get(path, {}).get("oid")
        elif path in self.state.files:
            content = self.state.files[path]
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.state.blobs:
            return wanted  # it is here: nothing is to be done
        upload = {"href": f"{self.state.url}/lfs/{wanted['oid']}"}
        return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{self.state.url}/lfs/verify"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        self.state.commits.append([line["value"]["path"] for line in lines if "path" in line["value"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.state.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.state.lfs_files[value["path"]] = value
        self._answer({"commitUrl": f"{self.state.url}/you/tiny/commit/1", "commitOid": "1" * 40})


@contextmanager
def local_hub(token: str) -> Iterator[HubState]:
    """The server on a free port of the loopback interface."""
    state = HubState(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
