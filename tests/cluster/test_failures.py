"""Failures are told truly: each is made to happen on the control plane, and the status names it and its cause."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devcluster import Cluster, DevclusterError
from tests.cluster.services import FROM_HUB, Services, as_json, service
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


@pytest.mark.tells("ModelLoadFailed")
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
    # What happened is told for a while, as something that is over.
    assert all(told["message"].startswith("recovered after ") for told in services.status().get("problems") or ())


@pytest.mark.tells("ClaimNotBound")
def test_a_missing_claim_is_named(services: Services) -> None:
    services.apply(service(model={"persistentVolumeClaim": {"claimName": "nowhere"}}))
    assert "nowhere" in services.wait_reason("ClaimNotBound")["message"]


@pytest.mark.tells("SecretNotFound")
def test_a_missing_secret_is_named_without_reading_secrets(services: Services) -> None:
    services.apply(service(authentication={"apiKeysSecretRef": {"name": "no-such-keys"}}))
    assert "no-such-keys" in services.wait_reason("SecretNotFound")["message"]


@pytest.mark.tells("WaitingForAccelerator")
def test_a_missing_accelerator_is_named(services: Services) -> None:
    accelerator = {"type": "ExtendedResource", "extendedResource": {"name": "nvidia.com/gpu", "count": 64}}
    services.apply(service(accelerator=accelerator))
    assert "nvidia.com/gpu" in services.wait_reason("WaitingForAccelerator")["message"]


@pytest.mark.tells("ImagePullFailed")
def test_an_image_that_cannot_be_pulled_is_named(services: Services) -> None:
    image = {"repository": "registry.example/nowhere/runtime", "tag": "1"}
    services.apply(service(runtime={"bundled": {"image": image}}))
    assert "registry.example/nowhere/runtime:1" in services.wait_reason("ImagePullFailed")["message"]


@pytest.mark.tells("NameTaken")
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


DEFINITION = "embeddingservices.embedding-operator.io"


@contextmanager
def older_definition(cluster: Cluster) -> Iterator[None]:
    """A definition without the rules for `spec`, as an older release's or somebody's own would be."""
    live = cluster.get("customresourcedefinition", DEFINITION) or {}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
    rules = live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]

    def patch(operation: dict[str, object]) -> None:
        cluster.kubectl("patch", "crd", DEFINITION, "--type=json", "--patch", as_json([operation]))

    patch({"op": "remove", "path": path})
    try:
        yield
    finally:
        patch({"op": "add", "path": path, "value": rules})


@pytest.mark.tells("InvalidSpec", "NotObserved")
def test_a_spec_that_got_past_the_schema_is_told_and_nothing_is_done(services: Services) -> None:
    with older_definition(services.cluster):
        wrong = service(model={"id": "without-a-source"})

        def admitted() -> bool:
            applied = services.cluster.kubectl(
                "apply", "--namespace", services.namespace, "--filename=-", input=as_json(wrong), check=False
            )
            return applied.returncode == 0

        services.wait("the older definition counts", admitted, timeout=30)
        condition = services.wait_reason("InvalidSpec", kind="Accepted")
        assert "set one of model.huggingFace" in condition["message"]
        assert services.condition("Applied")["reason"] == "NotObserved"
        assert services.condition("Stalled")["status"] == "True"
        assert services.get("deployment") is None
        services.apply(service(suspend=True))
        services.wait_reason("Suspended")
    services.wait(
        "the rules count again",
        lambda: "exactly one" in refused_in_vain(services) or "one of" in refused_in_vain(services),
        timeout=30,
    )


def refused_in_vain(services: Services) -> str:
    """What the API server says to a spec without a model's source; nothing is stored."""
    asked = ("apply", "--namespace", services.namespace, "--dry-run=server", "--filename=-")
    return services.cluster.kubectl(*asked, input=as_json(service(model={"id": "x"})), check=False).stderr


@pytest.mark.tells("RevisionNotPinned", "Accepted", "Applied", "Suspended", "AutoscalingOff", "NoPods")
def test_a_branch_instead_of_a_commit_is_pointed_out(services: Services) -> None:
    services.apply(service(suspend=True, model={"huggingFace": {**FROM_HUB["huggingFace"], "revision": "main"}}))
    condition = services.wait_reason("RevisionNotPinned", kind="Accepted")
    assert condition["status"] == "True"
    assert "revision main" in condition["message"]
    services.apply(service(suspend=True))
    services.wait_reason("Accepted", kind="Accepted")
    services.wait_reason("Suspended")
    assert services.condition("ModelLoaded")["reason"] == "NoPods"


def quota(**hard: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}}


@pytest.mark.tells("Refused")
def test_a_quota_that_refuses_a_child_is_named(services: Services) -> None:
    services.apply(quota(**{"count/services": "0"}))
    services.wait("the quota counts", lambda: bool(services.existing("resourcequota", "small").get("status")))
    services.apply(service(suspend=True))
    condition = services.wait_reason("Refused", kind="Applied")
    assert "Service/minilm" in condition["message"]
    assert "exceeded quota: small" in condition["message"]
    # The refused child keeps no other from being what it should be.
    assert services.get("deployment") is not None
    assert services.get("pdb") is not None
    services.kubectl("delete", "resourcequota", "small")
    services.apply(service(suspend=True, disruptionBudget={"enabled": False}))
    services.wait_reason("Suspended")


@pytest.mark.tells("Refused")
def test_a_quota_that_refuses_pods_is_named_although_no_pod_can_tell(services: Services) -> None:
    services.apply(quota(pods="0"))
    services.wait("the quota counts", lambda: bool(services.existing("resourcequota", "small").get("status")))
    services.apply(service())
    condition = services.wait_reason("Refused")
    assert "Pods cannot be created" in condition["message"]
    assert "exceeded quota: small" in condition["message"]
    assert services.condition("Available")["reason"] == "Refused"


@pytest.mark.tells("RetryingAfterError")
def test_an_admission_webhook_that_does_not_answer_is_told_and_tried_again(services: Services) -> None:
    name = f"broken-{services.namespace}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["CREATE"]}
    services.cluster.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [
                {
                    "name": "broken.example.com",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "failurePolicy": "Fail",
                    "clientConfig": {"url": "https://127.0.0.1:1/"},
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": services.namespace}},
                    "rules": [rule],
                }
            ],
        }
    )
    try:
        services.apply(service(suspend=True))
        condition = services.wait_reason("RetryingAfterError", kind="Applied")
        assert "broken.example.com" in condition["message"]
    finally:
        services.cluster.kubectl("delete", "validatingwebhookconfiguration", name)
    services.wait_reason("Suspended")


@pytest.mark.tells("DeadlineExceeded")
def test_a_rollout_that_makes_no_progress_is_stuck_only_after_its_own_deadline(services: Services) -> None:
    """The Deployment controller decides it, by its own record of the last progress, which is moved back in time."""
    services.apply(service(scheduling={"nodeSelector": {"there": "is-none"}}, runtime={"startupTimeoutSeconds": 3600}))
    services.wait_reason("Unschedulable")
    assert services.existing("deployment")["spec"]["progressDeadlineSeconds"] == 4200

    def last_progress(seconds_ago: int) -> None:
        moment = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = services.existing("deployment")["status"]["conditions"]
        for condition in conditions:
            if condition["type"] == "Progressing":
                condition |= {"lastUpdateTime": moment, "lastTransitionTime": moment}
        patch = as_json({"status": {"conditions": conditions}})
        services.kubectl("patch", "deployment", "minilm", "--subresource=status", "--type=merge", "--patch", patch)
        services.kubectl("annotate", "deployment", "minilm", f"looked={seconds_ago}", "--overwrite")

    # Longer than the ten minutes after which Deployments give up by default: a large model may take its time.
    last_progress(3000)
    services.wait(
        "the controller has looked",
        lambda: (
            services.existing("deployment")["status"]["observedGeneration"]
            == services.existing("deployment")["metadata"]["generation"]
        ),
    )
    assert services.condition("Progressing")["reason"] == "RollingOut"
    last_progress(4300)
    condition = services.wait_reason("DeadlineExceeded", kind="Progressing")
    assert "selector" in condition["message"]
    assert services.condition("Stalled")["status"] == "True"


@pytest.mark.tells("NoPods", "RollingOut", "WaitingForAutoscaler")
def test_controllers_that_stand_still_are_told_as_waiting_for_them(services: Services) -> None:
    services.cluster.signal_component("kube-controller-manager", signal.SIGSTOP)
    try:
        services.apply(service(autoscaling={"minReplicas": 1, "maxReplicas": 2}))
        services.wait_reason("WaitingForAutoscaler", kind="ScalingActive")
        assert services.condition("Available")["reason"] == "NoPods"
        assert "has not seen" in services.wait_reason("RollingOut")["message"]
    finally:
        services.cluster.signal_component("kube-controller-manager", signal.SIGCONT)
    services.wait("Pods are created", lambda: bool(services.pods()), timeout=30)


@pytest.mark.tells("WaitingForDeletion")
def test_the_children_of_a_deleted_namesake_are_waited_for(services: Services) -> None:
    services.apply(service(suspend=True))
    services.wait_reason("Suspended")
    held = {"metadata": {"finalizers": ["example.com/held"]}}
    services.kubectl("patch", "deployment", "minilm", "--type=merge", "--patch", as_json(held))
    services.kubectl("delete", "emb", "minilm")
    services.wait(
        "the Deployment is being deleted",
        lambda: "deletionTimestamp" in services.existing("deployment")["metadata"],
    )
    services.apply(service(suspend=True))
    services.wait_reason("WaitingForDeletion", kind="Applied")
    released = {"metadata": {"finalizers": None}}
    services.kubectl("patch", "deployment", "minilm", "--type=merge", "--patch", as_json(released))
    services.wait_reason("Suspended")
