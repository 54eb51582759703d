"""The judgement over a whole run: what it finds, and that the run fails by it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.replay import DIRECTORY, EVERYWHERE, MONITORED, NAMESPACED, Record, faults, granted, judged
from tests.cluster.services import OPERATOR_NAMESPACE

ROOT = Path(__file__).parents[2]
READER = {"kind": "Role", "metadata": {"name": "other", "namespace": "kube-system"}, "rules": []}


def request(
    verb: str,
    resource: str,
    group: str = "",
    decision: str = "allow",
    namespace: str = "search",
    name: str = "embedding-operator",
) -> dict[str, object]:
    return {
        "verb": verb,
        "objectRef": {"resource": resource, "apiGroup": group, "namespace": namespace, "name": name},
        "requestURI": f"/{resource}",
        "annotations": {"authorization.k8s.io/decision": decision},
    }


def test_requests_are_held_against_the_rules_of_the_chart() -> None:
    rules = granted({}, READER)
    lease = request("update", "leases", "coordination.k8s.io", namespace=OPERATOR_NAMESPACE)
    found = judged(EVERYWHERE, [request("patch", "services"), lease], rules)
    assert (found.missing, found.requests) == ((), 2)
    assert "patch services, granted by ClusterRole embedding-operator" in found.granted
    assert "patch services, granted by ClusterRole embedding-operator" not in found.unused
    assert "delete networkpolicies.networking.k8s.io, granted by ClusterRole embedding-operator" in found.unused
    wrong = [
        request("get", "secrets"),
        request("patch", "services", decision="forbid"),
        request("update", "leases", "coordination.k8s.io"),
    ]
    missing = judged(EVERYWHERE, wrong, rules).missing
    assert missing == (
        "get secrets in search: /secrets",
        "patch services in search: /services",
        "update leases.coordination.k8s.io in search: /leases",
    )


def test_clusters_of_a_mode_are_judged_together_and_idle_rights_only_in_a_whole_run() -> None:
    one = Record(EVERYWHERE, granted=("a", "b"), unused=("a",), missing=(), requests=1)
    other = replace(one, unused=("b",))
    rest = [Record(mode, ("a",), (), (), 1) for mode in (NAMESPACED, MONITORED)]
    assert faults([one, other, *rest], whole=True) == []
    assert faults([one, *rest], whole=True) == [f"granted and never used ({EVERYWHERE}): a"]
    assert faults([one], whole=False) == []
    assert faults([one, *rest[1:]], whole=True)[1:] == [f"no cluster left a record ({NAMESPACED})"]
    lacking = replace(one, missing=("get secrets",))
    assert faults([lacking], whole=False) == [f"not granted ({EVERYWHERE}): get secrets"]


@pytest.mark.parametrize(
    ("missing", "code", "workers"),
    [("get secrets", 1, ("-n", "1")), ("", 0, ())],
    ids=["lacking, in a worker", "nothing lacking, in one process"],
)
def test_a_run_fails_by_what_its_clusters_lacked(
    tmp_path: Path, missing: str, code: int, workers: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text("from tests.cluster.replay import pytest_configure as pytest_configure\n")
    (tmp_path / "test_it.py").write_text(
        "import json, os, pathlib\n"
        "def test_it():\n"
        f"    record = dict(mode='m', granted=['a'], unused=[], missing={[missing] if missing else []}, requests=7)\n"
        f"    pathlib.Path(os.environ['{DIRECTORY}'], 'one.json').write_text(json.dumps(record))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    said = f"not granted (m): {missing}" if missing else "7 requests in 1 clusters: none lacked a right"
    assert said in done.stdout
