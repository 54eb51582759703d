"""Which Pods belong to autoscaled services, from what the operator's own watches deliver on every replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedding_operator.api.kinds import HORIZONTAL_POD_AUTOSCALERS, PODS
from embedding_operator.observe.mirror import Mirror
from embedding_operator.observe.pods import may_be_asked


@dataclass(frozen=True, slots=True)
class Target:
    """One Pod of an autoscaled service. `ip` is None when there is nothing that could be asked."""

    namespace: str
    name: str
    uid: str
    ip: str | None
    tls: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Directory:
    """The Pods of autoscaled services: of those that have a HorizontalPodAutoscaler, for nobody else asks."""

    mirror: Mirror

    @property
    def filled(self) -> bool:
        """Whether everything has been seen once; before that nothing can be said of what is missing. What was seen
        stands while the API server is away: figures have times of their own, and Pods are asked all the same."""
        kinds = (HORIZONTAL_POD_AUTOSCALERS, PODS)
        return all(scope.listed for (kind, _), scope in self.mirror.scopes.items() if kind in kinds)

    def targets(self) -> Iterator[Target]:
        """Every Pod of an autoscaled service that is not on its way out."""
        autoscalers = self.mirror.shelves[HORIZONTAL_POD_AUTOSCALERS].entries
        services = {(namespace, entry.service) for (namespace, _), entry in autoscalers.items()}
        for namespace, service in sorted(services):
            for pod in self.mirror.pods(namespace, service):
                if not pod.terminating:
                    ip = pod.ip if may_be_asked(pod) else None
                    yield Target(namespace, pod.name, pod.uid, ip, pod.tls, pod.labels)
