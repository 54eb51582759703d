"""Replicas of the operator as processes of this machine, which a test may stop, kill and continue; and what the API
server's audit log says about who wrote when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from devcluster import Cluster
from devcluster.control.addresses import free_port
from tests.cluster.services import OPERATOR_NAMESPACE, OPERATOR_USER, RELEASE

PROGRAM = str(Path(sys.executable).with_name("embedding-operator"))
_AGENT = re.compile(r"^embedding-operator/\S+ \((?P<replica>[^)]+)\)")


@dataclass(frozen=True)
class Replica:
    """One `embedding-operator run` with the rights that the chart gives its ServiceAccount."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, cluster: Cluster, directory: Path, name: str, **settings: str) -> Replica:
        """Start one; `settings` are EMBEDDING_OPERATOR_ variables."""
        kubeconfig = directory / f"{name}.kubeconfig"
        document = yaml.safe_load(cluster.kubeconfig.read_text())
        token = cluster.kubectl("create", "token", RELEASE, "--namespace", OPERATOR_NAMESPACE).stdout.strip()
        document["users"][0]["user"] = {"token": token}
        kubeconfig.write_text(yaml.safe_dump(document))
        values = {
            "NAMESPACE": OPERATOR_NAMESPACE,
            "POD_NAME": name,
            "LEASE_NAME": RELEASE,
            "HOST": "127.0.0.1",
            "PORT": str(free_port("127.0.0.1", 0)),
            "PROGRESS_SECONDS": "0.5",
            "POLL_SECONDS": "3",
            "RESYNC_SECONDS": "10",
            **settings,
        }
        environment = {f"EMBEDDING_OPERATOR_{key}": value for key, value in values.items()}
        log = directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [PROGRAM, "run"],
                env={**os.environ, **environment, "KUBECONFIG": str(kubeconfig)},
                stdout=output,
                stderr=output,
            )
        return cls(name, process, log)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """End it as a kubelet would, and at once if it does not."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Request:
    """One answered request of a replica, by the API server's clock."""

    replica: str
    verb: str
    what: str
    received: float
    answered: float
    code: int

    @property
    def lease(self) -> bool:
        return self.what.startswith("leases/")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def requests(cluster: Cluster, since: float) -> list[Request]:
    """The replicas' writes since a moment (`time.time()`), Lease renewals included, in the order they were received."""
    found = []
    for event in cluster.audit_events(OPERATOR_USER):
        agent = _AGENT.match(event.get("userAgent", ""))
        if event["stage"] != "ResponseComplete" or event["verb"] not in ("create", "update", "patch", "delete"):
            continue
        reference = event["objectRef"]
        what = f"{reference['resource']}/{reference.get('name', '')}"
        assert agent is not None, f"who is {event.get('userAgent')!r}, which wrote {what}?"
        found.append(
            Request(
                agent["replica"],
                event["verb"],
                what,
                _seconds(event["requestReceivedTimestamp"]),
                _seconds(event["stageTimestamp"]),
                event["responseStatus"]["code"],
            )
        )
    return sorted((it for it in found if it.received >= since), key=lambda it: it.received)


def reigns(log: Iterable[Request]) -> list[tuple[str, float, float]]:
    """(replica, from, to) of every time that one replica held the Lease without another between, by the answers that
    granted it."""
    found: list[tuple[str, float, float]] = []
    for request in sorted((it for it in log if it.lease and it.code < 300), key=lambda it: it.answered):
        if found and found[-1][0] == request.replica:
            found[-1] = (request.replica, found[-1][1], request.answered)
        else:
            found.append((request.replica, request.answered, request.answered))
    return found


def usurpations(log: list[Request]) -> list[str]:
    """Writes that took effect outside their writer's reign: before it held the Lease, or after the next one held it."""
    periods = reigns(log)
    wrong = []
    for request in (it for it in log if not it.lease and it.code < 300):
        allowed = [
            (begin, periods[index + 1][1] if index + 1 < len(periods) else float("inf"))
            for index, (replica, begin, _) in enumerate(periods)
            if replica == request.replica
        ]
        if not any(begin <= request.received and request.answered <= end for begin, end in allowed):
            wrong.append(f"{request.replica} {request.verb} {request.what} at {request.received:.3f}")
    return wrong


def writers(log: Iterable[Request]) -> list[str]:
    """Who wrote objects, each turn once."""
    found: list[str] = []
    for request in log:
        if not request.lease and found[-1:] != [request.replica]:
            found.append(request.replica)
    return found


def now() -> float:
    """The moment by this machine's clock, which is the API server's as well."""
    return time.time()
