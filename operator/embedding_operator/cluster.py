"""The Kubernetes API as this operator uses it: read, list, server-side apply, create, delete.

Objects are plain dictionaries, as the API server sends them. Paths are static (no discovery requests), every request
has a timeout, every answer is counted, and writes pass a fence first, so that an operator that lost its leadership
cannot write any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import aiohttp
import orjson
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import ApiException

from embedding_operator.api.kinds import Resource
from embedding_operator.cluster_errors import ClusterError, NotLeading

__all__ = [
    "ClusterClient",
    "ClusterError",
    "NotLeading",
    "Object",
    "Page",
    "apply_text",
    "load_configuration",
    "user_agent",
]

Object = dict[str, Any]
Page = list[Object]

REQUEST_TIMEOUT_SECONDS: Final = 15.0
WATCH_SECONDS: Final = 60.0
WATCH_GRACE_SECONDS: Final = 10.0
"""How much longer than asked for a watch may take to end before it is given up."""
BOOKMARK: Final = "BOOKMARK"


_NO_QUERY: Final[Mapping[str, str | int | None]] = {}


@dataclass(slots=True)
class ClusterClient:
    """Asynchronous access to one API server.

    `may_write` is asked before every write and answers False to stop it (NotLeading is raised).
    `count` is told (verb, resource plural, status) of every answered request, for telemetry.
    Every method raises ClusterError when the API server refuses or does not answer.
    """

    api: ApiClient
    may_write: Callable[[], bool] = lambda: True
    count: Callable[[str, str, int], None] = lambda verb, resource, status: None
    timeout: float = REQUEST_TIMEOUT_SECONDS
    write_timeout: float = REQUEST_TIMEOUT_SECONDS
    """For writes alone: no longer than the fence's margin, so that none arrives after another leader began."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None when there is none."""
        try:
            return await self._request("get", resource, "GET", resource.path(namespace, name))
        except ClusterError as error:
            if error.not_found:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        page_size: int = 500,
    ) -> tuple[list[Object], str]:
        """All objects (`namespace` None: of every namespace), and the list's resourceVersion."""
        items: list[Object] = []
        version = ""
        async for page, version_now in self.pages(resource, namespace, labels=labels, fields=fields, size=page_size):
            items.extend(page)
            version = version_now
        return items, version

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        size: int = 500,
    ) -> AsyncIterator[tuple[Page, str]]:
        """The same in portions of at most `size`, all of one moment, so that they need not be in memory together."""
        token: str | None = None
        while True:
            answer = await self._request(
                "list",
                resource,
                "GET",
                resource.path(namespace),
                query={"labelSelector": labels, "fieldSelector": fields, "limit": size, "continue": token},
            )
            metadata = answer.get("metadata") or {}
            token = metadata.get("continue") or None
            yield answer.get("items") or [], str(metadata.get("resourceVersion") or "")
            if token is None:
                return

    async def text(
        self,
        path: str,
        query: Mapping[str, str | int | None] = _NO_QUERY,
        *,
        accept_any: bool = False,
        last_bytes: int | None = None,
        timeout: float | None = None,
    ) -> str:
        """What the API server answers at a path, as text: logs, versions, what a Pod answers through it.

        `accept_any` takes a refusal of the Pod behind a proxied path (such as 503 while it loads) for its answer.
        `last_bytes` keeps no more than the end of a long answer, from the beginning of a line on.
        """
        resource = path.rpartition("/")[2] if "/log" in path else "proxy" if "/proxy" in path else "other"
        status = 0
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                response = (await self.api.call_api(*await self._serialized("GET", path, query=query))).response
                async with response:
                    content, status = await _end_of(response.content, last_bytes), response.status
        except TimeoutError as exception:
            raise ClusterError(0, "Timeout", f"the API server did not answer GET {path}") from exception
        except (OSError, aiohttp.ClientError, ApiException) as exception:
            raise ClusterError(0, "ConnectionFailed", f"GET {path} failed: {exception}") from exception
        finally:
            self.count("get", resource, status)
        text = str(content.decode("utf-8", "replace"))
        if status >= 300 and not (accept_any and '"kind":"Status"' not in text.replace(" ", "")):
            _answer(status, content)
        return text

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        labels: str | None = None,
        namespace: str | None = None,
        seconds: float = WATCH_SECONDS,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes after a resourceVersion, as (ADDED, MODIFIED, DELETED or BOOKMARK, object). `namespace` None: of all.

        Ends in order after `seconds`; a new watch may go on from the last object's resourceVersion. Raises ClusterError
        when the API server refuses (410: that version is too old, list again), breaks off, or is silent for longer.
        """
        query: dict[str, str | int | None] = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(1, round(seconds)),
            "labelSelector": labels,
        }
        path = resource.path(namespace)
        try:
            async with asyncio.timeout(self.timeout):
                request = await self._serialized("GET", path, query=query)
                silence = seconds + WATCH_GRACE_SECONDS
                response = (await self.api.call_api(*request, _request_timeout=silence + WATCH_GRACE_SECONDS)).response
            status = response.status
            self.count("watch", resource.plural, status)
            async with response:
                if status != 200:
                    _answer(status, await response.read())
                while True:
                    async with asyncio.timeout(silence):
                        line = await response.content.readline()
                    if not line:
                        return
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        _answer(int(event["object"].get("code") or 500), orjson.dumps(event["object"]))
                    yield event["type"], event["object"]
        except TimeoutError as exception:
            raise ClusterError(0, "Timeout", f"the watch of {resource.plural} fell silent") from exception
        except (OSError, ValueError, aiohttp.ClientError, ApiException) as exception:
            message = f"the watch of {resource.plural} broke: {exception}"
            raise ClusterError(0, "ConnectionFailed", message) from exception

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        manager: str,
        force: bool,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply `body` (it names its namespace and name) as field manager `manager`; the object after it.

        With `dry_run` the API server only says what would come of it.
        """
        metadata = body["metadata"]
        return await self._write(
            "patch",
            resource,
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"], subresource),
            body=apply_text(body),
            # The parameter keeps the client from serialising the text once more.
            content_type="application/apply-patch+yaml; charset=utf-8",
            query={"fieldManager": manager, "force": str(force).lower(), "dryRun": "All" if dry_run else None},
        )

    async def merge(self, resource: Resource, live: Mapping[str, Any], changes: Object, *, manager: str) -> Object:
        """JSON merge patch, in which lists are replaced as a whole; 409 when it is not the object that was seen."""
        seen = live["metadata"]
        preconditions = {"uid": seen["uid"], "resourceVersion": seen["resourceVersion"]}
        return await self._write(
            "patch",
            resource,
            "PATCH",
            resource.path(seen["namespace"], seen["name"]),
            body={**changes, "metadata": preconditions},
            content_type="application/merge-patch+json",
            query={"fieldManager": manager},
        )

    async def create(self, resource: Resource, body: Object) -> Object:
        return await self._write("create", resource, "POST", resource.path(body["metadata"]["namespace"]), body=body)

    async def replace(self, resource: Resource, body: Object) -> Object:
        """Update with the resourceVersion in `body` as precondition (409 when somebody else was faster)."""
        metadata = body["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._write("update", resource, "PUT", path, body=body)

    async def delete(self, resource: Resource, live: Object) -> None:
        """Delete exactly the object that was seen: its uid and resourceVersion are preconditions. Gone is fine."""
        metadata = live["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        path = resource.path(metadata["namespace"], metadata["name"])
        try:
            await self._write("delete", resource, "DELETE", path, body=body)
        except ClusterError as error:
            if not error.not_found:
                raise

    async def _write(self, verb: str, resource: Resource, method: str, path: str, **parameters: Any) -> Object:
        if not self.may_write():
            raise NotLeading(f"not the leader: {method} {path} was not sent")
        return await self._request(verb, resource, method, path, timeout=self.write_timeout, fenced=True, **parameters)

    async def _request(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        body: Object | str | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str | int | None] = _NO_QUERY,
        timeout: float | None = None,
        fenced: bool = False,
    ) -> Object:
        limit = self.timeout if timeout is None else timeout
        status = 0
        stopped = False
        try:
            async with asyncio.timeout(limit):
                request = await self._serialized(method, path, query=query, body=body, content_type=content_type)
                # Asked once more: a token may have been renewed meanwhile, or the process may have been stopped.
                stopped = fenced and not self.may_write()
                if stopped:
                    raise NotLeading(f"no longer the leader: {method} {path} was not sent")
                response = await self.api.call_api(*request)
                content = await response.read()
                status = response.status
        except TimeoutError as exception:
            message = f"the API server did not answer {method} {path} within {limit:g} s"
            raise ClusterError(0, "Timeout", message) from exception
        except (OSError, aiohttp.ClientError, ApiException) as exception:
            raise ClusterError(0, "ConnectionFailed", f"{method} {path} failed: {exception}") from exception
        finally:
            if not stopped:
                self.count(verb, resource.plural, status)
        return _answer(status, content)

    async def _serialized(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None],
        body: Object | str | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """The client's own form of a request, with a token that it renews when it must."""
        return await self.api.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in query.items() if value is not None],
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )


async def _end_of(content: aiohttp.StreamReader, most: int | None) -> bytes:
    """All of a stream, or no more than its last `most` bytes, without the line that begins before them."""
    kept, cut = bytearray(), False
    async for chunk in content.iter_any():
        kept += chunk
        if most is not None and len(kept) > 2 * most:
            del kept[:-most]
            cut = True
    if most is not None and len(kept) > most:
        del kept[:-most]
        cut = True
    return bytes(kept.partition(b"\n")[2] if cut and b"\n" in kept else kept)


def apply_text(body: Object) -> str:
    """`body` as the JSON that the API server's YAML parser takes.

    That parser refuses the surrogate pairs by which JSON escapes an emoji, and the raw form of some other characters:
    what is beyond the basic plane goes raw, everything else that is not ASCII goes escaped.
    """
    text = json.dumps(body, ensure_ascii=False)
    return re.sub("[\x7f-\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _answer(status: int, content: bytes) -> Object:
    """The object in an answer. Raises ClusterError for a refusal, and for what is no JSON object."""
    try:
        answer = orjson.loads(content)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and 200 <= status < 300:
        return answer
    if not isinstance(answer, dict):
        text = content[:300].decode("utf-8", "replace")
        raise ClusterError(0 if status < 400 else status, "NotJson", f"the API server answered {status}: {text}")
    message = str(answer.get("message") or f"the API server answered {status}")
    retry_after = (answer.get("details") or {}).get("retryAfterSeconds")
    raise ClusterError(status, str(answer.get("reason") or "Unknown"), message, retry_after)


def user_agent(what: str) -> str:
    """How requests name themselves in the API server's audit log; `what` tells replicas and commands apart."""
    return f"embedding-operator/{version('embedding-operator')} ({what})"


async def load_configuration() -> Configuration:
    """The connection of the Pod's ServiceAccount, or of KUBECONFIG outside a cluster.

    Raises kubernetes.aio.config.ConfigException when there is neither.
    """
    configuration = Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST") and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(client_configuration=configuration)
    else:
        # Named here, because the client looks KUBECONFIG up only once, when it is imported.
        await config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
    return configuration
