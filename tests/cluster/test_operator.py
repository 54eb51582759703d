"""What the operator does about drift, autoscaling, its own death, and a second replica of itself."""

from __future__ import annotations

import pytest

from tests.cluster.services import OPERATOR_NAMESPACE, Services, as_json, service

pytestmark = pytest.mark.cluster

SUSPENDED = {"suspend": True}


def test_drift_is_repaired_and_what_others_set_stays(services: Services) -> None:
    services.apply(service(**SUSPENDED))
    services.wait("the Deployment exists", lambda: services.get("deployment") is not None)
    for patch in (
        {"spec": {"template": {"spec": {"enableServiceLinks": True}}}},
        {"spec": {"replicas": 3}},
        {"metadata": {"labels": {"embedding-operator.io/service": "other"}}},
    ):
        services.kubectl("patch", "deployment", "minilm", "--patch", as_json(patch))
        services.wait(
            f"{patch} is undone",
            lambda: (
                services.existing("deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False
                and services.existing("deployment")["spec"]["replicas"] == 0
                and services.existing("deployment")["metadata"]["labels"]["embedding-operator.io/service"] == "minilm"
            ),
        )
    mesh = {"metadata": {"annotations": {"mesh": "on"}}, "spec": {"template": {"metadata": {"labels": {"mesh": "on"}}}}}
    services.kubectl("patch", "deployment", "minilm", "--patch", as_json(mesh))
    services.kubectl("rollout", "restart", "deployment/minilm")
    services.kubectl("patch", "service", "minilm", "--patch", as_json({"spec": {"selector": {"app": "x"}}}))
    # Nothing else is changed that would bring it back along with itself.
    services.wait("the selector is ours", lambda: "app" not in services.existing("service")["spec"]["selector"])
    services.kubectl("delete", "pdb", "minilm")
    services.wait("the budget is back", lambda: services.get("pdb") is not None)
    template = services.existing("deployment")["spec"]["template"]["metadata"]
    assert template["labels"]["mesh"] == "on"
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
    assert services.existing("deployment")["metadata"]["annotations"]["mesh"] == "on"


def test_a_feature_switched_off_removes_its_object(services: Services) -> None:
    services.apply(service(**SUSPENDED))
    services.wait("the budget exists", lambda: services.get("pdb") is not None)
    services.apply(service(**SUSPENDED, disruptionBudget={"enabled": False}))
    services.wait("the budget is gone", lambda: services.get("pdb") is None)


@pytest.mark.tells("MetricUnavailable")
def test_replicas_survive_autoscaling_on_and_off(services: Services) -> None:
    gpus = {"accelerator": {"extendedResource": {"name": "example.com/none"}}}

    def replicas() -> int:
        return int(services.existing("deployment")["spec"]["replicas"])

    services.apply(service(replicas=3, **gpus))
    services.wait("three Pods are asked for", lambda: services.get("deployment") is not None and replicas() == 3)
    autoscaling = {"minReplicas": 1, "maxReplicas": 8}
    services.apply(service(replicas=3, autoscaling=autoscaling, **gpus))
    services.wait("the autoscaler exists", lambda: services.get("hpa") is not None)
    services.wait_reason("MetricUnavailable", kind="ScalingActive")
    assert replicas() == 3

    services.kubectl("scale", "deployment/minilm", "--replicas=5")
    services.apply(service(replicas=3, autoscaling={**autoscaling, "maxReplicas": 9}, **gpus))
    services.wait("the autoscaler is updated", lambda: services.existing("hpa")["spec"]["maxReplicas"] == 9)
    assert replicas() == 5

    services.apply(service(replicas=3, **gpus))
    services.wait("the autoscaler is gone", lambda: services.get("hpa") is None)
    assert replicas() == 5
    services.kubectl("scale", "emb/minilm", "--replicas=4")
    services.wait("spec.replicas counts again", lambda: replicas() == 4)

    # Without an autoscaler a count set behind our back is drift.
    services.kubectl("scale", "deployment/minilm", "--replicas=2")
    services.wait("the drift is repaired", lambda: replicas() == 4)


@pytest.mark.parametrize("autoscaling", [None, {"minReplicas": 1, "maxReplicas": 8}], ids=["fixed", "autoscaled"])
def test_suspend_and_resume_keep_the_count_whatever_is_scaled_meanwhile(
    services: Services, autoscaling: dict[str, int] | None
) -> None:
    gpus = {"accelerator": {"extendedResource": {"name": "example.com/none"}}}
    spec = {"replicas": 3, **gpus, **({"autoscaling": autoscaling} if autoscaling else {})}

    def replicas() -> int:
        return int(services.existing("deployment")["spec"]["replicas"])

    def suspended(value: bool) -> None:
        services.kubectl("patch", "emb", "minilm", "--type=merge", "--patch", as_json({"spec": {"suspend": value}}))

    services.apply(service(**spec))
    services.wait("three Pods are asked for", lambda: services.get("deployment") is not None and replicas() == 3)
    expected = 3
    if autoscaling:
        services.wait_reason("MetricUnavailable", kind="ScalingActive")  # the count is the autoscaler's by now
        services.kubectl("scale", "deployment/minilm", "--replicas=5")
        expected = 5
    suspended(True)
    services.wait("nothing is asked for", lambda: replicas() == 0)
    services.wait_reason("Suspended")
    services.kubectl("scale", "deployment/minilm", "--replicas=2")
    services.wait("the drift is repaired", lambda: replicas() == 0)
    suspended(False)
    services.wait("the count of before is back", lambda: replicas() == expected)

    # Whoever scales the service itself, means it: what was remembered is for another spec.
    suspended(True)
    services.wait("nothing is asked for", lambda: replicas() == 0)
    services.kubectl("scale", "emb/minilm", "--replicas=4")
    suspended(False)
    services.wait("the new count is taken", lambda: replicas() == 4)


def leader(services: Services) -> str:
    lease = services.cluster.get("lease", "embedding-operator", OPERATOR_NAMESPACE)
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def running_operators(services: Services) -> set[str]:
    pods = services.cluster.objects("pods", OPERATOR_NAMESPACE)
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def test_the_operator_killed_in_a_rollout_is_succeeded(services: Services) -> None:
    services.apply(service())
    services.wait_ready()
    services.apply(service(model={**service()["spec"]["model"], "aliases": ["after"]}))
    services.wait_reason("RollingOut")
    before = leader(services)
    force = ("--grace-period=0", "--force")
    services.cluster.kubectl("delete", "pod", before, "--namespace", OPERATOR_NAMESPACE, *force)
    services.wait("another leader", lambda: leader(services) not in ("", before), timeout=40)
    services.wait_ready()
    assert services.wait_answer("after").data
    assert len(services.status()["history"]) == 2


def test_a_leader_that_ends_orderly_hands_over_at_once(services: Services) -> None:
    before = leader(services)
    services.cluster.kubectl("delete", "pod", before, "--namespace", OPERATOR_NAMESPACE, "--wait=false")
    services.wait("another leader", lambda: leader(services) not in ("", before), timeout=10)
    services.apply(service(**SUSPENDED))
    services.wait_reason("Suspended")


def image_of(services: Services, name: str) -> str:
    (container,) = services.existing("deployment", name)["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def test_an_operator_upgrade_restarts_no_pod_but_of_who_asked_for_it(services: Services) -> None:
    follower = service("follower", **SUSPENDED, runtime={"bundled": {"upgradePolicy": "WithOperator"}})
    services.apply(service(**SUSPENDED), follower)
    for name in ("minilm", "follower"):
        services.wait(f"{name}'s Deployment exists", lambda name=name: services.get("deployment", name) is not None)
    before = services.existing("deployment")["metadata"]["generation"]
    chart = "charts/embedding-operator"
    release = ("upgrade", "embedding-operator", chart, f"--namespace={OPERATOR_NAMESPACE}", "--reuse-values", "--wait")
    old = running_operators(services)
    services.cluster.helm(*release, "--set=runtime.image.tag=9.9.9")
    try:
        services.wait("a new one leads", lambda: leader(services) in running_operators(services) - old)
        services.apply(service(**SUSPENDED, service={"labels": {"seen": "by-the-new-one"}}))
        services.wait(
            "the new operator has been here",
            lambda: services.existing("service")["metadata"]["labels"].get("seen") == "by-the-new-one",
        )
        # Nobody touches the one that follows the operator.
        new = "embedding-runtime:9.9.9"
        services.wait("the follower has the new image", lambda: image_of(services, "follower") == new)
        assert services.existing("deployment")["metadata"]["generation"] == before
        assert image_of(services, "minilm") == "embedding-runtime:0.1.0"
        # A change that restarts the Pods anyway takes the new image along.
        services.apply(service(**SUSPENDED, runtime={"drainTimeoutSeconds": 31}))
        services.wait("the new image is taken", lambda: image_of(services, "minilm") == new)
    finally:
        services.cluster.helm(*release, "--set=runtime.image.tag=")


def test_a_service_deleted_and_created_again_waits_for_what_is_left_of_the_first(services: Services) -> None:
    """Its children have the names already, belong to somebody who is no more, and are on their way out."""
    services.apply(service(**SUSPENDED))
    services.wait_reason("Suspended")
    first = services.existing("deployment")["metadata"]["uid"]
    # Held back, so that the second resource certainly meets it.
    held = {"metadata": {"finalizers": ["example.com/held"]}}
    services.kubectl("patch", "deployment", "minilm", "--patch", as_json(held))
    services.kubectl("delete", "emb", "minilm")
    services.apply(service(**SUSPENDED))
    message = services.wait_reason("WaitingForDeletion", kind="Applied")["message"]
    assert "Deployment/minilm" in message
    assert "rename" not in message
    services.kubectl("patch", "deployment", "minilm", "--patch", as_json({"metadata": {"finalizers": None}}))
    services.wait_reason("Suspended")
    owner = services.existing("embeddingservice")["metadata"]["uid"]
    for kind in ("deployment", "service", "pdb"):
        (reference,) = services.existing(kind)["metadata"]["ownerReferences"]
        assert reference["uid"] == owner
    assert services.existing("deployment")["metadata"]["uid"] != first
