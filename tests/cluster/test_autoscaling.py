"""The metrics API of the chart: registered, guarded, and enough for a HorizontalPodAutoscaler to work by itself."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from devcluster import Cluster
from tests.cluster.conftest import CHART
from tests.cluster.services import OPERATOR_NAMESPACE, RELEASE, Services, service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

API = "/apis/custom.metrics.k8s.io/v1beta2"
API_SERVICE = "v1beta2.custom.metrics.k8s.io"
OBJECTS = f"{RELEASE}-metrics-api"
TEXTS = ["The quick brown fox jumps over the lazy dog and runs far away. " * 15] * 16
AUTOSCALING = {
    "minReplicas": 1,
    "maxReplicas": 3,
    "targetUtilizationPercent": 10,
    "behavior": {
        "scaleDown": {
            "stabilizationWindowSeconds": 5,
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 5}],
        }
    },
}


def switch(cluster: Cluster, enabled: bool, replicas: int = 2) -> None:
    """The release with or without the metrics API; everything else as it is."""
    scope = (f"--namespace={OPERATOR_NAMESPACE}", "--reuse-values", "--wait", "--timeout=120s")
    cluster.helm(
        "upgrade",
        RELEASE,
        str(CHART),
        *scope,
        f"--set=metricsApi.enabled={str(enabled).lower()}",
        f"--set=replicaCount={replicas}",
    )


@pytest.fixture(scope="module")
def metrics_api(operator: Cluster) -> Iterator[Cluster]:
    switch(operator, True)
    operator.kubectl("wait", "--for=condition=Available", f"apiservice/{API_SERVICE}", "--timeout=60s")
    yield operator
    # First the Pods go, then what they were allowed: no request of theirs is refused on the way, which others check.
    switch(operator, True, replicas=0)
    pods = ("pods", OPERATOR_NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
    operator.wait_until(lambda: not operator.objects(*pods), "the operators are gone", timeout=60)
    switch(operator, False)
    assert operator.get("apiservice", API_SERVICE) is None


def ask(cluster: Cluster, path: str) -> dict[str, Any]:
    """What the API server answers an administrator: the metrics API's own document, or its Status."""
    done = cluster.kubectl("get", "--raw", f"{API}{path}", check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"refused": done.stderr}


@dataclass
class Load:
    """Requests that were answered, and how those failed that were not."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def load(url: str, texts: list[str], threads: int, pause: float, counts: Load) -> Iterator[None]:
    """Requests, each thread one after another, while the block runs."""
    over = threading.Event()

    def work() -> None:
        # Never the same text twice, as that would be computed once for all who ask at a time.
        numbers = itertools.count()
        me = secrets.token_hex(4)
        with httpx.Client(timeout=120, trust_env=False) as client:
            while not over.is_set():
                inputs = [f"{me} {next(numbers)} {text}" for text in texts]
                body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": inputs}
                try:
                    answer = client.post(f"{url}/v1/embeddings", json=body)
                    if answer.status_code == 200 and len(answer.json()["data"]) == len(texts):
                        counts.answered += 1
                    else:
                        counts.failures.append(f"{answer.status_code} {answer.text[:200]}")
                except Exception as error:  # every failure counts, of whatever kind
                    counts.failures.append(repr(error))
                over.wait(pause)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join()


@pytest.mark.tells("ScalingActive", "LimitedByMaxReplicas")
def test_load_makes_replicas_and_silence_takes_them_back(services: Services, metrics_api: Cluster) -> None:
    services.apply(service(autoscaling={**AUTOSCALING, "maxReplicas": 1}))
    services.wait_ready()
    services.wait_reason("ScalingActive", kind="ScalingActive", timeout=90)
    (figure,) = services.existing("hpa")["status"]["currentMetrics"]
    assert figure["pods"]["metric"]["name"] == "embedding_utilization"
    assert "averageValue" in figure["pods"]["current"]

    pods = f"/namespaces/{services.namespace}/pods"
    (item,) = ask(metrics_api, f"{pods}/*/embedding_utilization?labelSelector=embedding-operator.io/service%3Dminilm")[
        "items"
    ]
    (pod,) = services.pods()
    name = pod["metadata"]["name"]
    assert item["describedObject"] == {
        "kind": "Pod",
        "namespace": services.namespace,
        "name": name,
        "apiVersion": "v1",
    }
    (single,) = ask(metrics_api, f"{pods}/{name}/embedding_utilization")["items"]
    assert single["describedObject"]["name"] == name
    assert "there is no metric 'latency'" in ask(metrics_api, f"{pods}/*/latency")["refused"]
    refused = ask(metrics_api, "/namespaces/default/pods/*/embedding_utilization")["refused"]
    assert "namespace default has no Pod at all" in refused

    counts = Load()
    url = services.cluster.service_url("minilm", services.namespace)
    with load(url, ["are you there?"], threads=1, pause=0.5, counts=counts):
        # Enough for three by the target, and no more: what starts beside it needs the processor too.
        with load(url, TEXTS, threads=1, pause=0.15, counts=counts):
            services.wait_reason("LimitedByMaxReplicas", kind="ScalingActive", timeout=120)
            services.apply(service(autoscaling=AUTOSCALING))
            services.wait("three replicas serve", lambda: services.status().get("readyReplicas") == 3, timeout=240)
        services.wait("one replica is left", lambda: len(services.pods()) == 1, timeout=180)
    assert counts.failures == []
    assert counts.answered > 20
    assert services.condition()["status"] == "True"


def test_every_replica_answers_the_front_proxy_and_nobody_else(services: Services, metrics_api: Cluster) -> None:
    services.apply(service(autoscaling=AUTOSCALING))
    services.wait_ready()
    path = f"/namespaces/{services.namespace}/pods/*/embedding_utilization"
    operators = metrics_api.objects("pods", OPERATOR_NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
    assert len([pod for pod in operators if "deletionTimestamp" not in pod["metadata"]]) == 2
    for _ in range(2):  # the API server's connections are spread over the replicas
        services.wait("there is a figure", lambda: "items" in ask(metrics_api, path))
    url = metrics_api.service_url(OBJECTS, OPERATOR_NAMESPACE, 8443, "https")
    for _ in range(4):
        answer = httpx.get(f"{url}{API}{path}", verify=False, trust_env=False)  # noqa: S501 - a stranger
        assert answer.status_code == 401
        status = answer.json()
        assert (status["kind"], status["reason"], status["code"]) == ("Status", "Unauthorized", 401)
        assert "no client certificate" in status["message"]


def test_the_certificate_outlives_upgrades_until_it_is_due_and_then_changes_without_a_gap(metrics_api: Cluster) -> None:
    def secret() -> dict[str, Any]:
        return metrics_api.get("secret", OBJECTS, OPERATOR_NAMESPACE) or {}

    def trusted() -> str:
        return str((metrics_api.get("apiservice", API_SERVICE) or {})["spec"]["caBundle"])

    before = secret()["data"]
    switch(metrics_api, True)
    assert secret()["data"] == before
    assert trusted() == before["ca.crt"]

    pods = ("pods", OPERATOR_NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
    running = {pod["metadata"]["uid"] for pod in metrics_api.objects(*pods)}
    _make_due(metrics_api)
    switch(metrics_api, True)
    renewed = secret()["data"]
    assert renewed["tls.crt"] != before["tls.crt"]
    both = base64.b64decode(renewed["ca.crt"]) + base64.b64decode(before["ca.crt"])
    assert base64.b64decode(trusted()) == both
    # The operators take it up without a restart, and never was there a time without an answer.
    url = httpx.URL(metrics_api.service_url(OBJECTS, OPERATOR_NAMESPACE, 8443, "https"))
    expected = base64.b64decode(renewed["tls.crt"]).decode().split()

    def served() -> bool:
        assert "resources" in ask(metrics_api, "")
        # A few connections, because the Service spreads them over two Pods.
        return all(ssl.get_server_certificate((url.host, url.port or 0)).split() == expected for _ in range(6))

    metrics_api.wait_until(served, "the new certificate is served", timeout=180)
    assert {pod["metadata"]["uid"] for pod in metrics_api.objects(*pods)} == running
    switch(metrics_api, True)
    assert trusted() == renewed["ca.crt"]


def _make_due(cluster: Cluster) -> None:
    """Lets the certificate's time be over, as if Helm itself had written it so."""
    shown = ("get", "secret", OBJECTS, "-n", OPERATOR_NAMESPACE, "--show-managed-fields", "--output=json")
    secret = json.loads(cluster.kubectl(*shown).stdout)
    manager = secret["metadata"]["managedFields"][0]["manager"]
    for ours in ("managedFields", "uid", "resourceVersion", "creationTimestamp"):
        del secret["metadata"][ours]
    secret["metadata"]["annotations"]["embedding-operator.io/renew-after"] = "1"
    apply = ("apply", "--server-side", f"--field-manager={manager}", "--filename=-")
    cluster.kubectl(*apply, input=json.dumps(secret))


def test_the_rights_around_it(services: Services, metrics_api: Cluster) -> None:
    def can(verb: str, resource: str, *scope: str, user: str) -> bool:
        asked = metrics_api.kubectl("auth", "can-i", verb, resource, *scope, f"--as={user}", check=False)
        return asked.stdout.strip() == "yes"

    operator = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
    system = ("--namespace=kube-system",)
    assert can("get", "configmaps/extension-apiserver-authentication", *system, user=operator)
    assert not can("get", "configmaps/kube-root-ca.crt", *system, user=operator)
    assert not can("get", "secrets", *system, user=operator)
    role = metrics_api.get("clusterrole", OBJECTS)
    assert role is not None
    assert role["rules"] == [
        {"apiGroups": ["custom.metrics.k8s.io"], "resources": ["pods/embedding_utilization"], "verbs": ["get"]}
    ]
    # Asked for a namespace that has nothing, who may read is told so, and who may not is refused before.
    path = f"{API}/namespaces/kube-system/pods/*/embedding_utilization"
    reader = f"reader-{services.namespace}"
    metrics_api.kubectl("create", "clusterrolebinding", reader, f"--clusterrole={OBJECTS}", f"--user={reader}")

    def answered(user: str) -> str:
        return metrics_api.kubectl("get", "--raw", path, f"--as={user}", check=False).stderr

    try:
        services.wait("the binding counts", lambda: "has no Pod at all" in answered(reader), timeout=20)
        assert "has no Pod at all" in answered("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
        assert "forbidden" in answered("somebody").lower()
    finally:
        metrics_api.kubectl("delete", "clusterrolebinding", reader)
