"""What silence means: for readiness, for liveness, and for kopf's watch."""

from __future__ import annotations

import pytest
from embedding_operator.control.watchdog import Deliveries, Silence

LIMITS = {"pods": 10.0}


@pytest.mark.parametrize(
    ("age", "answered_ago", "ready", "alive"),
    [
        (9.0, 0.0, True, True),
        (11.0, 11.0, False, True),  # nobody is answered: not this process's fault
        (30.0, 25.0, False, True),  # the last answer came before the watch was late
        (30.0, 2.0, False, False),  # others are answered, this watch is not: a restart helps
        (41.0, 41.0, False, False),  # nothing for a long time: a restart may help
    ],
)
def test_what_silence_means(age: float, answered_ago: float, ready: bool, alive: bool) -> None:
    silence = Silence({"pods": age}, LIMITS, answered_ago)
    assert (silence.not_ready() is None, silence.not_alive() is None) == (ready, alive)
    if not ready:
        assert silence.not_ready() == f"the watch of pods has been silent for {age:.0f} s"


def live(name: str, version: str, namespace: str = "search") -> dict[str, dict[str, str]]:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": version}}


def test_a_watch_that_delivers_less_than_a_list_has_is_behind() -> None:
    deliveries = Deliveries()
    for name, version in (("a", "5"), ("b", "9"), ("younger", "10")):
        deliveries.event(live(name, version))
    deliveries.event(live("gone", "7"), gone=True)
    deliveries.event(live("theirs", "3", "other"))
    a, b, gone = (("search", name) for name in ("a", "b", "gone"))
    # Deleted after the list, changed after the list: neither is late.
    assert deliveries.behind({a: "5", b: "8", gone: "6"}, "search", 0) == ()
    assert deliveries.behind({a: "10", b: "9"}, "search", deliveries.count) == (a,)
    assert gone not in deliveries.versions
    assert ("other", "theirs") in deliveries.versions
    # Created after the list was made, delivered before it was held against the watch: not forgotten for the next one.
    assert deliveries.behind({a: "5", b: "9", ("search", "younger"): "10"}, "search", deliveries.count) == ()
    assert deliveries.behind({a: "5", b: "9", ("search", "new"): "11"}, None, 0) == (("search", "new"),)


def test_what_is_deleted_between_two_lists_is_remembered_for_the_later_one() -> None:
    deliveries = Deliveries()
    before = deliveries.count
    deliveries.event(live("a", "5"))
    between = deliveries.count
    deliveries.event(live("a", "6"), gone=True)
    assert deliveries.behind({}, None, before) == ()
    assert deliveries.behind({("search", "a"): "5"}, None, between) == ()
    # One of that name again, then deleted in another namespace's time: nothing is confused.
    deliveries.event(live("a", "9"))
    assert deliveries.behind({("search", "a"): "9"}, None, deliveries.count) == ()
    deliveries.event(live("a", "10"), gone=True)
    assert deliveries.behind({}, "other", deliveries.count) == ()
    assert ("search", "a") in deliveries.versions
    assert deliveries.behind({}, "search", deliveries.count) == ()
    assert deliveries.versions == {}
