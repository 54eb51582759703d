"""Nothing is written when nothing changed: the API server's own audit log says so."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.played import PLAYED, playing
from tests.cluster.services import OPERATOR_USER, Services, service, writes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]

IDLE = 50
LOADED = 3
RESYNCS = 3
REPLICAS = 2
MINUTE = 60.0


def load_of(pod: str) -> tuple[float, float]:
    """A Pod of an idle service does nothing; one of a loaded service is busy now and idle then, second by second."""
    if not pod.startswith("loaded-"):
        return 0.0, 0.0
    now = time.time()
    return (0.9 if int(now) % 2 else 0.1), 1000 * now


def moment(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00"))


def since(services: Services, start: datetime) -> list[dict[str, Any]]:
    """What the operator asked the API server after `start`, in this test's namespace or in all."""
    return [
        event
        for event in services.cluster.audit_events(OPERATOR_USER)
        if event["stage"] == "ResponseComplete"
        and moment(event) >= start
        and event.get("objectRef", {"namespace": ""}).get("namespace") in (None, services.namespace)
    ]


def resyncs(services: Services, start: datetime) -> int:
    """How often every replica has listed all EmbeddingServices."""
    lists = [
        event
        for event in since(services, start)
        if event["verb"] == "list" and event["objectRef"]["resource"] == "embeddingservices"
    ]
    return len(lists) // REPLICAS


def test_idle_services_cost_no_write_and_loaded_ones_one_a_minute(services: Services) -> None:
    names = [f"idle-{index}" for index in range(IDLE)] + [f"loaded-{index}" for index in range(LOADED)]
    with playing(services.cluster, load_of):
        services.apply(*(service(name, **PLAYED) for name in names))
        services.kubectl("wait", "--for=condition=Ready", "emb", "--all", "--timeout=180s", timeout=190)
        # The last Events and counts of a rollout come a moment after Ready.
        services.wait(
            "every rollout is settled and in the history",
            lambda: all(
                (item.get("status") or {}).get("history")
                for item in services.cluster.objects("emb", services.namespace)
            ),
            timeout=120,
        )
        start = datetime.now(UTC)
        services.wait("three resyncs and a minute have passed", lambda: _passed(services, start), timeout=180)
        seen = since(services, start)

    idle = [event for event in seen if not event["objectRef"].get("name", "").startswith("loaded-")]
    assert writes(idle) == []
    by_service: dict[str, list[datetime]] = defaultdict(list)
    for event in seen:
        if writes([event]):
            assert event["objectRef"].get("subresource") == "status", event["requestURI"]
            by_service[event["objectRef"]["name"]].append(moment(event))
    assert set(by_service) == {f"loaded-{index}" for index in range(LOADED)}
    for name, moments in by_service.items():
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(sorted(moments))]
        assert all(gap >= MINUTE - 1 for gap in gaps), (name, gaps)
    # Looking cost nothing either: what did not change was not read.
    reads = [event for event in idle if event["verb"] == "get" and event["objectRef"]["resource"] != "leases"]
    assert [event["requestURI"] for event in reads] == []


def _passed(services: Services, start: datetime) -> bool:
    a_minute = (datetime.now(UTC) - start).total_seconds() > MINUTE + 5
    return a_minute and resyncs(services, start) >= RESYNCS
