"""The mirror: never older than what was known, no news of own writes, no ghosts, nothing old passed off as fresh."""

from __future__ import annotations

from typing import Any

import pytest
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.api.kinds import DEPLOYMENTS, EMBEDDING_SERVICES, PODS, SERVICES
from embedding_operator.cluster import ClusterError
from embedding_operator.observe.mirror import Mirror

LIMIT = 10.0
LABEL = "embedding-operator.io/service"
OURS = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}}
OTHERS = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}


def child(name: str, version: int, *, uid: str = "u", owner: str | None = "a", **metadata: Any) -> dict[str, Any]:
    references = [] if owner is None else [{"kind": "EmbeddingService", "name": owner, "controller": True, "uid": "o"}]
    return {
        "metadata": {
            "namespace": "search",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {LABEL: name},
            "ownerReferences": references,
            **metadata,
        },
        "spec": {"version": version},
    }


class World:
    def __init__(self, *namespaces: str | None) -> None:
        self.now = 0.0
        self.news: list[tuple[str, str]] = []
        kinds = (EMBEDDING_SERVICES, DEPLOYMENTS, SERVICES, PODS)
        self.mirror = Mirror(
            dict.fromkeys(kinds, LIMIT), namespaces or (None,), clock=lambda: self.now, on_news=self.news.append
        )

    def told(self) -> list[tuple[str, str]]:
        told, self.news[:] = list(self.news), []
        return told

    def version(self) -> int | None:
        live = self.mirror.get(DEPLOYMENTS, "search", "a")
        return None if live is None else int(live["spec"]["version"])


def test_an_own_write_is_no_news_when_it_comes_back() -> None:
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    scope.put(child("a", 5))
    assert world.told() == [("search", "a")]
    world.mirror.learn(DEPLOYMENTS, child("a", 7))
    world.told()
    scope.put(child("a", 6))
    scope.put(child("a", 7))
    assert (world.told(), world.version()) == ([], 7)
    scope.put(child("a", 8))
    assert (world.told(), world.version()) == ([("search", "a")], 8)


@pytest.mark.parametrize(
    ("managers", "kept"),
    [
        ([OTHERS, OURS], [OURS]),
        # Nothing is ours any more: that somebody else has set it all must stay visible.
        ([OTHERS], [{"manager": "kubectl"}]),
        ([], []),
    ],
)
def test_of_field_managers_what_decides_is_kept(managers: list[Any], kept: list[Any]) -> None:
    world = World()
    world.mirror.scopes[DEPLOYMENTS, None].put(child("a", 5, managedFields=managers))
    live = world.mirror.get(DEPLOYMENTS, "search", "a")
    assert live is not None
    assert live["metadata"]["managedFields"] == kept


def test_what_was_read_before_a_deletion_brings_nothing_back() -> None:
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    scope.put(child("a", 5))
    scope.put(child("a", 9), gone=True)
    world.mirror.learn(DEPLOYMENTS, child("a", 8))
    assert world.version() is None
    scope.put(child("a", 10, uid="another"))
    assert world.version() == 10
    # The late end of the first one is not the end of the second.
    scope.put(child("a", 9), gone=True)
    assert world.version() == 10


def test_an_object_that_lost_its_label_and_got_it_back_is_seen_again() -> None:
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    scope.put(child("a", 5))
    scope.put(child("a", 6), gone=True)
    scope.put(child("a", 7))
    assert world.version() == 7


def test_news_goes_to_the_owner_whatever_the_label_says() -> None:
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    scope.put(child("a", 5, owner="a", labels={LABEL: "other"}))
    assert world.told() == [("search", "a")]
    scope.put(child("a", 6, owner=None, labels={LABEL: "other"}))
    assert sorted(world.told()) == [("search", "a"), ("search", "other")]


def test_a_list_drops_what_it_does_not_have_in_its_own_namespace() -> None:
    world = World("search", "other")
    for scope in world.mirror.scopes.values():
        scope.keep(set(), "9")
    world.mirror.scopes[DEPLOYMENTS, "search"].put(child("a", 5))
    world.mirror.scopes[DEPLOYMENTS, "other"].keep(set(), "9")
    assert world.version() == 5
    world.mirror.scopes[DEPLOYMENTS, "search"].keep(set(), "9")
    assert world.version() is None


def test_fresh_is_what_was_listed_and_heard_lately() -> None:
    world = World("search", "other")

    def fresh() -> tuple[bool, bool]:
        return world.mirror.fresh("search"), world.mirror.fresh("other")

    assert fresh() == (False, False)
    for (_, namespace), scope in world.mirror.scopes.items():
        if namespace == "search":
            scope.keep(set(), "9")
    assert fresh() == (True, False)
    world.now = LIMIT - 1
    for scope in world.mirror.scopes.values():
        if scope.shelf.resource is not PODS:
            scope.heard()
    world.now = LIMIT + 1
    assert fresh() == (False, False)
    assert world.mirror.ages() == {"embeddingservices": 2.0, "deployments": 2.0, "services": 2.0, "pods": LIMIT + 1}


def test_a_kind_that_may_not_be_read_is_not_taken_for_empty() -> None:
    world = World()
    for scope in world.mirror.scopes.values():
        scope.keep(set(), "9")
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    scope.refused(ClusterError(410, "Expired", "list again"))
    assert world.mirror.fresh("search")
    scope.refused(ClusterError(500, "InternalError", "etcd"))
    assert not world.mirror.fresh("search")
    # What is refused for want of a right is told from the mirror: asking for it at every look would change nothing.
    scope.refused(ClusterError(403, "Forbidden", "no"))
    assert world.mirror.fresh("search")
    assert world.mirror.unread(DEPLOYMENTS, "search") == "no"
    assert world.mirror.unread(SERVICES, "search") is None
    scope.keep(set(), "9")
    assert world.mirror.unread(DEPLOYMENTS, "search") is None
    # A kind that is not installed is a kind of which there is nothing.
    scope.refused(ClusterError(404, "NotFound", "no such API"))
    assert world.mirror.fresh("search")
    # The resources themselves are read live as long as they are not followed.
    world.mirror.scopes[EMBEDDING_SERVICES, None].refused(ClusterError(403, "Forbidden", "no"))
    assert not world.mirror.fresh("search")


def test_pods_are_found_by_label_and_kept_small() -> None:
    world = World()
    scope = world.mirror.scopes[PODS, None]
    for name in ("two", "one"):
        scope.put({**child(name, 1, uid=name), "status": {"podIP": "10.0.0.1"}} | {"spec": {"nodeName": "n"}})
    labelled = child("three", 1, uid="three", labels={LABEL: "two"})
    scope.put(labelled)
    assert [pod.name for pod in world.mirror.pods("search", "two")] == ["three", "two"]
    scope.put(child("three", 2, uid="three", labels={LABEL: "one"}))
    assert [pod.name for pod in world.mirror.pods("search", "two")] == ["two"]
    assert world.mirror.get(PODS, "search", "one") is None


def test_a_list_drops_nothing_that_came_after_it() -> None:
    """A page of a list takes time; what the watch delivers meanwhile is newer than the whole list."""
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    for name, version in (("old", 3), ("new", 12)):
        scope.put(child(name, version, uid=name))
    scope.keep(set(), "10")
    assert world.mirror.get(DEPLOYMENTS, "search", "old") is None
    assert world.mirror.get(DEPLOYMENTS, "search", "new") is not None


def test_of_what_nobody_of_ours_owns_only_its_owner_is_kept() -> None:
    """Anybody can put our label on anything, of any size."""
    world = World()
    scope = world.mirror.scopes[DEPLOYMENTS, None]
    foreign = child("a", 5, owner=None, annotations={"theirs": "x" * 100_000}, labels={LABEL: "a"})
    foreign["metadata"]["ownerReferences"] = [{"kind": "Team", "name": "theirs", "uid": "t", "controller": True}]
    scope.put({**foreign, "data": {"big": "x" * 900_000}})
    (entry,) = world.mirror.shelves[DEPLOYMENTS].entries.values()
    assert isinstance(entry.content, bytes)
    assert len(entry.content) < 500
    live = world.mirror.get(DEPLOYMENTS, "search", "a")
    assert live is not None
    assert live["metadata"]["uid"] == "u"
    assert live["metadata"]["ownerReferences"] == foreign["metadata"]["ownerReferences"]
    assert world.told() == [("search", "a")]
    # Once it is ours, all of it is.
    scope.put(child("a", 6))
    assert world.version() == 6
