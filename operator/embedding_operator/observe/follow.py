"""List and watch: one kind of object, in one namespace or in all, kept up to date until cancelled."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Set
from typing import Any, Never, Protocol

from embedding_operator.api.kinds import Resource
from embedding_operator.cluster import BOOKMARK, WATCH_SECONDS, ClusterClient, ClusterError, Object

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""After an error, and after a watch that ended at once; doubled each time until something worked."""
LONGEST_RETRY_SECONDS = 15.0
SHORT_WATCH_SECONDS = 1.0
"""A watch that ends earlier and told nothing was no watch."""
RELIST_SECONDS = 300.0
PAGE_SIZE = 100
"""How many objects are in memory at once while they are listed."""

Key = tuple[str, str]
"""Namespace and name."""


def key_of(live: Mapping[str, Any]) -> Key:
    return str(live["metadata"]["namespace"]), str(live["metadata"]["name"])


class Sink(Protocol):
    """Where what is followed goes."""

    def put(self, live: Object, *, gone: bool = False) -> None:
        """This one is there, new, changed or gone."""

    def keep(self, keys: Set[Key], version: str) -> None:
        """These, by namespace and name, were all there were at this resourceVersion."""

    def heard(self) -> None:
        """The API server answered, if only that nothing changed."""

    def refused(self, error: ClusterError) -> None:
        """The list or the watch failed: what is known may be old."""


async def follow(
    cluster: ClusterClient,
    resource: Resource,
    labels: str | None,
    sink: Sink,
    *,
    namespace: str | None = None,
    watch_seconds: float = WATCH_SECONDS,
    relist_seconds: float = RELIST_SECONDS,
) -> Never:
    """Keep `sink` true (`namespace` None: of all namespaces).

    A watch lasts `watch_seconds` at most and is resumed where it ended, so that even where nothing changes something is
    heard that often. After an error, and every `relist_seconds`, everything is listed again: what a watch lost is found
    then.
    """
    said, failures = "", 0
    while True:
        began = float("inf")
        try:
            version, found = "", set[Key]()
            async for page, moment in cluster.pages(resource, namespace, labels=labels, size=PAGE_SIZE):
                sink.heard()
                version = moment
                for live in page:
                    sink.put(live)
                found |= {key_of(live) for live in page}
            sink.keep(found, version)
            listed = time.monotonic()
            while time.monotonic() - listed < relist_seconds:
                began, told = time.monotonic(), False
                watch = cluster.watch(resource, version, labels=labels, namespace=namespace, seconds=watch_seconds)
                async for kind, live in watch:
                    sink.heard()
                    told = True
                    version = live["metadata"].get("resourceVersion") or version
                    if kind != BOOKMARK:
                        sink.put(live, gone=kind == "DELETED")
                short = time.monotonic() - began < min(SHORT_WATCH_SECONDS, watch_seconds)
                if short and not told:
                    # Something in between cuts watches off. Lists still tell what there is, only later.
                    raise ClusterError(0, "EndedAtOnce", f"the watch of {resource.plural} ended at once")
                sink.heard()
                said, failures = "", 0
                if short:
                    await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))  # noqa: S311 - jitter
        except ClusterError as error:
            if error.status:
                sink.heard()
            sink.refused(error)
            if error.message != said and error.status != 410:
                log.warning("cannot follow %s in %s: %s", resource.plural, namespace or "all namespaces", error.message)
                said = error.message
            if time.monotonic() - began >= SHORT_WATCH_SECONDS:
                failures = 0  # it worked for a while: what came meanwhile must not wait
            longest = max(RETRY_SECONDS, min(LONGEST_RETRY_SECONDS, watch_seconds / 2))
            delay = min(RETRY_SECONDS * 2.0 ** min(failures, 10), longest)
            failures += 1
            await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter
