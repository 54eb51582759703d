"""EmbeddingServices in one namespace, as a test works with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import NotFoundError, OpenAI
from openai.types import CreateEmbeddingResponse

from devcluster import Cluster
from tests.cluster_fixture import MINILM, MINILM_COMMIT

RELEASE = "embedding-operator"
OPERATOR_NAMESPACE = "embedding-operator-system"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
LABEL = "embedding-operator.io/service"

FROM_HUB = {"huggingFace": {"repository": MINILM, "revision": MINILM_COMMIT}}
CPU = {"type": "None"}


def service(name: str = "minilm", **spec: Any) -> dict[str, Any]:
    """An EmbeddingService of MiniLM on CPU, with changes to its spec."""
    return {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": {"model": FROM_HUB, "accelerator": CPU, **spec},
    }


@dataclass(frozen=True)
class Services:
    cluster: Cluster
    namespace: str
    seen: set[str] = field(default_factory=set)
    """Every reason that a condition or a problem had when it was read."""
    clients: list[OpenAI] = field(default_factory=list)
    """Those that were handed out; `close` ends their connections."""

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        self.cluster.apply(*manifests, namespace=self.namespace)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl(*arguments, "--namespace", self.namespace, **options).stdout

    def get(self, kind: str, name: str = "minilm") -> dict[str, Any] | None:
        return self.cluster.get(kind, name, self.namespace)

    def existing(self, kind: str, name: str = "minilm") -> dict[str, Any]:
        found = self.get(kind, name)
        assert found is not None, f"{kind}/{name} does not exist"
        return found

    def pods(self, name: str = "minilm") -> list[dict[str, Any]]:
        return self.cluster.objects("pods", self.namespace, f"{LABEL}={name}")

    def resource(self, name: str = "minilm") -> dict[str, Any]:
        """The EmbeddingService; empty while there is none. Its reasons are remembered as seen."""
        resource = self.get("embeddingservice", name) or {}
        self.see(resource)
        return resource

    def see(self, resource: Mapping[str, Any]) -> None:
        """Remember the reasons of a status."""
        status = resource.get("status") or {}
        for entry in (*(status.get("conditions") or ()), *(status.get("problems") or ())):
            self.seen.add(entry["reason"])

    def status(self, name: str = "minilm") -> dict[str, Any]:
        return self.resource(name).get("status") or {}

    def condition(self, kind: str = "Ready", name: str = "minilm") -> dict[str, Any]:
        """A condition of the resource's present generation; empty while there is none."""
        resource = self.resource(name)
        for entry in (resource.get("status") or {}).get("conditions") or ():
            if entry["type"] == kind and entry["observedGeneration"] == resource["metadata"]["generation"]:
                return dict(entry)
        return {}

    def wait(self, what: str, check: Callable[[], bool], timeout: float = 60) -> None:
        self.cluster.wait_until(check, what, timeout=timeout, period=0.3)

    def wait_ready(self, name: str = "minilm", timeout: float = 120) -> dict[str, Any]:
        """`kubectl wait`, as users do it."""
        self.kubectl("wait", "--for=condition=Ready", f"emb/{name}", f"--timeout={timeout:.0f}s", timeout=timeout + 10)
        return self.status(name)

    def wait_reason(
        self, reason: str, *, kind: str = "Ready", name: str = "minilm", timeout: float = 60
    ) -> dict[str, Any]:
        self.wait(f"{kind} has reason {reason}", lambda: self.condition(kind, name).get("reason") == reason, timeout)
        return self.condition(kind, name)

    def client(self, name: str = "minilm") -> OpenAI:
        url = self.cluster.service_url(name, self.namespace)
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def wait_answer(self, model: str, name: str = "minilm") -> CreateEmbeddingResponse:
        """An answer under this model id. A new connection may for a moment still lead to a Pod that is on its way out,
        as on any cluster; that is waited for, other failures are not."""
        answers: list[CreateEmbeddingResponse] = []

        def answered() -> bool:
            try:
                answers.append(self.client(name).embeddings.create(model=model, input="by its id"))
            except NotFoundError:
                return False
            return True

        self.wait(f"an answer as {model}", answered, timeout=20)
        return answers[0]

    def claim(self, name: str, directory: Path) -> None:
        """A bound claim that holds a directory of this machine."""
        volume = f"{self.namespace}-{name}"
        common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(directory)}},
            }
        )
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            }
        )

    def picture(self) -> str:
        """What a person would look at first when a test failed."""
        kinds = "emb,deployments,replicasets,services,hpa,pdb,pods,events"
        parts = [
            self.kubectl("get", kinds, "--output=wide", check=False),
            self.kubectl("get", "emb", "--output=yaml", check=False),
            "operator:",
            self.cluster.kubectl(
                "logs",
                "--namespace",
                OPERATOR_NAMESPACE,
                "-l",
                "app.kubernetes.io/name=embedding-operator",
                "--tail=40",
                "--prefix",
                check=False,
            ).stdout,
        ]
        for pod in self.cluster.objects("pods", self.namespace):
            name = pod["metadata"]["name"]
            parts += [f"{name}:", self.kubectl("logs", name, "--tail=20", check=False)]
        return "\n".join(parts)


def writes(events: list[dict[str, Any]]) -> list[str]:
    """The audit log's completed writes, Lease renewals aside, as `verb resource/name`."""
    return [
        f"{event['verb']} {event['objectRef']['resource']}/{event['objectRef'].get('name', '')}"
        for event in events
        if event["stage"] == "ResponseComplete"
        and event["verb"] in ("create", "update", "patch", "delete")
        and event["objectRef"]["resource"] != "leases"
    ]


def as_json(value: Any) -> str:
    return json.dumps(value)
