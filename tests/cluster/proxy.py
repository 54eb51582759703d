"""A proxy before the API server that can let one watch fall silent, as a broken load balancer or a half-open connection
does, while everything else is answered."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from devcluster import Cluster

_HOP_BY_HOP = ("host", "connection", "transfer-encoding", "content-length", "content-encoding", "accept-encoding")


@dataclass
class Proxy:
    """Serves plain HTTP on the loopback address and asks the API server with an administrator's certificate."""

    server: str
    context: ssl.SSLContext
    requests: list[tuple[str, bool]] = field(default_factory=list)
    """Path, and whether it is a watch, of every request so far."""
    port: int = field(default=0, init=False)
    _session: aiohttp.ClientSession = field(init=False)
    _begun: dict[str, int] = field(default_factory=dict)
    """By watched path: how many watches were begun before it fell silent."""

    def silence(self, path: str) -> None:
        """From now on the watches of this path that are open deliver nothing. Later ones do."""
        self._begun[path] = self.count(path, watch=True)

    def count(self, path: str, *, watch: bool) -> int:
        """How many such requests there were."""
        return self.requests.count((path, watch))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in ("true", "1")
        self.requests.append((request.path, watch))
        number = self.count(request.path, watch=watch)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        # Without a body there must be no Content-Type either: the API server refuses it.
        body = await request.read() or None
        url = f"{self.server}{request.path_qs}"
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            try:
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    if not (watch and self._is_silent(request.path, number)):
                        await response.write(chunk)
                if watch and self._is_silent(request.path, number):
                    await asyncio.sleep(3600)  # not even its end is told
                await response.write_eof()
            except ConnectionResetError:
                pass  # whoever asked has gone
        return response

    def _is_silent(self, path: str, number: int) -> bool:
        return number <= self._begun.get(path, 0)

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        application = web.Application(client_max_size=1 << 26)
        connector = aiohttp.TCPConnector(ssl=self.context, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 24
        ) as self._session:
            application.router.add_route("*", "/{path:.*}", self.answer)
            runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            await runner.cleanup()


def _credentials(cluster: Cluster, directory: Path) -> tuple[str, ssl.SSLContext]:
    """Address of the API server, and the administrator's connection, from the cluster's kubeconfig."""
    document: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    there, user = document["clusters"][0]["cluster"], document["users"][0]["user"]

    def file(entries: dict[str, Any], name: str) -> str:
        if name in entries:
            return str(entries[name])
        path = directory / name
        path.write_bytes(base64.b64decode(entries[f"{name}-data"]))
        return str(path)

    context = ssl.create_default_context(cafile=file(there, "certificate-authority"))
    context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
    return there["server"], context


@contextmanager
def proxied(cluster: Cluster, directory: Path) -> Iterator[tuple[Proxy, Path]]:
    """The proxy while the block runs, and a kubeconfig that leads to it."""
    proxy = Proxy(*_credentials(cluster, directory))
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(started, stop))

    thread = threading.Thread(target=work, name="proxy")
    thread.start()
    try:
        assert started.wait(30), "the proxy did not start"
        kubeconfig = directory / "proxy.kubeconfig"
        named = {"name": "proxy"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}}],
            "users": [{**named, "user": {}}],
            "contexts": [{**named, "context": {"cluster": "proxy", "user": "proxy"}}],
        }
        kubeconfig.write_text(yaml.safe_dump(document))
        yield proxy, kubeconfig
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not thread.is_alive(), "the proxy did not stop"
