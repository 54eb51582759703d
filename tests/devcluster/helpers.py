"""Manifests of small Pods, and waiting for what becomes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from devcluster import Cluster

Object = dict[str, Any]

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        status = 503 if self.path == "/ready" and os.path.exists("/tmp/unready") else 200
        body = os.environ["POD_NAME"].encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, form, *values):
        print(form % values, flush=True)
server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("listening", flush=True)
server.serve_forever()
"""
"""An HTTP server on the Pod's address that answers with the Pod's name."""


def field(name: str, path: str) -> Object:
    """A variable with a field of the Pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def server_container(**changes: Any) -> Object:
    """A container that runs `SERVER`, probed for readiness every second."""
    return {
        "name": "main",
        "image": "registry.example/python:3",
        "args": ["-c", SERVER],
        "env": [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        **changes,
    }


def shell(script: str, **changes: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": "main", "image": "python", "command": ["sh", "-c", script], **changes}


def pod(name: str, container: Object | None = None, **spec: Any) -> Object:
    """A Pod with one container; it is not waited for long when deleted."""
    containers = [container] if container else spec.pop("containers")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers, **spec},
    }


def deployment(name: str, container: Object, replicas: int = 1, **spec: Any) -> Object:
    """A Deployment of Pods labelled `app: NAME`."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **spec}},
        },
    }


def service(name: str, **spec: Any) -> Object:
    """A Service on port 8000 for the Pods labelled `app: NAME`, by the name of their port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8000, "targetPort": "http"}], **spec},
    }


def status_of(item: Object | None) -> Object:
    """The status of an object that may not exist."""
    return (item or {}).get("status", {})


def main_status(item: Object | None) -> Object:
    """The status of a Pod's first container; empty while there is none."""
    statuses = status_of(item).get("containerStatuses") or [{}]
    first: Object = statuses[0]
    return first


def conditions_of(item: Object | None) -> dict[str, Object]:
    """An object's conditions by type."""
    return {condition["type"]: condition for condition in status_of(item).get("conditions", ())}


def wait_for_pod(
    cluster: Cluster, namespace: str, name: str, met: Callable[[Object], bool], what: str, timeout: float = 30
) -> Object:
    """Wait until a Pod is as `met` wants it; returns it then."""
    found: list[Object] = []

    def look() -> bool:
        item = cluster.get("pod", name, namespace)
        if item is None or not met(item):
            return False
        found.append(item)
        return True

    cluster.wait_until(look, f"Pod {name}: {what}", timeout=timeout)
    return found[0]


def eventually(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    """Wait for a condition without asking a cluster."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)


def processes_with(marker: str) -> list[str]:
    """The command lines on this machine that contain a text, without those of this process and its callers."""
    callers = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    lines = {p.pid: " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]) if p.pid not in callers}
    return [line for line in lines.values() if marker in line]


def phase(wanted: str) -> Callable[[Object], bool]:
    """Whether a Pod is in a phase."""
    return lambda item: status_of(item).get("phase") == wanted


def waiting(reason: str) -> Callable[[Object], bool]:
    """Whether a Pod's first container waits for a reason."""
    return lambda item: main_status(item).get("state", {}).get("waiting", {}).get("reason") == reason


def ready(item: Object) -> bool:
    """Whether a Pod is Ready."""
    return conditions_of(item).get("Ready", {}).get("status") == "True"


def events_of(cluster: Cluster, namespace: str, name: str) -> list[tuple[str, str]]:
    """Reason and message of the events about an object."""
    return [
        (event["reason"], event["message"])
        for event in cluster.objects("events", namespace)
        if event["involvedObject"]["name"] == name
    ]
