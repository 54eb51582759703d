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
    paused: bool = False
    """Whether somebody paused the Deployment (`kubectl rollout pause`): changes wait until it is resumed."""
    failure: str = ""
    """Why Pods cannot be created: a quota, an admission policy, a Pod Security level. Empty when they can."""

    @property
    def complete(self) -> bool:
        """Whether the current template has arrived, and no Pod of an older one is left."""
        return self.observed and self.arrived and self.updated == self.total and self.total >= self.desired


def rollout_of(deployment: Object) -> Rollout:
    """Read the Deployment's status. Counters it leaves out are zero."""
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    progressing = conditions.get("Progressing") or {}
    failure = conditions.get("ReplicaFailure") or {}
    desired, updated = int(deployment["spec"].get("replicas", 1)), int(status.get("updatedReplicas") or 0)
    available = int(status.get("availableReplicas") or 0)
    paused = bool(deployment["spec"].get("paused"))
    # While it is paused, the Deployment's own word for having arrived is overwritten.
    held = progressing.get("reason") in ("DeploymentPaused", "DeploymentResumed") and updated >= desired <= available
    return Rollout(
        observed=int(status.get("observedGeneration") or 0) >= int(metadata["generation"]),
        desired=desired,
        total=int(status.get("replicas") or 0),
        updated=updated,
        ready=int(status.get("readyReplicas") or 0),
        available=available,
        arrived=progressing.get("reason") == "NewReplicaSetAvailable" or held,
        deadline_exceeded=progressing.get("reason") == "ProgressDeadlineExceeded",
        revision=int((metadata.get("annotations") or {}).get(REVISION_ANNOTATION) or 0),
        message=str(progressing.get("message") or ""),
        paused=paused,
        failure=str(failure.get("message") or "") if failure.get("status") == "True" else "",
    )
