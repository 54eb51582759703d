"""kopf's watches: every event names a resource to look at, and nothing more happens in a handler.

No finalizers, no annotations, no timers and no daemons: kopf writes nothing to the cluster here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import kopf
from kubernetes.aio.client import Configuration

from embedding_operator.api.constants import GROUP, PLURAL, SERVICE_LABEL, VERSION
from embedding_operator.control.queue import Key

COALESCE_SECONDS: Final = 0.05
"""Events come in bursts: a short wait makes one look of many."""

_CHILDREN: Final = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("", "v1", "pods"),
)


def watch_settings() -> kopf.OperatorSettings:
    """kopf's settings: explicit timeouts, server-side selectors, nothing posted, nothing scanned."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.process.ultimate_exiting_timeout = 20
    for child in _CHILDREN:
        settings.watching.label_selectors[child] = SERVICE_LABEL
    return settings


def build_registry(
    on_key: Callable[[Key, float], None],
    on_gone: Callable[[Key], None],
    configuration: Callable[[], Any],
    heard: Callable[[float], None],
) -> kopf.OperatorRegistry:
    """A registry whose handlers call `on_key` with the resource to look at and a short delay.

    `on_gone` is told of deleted resources, `heard` the time of every event, `configuration` gives the connection
    afresh each time kopf logs in (tokens rotate).
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection_info(await configuration())

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_event(event: Any, namespace: str | None, name: str | None, **_: Any) -> None:
        heard(time.time())
        key = (namespace or "", name or "")
        if event["type"] == "DELETED":
            on_gone(key)
        on_key(key, COALESCE_SECONDS)

    async def child_event(body: Any, namespace: str | None, **_: Any) -> None:
        heard(time.time())
        name = (body["metadata"].get("labels") or {}).get(SERVICE_LABEL)
        if name and namespace:
            on_key((namespace, name), COALESCE_SECONDS)

    for group, version, plural in _CHILDREN:
        kopf.on.event(group, version, plural, registry=registry, id=f"child-{plural}")(child_event)
    return registry


def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The client's configuration as kopf wants it."""
    header = configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization") or ""
    _, _, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
