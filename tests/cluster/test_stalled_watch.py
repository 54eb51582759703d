"""An API server that accepts and never answers, and one watch alone that delivers nothing any more: the operator
notices, says so, and is itself again afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.proxy import Proxy, proxied
from tests.cluster.services import Services, service

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("embedding-operator"))
WATCH_SECONDS = 2
ADDRESS = "127.0.0.1"


@dataclass
class Follower:
    """An operator that watches one namespace and never leads, in a process of this test's own."""

    port: int
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{ADDRESS}:{self.port}{path}", timeout=5, trust_env=False)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def metric(self, name: str) -> dict[str, float]:
        """Samples by the value of their first label."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {next(iter(sample.labels.values()), ""): sample.value for sample in samples}


@contextmanager
def follower(
    services: Services, tmp_path: Path, port: int, kubeconfig: Path | None = None, resync: int = 4
) -> Iterator[Follower]:
    namespace = services.namespace
    services.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "follower"},
            "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600},
        }
    )
    settings = {
        "NAMESPACE": namespace,
        "LEASE_NAME": "follower",
        "WATCH_NAMESPACES": namespace,
        "WATCH_SECONDS": str(WATCH_SECONDS),
        "RESYNC_SECONDS": str(resync),
        "HOST": ADDRESS,
        "PORT": str(port),
    }
    environment = {f"EMBEDDING_OPERATOR_{name}": value for name, value in settings.items()}
    log = tmp_path / "follower.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [PROGRAM, "run"],
            env={**os.environ, "KUBECONFIG": str(kubeconfig or services.cluster.kubeconfig), **environment},
            stdout=output,
            stderr=output,
        )
        try:
            yield Follower(port, log)
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def test_a_silent_api_server_is_noticed_and_gotten_over(services: Services, tmp_path: Path, unused_port: int) -> None:
    cluster = services.cluster
    with follower(services, tmp_path, unused_port) as operator:
        services.wait("the follower is ready", operator.is_ready, timeout=60)
        ages = operator.metric("embedding_operator_watch_age_seconds")
        assert {"embeddingservices", "deployments", "services", "pods"} <= set(ages)

        cluster.signal_component("kube-apiserver", signal.SIGSTOP)
        try:
            # Longer than a watch lasts, shorter than a node may be silent.
            services.wait("readiness falls", lambda: not operator.is_ready(), timeout=30)
            refusal = operator.get("/readyz")
            assert (refusal.status_code, refusal.text[:12]) == (503, "the watch of")
            silent = operator.metric("embedding_operator_watch_age_seconds")
            assert max(silent.values()) > 2.5 * WATCH_SECONDS
            # Nobody is answered: a restart would help nobody.
            assert operator.get("/healthz").status_code == 200
        finally:
            cluster.signal_component("kube-apiserver", signal.SIGCONT)

        services.wait("readiness is back", operator.is_ready, timeout=60)
        services.apply(service("afterwards", suspend=True))
        services.wait(
            "the watches deliver again", lambda: operator.metric("embedding_operator_services") == {"": 1.0}, timeout=60
        )


RESTARTS = "embedding_operator_watch_restarts_total"
KNOWN = "embedding_operator_services"


def test_a_watch_that_alone_delivers_nothing_is_found_out_and_begun_anew(
    services: Services, tmp_path: Path, unused_port: int
) -> None:
    """kopf's own: its connection stays open and silent, everything else is answered."""
    path = f"/apis/embedding-operator.io/v1alpha1/namespaces/{services.namespace}/embeddingservices"
    with (
        proxied(services.cluster, tmp_path) as (proxy, kubeconfig),
        follower(services, tmp_path, unused_port, kubeconfig, resync=10) as operator,
    ):
        services.wait("the follower is ready", operator.is_ready, timeout=60)
        services.apply(service("before", suspend=True))
        services.wait("it is known", lambda: operator.metric(KNOWN) == {"": 1.0})
        proxy.silence(path)
        watches = proxy.count(path, watch=True)
        services.apply(service("missed", suspend=True))
        services.wait("a list tells what the watch did not", lambda: operator.metric(KNOWN) == {"": 2.0}, timeout=30)
        # It is given half a minute to deliver what the list has shown.
        services.wait("the watch is given up", lambda: operator.metric(RESTARTS)[""] >= 1, timeout=60)
        assert operator.is_ready()
        services.wait("another is begun", lambda: proxy.count(path, watch=True) > watches, timeout=40)
        services.wait("this one delivers, before any list", lambda: _delivered(services, operator, proxy, path))
        assert "it delivers nothing any more" in operator.log.read_text()


def _delivered(services: Services, operator: Follower, proxy: Proxy, path: str) -> bool:
    """Whether a new service became known without a list of them meanwhile."""
    lists, known = proxy.count(path, watch=False), operator.metric(KNOWN)[""]
    services.apply(service(f"after-{known:.0f}", suspend=True))
    services.wait("it is known", lambda: operator.metric(KNOWN)[""] == known + 1, timeout=30)
    return proxy.count(path, watch=False) == lists
