"""A real API server takes what the chart renders, and Pod Security `restricted` admits its Pod."""

import copy
import json
from typing import Any

import pytest

from devcluster import Cluster
from tests.chart.helpers import ALL_ON, Rendered, render

pytestmark = pytest.mark.cluster

ROWS: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, False),
    "all-on": ({}, True),
    "namespaced": ({"watchNamespaces": ["NAMESPACE"]}, False),
    "all-on-namespaced": ({"watchNamespaces": ["NAMESPACE"]}, True),
    "no-resources": ({"resources": {}}, False),
}


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> str:
    """The test's namespace, with Pod Security `restricted` enforced."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


def _rendered(row: tuple[dict[str, Any], bool], namespace: str) -> Rendered:
    values, all_on = row
    here = json.loads(json.dumps(values).replace("NAMESPACE", namespace))
    return render(here, *([ALL_ON] if all_on else []), namespace=namespace)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_api_server_takes_every_object(cluster: Cluster, restricted: str, row: tuple[dict[str, Any], bool]) -> None:
    # A ServiceMonitor's definition belongs to the Prometheus operator and is not there.
    objects = [item for item in _rendered(row, restricted).objects if item["kind"] != "ServiceMonitor"]
    taken = cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename", "-"),
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )
    assert taken.stdout.count("serverside-applied") == len(objects)
    assert "Warning" not in taken.stderr, taken.stderr


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_pod_security_restricted_admits_the_pod(
    cluster: Cluster, restricted: str, row: tuple[dict[str, Any], bool]
) -> None:
    spec = copy.deepcopy(_rendered(row, restricted).pod_spec)
    spec.pop("priorityClassName", None)  # would have to exist
    cluster.kubectl("create", "serviceaccount", spec["serviceAccountName"], "--namespace", restricted)
    assert _admitted(cluster, restricted, spec).returncode == 0
    # The namespace does enforce: without one of the fields the same Pod is refused.
    del spec["containers"][0]["securityContext"]["capabilities"]
    refused = _admitted(cluster, restricted, spec)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def _admitted(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> Any:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": namespace}, "spec": spec}
    return cluster.kubectl("create", "--dry-run=server", "--filename", "-", input=json.dumps(pod), check=False)
