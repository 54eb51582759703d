"""What the cluster should hold: one pure function per child kind."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService

from .context import Child, RenderContext, Strategy
from .dashboard import dashboard
from .deployment import deployment
from .horizontal_pod_autoscaler import horizontal_pod_autoscaler
from .inventory import ChildReference, inventory
from .network_policy import network_policy
from .pod_disruption_budget import pod_disruption_budget
from .prometheus_rule import prometheus_rule
from .service import service as service_child
from .service_monitor import service_monitor

__all__ = ["Child", "ChildReference", "RenderContext", "Strategy", "inventory", "render"]


def render(service: EmbeddingService, context: RenderContext) -> tuple[Child, ...]:
    """Every object the service asks for, in the order in which to apply them.

    Pure and deterministic: the same service and context give the same children. Quantities are in the form the API
    server stores, so that nothing differs when nothing changed.
    """
    spec = service.spec
    children: list[Child] = []
    if spec.network_policy.enabled:
        children.append(network_policy(service, context))
    children += [service_child(service), deployment(service, context)]
    if spec.autoscaling is not None:
        children.append(horizontal_pod_autoscaler(service, spec.autoscaling))
    if spec.disruption_budget.enabled:
        children.append(pod_disruption_budget(service))
    if spec.monitoring.service_monitor.enabled:
        children.append(service_monitor(service))
    if spec.monitoring.alerts.enabled and not spec.suspend:
        children.append(prometheus_rule(service))
    if spec.monitoring.dashboard.enabled:
        children.append(dashboard(service))
    return tuple(children)
