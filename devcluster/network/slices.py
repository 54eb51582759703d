"""EndpointSlices for Services whose Pods have loopback addresses. Pure.

The API refuses loopback addresses in a slice, so each endpoint gets an address of the documentation range 192.0.2.0/24
and says by `targetRef` which Pod it is. Who needs an address to connect to uses the Service's; what reads slices to
see whether somebody is ready, such as the API server's aggregation layer, sees the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devcluster.network.backends import Backend

Object = dict[str, Any]


def slice_name(service: str) -> str:
    """The name of a Service's one slice."""
    return f"{service}-devcluster"


def slice_manifest(service: Object, found: Sequence[Backend]) -> Object:
    """The slice of a Service."""
    metadata = service["metadata"]
    ports: list[Object] = []
    for port in service["spec"].get("ports", ()):
        name = port.get("name", "")
        numbers = [backend.ports[name] for backend in found if name in backend.ports]
        if numbers:
            ports.append({"name": name, "protocol": port.get("protocol", "TCP"), "port": numbers[0]})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": {
                "kubernetes.io/service-name": metadata["name"],
                "endpointslice.kubernetes.io/managed-by": "devcluster",
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [f"192.0.2.{index % 254 + 1}"],
                "nodeName": backend.node,
                "conditions": {
                    "ready": backend.ready,
                    "serving": backend.serving,
                    "terminating": backend.terminating,
                },
                "targetRef": {
                    "kind": "Pod",
                    "name": backend.name,
                    "namespace": metadata["namespace"],
                    "uid": backend.uid,
                },
            }
            for index, backend in enumerate(found)
        ],
        "ports": ports,
    }
