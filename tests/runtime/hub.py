"""A Hugging Face hub on this machine: the routes its client uses to find and download a model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


class Hub:
    """Serves one repository at one commit (also called main). `hold` stops downloads of weights half way until set."""

    def __init__(self, repository: str, directory: Path) -> None:
        self.repository = repository
        self.files = {
            str(path.relative_to(directory)): path
            for path in sorted(directory.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        self.hold = threading.Event()
        self.hold.set()
        self.requests: list[str] = []
        self.gated = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urllib.parse.unquote(request.path.partition("?")[0])
        self.requests.append(f"{request.command} {path}")
        if match := re.fullmatch(rf"/api/models/{self.repository}/(revision|tree)/([^/]+)(/.*)?", path):
            if self.gated:
                self._send(request, 403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            elif match[2] not in ("main", COMMIT):
                self._send(request, 404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            else:
                self._send(request, 200, self._info() if match[1] == "revision" else self._tree())
        elif match := re.fullmatch(rf"/{self.repository}/resolve/([^/]+)/(.*)", path):
            self._file(request, self.files[match[2]])
        else:
            self._send(request, 404, {"error": "no repository"}, {"X-Error-Code": "RepoNotFound"})

    def _info(self) -> dict[str, Any]:
        siblings = [{"rfilename": name, "size": path.stat().st_size} for name, path in self.files.items()]
        return {"_id": "1", "id": self.repository, "modelId": self.repository, "sha": COMMIT, "siblings": siblings,
                "private": False, "tags": [], "downloads": 0}  # fmt: skip

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
            for name, path in self.files.items()
        ]

    def _file(self, request: BaseHTTPRequestHandler, path: Path) -> None:
        content = path.read_bytes()
        request.send_response(200)
        for name, value in (("ETag", f'"{_etag(path)}"'), ("X-Repo-Commit", COMMIT), ("Content-Length", len(content))):
            request.send_header(name, str(value))
        request.end_headers()
        if request.command == "GET":
            half = len(content) // 2
            request.wfile.write(content[:half])
            if path.suffix == ".safetensors":
                request.wfile.flush()
                self.hold.wait(60)
            with contextlib.suppress(OSError):
                request.wfile.write(content[half:])

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, value: object, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(value).encode()
        request.send_response(status)
        for name, text in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            request.send_header(name, text)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:40]


@contextlib.contextmanager
def hub(repository: str, directory: Path) -> Iterator[Hub]:
    """A hub that is gone afterwards."""
    it = Hub(repository, directory)
    try:
        yield it
    finally:
        it.close()
