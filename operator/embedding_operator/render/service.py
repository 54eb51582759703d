"""The Service in front of the Pods."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import PORT_NAME
from embedding_operator.api.kinds import SERVICES

from .context import Child
from .metadata import child, selector
from .ports import extra_ports


def service(owner: EmbeddingService) -> Child:
    """The Service; it has the name of the EmbeddingService and is the host of its URL."""
    settings = owner.spec.service
    return child(
        owner,
        SERVICES,
        extra_labels=settings.labels,
        annotations=settings.annotations,
        spec={
            "type": settings.type.value,
            "selector": selector(owner),
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                for name, port in {PORT_NAME: settings.port, **extra_ports(owner)}.items()
            ],
        },
    )
