"""Where a Deployment's rollout stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_operator.observe.snapshot import Object

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment's own account of its Pods, taken only when it is about the Deployment's current generation."""

    observed: bool
    """Whether the Deployment controller has seen the last change. Everything else describes an older spec if not."""
    desired: int
    total: int
    updated: int
    ready: int
    available: int
    arrived: bool
    """Whether the current template has had all its Pods available once. The Deployment controller remembers that: a
    Pod that fails later, or an autoscaler that adds one, makes it no rollout again."""
    deadline_exceeded: bool
    revision: int
    message: str = ""

    @property
    def complete(self) -> bool:
        """Whether the current template has arrived, and no Pod of an older one is left."""
        return self.observed and self.arrived and self.updated == self.total and self.total >= self.desired


def rollout_of(deployment: Object) -> Rollout:
    """Read the Deployment's status. Counters it leaves out are zero."""
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    progressing = conditions.get("Progressing") or {}
    return Rollout(
        observed=int(status.get("observedGeneration") or 0) >= int(metadata["generation"]),
        desired=int(deployment["spec"].get("replicas", 1)),
        total=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        arrived=progressing.get("reason") == "NewReplicaSetAvailable",
        deadline_exceeded=progressing.get("reason") == "ProgressDeadlineExceeded",
        revision=int((metadata.get("annotations") or {}).get(REVISION_ANNOTATION) or 0),
        message=str(progressing.get("message") or ""),
    )
