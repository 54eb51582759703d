"""Node objects: what they say about themselves, and their heartbeats."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

from devcluster.errors import ApiError
from devcluster.node.api import Api
from devcluster.node.status import timestamp
from devcluster.settings import ClusterSettings

Object = dict[str, Any]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def node_manifest(settings: ClusterSettings, name: str, address: str, kubelet_port: int) -> Object:
    """The Node object with its whole status. Pure."""
    capacity = {
        "cpu": str(settings.cpus_per_node),
        "memory": settings.memory_per_node,
        "ephemeral-storage": "500Gi",
        "pods": "110",
    }
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "topology.kubernetes.io/zone": "devcluster",
        **settings.node_labels,
    }
    if settings.gpus_per_node:
        capacity[settings.gpu_resource] = str(settings.gpus_per_node)
        labels.setdefault("nvidia.com/gpu.present", "true")
        labels.setdefault("nvidia.com/gpu.count", str(settings.gpus_per_node))
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
            "nodeInfo": {
                "architecture": labels["kubernetes.io/arch"],
                "bootID": "",
                "containerRuntimeVersion": "devcluster://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.1",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "devcluster (processes on this machine)",
                "systemUUID": "",
            },
            "conditions": conditions(datetime.now(UTC)),
        },
    }


def conditions(moment: datetime) -> list[Object]:
    """The conditions of a healthy node. Pure."""

    def condition(kind: str, status: str, reason: str, message: str) -> Object:
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": timestamp(moment),
            "lastTransitionTime": timestamp(moment),
        }

    return [
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]


async def heartbeat(api: Api, name: str, lifetime: float) -> None:
    """Renew the node's Lease, and its conditions when they say anything but healthy.

    Raises:
        ApiError: refused.
        aiohttp.ClientError, TimeoutError: the API server could not be reached.
    """
    now = datetime.now(UTC)
    spec = {
        "holderIdentity": name,
        "leaseDurationSeconds": max(1, round(lifetime)),
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    try:
        await api.patch(f"{_LEASES}/{name}", {"spec": spec})
    except ApiError as problem:
        if problem.status != 404:
            raise
        await api.create(
            _LEASES,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": spec,
            },
        )
    node = await api.get(f"/api/v1/nodes/{name}")
    status = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", ())}
    healthy = conditions(now)
    if any(status.get(condition["type"]) != condition["status"] for condition in healthy):
        await api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": healthy}}, "strategic")
