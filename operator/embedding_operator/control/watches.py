"""kopf in a thread of its own, one for each scope, so that what ends there ends nothing else.

kopf takes an event loop as its own: when it stops it cancels whatever began after it, and it takes the process's
signals. In a thread with a loop of its own it can do neither, and a namespace that was deleted, or whose rights were
withdrawn, costs the watch of that namespace only: it is tried again, the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kopf

from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient, ClusterError, load_configuration
from embedding_operator.control.handlers import build_registry, watch_settings

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where a watch reports to; called in the operator's own event loop."""

    event: Callable[[str | None, dict[str, Any]], None]
    """Type (None: listed) and object."""
    watching: Callable[[], None]
    stalled: asyncio.Event
    """Set by whoever found out that this watch delivers nothing any more; it is begun anew then."""


class Stalled(Exception):
    """The watch was found to deliver nothing any more."""


async def watch_for_ever(cluster: ClusterClient, namespace: str | None, identity: str, sinks: Sinks) -> None:
    """Watch one namespace (None: all of them) until cancelled; a watch that ends is begun again."""
    where = namespace or "all namespaces"
    while True:
        await _wait_for_resource(cluster, namespace, where)
        error = await _watch_once(namespace, identity, sinks)
        log.warning("the watch of %s ended: %s; beginning again in %g s", where, error, RETRY_SECONDS)
        await asyncio.sleep(RETRY_SECONDS)


async def _wait_for_resource(cluster: ClusterClient, namespace: str | None, where: str) -> None:
    """Wait until EmbeddingServices can be listed: kopf looks for its resources only once, when it starts."""
    said = ""
    while True:
        try:
            async for _ in cluster.pages(EMBEDDING_SERVICES, namespace, size=1):
                return
        except ClusterError as error:
            if error.message != said:
                log.warning("EmbeddingServices of %s cannot be listed yet: %s", where, error.message)
                said = error.message
        await asyncio.sleep(RETRY_SECONDS)


async def _watch_once(namespace: str | None, identity: str, sinks: Sinks) -> BaseException | None:
    """Run kopf in a thread until it ends by itself; what it ended with. Cancelling stops the thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()
    stop = threading.Event()

    def tell(function: Callable[..., None], *arguments: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)

    def finish(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(error)

    async def run() -> None:
        ready = asyncio.Event()

        async def report() -> None:
            await ready.wait()
            tell(sinks.watching)

        reporter = asyncio.create_task(report())
        registry = build_registry(
            on_event=lambda kind, live: tell(sinks.event, kind, live), configuration=load_configuration
        )
        try:
            await kopf.operator(
                registry=registry,
                settings=watch_settings(),
                # Given, because kopf would otherwise ask for the name of a user that images run under any UID lack.
                identity=identity,  # type: ignore[arg-type]
                standalone=True,
                clusterwide=namespace is None,
                namespaces=[] if namespace is None else [namespace],
                stop_flag=stop,
                ready_flag=ready,
            )
        finally:
            reporter.cancel()

    def thread() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(run())
        except BaseException as raised:  # whatever it was, it ended this watch and is told as its reason
            error = raised
        tell(finish, error)

    threading.Thread(target=thread, name=f"watch-{namespace or 'all'}", daemon=True).start()
    sinks.stalled.clear()
    stalled = asyncio.create_task(sinks.stalled.wait())
    try:
        await asyncio.wait((ended, stalled), return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else Stalled("it delivers nothing any more")
    finally:
        stalled.cancel()
        stop.set()
