"""Every object a service may own, so that those no longer asked for can be found and deleted."""

from __future__ import annotations

from typing import NamedTuple

from embedding_operator.api.kinds import CHILD_KINDS, CONFIG_MAPS, Resource


class ChildReference(NamedTuple):
    """One object by kind and name, in the namespace of its service."""

    resource: Resource
    name: str


def child_name(service_name: str, kind: Resource) -> str:
    """The child's name: the service's own, but for the dashboard's ConfigMap, whose kind says too little."""
    return f"{service_name}-dashboard" if kind is CONFIG_MAPS else service_name


def inventory(service_name: str) -> tuple[ChildReference, ...]:
    """Every object a service may own, whether it asks for it now or not, and whether its spec is understood or not."""
    return tuple(ChildReference(kind, child_name(service_name, kind)) for kind in CHILD_KINDS)
