"""Where models come from, and NVIDIA's images in the runtime's place: seen in the running process."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.cluster.services import CPU, FROM_HUB, Services, service
from tests.cluster_fixture import IMAGE_VOLUME

pytestmark = pytest.mark.cluster


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def claim(name: str) -> dict[str, Any]:
    """A claim that the default StorageClass serves."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a Service of the test cluster
        return json.load(answer)


INJECTED = {
    "NIM_CACHE_PATH": "/model-store",
    "NIM_SERVER_PORT": "8000",
    "NIM_HTTP_API_PORT": "8000",
    "NIM_JSONL_LOGGING": "1",
    "NIM_LOG_LEVEL": "INFO",
    "NIM_MODEL_PROFILE": "a-profile",
    "NGC_API_KEY": "nvapi-secret",
}
"""What NVIDIA's own operator gives an embedding image, with the values of the service below."""


@pytest.mark.tells("IdentityNotPublished", "ModelLoading")
def test_nvidias_images_get_what_nvidias_operator_gives_them(services: Services) -> None:
    """The image is a stand-in that answers as they do, and shows how it was started."""
    services.apply(secret("ngc", NGC_API_KEY=INJECTED["NGC_API_KEY"]), claim("nim-cache"))
    image = {"repository": "nvcr.example/nim/nvidia/stand-in", "tag": "1.6.0", "pullSecrets": [{"name": "ngc-pull"}]}
    nim = {
        "image": image,
        "ngcSecretRef": {"name": "ngc"},
        "profile": "a-profile",
        "runAsUser": 1000,
        "sharedMemorySizeLimit": "64Mi",
    }
    model = {"id": "nvidia/nv-embedqa-e5-v5", "cache": {"persistentVolumeClaim": {"claimName": "nim-cache"}}}
    env = [{"name": "STAND_IN_READY_AFTER", "value": "4"}]
    wanted = service("nim", model=model, runtime={"type": "NIM", "nim": nim, "env": env})
    del wanted["spec"]["accelerator"]
    services.apply(wanted)
    assert "NIM is loading the model" in services.wait_reason("ModelLoading", name="nim")["message"]
    status = services.wait_ready("nim")
    assert services.condition("ModelLoaded", "nim")["reason"] == "IdentityNotPublished"
    assert services.condition("ModelLoaded", "nim")["status"] == "True"
    assert "model" not in status
    assert status["runtime"]["image"] == "nvcr.example/nim/nvidia/stand-in:1.6.0"

    started = fetched(services.cluster.service_url("nim", services.namespace) + "/stand-in")
    assert {name: started["environment"].get(name) for name in INJECTED} == INJECTED
    assert started["environment"]["NIM_SERVED_MODEL_NAME"] == "nvidia/nv-embedqa-e5-v5"
    if services.cluster.state.isolated:
        assert {"/model-store", "/dev/shm", "/tmp"} <= started["mounts"].keys()
        assert started["user"] == 1000
    (pod,) = services.pods("nim")
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert volumes["cache"]["persistentVolumeClaim"] == {"claimName": "nim-cache"}
    assert pod["spec"]["imagePullSecrets"] == [{"name": "ngc-pull"}]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_download_into_a_claim_outlives_its_pod_and_needs_no_hub_again(services: Services) -> None:
    services.apply(secret("hub", token="hf_secret"), claim("models"))
    source = {**FROM_HUB["huggingFace"], "tokenSecretRef": {"name": "hub", "key": "token"}}
    model = {"huggingFace": source, "cache": {"persistentVolumeClaim": {"claimName": "models"}}}
    services.apply(service(model=model))
    before = services.wait_ready()["model"]
    (pod,) = services.pods()
    variables = {it["name"]: it for it in pod["spec"]["containers"][0]["env"]}
    assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}
    nowhere = [{"name": "HF_ENDPOINT", "value": "http://127.0.0.1:1"}]
    services.apply(service(model=model, runtime={"env": nowhere}))
    assert services.wait_ready()["model"] == before


def test_a_model_comes_as_an_image_volume(services: Services) -> None:
    services.apply(service(model={"image": {"reference": IMAGE_VOLUME}}, accelerator=CPU))
    status = services.wait_ready()
    assert status["model"]["dimensions"] == 384
    assert status["model"]["id"] == "minilm"
    (pod,) = services.pods()
    (volume,) = (it for it in pod["spec"]["volumes"] if "image" in it)
    assert volume["image"]["reference"] == IMAGE_VOLUME
    assert services.client().embeddings.create(model="minilm", input="from an image").data


def test_an_image_volume_that_cannot_be_pulled_is_named(services: Services) -> None:
    services.apply(service(model={"image": {"reference": "registry.example.com/models/nothing:1"}}))
    assert "registry.example.com/models/nothing:1" in services.wait_reason("ImagePullFailed")["message"]
