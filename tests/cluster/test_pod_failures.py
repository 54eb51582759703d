"""What goes wrong with Pods, made to happen: the status names the Pod's own cause, in the words of whoever found it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devcluster.model_hub import ModelHub
from tests.cluster.services import FROM_HUB, LABEL, Services, service
from tests.cluster_fixture import MINILM, MINILM_COMMIT, minilm_directory

pytestmark = pytest.mark.cluster


def stand_in(mode: str, **spec: Any) -> dict[str, Any]:
    """A service whose image is a stand-in: for something else that serves, or where what serves does not matter."""
    image = {"repository": "registry.example/stand-in", "tag": "1"}
    env = [{"name": "STAND_IN_MODE", "value": mode}]
    return service(runtime={"bundled": {"image": image}, "env": env}, **spec)


@contextmanager
def history(services: Services, name: str = "minilm") -> Iterator[list[dict[str, Any]]]:
    """Every status that the resource has while the block runs, as a watch tells them."""
    found: list[dict[str, Any]] = []
    command = ["kubectl", "get", "emb", "--namespace", services.namespace, "--watch", "--output=json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=services.cluster.environment)

    def read() -> None:
        text, decoder = "", json.JSONDecoder()
        assert process.stdout is not None
        for line in process.stdout:
            text += line
            if line != "}\n":
                continue
            resource, _ = decoder.raw_decode(text)
            text = ""
            if resource["metadata"]["name"] == name:
                found.append(resource.get("status") or {})
                services.see(resource)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def messages(statuses: list[dict[str, Any]], reason: str) -> list[str]:
    """What Ready said while it had this reason, in order."""
    return [
        entry["message"]
        for status in statuses
        for entry in status.get("conditions", ())
        if (entry["type"], entry["reason"]) == ("Ready", reason)
    ]


# Nowhere to run -------------------------------------------------------------------------------------------------------


@pytest.mark.tells("Unschedulable")
def test_what_no_node_has_is_named(services: Services) -> None:
    services.apply(service(resources={"requests": {"memory": "9Ti"}}))
    assert "Insufficient memory" in services.wait_reason("Unschedulable")["message"]
    services.apply(service(scheduling={"nodeSelector": {"disk": "none"}}))
    services.wait("the node selector is named", lambda: "selector" in services.condition().get("message", ""))
    assert services.condition()["reason"] == "Unschedulable"
    assert services.condition("Available")["reason"] == "Unschedulable"


@pytest.mark.tells("PodFailed")
def test_a_broken_device_is_named_in_the_kubelets_words(services: Services) -> None:
    services.cluster.break_devices("nvidia.com/gpu")
    wanted = stand_in("nim", accelerator={"extendedResource": {"count": 1}})
    try:
        services.apply(wanted)
        message = services.wait_reason("PodFailed")["message"]
    finally:
        services.cluster.break_devices()
    assert "UnexpectedAdmissionError" in message
    assert "devices unavailable for nvidia.com/gpu" in message
    # Mended, the next Pod serves, and those that were refused explain nothing any more although they still exist.
    services.wait_ready()
    assert any(pod["status"]["phase"] == "Failed" for pod in services.pods())
    assert "problems" not in services.status()


@pytest.mark.tells("Evicted")
def test_an_eviction_is_told_with_its_cause(services: Services) -> None:
    services.apply(service(model={**FROM_HUB, "cache": {"emptyDir": {"sizeLimit": "20Mi"}}}))
    assert 'EmptyDir volume "cache" exceeds the limit "20Mi"' in services.wait_reason("Evicted")["message"]


# Not started ----------------------------------------------------------------------------------------------------------


@pytest.mark.tells("ContainerConfigurationError")
def test_a_missing_config_map_of_a_variable_is_named(services: Services) -> None:
    reference = {"configMapKeyRef": {"name": "nowhere", "key": "level"}}
    services.apply(service(runtime={"env": [{"name": "LEVEL", "valueFrom": reference}]}))
    assert 'configmap "nowhere" not found' in services.wait_reason("ContainerConfigurationError")["message"]


@pytest.mark.tells("VolumeMountFailed")
def test_a_volume_that_cannot_be_mounted_is_named(services: Services) -> None:
    volume = {"name": "prompts", "configMap": {"name": "nowhere"}}
    services.apply(service(podTemplate={"volumes": [volume]}))
    assert 'configmap "nowhere" not found' in services.wait_reason("VolumeMountFailed")["message"]


@pytest.mark.tells("InitContainerFailed")
def test_a_failing_init_container_is_named_with_its_last_words(services: Services) -> None:
    init = {
        "name": "license",
        "image": "python:3",
        "command": ["python", "-c", "raise SystemExit('the license server does not answer')"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    services.apply(service(podTemplate={"initContainers": [init]}))
    condition = services.wait_reason("InitContainerFailed")
    assert "the license server does not answer (exit code 1)" in condition["message"]
    (problem, *_) = services.status()["problems"]
    assert (problem["reason"], problem["container"]) == ("InitContainerFailed", "license")


@pytest.mark.tells("Starting")
def test_an_image_on_its_way_is_named(services: Services) -> None:
    services.cluster.slow_images({"embedding-runtime": 6})
    try:
        services.apply(service())
        services.wait(
            "the pull is told", lambda: "pulling image" in services.condition().get("message", "").lower(), timeout=20
        )
        assert services.condition()["reason"] == "Starting"
        assert "problems" not in services.status()
    finally:
        services.cluster.slow_images({})


# Ended ----------------------------------------------------------------------------------------------------------------


@pytest.mark.tells("CrashLoop")
def test_a_crash_loop_is_told_with_exit_code_and_last_words(services: Services) -> None:
    services.apply(service(runtime={"bundled": {"image": {"repository": "registry.example/python", "tag": "3"}}}))
    condition = services.wait_reason("CrashLoop")
    assert "can't open file" in condition["message"]
    assert "(exit code 2)" in condition["message"]
    services.wait("restarts are counted", lambda: services.status()["problems"][0]["restarts"] >= 2)
    # Between two ends the container runs for a moment: the cause does not flicker.
    with history(services) as statuses:
        services.wait("two more", lambda: services.status()["problems"][0]["restarts"] >= 4, timeout=40)
    assert {entry["reason"] for status in statuses for entry in status["conditions"] if entry["type"] == "Ready"} == {
        "CrashLoop"
    }


@pytest.mark.tells("OutOfMemory")
def test_too_little_memory_is_told(services: Services) -> None:
    services.apply(service(resources={"limits": {"memory": "100Mi"}}))
    assert "memory" in services.wait_reason("OutOfMemory")["message"]
    (problem, *_) = services.status()["problems"]
    assert (problem["reason"], problem["container"]) == ("OutOfMemory", "runtime")


@pytest.mark.tells("ProbeFailed")
def test_a_process_that_hangs_is_told_and_forgotten_when_it_goes_on(services: Services) -> None:
    services.apply(stand_in("nim"))
    services.wait_ready()
    (pod,) = services.pods()
    hangs = (pod["metadata"]["name"], "runtime", services.namespace)
    services.cluster.signal_container(*hangs, signal.SIGSTOP)
    condition = services.wait_reason("ProbeFailed")
    assert "Readiness probe failed" in condition["message"]
    assert services.condition("Available")["status"] == "False"
    services.cluster.signal_container(*hangs, signal.SIGCONT)
    assert services.wait_ready()["readyReplicas"] == 1
    assert "problems" not in services.status()


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.tells("ModelDownloading", "ModelLoading", "ProbeFailed")
def test_loading_progress_is_told_and_a_start_that_takes_too_long(services: Services) -> None:
    def from_hub(hub: ModelHub, seconds: int) -> dict[str, Any]:
        env = [{"name": "HF_ENDPOINT", "value": hub.url}]
        return service(runtime={"env": env, "startupTimeoutSeconds": seconds, "drainTimeoutSeconds": 0})

    repositories = {MINILM: minilm_directory()}
    with ModelHub(repositories, commit=MINILM_COMMIT, bytes_per_second=12e6) as hub, history(services) as statuses:
        services.apply(from_hub(hub, 1200))
        services.wait_ready()
    shares = [int(text.split(" %")[0].split()[-1]) for text in messages(statuses, "ModelDownloading") if " %" in text]
    assert len(set(shares)) >= 3
    assert shares == sorted(shares)
    assert messages(statuses, "ModelLoading")
    with ModelHub(repositories, commit=MINILM_COMMIT, bytes_per_second=1e6) as hub:
        services.apply(from_hub(hub, 30))
        condition = services.wait_reason("ProbeFailed", timeout=120)
    assert "failed startup probe" in condition["message"]
    # The Pod from before serves on all the while.
    assert services.condition("Available")["status"] == "True"


@pytest.mark.tells("FingerprintMismatch")
def test_another_vector_space_never_replaces_the_one_that_serves(services: Services) -> None:
    services.apply(service())
    before = services.wait_ready()["model"]["fingerprint"]
    services.apply(service(vectorSpace={"expectedFingerprint": f"sha256:{'0' * 64}"}))
    condition = services.wait_reason("FingerprintMismatch")
    assert before in condition["message"]
    assert services.condition("Available")["status"] == "True"
    assert services.client().embeddings.create(model=MINILM, input="still the old one").data


@pytest.mark.tells("ReplicasDisagree", "Scaling")
def test_replicas_of_different_vector_spaces_are_told_apart(services: Services, tmp_path: Path) -> None:
    """A directory that changes under a running service, as a branch of a repository does."""
    model = tmp_path / "minilm"
    shutil.copytree(minilm_directory(), model)
    tmp_path.chmod(0o755)
    services.claim("models", tmp_path)
    services.apply(service(model={"persistentVolumeClaim": {"claimName": "models", "path": "minilm"}}))
    services.wait_ready()
    path = model / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    services.kubectl("scale", "emb/minilm", "--replicas=2")
    services.wait_reason("Scaling")
    condition = services.wait_reason("ReplicasDisagree", kind="ModelLoaded")
    assert condition["status"] == "False"
    for pod in services.pods():
        assert pod["metadata"]["name"] in condition["message"]
    assert services.condition()["reason"] == "ReplicasDisagree"
    assert services.condition("Available")["status"] == "True"
    assert "fingerprint" not in services.status()["model"]


@pytest.mark.tells("EndpointUnreachable")
def test_a_mesh_in_the_way_is_no_false_alarm(services: Services) -> None:
    services.apply(stand_in("mesh"))
    services.wait_ready()
    services.wait_reason("EndpointUnreachable", kind="ModelLoaded")
    assert services.condition("ModelLoaded")["status"] == "Unknown"
    assert services.condition()["status"] == "True"
    assert "problems" not in services.status()


@pytest.mark.tells("ForeignPod")
def test_a_pod_that_only_carries_the_label_is_named(services: Services) -> None:
    services.apply(service(suspend=True))
    security = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": "python:3", "command": ["sleep", "600"], "securityContext": security}
    services.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "stranger", "labels": {LABEL: "minilm"}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"},
        }
    )
    services.wait("the stranger is named", lambda: bool(services.status().get("problems")))
    (problem,) = services.status()["problems"]
    assert (problem["pod"], problem["reason"]) == ("stranger", "ForeignPod")
    assert services.condition()["reason"] == "Suspended"


@pytest.mark.tells("Unschedulable")
def test_a_service_without_a_free_processor_keeps_its_other_replicas(services: Services) -> None:
    services.apply(stand_in("nim", replicas=2, resources={"requests": {"cpu": "40"}}))
    services.wait("one serves", lambda: services.status().get("readyReplicas") == 1)
    condition = services.wait_reason("Unschedulable")
    assert "Insufficient cpu" in condition["message"]
    assert services.condition("Available")["status"] == "True"
