"""Clusters as a whole: side by side, without namespaces, with a lost node or API server, killed themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.errors import ClusterStartError
from devcluster.paths import REPOSITORY
from devcluster.state import is_up, read_state
from tests.devcluster.helpers import (
    conditions_of,
    eventually,
    phase,
    pod,
    processes_with,
    ready,
    server_container,
    service,
    shell,
    status_of,
    wait_for_pod,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif("DEVCLUSTER_KUBECONFIG" in os.environ, reason="tests devcluster's own processes"),
]


OWNER = """
import time
from devcluster import Cluster, ClusterSettings
settings = ClusterSettings(
    name="other", nodes=2, gpus_per_node=1, isolate=False, node_grace=4, token_lifetime=600
)
cluster = Cluster(settings).start()
print(cluster.directory, flush=True)
time.sleep(3600)
"""
Owned = tuple[Cluster, subprocess.Popen[str]]


@pytest.fixture(scope="module")
def owned() -> Iterator[Owned]:
    """A second cluster, whose containers get no namespaces, with two nodes of one GPU each, and its owner."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    with owner:
        try:
            assert owner.stdout is not None
            started = Cluster.attach(Path(owner.stdout.readline().strip()))
            started.wait_until(
                lambda: started.get("serviceaccount", "default", "default") is not None, "ServiceAccount", timeout=20
            )
            yield started, owner
        finally:
            owner.kill()


@pytest.fixture
def other(owned: Owned) -> Cluster:
    """The second cluster."""
    return owned[0]


def test_two_clusters_run_side_by_side(cluster: Cluster, namespace: str, other: Cluster) -> None:
    cluster.apply(pod("web", server_container()), service("web"), namespace=namespace)
    other.apply(pod("web", server_container()), service("web"))
    ours = wait_for_pod(cluster, namespace, "web", ready, "is ready")
    theirs = wait_for_pod(other, "default", "web", ready, "is ready")
    assert status_of(ours)["podIP"].split(".")[1] != status_of(theirs)["podIP"].split(".")[1]
    assert cluster.service_url("web", namespace) != other.service_url("web", "default")
    assert other.state.isolated is False


def test_without_namespaces_paths_are_rewritten_and_a_kubeconfig_is_given(other: Cluster) -> None:
    other.kubectl("create", "secret", "generic", "files", "--from-literal=key=value")
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    script = "cat $FILE; echo; cat /etc/files/key; echo; test -s " + token + " && kubectl auth whoami -o yaml"
    container = shell(
        script,
        env=[
            {"name": "FILE", "value": "/etc/files/key"},
            {"name": "PATH", "value": other.environment["PATH"]},
        ],
        volumeMounts=[{"name": "files", "mountPath": "/etc/files"}],
    )
    volumes = [{"name": "files", "secret": {"secretName": "files"}}]
    other.apply(pod("fallback", container, volumes=volumes, restartPolicy="Never"))
    wait_for_pod(other, "default", "fallback", phase("Succeeded"), "succeeds")
    first, second, *rest = other.pod_logs("fallback", "default").splitlines()
    assert (first, second) == ("value", "value")
    assert any("username: system:serviceaccount:default:default" in line for line in rest)


def test_a_lost_node_is_noticed_and_recovers(other: Cluster) -> None:
    first, second = other.state.nodes
    other.apply(pod("there", shell("sleep 600"), nodeName=second))
    other.apply(pod("goes", shell("sleep 600"), nodeName=second))
    for name in ("there", "goes"):
        wait_for_pod(other, "default", name, ready, "is ready")

    def node_ready() -> str:
        return str(conditions_of(other.get("node", second))["Ready"]["status"])

    other.lose_node(second)
    other.wait_until(lambda: "devcluster/lost" in str(other.get("node", second)), "the annotation", timeout=5)
    other.kubectl("delete", "pod", "goes", "--wait=false")
    other.wait_until(lambda: node_ready() == "Unknown", "the silent node is Unknown", timeout=30)
    assert conditions_of(other.get("node", first))["Ready"]["status"] == "True"
    wait_for_pod(other, "default", "there", lambda item: not ready(item), "is not Ready with its node lost")
    goes = other.get("pod", "goes", "default")
    assert goes is not None, "nobody but its node can take a Pod away"
    assert "deletionTimestamp" in goes["metadata"]
    other.restore_node(second)
    other.wait_until(lambda: other.get("pod", "goes", "default") is None, "the deleted Pod is gone", timeout=20)
    other.wait_until(lambda: node_ready() == "True", "the node is Ready again", timeout=30)
    wait_for_pod(other, "default", "there", ready, "is Ready again")


def test_a_killed_api_server_is_started_again_and_pods_go_on(other: Cluster) -> None:
    before = other.state.components["kube-apiserver"]
    other.signal_component("kube-apiserver", signal.SIGKILL)
    other.wait_until(
        lambda: (
            other.state.components["kube-apiserver"].restarts > before.restarts
            and other.kubectl("get", "--raw", "/readyz", check=False).returncode == 0
        ),
        "the API server answers again",
        timeout=40,
    )
    other.wait_until(
        lambda: (
            other.kubectl("run", "after", "--image=python", "--command", "--", "sleep", "600", check=False).returncode
            == 0
        ),
        "a Pod can be created",
        timeout=20,
    )
    wait_for_pod(other, "default", "after", ready, "is ready")


def test_a_directory_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ClusterStartError, match="not a cluster's state"):
        Cluster(directory=tmp_path).start()
    assert (tmp_path / "precious").exists()


def _devcluster(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEVCLUSTER_STATE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "devcluster", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("victim", "isolation"), [("supervisor", "--isolate"), ("keeper", "--no-isolate")])
def test_a_killed_cluster_leaves_no_process(tmp_path: Path, victim: str, isolation: str) -> None:
    name, marker = f"cli-{uuid.uuid4().hex[:6]}", f"77777.{uuid.uuid4().int % 10**9}"
    directory = tmp_path / name
    try:
        started = _devcluster(tmp_path, "up", "--name", name, isolation)
        if "refuses user namespaces" in started.stderr + started.stdout:
            pytest.skip("no user namespaces here")
        assert started.returncode == 0, started.stderr
        assert f"export KUBECONFIG={directory / 'kubeconfig'}" in started.stdout
        again = _devcluster(tmp_path, "up", "--name", name)
        assert (again.returncode, "is up already" in again.stderr) == (1, True)
        escape = f"setsid sh -c 'sleep {marker}' & sleep {marker}"
        command = ("kubectl", "run", "hides", "--image=python", "--command", "--", "sh", "-c", escape)
        assert _devcluster(tmp_path, "run", "--name", name, "--", *command).returncode == 0
        cluster = Cluster.attach(directory)
        wait_for_pod(cluster, "default", "hides", ready, "is ready")
        cluster.wait_until(lambda: len(processes_with(f"sleep {marker}")) >= 2, "the container's processes", timeout=10)
        shown = _devcluster(tmp_path, "status", "--name", name)
        assert "hides" in shown.stdout
        assert "kube-apiserver" in shown.stdout
        assert directory.stat().st_mode & 0o077 == 0, "Secrets of Pods lie in it"
        state = read_state(directory)
        assert state is not None
        pid = state.pid if victim == "supervisor" else _parent(state.pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not processes_with(marker) and not processes_with(str(directory)), "no process is left", 10)
        assert not is_up(directory)
        assert _devcluster(tmp_path, "status", "--name", name).returncode == 1
    finally:
        _devcluster(tmp_path, "down", "--name", name)
    assert not directory.exists()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_cluster_ends_with_the_process_that_owns_it(owned: Owned) -> None:
    other, owner = owned
    other.apply(pod("orphan", shell("setsid sh -c 'sleep 86399.5' & sleep 86399.5")))
    wait_for_pod(other, "default", "orphan", ready, "is ready")
    owner.kill()
    eventually(lambda: not processes_with(str(other.directory)) and not processes_with("86399.5"), "no process is left")
    assert not other.directory.exists()
