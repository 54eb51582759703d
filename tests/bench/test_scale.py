"""The operator's benchmark: what it makes of figures, and its whole way with a few services."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.scale import Report, measure, table
from bench.scale.probe import between, by_name, since
from bench.scale.report import Times, failed, quantile, targets
from tests.bench.helpers import MACHINE

GOOD = Report(
    machine=MACHINE,
    load_before=0.1,
    services=1000,
    created=5.0,
    applied=70.0,
    ready=90.0,
    requests_per_service=15.2,
    requests={"create events": 3.1},
    reconcile_converging=(0.1, 0.8),
    reconcile_steady=(0.005, 0.016),
    steady_seconds=70.0,
    steady_writes=(),
    steady_reads=108,
    steady_cpu_percent=18.0,
    change_converging=Times(100, 0.2, 0.4, 0.7),
    change_steady=Times(60, 0.07, 0.1, 0.2),
    memory=173.0,
    memory_peak=174.0,
)


def test_quantiles_are_those_of_promql() -> None:
    histogram = {0.1: 50.0, 0.5: 90.0, 1.0: 100.0, float("inf"): 100.0}
    assert quantile(histogram, 0.5) == pytest.approx(0.1)
    assert quantile(histogram, 0.95) == pytest.approx(0.75)
    assert quantile({0.1: 0.0, float("inf"): 10.0}, 0.95) == 0.1
    assert quantile({}, 0.5) == 0.0
    assert since({0.1: 40.0, 0.5: 80.0}, {0.1: 50.0, 0.5: 100.0}) == {0.1: 10.0, 0.5: 20.0}


def test_times_of_two_and_of_many() -> None:
    assert Times.of([1.0, 3.0]) == Times(2, 2.0, 2.9, 3.0)
    assert Times.of([float(n) for n in range(1, 101)]).p95 == pytest.approx(95.05)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, 0),
        ({"steady_writes": ("patch /x",)}, 1),
        ({"memory_peak": 250.0}, 1),  # 262 MB
        ({"change_converging": Times(100, 0.2, 1.1, 2.0)}, 1),
        ({"change_steady": Times(100, 0.2, 1.1, 2.0), "memory_peak": 300.0}, 2),
    ],
)
def test_every_target_can_be_missed(changes: dict[str, object], missed: int) -> None:
    report = replace(GOOD, **changes)  # type: ignore[arg-type]
    assert [reached for *_, reached in targets(report)].count(False) == missed
    assert failed(report) == bool(missed)
    assert table(report).count("FAIL") == missed


def test_requests_are_counted_within_their_time_and_without_watches_and_leases() -> None:
    def event(verb: str, resource: str, second: int, stage: str = "ResponseComplete") -> dict[str, object]:
        moment = f"2026-11-20T12:00:{second:02}.000000Z"
        return {
            "verb": verb,
            "objectRef": {"resource": resource},
            "stage": stage,
            "requestReceivedTimestamp": moment,
        }

    events = [
        event("get", "pods", 1),
        event("get", "pods", 5),
        event("patch", "services", 6),
        event("watch", "pods", 6),
        event("update", "leases", 6),
        event("get", "pods", 6, "RequestReceived"),
    ]
    noon = 1795176000.0
    assert by_name(between(events, noon + 2, noon + 10)) == {"get pods": 1, "patch services": 1}


@pytest.mark.cluster
def test_the_whole_way_with_a_few_services() -> None:
    report = measure(20, resync=2, changes=3)
    assert (report.services, report.change_steady.count) == (20, 3)
    assert 0 < report.created <= report.applied <= report.ready
    assert report.requests["patch deployments"] >= 1
    assert report.requests_per_service >= 10
    assert report.steady_reads > 0
    assert 30 < report.memory <= report.memory_peak < 244
    assert "changed service acted on" in table(report)
