"""What the cluster should hold: one pure function per child kind."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService

from .context import Child, RenderContext, Strategy
from .inventory import ChildKind, ChildReference, inventory

__all__ = ["Child", "ChildKind", "ChildReference", "RenderContext", "Strategy", "inventory", "render"]


def render(service: EmbeddingService, context: RenderContext) -> tuple[Child, ...]:
    """Every object the service asks for, in the order in which to apply them.

    Pure and deterministic: the same service and context give the same children. Quantities are in the form the API
    server stores, so that nothing differs when nothing changed.
    """
    return ()
