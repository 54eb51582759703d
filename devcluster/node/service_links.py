"""The variables by which a container learns of the Services that exist when it starts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")


def service_variables(services: Iterable[Object]) -> dict[str, str]:
    """kubelet's variables for Services with a ClusterIP: `NAME_SERVICE_HOST`, `NAME_PORT=tcp://…` and the others.

    They are why a Service named like a program's settings prefix can break that program.
    """
    variables: dict[str, str] = {}
    for service in services:
        spec, name = service["spec"], _upper(service["metadata"]["name"])
        address, ports = spec.get("clusterIP"), spec.get("ports", ())
        if address in (None, "", "None") or not ports:
            continue
        first = ports[0]
        variables[f"{name}_SERVICE_HOST"] = address
        variables[f"{name}_SERVICE_PORT"] = str(first["port"])
        protocol = first.get("protocol", "TCP")
        variables[f"{name}_PORT"] = f"{protocol.lower()}://{address}:{first['port']}"
        for port in ports:
            protocol = port.get("protocol", "TCP")
            if port.get("name"):
                variables[f"{name}_SERVICE_PORT_{_upper(port['name'])}"] = str(port["port"])
            prefix = f"{name}_PORT_{port['port']}_{protocol}"
            variables[prefix] = f"{protocol.lower()}://{address}:{port['port']}"
            variables[f"{prefix}_PROTO"] = protocol.lower()
            variables[f"{prefix}_PORT"] = str(port["port"])
            variables[f"{prefix}_ADDR"] = address
    return variables
