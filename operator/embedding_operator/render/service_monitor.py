"""The ServiceMonitor, for clusters with the Prometheus operator."""

from __future__ import annotations

from typing import Any

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import METRICS_PATH, METRICS_PORT_NAME, PORT_NAME
from embedding_operator.api.kinds import SERVICE_MONITORS

from .context import Child
from .metadata import child, selector
from .ports import extra_ports


def service_monitor(service: EmbeddingService) -> Child:
    """Scrapes every Pod behind the Service. Its labels are those by which Prometheus selects it, beside the child's."""
    settings = service.spec.monitoring.service_monitor
    endpoint: dict[str, Any] = {"port": PORT_NAME, "path": METRICS_PATH, "interval": settings.interval}
    if service.spec.runtime.tls is not None:
        # Pods are scraped by address, which no certificate names; metrics hold no secret.
        endpoint |= {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
    return child(
        service,
        SERVICE_MONITORS,
        extra_labels=settings.labels,
        spec={"selector": {"matchLabels": selector(service)}, "endpoints": [endpoint, *_of_inference_server(service)]},
    )


def _of_inference_server(service: EmbeddingService) -> list[dict[str, Any]]:
    """The metrics of the server inside NVIDIA's image, always plain HTTP."""
    if METRICS_PORT_NAME not in extra_ports(service):
        return []
    interval = service.spec.monitoring.service_monitor.interval
    return [{"port": METRICS_PORT_NAME, "path": "/metrics", "interval": interval}]
