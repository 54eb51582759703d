"""GPUs for dynamic resource allocation: a DeviceClass, and a ResourceSlice per node. Pure.

The scheduler and the resource-claim controller do the allocation; a driver on the node has nothing to do here, since a
container that gets a device is a process of this machine.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
DRIVER = "gpu.nvidia.com"
CLASSES = "/apis/resource.k8s.io/v1/deviceclasses"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def device_class() -> Object:
    """The class that claims name, as NVIDIA's driver calls it."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": DRIVER},
        "spec": {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]},
    }


def resource_slice(node: Object, devices: int) -> Object:
    """The devices of one node; `node` is the Node object as the API has it."""
    name = node["metadata"]["name"]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "name": f"{name}-{DRIVER}",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"], "controller": True}
            ],
        },
        "spec": {
            "driver": DRIVER,
            "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {"name": f"gpu-{index}", "attributes": {"productName": {"string": "devcluster GPU"}}}
                for index in range(devices)
            ],
        },
    }
