"""A thin asyncio client of the Kubernetes API: plain dictionaries, watches that survive a restarted server."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import aiohttp

from devcluster.control.certificates import KeyPair
from devcluster.errors import ApiError

_log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for what has none) and name."""
Event = Literal["ADDED", "MODIFIED", "DELETED"]

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


def key_of(item: Mapping[str, Any]) -> Key:
    """Namespace and name of an object."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class Api:
    """Requests with a client certificate. Use as an async context manager."""

    def __init__(self, server: str, authority: Path, client: KeyPair) -> None:
        self.server = server
        self._authority, self._client = authority, client
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        context = ssl.create_default_context(cafile=str(self._authority))
        context.load_cert_chain(self._client.certificate, self._client.key)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"User-Agent": "devcluster"},
            read_bufsize=1 << 24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        parameters: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the answer's object.

        Raises:
            ApiError: the server refused it.
            aiohttp.ClientError, TimeoutError: the server could not be reached.
        """
        assert self._session is not None
        async with self._session.request(
            method,
            self.server + path,
            data=None if body is None else json.dumps(body),
            params=parameters,
            headers={"Content-Type": content_type, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=10),
        ) as response:
            text = await response.text()
            if response.status >= 400:
                raise _error(response.status, text)
            answer: Object = json.loads(text)
            return answer

    async def get(self, path: str) -> Object:
        """Read an object or a list."""
        return await self.request("GET", path)

    async def create(self, path: str, body: Object) -> Object:
        """Create an object in a collection."""
        return await self.request("POST", path, body)

    async def patch(
        self, path: str, body: Object, kind: str = "merge", *, parameters: Mapping[str, str] | None = None
    ) -> Object:
        """Change an object; `kind` is a key of `PATCH_TYPES`."""
        return await self.request("PATCH", path, body, content_type=PATCH_TYPES[kind], parameters=parameters)

    async def delete(self, path: str, body: Object | None = None) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            await self.request("DELETE", path, body)
        except ApiError as problem:
            if problem.status != 404:
                raise

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Events of a collection after `version`, until the server ends the watch."""
        assert self._session is not None
        parameters = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(240, 480)),  # noqa: S311 - jitter
        }
        async with self._session.get(
            self.server + path, params=parameters, timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)
        ) as response:
            if response.status >= 400:
                raise _error(response.status, await response.text())
            async for line in response.content:
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                yield event


def _error(status: int, text: str) -> ApiError:
    try:
        answer = json.loads(text)
        return ApiError(status, answer.get("reason", ""), answer.get("message", text))
    except (json.JSONDecodeError, AttributeError):
        return ApiError(status, "", text[:500])


Listener = Callable[[Event, Object], None]


class Informer:
    """A collection kept in memory by list and watch, with listeners that are told of every change."""

    def __init__(self, api: Api, path: str) -> None:
        self._api, self._path = api, path
        self.items: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` on every change from now on; it must not block."""
        self._listeners.append(listener)

    def _tell(self, event: Event, item: Object) -> None:
        for listener in self._listeners:
            try:
                listener(event, item)
            except Exception:
                _log.exception("a listener of %s failed", self._path)

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._follow(version)
            except ApiError as problem:
                if problem.status != 410:
                    _log.warning("%s: %s", self._path, problem)
                    await asyncio.sleep(0.5)
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.debug("%s: %r", self._path, problem)
                await asyncio.sleep(0.2)

    async def _list(self) -> str:
        answer = await self._api.get(self._path)
        kind, group_version = answer["kind"].removesuffix("List"), answer["apiVersion"]
        fresh = {}
        for item in answer["items"]:
            item.setdefault("kind", kind)
            item.setdefault("apiVersion", group_version)
            fresh[key_of(item)] = item
        before, self.items = self.items, fresh
        for key, item in before.items():
            if key not in fresh or fresh[key]["metadata"]["uid"] != item["metadata"]["uid"]:
                self._tell("DELETED", item)
        for key, item in fresh.items():
            old = before.get(key)
            if old is None or old["metadata"]["uid"] != item["metadata"]["uid"]:
                self._tell("ADDED", item)
            elif old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._tell("MODIFIED", item)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> str:
        async for event in self._api.watch(self._path, version):
            item = event["object"]
            version = item["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self.items.pop(key_of(item), None)
            else:
                self.items[key_of(item)] = item
            self._tell(event["type"], item)
        return version
