"""Makes the cluster hold what was rendered: server-side apply, checked ownership, deletion of what is no longer asked.

Nothing changed means no request. A same-named object that is not ours is never changed and never deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedding_operator.act.difference import differences
from embedding_operator.act.ownership import lost
from embedding_operator.api.constants import FIELD_MANAGER, KIND, REPLICAS_FIELD_MANAGER
from embedding_operator.api.kinds import BY_KIND, DEPLOYMENTS, Resource
from embedding_operator.cluster import ClusterClient, ClusterError, Object
from embedding_operator.errors import OperatorError, Retry, Waiting
from embedding_operator.observe.snapshot import Snapshot, is_controlled_by

APPLIED_ANNOTATION = "embedding-operator.io/applied"
"""On every child: a hash of what was rendered. It tells a field that is no longer rendered from one never rendered."""


class Refused(OperatorError):
    """The API server refuses a child as it was rendered: a quota, an admission policy, an impossible value."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write that was made."""

    verb: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()
    """Paths that differed, for an update."""
    live: Mapping[str, Any] | None = None
    """The object after the write; None after a deletion. What is judged next must not be older than this."""


def after(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """The snapshot with the children as they are after `changes`."""
    children = dict(snapshot.children)
    for change in changes:
        if change.live is not None:
            children[_key(change.live)] = change.live
        else:
            gone = [key for key in children if key[1:] == (change.kind, change.name)]
            for key in gone:
                del children[key]
    return replace(snapshot, children=children)


def _key(body: Mapping[str, Any]) -> tuple[str, str, str]:
    return body["apiVersion"], body["kind"], body["metadata"]["name"]


def stamped(body: Mapping[str, Any]) -> Object:
    """The rendered child with the hash of itself as an annotation."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    metadata = body["metadata"]
    stamp = {APPLIED_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return {**body, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **stamp}}}


def foreign(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[str, ...]:
    """The rendered children whose name somebody else's object has, as `Kind/name`."""
    return tuple(
        f"{body['kind']}/{body['metadata']['name']}"
        for body in rendered
        if (live := snapshot.children.get(_key(body))) is not None and not is_controlled_by(live, snapshot.uid)
    )


def leftovers(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[Mapping[str, Any], ...]:
    """Our own live children that are no longer rendered."""
    wanted = {_key(body) for body in rendered}
    return tuple(
        live
        for key, live in snapshot.children.items()
        if key not in wanted and is_controlled_by(live, snapshot.uid) and "deletionTimestamp" not in live["metadata"]
    )


def terminating(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[str, ...]:
    """The rendered children whose name is still taken by an object of an earlier EmbeddingService of this name, or of
    our own, that is being deleted. They make room by themselves."""
    return tuple(
        f"{body['kind']}/{body['metadata']['name']}"
        for body in rendered
        if (live := snapshot.children.get(_key(body))) is not None
        and ("deletionTimestamp" in live["metadata"] or _is_orphan(live, snapshot))
    )


def _is_orphan(live: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Whether its controller was an EmbeddingService of the same name that is no more: the garbage collector's."""
    return any(
        reference.get("controller")
        and reference.get("kind") == KIND
        and reference.get("name") == snapshot.name
        and reference.get("uid") != snapshot.uid
        for reference in live["metadata"].get("ownerReferences") or ()
    )


def without_rival_ports(body: Mapping[str, Any], live: Mapping[str, Any]) -> Object | None:
    """A merge patch that leaves only our own ports, or None where there are no others. Pure.

    Ports are told apart by their number. Who changes a number by hand has, for server-side apply, added another port
    with our port's name, and no name may be there twice: applying ours beside it is refused.
    """
    if body["kind"] == "Service" and live["spec"].get("ports") != body["spec"]["ports"]:
        return {"spec": {"ports": body["spec"]["ports"]}}
    if body["kind"] != "Deployment":
        return None
    ours = {it["name"]: it["ports"] for it in body["spec"]["template"]["spec"]["containers"] if "ports" in it}
    containers = live["spec"]["template"]["spec"]["containers"]
    mended = [{**it, "ports": ours[it["name"]]} if it["name"] in ours else it for it in containers]
    return {"spec": {"template": {"spec": {"containers": mended}}}} if mended != containers else None


def _to_repair(body: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of rendered fields that have another value, or that somebody else has set since we did."""
    return tuple(dict.fromkeys((*differences(body, live), *lost(body, live, FIELD_MANAGER))))


@dataclass(slots=True)
class Applier:
    """Applies children. One for the whole operator."""

    cluster: ClusterClient
    _seen_equal: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Child uid -> (hash applied, resourceVersion) that the API server answered with although our comparison still
    sees a difference (a value it stores in a form of its own): not applied again until either changes."""

    def is_needed(
        self, rendered: Sequence[Mapping[str, Any]], snapshot: Snapshot, *, hand_over: int | None = None
    ) -> bool:
        """Whether `apply` would do anything but nothing, as far as this snapshot tells."""
        if hand_over is not None or leftovers(rendered, snapshot):
            return True
        for body in map(stamped, rendered):
            live = snapshot.children.get(_key(body))
            if live is None or not is_controlled_by(live, snapshot.uid) or "deletionTimestamp" in live["metadata"]:
                return True
            if _to_repair(body, live) and not self._stays_different(body, live):
                return True
        return False

    def _stays_different(self, body: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
        stamp = body["metadata"]["annotations"][APPLIED_ANNOTATION]
        return self._seen_equal.get(live["metadata"]["uid"]) == (stamp, live["metadata"]["resourceVersion"])

    async def apply(
        self, rendered: Sequence[Mapping[str, Any]], snapshot: Snapshot, *, hand_over: int | None = None
    ) -> tuple[Change, ...]:
        """Create, repair and delete until the cluster holds `rendered`.

        `hand_over` is a replica count to hold under a second manager while our own ownership of it ends.
        Raises OperatorError: NameTaken, Forbidden, Refused (the author or an administrator must act), Waiting or Retry.
        """
        leaving = terminating(rendered, snapshot)
        if leaving:
            text = f"{', '.join(leaving)} of before is being deleted; its name will be free soon"
            raise Waiting(text, reason="WaitingForDeletion", seconds=2.0)
        taken = foreign(rendered, snapshot)
        if taken:
            raise OperatorError(
                f"{', '.join(taken)} exists and does not belong to this EmbeddingService; rename one of them",
                reason="NameTaken",
            )
        changes: list[Change | None] = []
        refusals: list[OperatorError] = []
        for body in rendered:
            held = hand_over if body["kind"] == "Deployment" else None
            try:
                changes.append(await self._apply_one(stamped(body), snapshot, held))
            except (Retry, Waiting):
                raise
            except OperatorError as error:
                if body["kind"] == "NetworkPolicy":
                    raise  # nothing runs that was meant to be guarded and is not
                refusals.append(error)
        changes += [await self._delete(live) for live in leftovers(rendered, snapshot)]
        if refusals:
            # Only now: what is wrong with one child must not keep the others from being repaired.
            raise refusals[0]
        return tuple(change for change in changes if change is not None)

    async def _apply_one(self, body: Object, snapshot: Snapshot, hand_over: int | None) -> Change | None:
        live = snapshot.children.get(_key(body))
        resource = BY_KIND[body["apiVersion"], body["kind"]]
        name = body["metadata"]["name"]
        try:
            if live is None:
                # Without force: should somebody create the same name in this moment, that is a conflict, not ours.
                created = await self.cluster.apply(resource, body, manager=FIELD_MANAGER, force=False)
                return Change("created", body["kind"], name, live=created)
            fields = _to_repair(body, live)
            stamp = body["metadata"]["annotations"][APPLIED_ANNOTATION]
            uid = live["metadata"]["uid"]
            if (not fields or self._stays_different(body, live)) and hand_over is None:
                return None
            if hand_over is not None:
                await self._hold_replicas(body, live, hand_over)
            body["metadata"]["uid"] = uid
            answer = await self._force(resource, body, live)
            if _to_repair(body, answer):
                self._seen_equal[uid] = (stamp, answer["metadata"]["resourceVersion"])
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
        if error.status == 403 and error.reason == "Forbidden" and "exceeded quota" in error.message:
            return Refused(f"{child}: {error.message}", reason="Refused")
        if error.status == 403 and "being terminated" in error.message:
            return Waiting(f"{child}: {error.message}", reason="RetryingAfterError", seconds=30.0)
        if error.forbidden:
            return OperatorError(f"{child}: {error.message}", reason="Forbidden")
        if error.invalid:
            return Refused(f"{child}: {error.message}", reason="Refused")
        return Retry(f"{child}: {error.message}", after=error.retry_after)
