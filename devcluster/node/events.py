"""Events about Pods and nodes, repeated ones counted up as kubelet's recorder does."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Literal

import aiohttp

from devcluster.errors import ApiError
from devcluster.node.api import Api, Object
from devcluster.node.status import timestamp

_log = logging.getLogger(__name__)
_REMEMBERED = 4096


class Recorder:
    """Writes events in the background, in order; an event that cannot be written is dropped, as everywhere."""

    def __init__(self, api: Api, component: str) -> None:
        self._api, self._component = api, component
        self._queue: asyncio.Queue[tuple[Object, str]] = asyncio.Queue(maxsize=1000)
        self._known: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()

    def emit(
        self,
        item: Object,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        field: str | None = None,
        host: str = "",
    ) -> None:
        """Report something about `item`; `field` names the part, such as `spec.containers{main}`."""
        metadata = item["metadata"]
        reference: Object = {
            "apiVersion": item.get("apiVersion", "v1"),
            "kind": item.get("kind", "Pod"),
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if metadata.get("namespace"):
            reference |= {"namespace": metadata["namespace"], "resourceVersion": metadata["resourceVersion"]}
        if field:
            reference["fieldPath"] = field
        now = timestamp(datetime.now(UTC))
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": self._component, "host": host},
            "reportingComponent": self._component,
            "reportingInstance": host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait((event, metadata.get("namespace") or "default"))
        except asyncio.QueueFull:
            _log.warning("too many events, dropped %s", reason)

    async def run(self) -> None:
        """Write events for ever."""
        while True:
            event, namespace = await self._queue.get()
            try:
                await self._write(event, namespace)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.debug("event %s of %s: %s", event["reason"], event["involvedObject"]["name"], problem)

    async def _write(self, event: Object, namespace: str) -> None:
        reference = event["involvedObject"]
        key = (reference["uid"], reference.get("fieldPath", ""), event["type"], event["reason"], event["message"])
        path = f"/api/v1/namespaces/{namespace}/events"
        known = self._known.get(key)
        if known is not None:
            name, count = known
            try:
                await self._api.patch(f"{path}/{name}", {"count": count + 1, "lastTimestamp": event["lastTimestamp"]})
            except ApiError as problem:
                if problem.status != 404:
                    raise
            else:
                self._known[key] = (name, count + 1)
                return
        name = f"{reference['name'][:200]}.{uuid.uuid4().hex[:16]}"
        await self._api.create(path, event | {"metadata": {"name": name, "namespace": namespace}})
        self._known[key] = (name, 1)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
