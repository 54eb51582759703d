"""Who may ask: the API server's front proxy, by a client certificate that the cluster's own configuration describes.

The API server authenticates and authorises people before it proxies to an extension, and proves itself with a client
certificate. What it is signed by stands in the ConfigMap `kube-system/extension-apiserver-authentication`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.metrics_api.answers import Refusal

NAMESPACE: Final = "kube-system"
CONFIG_MAP: Final = "extension-apiserver-authentication"


class NoFrontProxy(Exception):
    """The cluster's configuration names no front proxy that could be verified."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """What the front proxy's certificate must be, and how it names the user it asks for."""

    authority: str
    """PEM of the authorities that sign its client certificate."""
    allowed_names: frozenset[str]
    """Common names it may have; empty is any, as for the API server's own extensions."""
    user_headers: tuple[str, ...]

    def check(self, common_name: str | None, headers: Mapping[str, str]) -> None:
        """Raise Refusal unless the request comes from the front proxy on behalf of somebody.

        `common_name` is that of the verified client certificate, None without one.
        """
        if common_name is None:
            raise Refusal(401, "Unauthorized", "ask through the API server: no client certificate was given")
        if self.allowed_names and common_name not in self.allowed_names:
            raise Refusal(403, "Forbidden", f"the client certificate of {common_name!r} is not the front proxy's")
        if not any(headers.get(header) for header in self.user_headers):
            raise Refusal(401, "Unauthorized", f"no user is named in {' or '.join(self.user_headers)}")


def parse(config_map: Mapping[str, Any] | None) -> FrontProxy:
    """The front proxy that the ConfigMap describes. Raises NoFrontProxy."""
    where = f"ConfigMap {NAMESPACE}/{CONFIG_MAP}"
    if config_map is None:
        raise NoFrontProxy(f"{where} does not exist: the API server's aggregation layer is not configured")
    data = config_map.get("data") or {}
    authority = str(data.get("requestheader-client-ca-file") or "")
    if "BEGIN CERTIFICATE" not in authority:
        raise NoFrontProxy(f"{where} holds no requestheader-client-ca-file: the aggregation layer is not configured")
    names = _names(data, "requestheader-allowed-names", where)
    users = _names(data, "requestheader-username-headers", where) or ("X-Remote-User",)
    return FrontProxy(authority, frozenset(names), users)


def _names(data: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    try:
        names = json.loads(data.get(key) or "[]")
    except ValueError as error:
        raise NoFrontProxy(f"{where}: {key} is not JSON") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NoFrontProxy(f"{where}: {key} is no list of names")
    return tuple(names)
