"""Services: ClusterIPs that answer, balance and drain; names; EndpointSlices; what the API server needs of them."""

from __future__ import annotations

import http.client
from collections import Counter

import httpx
import pytest

from devcluster import Cluster
from tests.devcluster.helpers import (
    Object,
    conditions_of,
    deployment,
    phase,
    pod,
    ready,
    server_container,
    service,
    shell,
    status_of,
    wait_for_pod,
)

pytestmark = pytest.mark.cluster


def _slice(cluster: Cluster, namespace: str, name: str) -> Object:
    (found,) = cluster.objects("endpointslices", namespace, f"kubernetes.io/service-name={name}")
    return found


def _answers(url: str, count: int = 20) -> Counter[str]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        return Counter(client.get(url, headers={"Connection": "close"}).text for _ in range(count))


def test_a_deployment_becomes_available_and_its_service_balances(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("web", server_container(), replicas=2), service("web"), namespace=namespace)
    cluster.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=40s", "--namespace", namespace)
    url = cluster.service_url("web", namespace, 8000)
    names = {item["metadata"]["name"] for item in cluster.objects("pods", namespace)}
    cluster.wait_until(lambda: len(_answers(url, 4)) == 2, "both Pods answer", timeout=10)
    counts = _answers(url)
    assert set(counts) == names
    assert min(counts.values()) == 10
    endpoints = _slice(cluster, namespace, "web")["endpoints"]
    assert {endpoint["targetRef"]["name"] for endpoint in endpoints} == names
    assert all(endpoint["conditions"]["ready"] for endpoint in endpoints)
    assert all(endpoint["addresses"][0].startswith("192.0.2.") for endpoint in endpoints)

    first, second = sorted(names)
    cluster.kubectl("annotate", "pod", first, "devcluster/kill=main/1", "--namespace", namespace)
    wait_for_pod(cluster, namespace, first, lambda item: ready(item) and _restarts(item) == 1, "is ready again")
    cluster.wait_until(lambda: set(_answers(url, 4)) == {first, second}, "both answer again", timeout=10)


def _restarts(item: Object) -> int:
    return int(status_of(item)["containerStatuses"][0]["restartCount"])


def test_established_connections_drain_and_new_ones_go_elsewhere(cluster: Cluster, namespace: str) -> None:
    slow = server_container(lifecycle={"preStop": {"sleep": {"seconds": 8}}})
    cluster.apply(deployment("web", slow), service("web"), namespace=namespace)
    cluster.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=40s", "--namespace", namespace)
    (old,) = [item["metadata"]["name"] for item in cluster.objects("pods", namespace)]
    url = httpx.URL(cluster.service_url("web", namespace))
    cluster.wait_until(lambda: set(_answers(str(url), 2)) == {old}, "the Service answers", timeout=10)
    connection = http.client.HTTPConnection(url.host, url.port or 0, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read().decode() == old
    cluster.kubectl("delete", "pod", old, "--wait=false", "--namespace", namespace)
    # kube-proxy falls back to serving Pods that terminate while there is no other, so nobody is ever refused
    cluster.wait_until(lambda: old not in _answers(str(url), 2), "the new Pod answers", timeout=20, period=0.05)
    connection.request("GET", "/slow")
    assert connection.getresponse().read().decode() == old
    connection.close()


def test_a_service_without_pods_refuses_and_one_without_selector_has_no_slice(cluster: Cluster, namespace: str) -> None:
    cluster.apply(service("empty"), service("manual", selector=None), namespace=namespace)
    url = cluster.service_url("empty", namespace)
    cluster.wait_until(lambda: bool(cluster.objects("endpointslices", namespace)), "a slice", timeout=10)
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)
    assert len(cluster.objects("endpointslices", namespace)) == 1
    assert not _slice(cluster, namespace, "empty").get("endpoints")


@pytest.mark.usefixtures("namespaces")
def test_pods_reach_services_by_name_and_node_ports_answer(cluster: Cluster, namespace: str) -> None:
    headless = service("each", clusterIP="None", selector={"app": "web"})
    cluster.apply(deployment("web", server_container()), service("web", type="NodePort"), headless, namespace=namespace)
    cluster.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=40s", "--namespace", namespace)
    script = (
        "import sys, time, urllib.request\n"
        "for url in sys.argv[1:]:\n"
        "    for _ in range(50):\n"
        "        try:\n"
        "            print(urllib.request.urlopen(url, timeout=5).read().decode()); break\n"
        "        except OSError: time.sleep(0.2)\n"
    )
    urls = [
        f"http://web.{namespace}.svc:8000/",
        f"http://web.{namespace}.svc.cluster.local:8000/",
        f"http://each.{namespace}:8080/",
    ]
    client = {"name": "main", "image": "python", "args": ["-c", script, *urls]}
    cluster.apply(pod("client", client, restartPolicy="Never"), namespace=namespace)
    wait_for_pod(cluster, namespace, "client", phase("Succeeded"), "has asked", timeout=30)
    (name,) = [item["metadata"]["name"] for item in cluster.objects("pods", namespace, "app=web")]
    assert cluster.pod_logs("client", namespace).split() == [name] * 3
    found = cluster.get("service", "web", namespace)
    (node,) = cluster.objects("nodes")
    assert found is not None
    port = found["spec"]["ports"][0]["nodePort"]
    assert set(_answers(f"http://{node['status']['addresses'][0]['address']}:{port}", 2)) == {name}


AGGREGATED = """
import http.server, json, os, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "tests.example/v1",
                           "resources": [], "caller": self.headers.get("X-Remote-User")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/keys/tls.crt", "/keys/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_the_api_server_reaches_an_aggregated_api_behind_a_service(
    cluster: Cluster, namespace: str, tls_secret: Object
) -> None:
    container = {
        "name": "main",
        "image": "python",
        "args": ["-c", AGGREGATED],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8443}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
    }
    volumes = [{"name": "keys", "secret": {"secretName": "tls"}}]
    cluster.apply(
        tls_secret, deployment("metrics", container, volumes=volumes), service("metrics"), namespace=namespace
    )
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.tests.example"},
        "spec": {
            "group": "tests.example",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "metrics", "namespace": namespace, "port": 8000},
        },
    }
    cluster.apply(registration)
    try:
        cluster.wait_until(
            lambda: (
                conditions_of(cluster.get("apiservice", "v1.tests.example")).get("Available", {}).get("status")
                == "True"
            ),
            "the APIService is Available",
            timeout=40,
        )
        answer = cluster.kubectl("get", "--raw", "/apis/tests.example/v1").stdout
        assert '"caller": "devcluster-admin"' in answer
    finally:
        cluster.kubectl("delete", "apiservice", "v1.tests.example")


def test_logs_can_be_followed_and_cut(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        pod("talks", shell("for n in 1 2 3 4 5 6; do echo line $n; sleep 0.2; done"), restartPolicy="Never"),
        namespace=namespace,
    )
    wait_for_pod(cluster, namespace, "talks", lambda item: status_of(item).get("phase") != "Pending", "runs")
    assert cluster.kubectl("logs", "--follow", "talks", "--namespace", namespace).stdout.endswith("line 6\n")
    assert cluster.kubectl("logs", "--tail=2", "talks", "--namespace", namespace).stdout == "line 5\nline 6\n"
