"""The operator, installed once per session by its chart; a failing test shows its log and the objects."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster, DevclusterError
from tests.cluster.replay import EVERYWHERE, record
from tests.cluster.services import OPERATOR_NAMESPACE, RELEASE, Services

CHART = Path(__file__).parents[2] / "charts" / "embedding-operator"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster with the operator installed, two replicas of it, in a restricted namespace."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": OPERATOR_NAMESPACE, "labels": RESTRICTED},
    }
    cluster.apply(namespace)
    settings = {"PROGRESS_SECONDS": "0.5", "POLL_SECONDS": "3", "RESYNC_SECONDS": "20", "METRICS_API_READ_SECONDS": "1"}
    extra = [{"name": f"EMBEDDING_OPERATOR_{name}", "value": value} for name, value in settings.items()]
    # Other suites that share the cluster may have applied the CustomResourceDefinition before.
    scope = [f"--namespace={OPERATOR_NAMESPACE}", "--take-ownership"]
    arguments = [*scope, "--set=replicaCount=2", "--wait", "--timeout=90s"]
    try:
        cluster.helm(
            "upgrade", "--install", RELEASE, str(CHART), *arguments, f"--set-json=extraEnv={json.dumps(extra)}"
        )
    except DevclusterError as error:
        logs = cluster.kubectl("logs", f"deployment/{RELEASE}", "-n", OPERATOR_NAMESPACE, "--tail=30", check=False)
        raise DevclusterError(f"{error}\n{cluster.overview()}\n{logs.stdout}") from error
    yield cluster
    # Tests switch the metrics API on and off.
    record(cluster, EVERYWHERE, {"metricsApi.enabled": True})


@pytest.fixture
def services(request: pytest.FixtureRequest, operator: Cluster, namespace: str) -> Iterator[Services]:
    """EmbeddingServices in a namespace of the test's own, where Pod Security `restricted` is enforced.

    A test marked `tells` fails when none of its looks at a status had the reasons it names.
    """
    operator.kubectl("label", "namespace", namespace, *(f"{key}={value}" for key, value in RESTRICTED.items()))
    services = Services(operator, namespace)
    yield services
    services.close()
    check_told(request, services)


def check_told(request: pytest.FixtureRequest, services: Services) -> None:
    """Whether a test saw the reasons that it claims to make happen."""
    claimed = {reason for marker in request.node.iter_markers("tells") for reason in marker.args}
    assert claimed <= services.seen, f"claimed by the marker, and not seen: {sorted(claimed - services.seen)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if report.when == "call" and report.failed and "services" in getattr(item, "funcargs", {}):
        report.sections.append(("cluster", item.funcargs["services"].picture()))  # type: ignore[attr-defined]
    return report


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
