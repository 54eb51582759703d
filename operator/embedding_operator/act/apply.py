"""Makes the cluster hold what was rendered: server-side apply, checked ownership, deletion of what is no longer asked.

Nothing changed means no request. A same-named object that is not ours is never changed and never deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedding_operator.act.children import (
    APPLIED_ANNOTATION,
    foreign,
    is_foreign,
    is_terminating,
    key_of_child,
    leftovers,
    stamped,
    terminating,
    to_repair,
    without_rival_ports,
)
from embedding_operator.act.outcome import Change, Outcome
from embedding_operator.api.constants import FIELD_MANAGER, REPLICAS_FIELD_MANAGER
from embedding_operator.api.kinds import BY_KIND, DEPLOYMENTS, Resource
from embedding_operator.cluster import ClusterClient, ClusterError, Object
from embedding_operator.errors import OperatorError, Retry, Waiting
from embedding_operator.observe.follow import Key
from embedding_operator.observe.snapshot import Snapshot, is_controlled_by


class Refused(OperatorError):
    """The API server refuses a child as it was rendered: a quota, an admission policy, an impossible value."""


def _obstacles(rendered: Sequence[Mapping[str, Any]], snapshot: Snapshot) -> list[OperatorError]:
    """What keeps some of the children from being applied at all. Pure."""
    leaving = terminating(rendered, snapshot)
    if leaving:
        text = f"{', '.join(leaving)} of before is being deleted; its name will be free soon"
        return [Waiting(text, reason="WaitingForDeletion", seconds=2.0)]
    taken = foreign(rendered, snapshot)
    if taken:
        text = f"{', '.join(taken)} exists and does not belong to this EmbeddingService; rename one of them"
        return [OperatorError(text, reason="NameTaken")]
    return []


@dataclass(slots=True)
class _Work:
    """Writes under way: what was changed, what failed, and whether it is any use to go on."""

    failures: list[OperatorError]
    changes: list[Change] = field(default_factory=list)
    stopped: bool = False

    async def attempt(self, write: Awaitable[Change | None]) -> bool:
        """Make one write; whether it did what it should. What may pass by itself stops the rest."""
        try:
            change = await write
        except OperatorError as error:
            self.failures.append(error)
            self.stopped = isinstance(error, Retry | Waiting)
            return False
        if change is not None:
            self.changes.append(change)
        return True


@dataclass(slots=True)
class Applier:
    """Applies children. One for the whole operator."""

    cluster: ClusterClient
    _seen_equal: defaultdict[Key, dict[str, tuple[str, str]]] = field(default_factory=lambda: defaultdict(dict))
    """By service: child uid -> (hash applied, resourceVersion) that the API server answered with although our
    comparison still sees a difference (a value it stores in a form of its own): not applied again until either
    changes."""

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._seen_equal.pop(key, None)

    def clear(self) -> None:
        """Somebody else applies from now on."""
        self._seen_equal.clear()

    def is_needed(
        self, rendered: Sequence[Mapping[str, Any]], snapshot: Snapshot, *, hand_over: int | None = None
    ) -> bool:
        """Whether `apply` would do anything but nothing, as far as this snapshot tells."""
        if hand_over is not None or leftovers(rendered, snapshot):
            return True
        for body in map(stamped, rendered):
            if snapshot.is_unread(body):
                continue
            live = snapshot.children.get(key_of_child(body))
            if live is None or not is_controlled_by(live, snapshot.uid) or "deletionTimestamp" in live["metadata"]:
                return True
            if to_repair(body, live) and not self._stays_different(snapshot, body, live):
                return True
        return False

    def _stays_different(self, snapshot: Snapshot, body: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
        stamp = body["metadata"]["annotations"][APPLIED_ANNOTATION]
        seen = self._seen_equal.get((snapshot.namespace, snapshot.name)) or {}
        return seen.get(live["metadata"]["uid"]) == (stamp, live["metadata"]["resourceVersion"])

    async def apply(
        self, rendered: Sequence[Mapping[str, Any]], snapshot: Snapshot, *, hand_over: int | None = None
    ) -> Outcome:
        """Create, repair and delete until the cluster holds `rendered`, as far as it can be.

        What is wrong with one child keeps no other from being repaired, with two exceptions: nothing is begun for a
        service that does not run yet while a name is taken or not free yet, and a Deployment is not touched while the
        NetworkPolicy that is to guard it is not as rendered. Kinds that could not be read are left as they are.
        `hand_over` is a replica count to hold under a second manager while our own ownership of it ends.
        """
        failures = _obstacles(rendered, snapshot)
        if failures and snapshot.deployment is None:
            return Outcome((), tuple(failures))
        work = _Work(failures)
        guarded = True
        for body in rendered:
            if work.stopped:
                break
            if body["kind"] == "Deployment" and not guarded:
                continue
            held = hand_over if body["kind"] == "Deployment" else None
            touchable = not (snapshot.is_unread(body) or is_foreign(body, snapshot) or is_terminating(body, snapshot))
            done = touchable and await work.attempt(self._apply_one(stamped(body), snapshot, held))
            guarded = guarded and (done or body["kind"] != "NetworkPolicy")
        for live in leftovers(rendered, snapshot):
            if work.stopped:
                break
            await work.attempt(self._delete(live))
        self._forget_gone(snapshot)
        return Outcome(tuple(work.changes), tuple(work.failures))

    def _forget_gone(self, snapshot: Snapshot) -> None:
        """Children come and go; what was remembered of those that went is of no use."""
        key = (snapshot.namespace, snapshot.name)
        there = {live["metadata"]["uid"] for live in snapshot.children.values()}
        kept = {uid: seen for uid, seen in self._seen_equal.pop(key, {}).items() if uid in there}
        if kept:
            self._seen_equal[key] = kept

    async def _apply_one(self, body: Object, snapshot: Snapshot, hand_over: int | None) -> Change | None:
        live = snapshot.children.get(key_of_child(body))
        resource = BY_KIND[body["apiVersion"], body["kind"]]
        name = body["metadata"]["name"]
        try:
            if live is None:
                # Without force: should somebody create the same name in this moment, that is a conflict, not ours.
                created = await self.cluster.apply(resource, body, manager=FIELD_MANAGER, force=False)
                return Change("created", body["kind"], name, live=created)
            fields = to_repair(body, live)
            stamp = body["metadata"]["annotations"][APPLIED_ANNOTATION]
            uid = live["metadata"]["uid"]
            if (not fields or self._stays_different(snapshot, body, live)) and hand_over is None:
                return None
            if hand_over is not None:
                await self._hold_replicas(body, live, hand_over)
            body["metadata"]["uid"] = uid
            answer = await self._force(resource, body, live)
            seen = self._seen_equal[snapshot.namespace, snapshot.name]
            seen.pop(uid, None)
            if to_repair(body, answer):
                seen[uid] = (stamp, answer["metadata"]["resourceVersion"])
            return Change("updated", body["kind"], name, fields, answer)
        except ClusterError as error:
            raise self._consequence(error, f"{body['kind']}/{name}") from error

    async def _force(self, resource: Resource, body: Object, live: Mapping[str, Any]) -> Object:
        try:
            return await self.cluster.apply(resource, body, manager=FIELD_MANAGER, force=True)
        except ClusterError as error:
            rivals = without_rival_ports(body, live) if error.invalid else None
            if rivals is None:
                raise
            await self.cluster.merge(resource, live, rivals, manager=FIELD_MANAGER)
            return await self.cluster.apply(resource, body, manager=FIELD_MANAGER, force=True)

    async def _hold_replicas(self, body: Object, live: Mapping[str, Any], count: int) -> None:
        metadata = body["metadata"]
        held = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": live["metadata"]["uid"]},
            "spec": {"replicas": count},
        }
        await self.cluster.apply(DEPLOYMENTS, held, manager=REPLICAS_FIELD_MANAGER, force=True)

    async def _delete(self, live: Mapping[str, Any]) -> Change:
        resource = BY_KIND[live["apiVersion"], live["kind"]]
        name = live["metadata"]["name"]
        try:
            await self.cluster.delete(resource, dict(live))
        except ClusterError as error:
            raise self._consequence(error, f"{live['kind']}/{name}") from error
        return Change("deleted", live["kind"], name)

    @staticmethod
    def _consequence(error: ClusterError, child: str) -> OperatorError:
        if error.status == 403 and "being terminated" in error.message:
            return Waiting(f"{child}: {error.message}", reason="RetryingAfterError", seconds=30.0)
        if error.lacks_api:
            text = f"{child}: the cluster does not have this kind of object: install what brings it, or switch it off"
            return Refused(text, reason="Refused")
        if error.lacks_rights:
            return OperatorError(f"{child}: {error.message}", reason="Forbidden")
        if error.invalid or error.forbidden:
            return Refused(f"{child}: {error.message}", reason="Refused")
        return Retry(f"{child}: {error.message}", after=error.retry_after)
