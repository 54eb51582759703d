"""Objects by the names that kubectl knows (`deployment`, `hpa`, `pods`), read without starting a kubectl each time.

Whoever waits for something reads it several times a second, and a kubectl costs forty times as much as its request.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from devcluster.control.certificates import KeyPair
from devcluster.errors import ApiError

Object = dict[str, Any]

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Kind:
    """Where the objects of a kind are."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The path of one object, or of all in a namespace (None: everywhere). Pure."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{quote(name)}" if name else "")


def kinds_of(*discoveries: Mapping[str, Any]) -> dict[str, Kind]:
    """Every name by which kubectl knows a kind, from aggregated discovery; who comes first keeps a name. Pure."""
    found: dict[str, Kind] = {}
    for group in (item for discovery in discoveries for item in discovery["items"]):
        group_name = group["metadata"].get("name", "")
        for version in group["versions"]:
            api_version = f"{group_name}/{version['version']}" if group_name else version["version"]
            for resource in version.get("resources") or ():
                answer, plural = resource["responseKind"], resource["resource"]
                kind = Kind(api_version, answer["kind"], plural, resource["scope"] == "Namespaced")
                names = (plural, resource.get("singularResource") or plural, *(resource.get("shortNames") or ()))
                for name in (*names, answer["kind"].lower()):
                    found.setdefault(name, kind)
                    found.setdefault(f"{name}.{group_name}", kind)
    return found


class Reader:
    """Reads with a client certificate; may be used by several threads. Every method raises ApiError for a refusal, and
    OSError or http.client.HTTPException when the server cannot be reached."""

    def __init__(self, server: str, authority: Path, client: KeyPair) -> None:
        self._host = urlsplit(server).netloc
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(client.certificate, client.key)
        self._lock = threading.Lock()
        self._connection: http.client.HTTPSConnection | None = None
        self._kinds: dict[str, Kind] = {}

    def get(self, kind: str, name: str, namespace: str) -> Object | None:
        """One object; None when there is none of that name."""
        path = self._kind(kind).path(namespace, name)
        try:
            return _shown(self._ask(path))
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise

    def objects(self, kinds: str, namespace: str | None, selector: str) -> Iterator[Object]:
        """All objects of these kinds, separated by commas; `namespace` None: of all namespaces."""
        for name in kinds.split(","):
            kind = self._kind(name)
            for item in self._ask(f"{kind.path(namespace)}?labelSelector={quote(selector)}")["items"]:
                yield _shown({"apiVersion": kind.api_version, "kind": kind.kind, **item})

    def _kind(self, name: str) -> Kind:
        if name.lower() not in self._kinds:
            self._kinds = kinds_of(self._ask("/api", _DISCOVERY), self._ask("/apis", _DISCOVERY))
        try:
            return self._kinds[name.lower()]
        except KeyError:
            raise ApiError(404, "NotFound", f"the server has no resource type {name!r}") from None

    def __del__(self) -> None:
        # Who is killed with its cluster does not close anything.
        with suppress(AttributeError):
            self.close()

    def close(self) -> None:
        """End the connection; a later question opens another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str, accept: str = "application/json") -> Object:
        with self._lock:
            try:
                status, content = self._exchange(path, accept)
            except (OSError, http.client.HTTPException):
                # A connection that was kept may have ended since; a new one that fails is a fault.
                status, content = self._exchange(path, accept)
        if status >= 400:
            text = content.decode("utf-8", "replace")
            said = json.loads(text) if text.startswith("{") else {}
            raise ApiError(status, said.get("reason", ""), said.get("message", text[:500]))
        found: Object = json.loads(content)
        return found

    def _exchange(self, path: str, accept: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self._host, timeout=TIMEOUT_SECONDS, context=self._context)
        try:
            self._connection.request("GET", path, headers={"Accept": accept, "User-Agent": "devcluster"})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self._end()
            raise


def _shown(item: Object) -> Object:
    """An object as kubectl shows it: without its field managers. Pure."""
    item["metadata"].pop("managedFields", None)
    return item
