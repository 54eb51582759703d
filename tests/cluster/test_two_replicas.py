"""Two operators on one cluster while one of them, the API server or a node fails: never two writers, always one soon.

The proof is the API server's audit log: each replica names itself in its User-Agent, and a write is rightful only
between the answer that gave its writer the Lease and the one that gave it to the next. These tests own their cluster.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config
from kubernetes.dynamic import DynamicClient

from devcluster import Cluster, ClusterSettings
from tests.cluster.conftest import CHART, check_told
from tests.cluster.replay import EVERYWHERE, deliberately_refused, record
from tests.cluster.replicas import Replica, Request, now, reigns, requests, usurpations, writers
from tests.cluster.services import LABEL, OPERATOR_NAMESPACE, RELEASE, Services, service
from tests.cluster_fixture import images_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SERVES = {
    "bundled": {"image": {"repository": "registry.example/stand-in", "tag": "1"}},
    "env": [{"name": "STAND_IN_MODE", "value": "nim"}],
}


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster of two nodes with the chart's rights and definition, and no operator Pod."""
    settings = ClusterSettings(
        name=f"two-{uuid.uuid4().hex[:6]}", nodes=2, node_grace=4, images=images_of("http://127.0.0.1:1")
    )
    with Cluster(settings) as cluster:
        cluster.kubectl("create", "namespace", OPERATOR_NAMESPACE)
        scope = (f"--namespace={OPERATOR_NAMESPACE}", "--set=replicaCount=0", "--wait")
        cluster.helm("install", RELEASE, str(CHART), *scope)
        cluster.kubectl("create", "namespace", "work")
        yield cluster
        record(cluster, EVERYWHERE, {})


@pytest.fixture(scope="module")
def everybody() -> Iterator[dict[str, Replica]]:
    """Every replica that was started; they end with the module."""
    started: dict[str, Replica] = {}
    yield started
    for replica in started.values():
        replica.end()


@pytest.fixture
def pair(own: Cluster, everybody: dict[str, Replica], tmp_path: Path) -> dict[str, Replica]:
    """Two running replicas, one of them leading: those of the test before, and new ones for those that it ended."""
    running = {name: replica for name, replica in everybody.items() if replica.process.poll() is None}
    while len(running) < 2:
        name = f"replica-{uuid.uuid4().hex[:4]}"
        everybody[name] = running[name] = Replica.start(own, tmp_path, name)
    for replica in running.values():
        own.wait_until(lambda log=replica.log: "watching" in log.read_text(), f"{replica.name} runs", timeout=60)
    own.wait_until(lambda: holder(own) in running, "one leads", timeout=60)
    return running


def holder(cluster: Cluster) -> str:
    lease = cluster.get("lease", RELEASE, OPERATOR_NAMESPACE) or {}
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def leading(cluster: Cluster, pair: dict[str, Replica]) -> tuple[Replica, Replica]:
    """The replica that leads, and the other."""
    name = holder(cluster)
    (other,) = (replica for replica in pair.values() if replica.name != name)
    return pair[name], other


@pytest.fixture
def work(request: pytest.FixtureRequest, own: Cluster) -> Iterator[Services]:
    services = Services(own, "work")
    yield services
    own.kubectl("delete", "emb", "--all", "--namespace", "work")
    # The garbage collector learns of new kinds every 30 seconds only, too late for the first test.
    children = ("deployments,services,pdb", f"--selector={LABEL}", "--namespace=work")
    own.kubectl("delete", *children, "--wait=false")
    own.wait_until(lambda: not own.objects("deployments,pods", "work"), "the namespace is empty", timeout=60)
    check_told(request, services)


@contextmanager
def drift(cluster: Cluster, names: list[str]) -> Iterator[None]:
    """Somebody who deletes budgets as long as the block runs, so that a leader always has something to write."""
    over = threading.Event()

    def delete() -> None:
        with config.new_client_from_config(str(cluster.kubeconfig)) as client:
            api: Any = None
            while not over.wait(0.1):
                for name in names:
                    try:
                        api = api or DynamicClient(client).resources.get(
                            api_version="policy/v1", kind="PodDisruptionBudget"
                        )
                        api.delete(name=name, namespace="work", _request_timeout=2)
                    except Exception:  # the API server is meant to fail meanwhile
                        over.wait(0.1)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Scene:
    """One replica leads and always has something to write, the other waits."""

    cluster: Cluster
    leader: Replica
    other: Replica
    began: float

    def log(self) -> list[Request]:
        """The writes of both since the scene began."""
        return requests(self.cluster, self.began)

    def wrote(self, replica: Replica, since: float) -> bool:
        return any(it.replica == replica.name for it in self._written(since))

    def somebody_wrote(self, since: float) -> bool:
        return bool(self._written(since))

    def _written(self, since: float) -> list[Request]:
        return [it for it in requests(self.cluster, since) if not it.lease and it.code < 300]


@pytest.fixture
def scene(own: Cluster, pair: dict[str, Replica], work: Services) -> Iterator[Scene]:
    """Whatever a test does in it: never, since the cluster began, did two write."""
    began = now()
    names = [f"quiet-{index}" for index in range(3)]
    work.apply(*(service(name, suspend=True) for name in names))
    work.wait("budgets exist", lambda: len(own.objects("pdb", "work")) == len(names))
    leader, other = leading(own, pair)
    scene = Scene(own, leader, other, began)
    with drift(own, names):
        work.wait("the leader writes", lambda: scene.wrote(leader, began))
        yield scene
    assert usurpations(requests(own, 0)) == []


def test_a_killed_leader_is_succeeded_within_20_seconds(scene: Scene, work: Services) -> None:
    killed = now()
    scene.leader.send(signal.SIGKILL)
    work.wait("the other writes", lambda: scene.wrote(scene.other, killed), timeout=40)
    log = scene.log()
    first = next(it for it in log if it.replica == scene.other.name and not it.lease)
    print(f"first write of the successor {first.received - killed:.1f} s after the kill")
    assert first.received - killed < 20
    assert writers(log) == [scene.leader.name, scene.other.name]


def test_a_stopped_leader_writes_nothing_when_it_goes_on(scene: Scene, work: Services) -> None:
    scene.leader.send(signal.SIGSTOP)
    time.sleep(30)  # the time for which it is stopped is what is tested
    continued = now()
    assert scene.wrote(scene.other, scene.began)
    scene.leader.send(signal.SIGCONT)
    # It has to have had its chance: it asks for the Lease again, and learns that it is another's.
    work.wait("the stopped one has looked", lambda: "lost the leadership" in scene.leader.log.read_text(), timeout=20)
    work.wait("the other writes on", lambda: scene.wrote(scene.other, now() - 1))
    assert writers(scene.log()) == [scene.leader.name, scene.other.name]
    assert not scene.wrote(scene.leader, continued)


@pytest.mark.parametrize("seconds", [5, 15])
def test_a_hung_api_server_makes_no_second_writer(scene: Scene, work: Services, seconds: int) -> None:
    scene.cluster.signal_component("kube-apiserver", signal.SIGSTOP)
    time.sleep(seconds)  # shorter and longer than a leader may go on without an answer
    scene.cluster.signal_component("kube-apiserver", signal.SIGCONT)
    continued = now()
    work.wait("one of them writes again", lambda: scene.somebody_wrote(continued + 1), timeout=40)
    log = scene.log()
    first = next(it for it in log if not it.lease and it.code < 300 and it.received > continued + 1)
    print(f"writes again {first.received - continued:.1f} s after the API server goes on")
    assert len(writers(log)) <= 2


def test_an_api_server_that_refuses_and_comes_back_makes_no_second_writer(scene: Scene, work: Services) -> None:
    own = scene.cluster
    restarts = own.state.components["kube-apiserver"].restarts
    with deliberately_refused(own):  # one that begins knows no roles yet
        own.signal_component("kube-apiserver", signal.SIGKILL)
        killed = now()
        own.wait_until(
            lambda: (
                own.state.components["kube-apiserver"].restarts > restarts
                and own.kubectl("get", "--raw", "/readyz", check=False).returncode == 0
            ),
            "the API server is back",
            timeout=60,
        )
    work.wait("one of them writes again", lambda: scene.somebody_wrote(killed + 1), timeout=40)
    assert len(writers(scene.log())) <= 2
    # And it still sees what happens: the watches have been taken up again.
    work.apply(service("after", suspend=True))
    work.wait_reason("Suspended", name="after", timeout=30)


def test_leaders_hand_over_in_an_orderly_way(scene: Scene, work: Services) -> None:
    ended = now()
    scene.leader.end()
    work.wait("the other writes", lambda: scene.wrote(scene.other, ended))
    assert [name for name, _, _ in reigns(scene.log())][-2:] == [scene.leader.name, scene.other.name]


def test_without_an_operator_a_service_can_be_deleted(own: Cluster, pair: dict[str, Replica], work: Services) -> None:
    """No finalizer holds it, and owner references take its children along."""
    work.apply(service("orphan", runtime=SERVES))
    work.wait_ready("orphan")
    resource = work.existing("emb", "orphan")
    assert "finalizers" not in resource["metadata"]
    for replica in pair.values():
        replica.send(signal.SIGKILL)
    work.kubectl("delete", "emb", "orphan", "--wait", "--timeout=10s")
    kinds = "deployments,replicasets,services,poddisruptionbudgets,pods"
    work.wait("the children are gone", lambda: not own.objects(kinds, "work"), timeout=60)


@pytest.mark.tells("NodeLost")
def test_a_lost_node_is_told_and_forgotten_when_it_comes_back(
    own: Cluster, pair: dict[str, Replica], work: Services
) -> None:
    work.apply(service("far", runtime=SERVES))
    work.wait_ready("far")
    (pod,) = work.pods("far")
    node = pod["spec"]["nodeName"]
    own.lose_node(node)
    try:
        condition = work.wait_reason("NodeLost", name="far", timeout=40)
        assert node in condition["message"]
        assert work.status("far")["problems"][0]["reason"] == "NodeLost"
    finally:
        own.restore_node(node)
    work.wait_ready("far")
    assert "problems" not in work.status("far")


@pytest.mark.tells("Forbidden")
def test_a_missing_right_is_named(own: Cluster, pair: dict[str, Replica], work: Services) -> None:
    role = own.get("clusterrole", RELEASE)
    assert role is not None
    rules = [rule for rule in role["rules"] if "services" not in rule["resources"]]
    narrowed = [
        {**rule, "resources": [it for it in rule["resources"] if it != "services"]}
        for rule in role["rules"]
        if "services" in rule["resources"]
    ]
    plain = {"apiVersion": role["apiVersion"], "kind": role["kind"], "metadata": {"name": RELEASE}}
    with deliberately_refused(own):
        own.apply({**plain, "rules": [*rules, *(rule for rule in narrowed if rule["resources"])]})
        try:
            own.wait_until(
                lambda: (
                    own.kubectl("auth", "can-i", "patch", "services", f"--as={_user()}", check=False).stdout.strip()
                    == "no"
                ),
                "the right is gone",
            )
            work.apply(service("barred", suspend=True))
            condition = work.wait_reason("Forbidden", kind="Applied", name="barred")
            assert "services" in condition["message"]
            assert work.condition("Stalled", "barred")["status"] == "True"
        finally:
            own.apply({**plain, "rules": role["rules"]})
        # Given back, it recovers by the resync; nobody has to touch the resource.
        work.wait_reason("Suspended", name="barred", timeout=60)


def _user() -> str:
    return f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
