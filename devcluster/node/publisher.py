"""Writes a Pod's status to the API when it changes, and again when somebody else has overruled it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp

from devcluster.errors import ApiError
from devcluster.node.status import PodFacts, pod_status, says_the_same

if TYPE_CHECKING:
    from devcluster.node.agent import Node

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_COALESCE, _RETRY = 0.02, 0.3


class StatusPublisher:
    """The status of one Pod: what was written last, and what the API has now."""

    def __init__(self, node: Node, item: Object, facts: Callable[[], PodFacts]) -> None:
        self._node, self._item, self._facts = node, item, facts
        metadata = item["metadata"]
        self._uid = metadata["uid"]
        self.pod_path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._written: Object | None = None
        self._present: Object = item.get("status", {})
        self._version = int(metadata["resourceVersion"])
        self._wake = asyncio.Event()

    def changed(self) -> None:
        """The status has to be written."""
        self._wake.set()

    def notice(self, item: Object) -> None:
        """A new version of the Pod has arrived; others, such as the node lifecycle controller, may have written."""
        self._item = item
        version = int(item["metadata"]["resourceVersion"])
        if version < self._version:
            return
        self._present, self._version = item.get("status", {}), version
        if self._written is not None and not says_the_same(self._written, self._present):
            self._written = None
            self.changed()

    async def run(self) -> None:
        """Write changes until the Pod is gone."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_COALESCE)
            await self._node.awake()
            self._wake.clear()
            try:
                await self.publish()
            except ApiError as problem:
                if problem.status == 404:
                    return
                _log.warning("status of %s: %s", self.pod_path, problem)
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.debug("status of %s: %r", self.pod_path, problem)
            else:
                continue
            self._wake.set()
            await asyncio.sleep(_RETRY)

    async def publish(self) -> None:
        """Write the status now, unless it is written.

        Raises:
            ApiError: refused; 404 when the Pod is gone, 409 when another of its name is there.
            aiohttp.ClientError, OSError, TimeoutError: the API server could not be reached.
        """
        # conditions keep the times that the API has for them
        status = pod_status(self._facts(), {**self._item, "status": self._present}, datetime.now(UTC))
        if status == self._written:
            return
        body = {"metadata": {"uid": self._uid}, "status": status}
        answer = await self._node.api.patch(f"{self.pod_path}/status", body, "strategic")
        self._written = status
        version = int(answer["metadata"]["resourceVersion"])
        if version >= self._version:
            self._present, self._version = answer["status"], version
