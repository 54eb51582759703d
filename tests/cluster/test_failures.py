"""Failures are told truly: each is made to happen on the control plane, and the status names it and its cause."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devcluster import DevclusterError
from tests.cluster.services import Services, service
from tests.cluster_fixture import minilm_directory

pytestmark = pytest.mark.cluster


def refusal(services: Services, manifest: dict[str, object]) -> str:
    with pytest.raises(DevclusterError) as caught:
        services.apply(manifest)
    return str(caught.value)


def test_two_sources_are_refused(services: Services) -> None:
    model = {**service()["spec"]["model"], "persistentVolumeClaim": {"claimName": "models"}}
    assert "exactly one" in refusal(services, service(model=model)) or "one of" in refusal(
        services, service(model=model)
    )


def test_no_source_is_refused(services: Services) -> None:
    assert "set one of model.huggingFace" in refusal(services, service(model={"id": "nothing"}))


def test_a_name_of_60_characters_is_refused(services: Services) -> None:
    assert "at most 50 characters" in refusal(services, service(name="a" * 60))


def test_an_unknown_field_is_named(services: Services) -> None:
    assert 'unknown field "spec.replica"' in refusal(services, service(replica=2))


def test_a_broken_model_directory_is_told_in_the_runtimes_words(services: Services, tmp_path: Path) -> None:
    broken = tmp_path / "minilm"
    shutil.copytree(minilm_directory(), broken)
    (broken / "model.safetensors").unlink()
    tmp_path.chmod(0o755)
    services.claim("models", tmp_path)
    services.apply(service(model={"persistentVolumeClaim": {"claimName": "models", "path": "minilm"}}))
    condition = services.wait_reason("ModelLoadFailed")
    assert condition["status"] == "False"
    assert "cannot load model /model/minilm: " in condition["message"]
    assert "model.safetensors" in condition["message"]
    (problem, *_) = services.status()["problems"]
    assert problem["reason"] == "ModelLoadFailed"
    assert problem["container"] == "runtime"

    # Mended, it recovers by itself: the container is restarted by its kubelet.
    shutil.copy(minilm_directory() / "model.safetensors", broken)
    assert services.wait_ready()["model"]["id"] == "minilm"
    assert "problems" not in services.status()


def test_a_missing_claim_is_named(services: Services) -> None:
    services.apply(service(model={"persistentVolumeClaim": {"claimName": "nowhere"}}))
    assert "nowhere" in services.wait_reason("ClaimNotBound")["message"]


def test_a_missing_secret_is_named_without_reading_secrets(services: Services) -> None:
    services.apply(service(authentication={"apiKeysSecretRef": {"name": "no-such-keys"}}))
    assert "no-such-keys" in services.wait_reason("SecretNotFound")["message"]


def test_a_missing_accelerator_is_named(services: Services) -> None:
    accelerator = {"type": "ExtendedResource", "extendedResource": {"name": "nvidia.com/gpu", "count": 64}}
    services.apply(service(accelerator=accelerator))
    assert "nvidia.com/gpu" in services.wait_reason("WaitingForAccelerator")["message"]


def test_an_image_that_cannot_be_pulled_is_named(services: Services) -> None:
    image = {"repository": "registry.example/nowhere/runtime", "tag": "1"}
    services.apply(service(runtime={"bundled": {"image": image}}))
    assert "registry.example/nowhere/runtime:1" in services.wait_reason("ImagePullFailed")["message"]


def test_a_foreign_object_of_the_same_name_is_left_alone(services: Services) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "minilm"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 1234}]},
    }
    services.apply(foreign)
    before = services.existing("service")
    services.apply(service())
    condition = services.wait_reason("NameTaken", kind="Applied")
    assert "Service/minilm" in condition["message"]
    assert services.condition("Stalled")["status"] == "True"
    assert services.get("deployment") is None
    services.kubectl("delete", "emb", "minilm")
    assert services.existing("service")["spec"] == before["spec"]
    assert services.existing("service")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
