"""A stand-in for the Hugging Face hub: serves model directories of this machine as repositories.

Where no hub can be reached, the runtime's real download path still has something to download from: this serves the
part of the hub's HTTP API that `huggingface_hub` uses to look up a revision and fetch its files. Clients find it by
the documented variable HF_ENDPOINT. Every revision of a repository is the directory as it is.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_CHUNK = 1 << 20


class ModelHub:
    """Serves repositories (`owner/name` -> directory) on a loopback address while the `with` block lasts."""

    def __init__(
        self,
        repositories: Mapping[str, Path],
        *,
        commit: str,
        address: str = "127.0.0.1",
        bytes_per_second: float | None = None,
    ) -> None:
        """Describe a hub.

        Args:
            repositories: `owner/name` to directory.
            commit: what every revision of every repository stands for, 40 hexadecimal digits.
            address: where to listen.
            bytes_per_second: how fast each file is sent; None is as fast as it goes.
        """
        self._server = ThreadingHTTPServer((address, 0), _handler(dict(repositories), commit, bytes_per_second))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="model-hub", daemon=True)

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _etag(path: Path) -> str:
    stat = path.stat()
    return hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()


def _handler(
    repositories: dict[str, Path], commit: str, bytes_per_second: float | None
) -> type[BaseHTTPRequestHandler]:
    chunk_bytes = _CHUNK if bytes_per_second is None else max(1, min(_CHUNK, int(bytes_per_second / 4)))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"] and len(parts) >= 4:
                self._api("/".join(parts[2:4]), parts[4:])
            elif len(parts) >= 5 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), "/".join(parts[4:]), with_body=with_body)
            else:
                self._json(404, {"error": "not found"})

        def _api(self, repository: str, rest: list[str]) -> None:
            directory = repositories.get(repository)
            if directory is None:
                self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            names = [(path.relative_to(directory).as_posix(), path.stat().st_size) for path in _files(directory)]
            if rest[:1] == ["tree"]:
                self._json(200, [{"type": "file", "path": name, "size": size, "oid": commit} for name, size in names])
                return
            siblings = [{"rfilename": name, "size": size, "blobId": commit} for name, size in names]
            self._json(200, {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings})

        def _file(self, repository: str, name: str, *, with_body: bool) -> None:
            directory = repositories.get(repository)
            path = (directory / name).resolve() if directory is not None else None
            if directory is None or path is None or path not in _files(directory.resolve()):
                self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            self.send_response(200)
            self.send_header("ETag", f'"{_etag(path)}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            if with_body:
                with path.open("rb") as file:
                    while chunk := file.read(chunk_bytes):
                        self.wfile.write(chunk)
                        if bytes_per_second is not None:
                            time.sleep(len(chunk) / bytes_per_second)

        def _json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler
