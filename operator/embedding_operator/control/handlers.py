"""kopf's watch of EmbeddingServices: every event is passed on, and nothing more happens in a handler.

No finalizers, no annotations, no timers and no daemons: kopf writes nothing to the cluster here. Children and Pods are
followed by `observe.follow`, because nothing is to be handled there, only to be known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from embedding_operator.api.constants import GROUP, PLURAL, VERSION


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
    settings.watching.chunk_size = 100
    return settings


def build_registry(
    on_event: Callable[[str | None, dict[str, Any]], None], configuration: Callable[[], Any]
) -> kopf.OperatorRegistry:
    """A registry whose handler tells `on_event` the type (None: listed) and the object of every event.

    `configuration` gives the connection afresh each time kopf logs in (tokens rotate).
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection_info(await configuration())

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_event(event: Any, **_: Any) -> None:
        on_event(event["type"], event["object"])

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
