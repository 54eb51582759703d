"""What holds for every valid spec."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from embedding_operator.api.constants import RUNTIME_VARIABLES, SERVICE_LABEL
from embedding_operator.render import Child, Strategy, inventory, render
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.helpers import CONTEXT, service
from tests.operator.strategies import specs

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def child(children: tuple[Child, ...], kind: str) -> Child | None:
    return next((child for child in children if child["kind"] == kind), None)


def deployment(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = child(render(service(spec), dataclasses.replace(CONTEXT, **changes)), "Deployment")
    assert found is not None
    content: dict[str, Any] = found["spec"]
    return content


@given(specs)
def test_pod_security_restricted_always_holds(spec: dict[str, Any]) -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and ours."""
    pod = deployment(spec)["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "runAsUser" not in pod["securityContext"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "runAsUser" not in context
    for volume in pod["volumes"]:
        assert set(volume) - {"name"} <= RESTRICTED_VOLUMES


@given(specs)
def test_runtime_container_keeps_its_shape(spec: dict[str, Any]) -> None:
    content = deployment(spec)
    pod = content["template"]["spec"]
    runtime = pod["containers"][0]
    assert runtime["name"] == "runtime"
    http, *others = runtime["ports"]
    assert http == {"name": "http", "containerPort": 8000, "protocol": "TCP"}
    assert not others or spec["runtime"]["type"] == "NIM"
    assert len({port["containerPort"] for port in runtime["ports"]}) == len(runtime["ports"])
    variables = [variable["name"] for variable in runtime["env"]]
    assert len(set(variables)) == len(variables)
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert {mount["name"] for mount in runtime["volumeMounts"]} <= set(volumes)
    startup = runtime["startupProbe"]
    budget = startup["periodSeconds"] * startup["failureThreshold"]
    assert budget >= spec.get("runtime", {}).get("startupTimeoutSeconds", 1200)
    assert content["progressDeadlineSeconds"] >= budget
    drain = spec.get("runtime", {}).get("drainTimeoutSeconds", 30)
    pause = runtime["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > drain + pause
    if spec.get("runtime", {}).get("type") != "NIM":
        assert runtime["securityContext"]["readOnlyRootFilesystem"] is True
        assert runtime["args"][0] == "serve"
        assert not any("host" in argument for argument in runtime["args"] if argument.startswith("--"))
        assert {name for name in variables if name.startswith("EMBEDDING_")} <= set(RUNTIME_VARIABLES)


@given(specs)
def test_selectors_are_the_service_label_alone(spec: dict[str, Any]) -> None:
    only = {SERVICE_LABEL: "minilm"}
    for it in render(service(spec), CONTEXT):
        selectors = {
            "Deployment": lambda content: content["selector"]["matchLabels"],
            "Service": lambda content: content["selector"],
            "PodDisruptionBudget": lambda content: content["selector"]["matchLabels"],
            "NetworkPolicy": lambda content: content["podSelector"]["matchLabels"],
            "ServiceMonitor": lambda content: content["selector"]["matchLabels"],
        }
        if it["kind"] in selectors:
            assert selectors[it["kind"]](it["spec"]) == only
    assert deployment(spec)["template"]["metadata"]["labels"][SERVICE_LABEL] == "minilm"


@given(specs, st.integers(0, 9), st.sampled_from(Strategy))
def test_template_depends_on_neither_replicas_nor_autoscaling_nor_strategy(
    spec: dict[str, Any], replicas: int, strategy: Strategy
) -> None:
    template = deployment(spec)["template"]
    assert deployment(spec, replicas=replicas, strategy=strategy)["template"] == template
    unmanaged = deployment(spec, replicas=None)
    assert "replicas" not in unmanaged
    others = {
        "replicas",
        "autoscaling",
        "suspend",
        "disruptionBudget",
        "networkPolicy",
        "monitoring",
        "service",
        "rollout",
    }
    assert deployment({key: value for key, value in spec.items() if key not in others})["template"] == template


@given(specs)
def test_rendering_is_deterministic_and_plain_json(spec: dict[str, Any]) -> None:
    first, second = render(service(spec), CONTEXT), render(service(spec), CONTEXT)
    assert json.dumps(first) == json.dumps(second)


@given(specs)
def test_children_are_owned_and_in_the_inventory(spec: dict[str, Any]) -> None:
    owner = service(spec)
    known = {(kind.api_version, kind.kind, name) for kind, name in inventory(owner.name)}
    keys = [(it["apiVersion"], it["kind"], it["metadata"]["name"]) for it in render(owner, CONTEXT)]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= known
    for it in render(owner, CONTEXT):
        (reference,) = it["metadata"]["ownerReferences"]
        assert reference["controller"] is True
        assert reference["uid"] == owner.metadata.uid
        assert it["metadata"]["namespace"] == "search"


@given(specs)
def test_strategy_is_always_whole(spec: dict[str, Any]) -> None:
    for strategy in Strategy:
        content = deployment(spec, strategy=strategy)["strategy"]
        assert (content["type"] == "Recreate") != ("rollingUpdate" in content)
        if "rollingUpdate" in content:
            assert set(content["rollingUpdate"]) == {"maxSurge", "maxUnavailable"}
