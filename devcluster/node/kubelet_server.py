"""The part of kubelet's HTTPS server that `kubectl logs` needs: /containerLogs through the API server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiohttp import web

from devcluster.control.certificates import KeyPair
from devcluster.node.container import Container
from devcluster.node.pod import PodWorker
from devcluster.node.status import Running, Waiting

_POLL = 0.1
_CHUNK = 1 << 16


class KubeletServer:
    """Serves the logs of all Pods on every node's address, to clients with a certificate of the cluster."""

    def __init__(self, workers: Mapping[str, PodWorker], work: Path, pair: KeyPair, authority: Path) -> None:
        self._workers, self._work = workers, work
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._runner: web.AppRunner | None = None

    async def start(self, addresses: Sequence[str], port: int) -> None:
        """Listen on the nodes' addresses."""
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        application.router.add_get("/healthz", self._healthy)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        for address in addresses:
            await web.TCPSite(self._runner, address, port, ssl_context=self._context, shutdown_timeout=0.2).start()

    async def stop(self) -> None:
        """Stop to serve."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    def _container(self, request: web.Request) -> Container:
        wanted = request.match_info
        for worker in self._workers.values():
            if (worker.namespace, worker.name) == (wanted["namespace"], wanted["pod"]):
                for container in worker.containers:
                    if container.name == wanted["container"]:
                        return container
                raise web.HTTPBadRequest(text=f"container {wanted['container']} is not valid for pod {worker.name}")
        raise web.HTTPNotFound(text=f"pod {wanted['namespace']}/{wanted['pod']} is not on this node")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        query = request.query
        attempt = container.facts.restarts
        state = container.facts.state
        if query.get("previous") == "true":
            attempt -= 1 if not (isinstance(state, Waiting) and container.facts.last) else 0
            if attempt < 0 or container.facts.last is None:
                raise web.HTTPBadRequest(
                    text=f'previous terminated container "{container.name}" in pod "{container.pod.name}" not found'
                )
        elif not container.log(attempt).exists():
            reason = state.reason if isinstance(state, Waiting) else ""
            raise web.HTTPBadRequest(
                text=f'container "{container.name}" in pod "{container.pod.name}" is waiting to start: {reason}'
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        follow = query.get("follow") == "true" and query.get("previous") != "true"
        limit = int(query["limitBytes"]) if "limitBytes" in query else None
        await self._send(response, container, attempt, _tail_lines(query), follow, limit)
        await response.write_eof()
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        container: Container,
        attempt: int,
        tail: int | None,
        follow: bool,
        limit: int | None,
    ) -> None:
        with container.log(attempt).open("rb") as file:
            file.seek(_tail_offset(container.log(attempt), tail))
            while limit is None or limit > 0:
                running = container.facts.restarts == attempt and isinstance(container.facts.state, Running)
                data = file.read(_CHUNK if limit is None else min(_CHUNK, limit))
                if data:
                    limit = None if limit is None else limit - len(data)
                    await response.write(data)
                elif follow and running:
                    await asyncio.sleep(_POLL)
                else:
                    return


def _tail_lines(query: Mapping[str, str]) -> int | None:
    text = query.get("tailLines", query.get("tail", "all"))
    return None if text == "all" else int(text)


def _tail_offset(path: Path, lines: int | None) -> int:
    """Where the last `lines` lines of a file begin."""
    if lines is None:
        return 0
    content = path.read_bytes()
    end = len(content.rstrip(b"\n")) if content.endswith(b"\n") else len(content)
    if lines <= 0:
        return len(content)
    position = end
    for _ in range(lines):
        position = content.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1
