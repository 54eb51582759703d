"""What `helm install` tells: the next commands, and what will not work yet."""

import re

import yaml

from tests.chart.helpers import ALL_ON, FULLNAME, NAMESPACE, notes

REGISTRY = {
    "image.repository": "registry.example.com/embedding-operator",
    "runtime.image.repository": "registry.example.com/embedding-runtime",
}


def test_the_next_commands_are_ready_to_type() -> None:
    text = notes(REGISTRY)
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/{FULLNAME}" in text
    assert "all namespaces" in text
    assert "kubectl --namespace default wait --for=condition=Ready" in text
    assert "NOTE" not in text
    assert "WARNING" not in text


def test_the_example_is_a_valid_document() -> None:
    match = re.search(r"<<'EOF'\n(.*?)\n +EOF\n", notes(), re.DOTALL)
    assert match
    example = yaml.safe_load(match.group(1))
    assert example["kind"] == "EmbeddingService"
    assert re.fullmatch("[0-9a-f]{40}", example["spec"]["model"]["huggingFace"]["revision"])


def test_a_namespaced_install_names_one_of_its_namespaces() -> None:
    text = notes({"watchNamespaces": ["search", "ads"]})
    assert "the namespaces ads, search." in text
    assert "kubectl --namespace ads apply -f -" in text


def test_images_without_a_registry_are_pointed_at() -> None:
    text = notes()
    assert 'image.repository is "embedding-operator", without a registry\'s host' in text
    assert "--set runtime.image.repository=REGISTRY/embedding-runtime" in text
    for repository in ("registry.example.com/x", "registry:5000/x", "localhost/x"):
        assert "NOTE" not in notes({"image.repository": repository, "runtime.image.repository": repository})
    assert "NOTE: image.repository" in notes(REGISTRY | {"image.repository": "team/x"})


def test_risky_choices_are_named() -> None:
    assert "deletes the CustomResourceDefinition and with it EVERY EmbeddingService" in notes({"crds.keep": False})
    assert "must be there already" in notes({"crds.enabled": False})
    assert "replicaCount is 0: the operator is paused" in notes({"replicaCount": 0})
    assert f"grant ServiceAccount {NAMESPACE}/{FULLNAME} the rules" in notes({"rbac.create": False})
    assert "Prometheus cannot scrape the operator" in notes({"networkPolicy.allowFrom": []}, ALL_ON)
    assert "Prometheus cannot scrape the operator" not in notes({}, ALL_ON)
