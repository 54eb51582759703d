"""The ports of the runtime container: one for HTTP, and of NVIDIA's images further ones where the spec opens them."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import GRPC_PORT_NAME, METRICS_PORT_NAME


def extra_ports(service: EmbeddingService) -> dict[str, int]:
    """Name -> number of every port beside the one for HTTP. Container and Service have the same."""
    nim = service.spec.runtime.nim
    if nim is None:
        return {}
    ports = {GRPC_PORT_NAME: nim.grpc_port, METRICS_PORT_NAME: nim.metrics_port}
    return {name: port for name, port in ports.items() if port is not None}
