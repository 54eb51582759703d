"""The node agent's rules, which are pure functions: status, environment, images, probes, files, backends."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devcluster.network.backends import Lingering, backends, targets
from devcluster.network.slices import slice_manifest
from devcluster.node.backoff import BackOff
from devcluster.node.environment import ConfigError, Sources, command_line, expand, field_value, variables_of
from devcluster.node.failures import BROKEN_DEVICES, image_trouble, kill_order, refused_device, signal_order
from devcluster.node.files import MountError, config_map_payload, secret_payload, write_payload
from devcluster.node.images import default_pull_policy, find_directory, find_image, image_id, parse_reference
from devcluster.node.launch import user_of
from devcluster.node.mounts import Mount, rewrite
from devcluster.node.probes import ProbeSettings, Verdict
from devcluster.node.quantities import divide, parse_quantity
from devcluster.node.service_links import service_variables
from devcluster.node.status import (
    ContainerFacts,
    PodFacts,
    Role,
    Running,
    Terminated,
    Waiting,
    phase_of,
    pod_status,
    says_the_same,
)
from devcluster.settings import Image
from tests.devcluster.helpers import Object

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POD: Object = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "p", "tier": "a"}, "generation": 2},
    "spec": {"containers": [{"name": "main"}], "nodeName": "n"},
    "status": {},
}
IMAGE = Image(command=("/bin/serve", "--quiet"), arguments=("--default",), environment={"A": "image", "B": "image"})


# Images


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("python", "python", None),
        ("python:3.13", "python", "3.13"),
        ("localhost:5000/a/b_c:v1", "localhost:5000/a/b_c", "v1"),
        ("ghcr.io/org/embedding-runtime@sha256:" + "0" * 64, "ghcr.io/org/embedding-runtime", None),
        ("nvcr.io/nim/x:1@sha256:" + "f" * 64, "nvcr.io/nim/x", "1"),
    ],
)
def test_references_are_split(text: str, repository: str, tag: str | None) -> None:
    reference = parse_reference(text)
    assert reference is not None
    assert (reference.repository, reference.tag) == (repository, tag)


@pytest.mark.parametrize("text", ["", "a/Upper", "a//b", "a:", "a@sha256:12", " a", "a:tag:tag"])
def test_malformed_references_are_refused(text: str) -> None:
    assert parse_reference(text) is None


def test_an_image_is_found_by_repository_or_its_last_part() -> None:
    other = Image(command=("other",))
    images = {"embedding-runtime": IMAGE, "mirror.example/x/embedding-runtime": other}
    assert find_image(images, "ghcr.io/org/embedding-runtime:1.2") is IMAGE
    assert find_image(images, "mirror.example/x/embedding-runtime:1.2") is other
    assert find_image(images, "ghcr.io/org/embedding-runtime-cuda:1.2") is None
    assert find_directory({"models/minilm:1": "/a", "models/minilm": "/b"}, "models/minilm:1") == "/a"
    assert find_directory({"models/minilm": "/b"}, "models/minilm:2") == "/b"


def test_pull_policy_and_image_id() -> None:
    assert [default_pull_policy(t) for t in ("a", "a:latest", "a:1", "a@sha256:" + "0" * 64)] == [
        "Always",
        "Always",
        "IfNotPresent",
        "IfNotPresent",
    ]
    assert image_id("a:1") == image_id("a:1") != image_id("a:2")
    assert image_id("a:1@sha256:" + "0" * 64) == "a@sha256:" + "0" * 64


# Command lines and variables


def test_command_and_args_replace_entrypoint_and_cmd_as_in_kubernetes() -> None:
    variables = {"X": "1"}
    assert command_line({}, IMAGE, variables) == ["/bin/serve", "--quiet", "--default"]
    assert command_line({"args": ["$(X)"]}, IMAGE, variables) == ["/bin/serve", "--quiet", "1"]
    assert command_line({"command": ["c", "$(X)"]}, IMAGE, variables) == ["c", "1"]
    assert command_line({"command": ["c"], "args": ["$(Y)"]}, IMAGE, variables) == ["c", "$(Y)"]


def test_expansion_knows_escapes_and_leaves_unknown_names() -> None:
    assert expand("$(A)$$(A)$$$(A) $(B) $A $", {"A": "x"}) == "x$(A)$x $(B) $A $"


def _sources(container: Object, **objects: Object) -> Sources:
    return Sources(
        pod=POD,
        container=container,
        secret=lambda name: objects.get(f"secret_{name}"),
        config_map=lambda name: objects.get(f"map_{name}"),
        pod_address="127.0.0.9",
        host_address="127.0.0.1",
        capacity={"cpu": "8", "memory": "16Gi"},
    )


def test_variables_in_rising_precedence() -> None:
    container = {
        "name": "main",
        "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}, "prefix": "S_"}],
        "env": [
            {"name": "C", "value": "env $(B)"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k", "optional": True}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    secret = {"data": {"k": base64.b64encode(b"hidden").decode()}}
    sources = _sources(container, map_m={"data": {"B": "map", "C": "map"}}, secret_s=secret)
    variables = variables_of(sources, IMAGE, {"HOSTNAME": "p"})
    assert variables["A"] == "image"
    assert variables["B"] == "map"
    assert variables["C"] == "env map"
    assert (variables["S_k"], variables["KEY"], variables["CPUS"]) == ("hidden", "hidden", "8")
    assert "NONE" not in variables


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "x", "key": "k"}}, 'secret "x" not found'),
        ({"secretKeyRef": {"name": "s", "key": "x"}}, "couldn't find key x in Secret ns/s"),
        ({"configMapKeyRef": {"name": "x", "key": "k"}}, 'configmap "x" not found'),
        ({"fieldRef": {"fieldPath": "spec.nonsense"}}, "unsupported fieldPath: spec.nonsense"),
    ],
)
def test_missing_sources_are_named(source: Object, message: str) -> None:
    container = {"name": "main", "env": [{"name": "V", "valueFrom": source}]}
    with pytest.raises(ConfigError, match=message):
        variables_of(_sources(container, secret_s={"data": {}}), IMAGE, {})


def test_downward_fields() -> None:
    sources = _sources({"name": "main"})
    assert field_value(sources, "metadata.labels['tier']") == "a"
    assert field_value(sources, "metadata.labels") == 'app="p"\ntier="a"'
    assert field_value(sources, "status.podIP") == "127.0.0.9"


def test_service_variables_are_those_that_break_programs_named_like_services() -> None:
    spec = {"clusterIP": "10.0.0.1", "ports": [{"name": "http-api", "port": 8000}]}
    variables = service_variables([{"metadata": {"name": "my-svc"}, "spec": spec}])
    assert variables["MY_SVC_PORT"] == "tcp://10.0.0.1:8000"
    assert variables["MY_SVC_SERVICE_PORT_HTTP_API"] == "8000"
    assert variables["MY_SVC_PORT_8000_TCP_ADDR"] == "10.0.0.1"
    assert service_variables([{"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{}]}}]) == {}


def test_quantities() -> None:
    assert parse_quantity("1500m") == parse_quantity("1.5")
    assert divide("64Mi", "1Mi") == 64
    assert divide("100m", "1") == 1
    with pytest.raises(ValueError, match="no quantity"):
        parse_quantity("1Kx")


def test_users() -> None:
    assert user_of(POD, {"name": "main"}, IMAGE) == (65532, 65532)
    assert user_of(POD, {"name": "main", "securityContext": {"runAsUser": 7, "runAsGroup": 8}}, IMAGE) == (7, 8)
    with pytest.raises(ConfigError, match="container has runAsNonRoot and image will run as root"):
        user_of(POD, {"name": "main", "securityContext": {"runAsNonRoot": True}}, Image(command=("x",), user=0))


def test_mount_paths_are_rewritten_only_where_they_are_meant() -> None:
    mounts = [Mount("/host/m", "/models", True), Mount("/host/b", "/models/big", True)]
    assert rewrite("/models", mounts) == "/host/m"
    assert rewrite("--dir=/models/x:/models/big/y", mounts) == "--dir=/host/m/x:/host/b/y"
    assert rewrite("/models2 /other/models http://h/models", mounts) == "/models2 /other/models http://h/models"


# Status


def _container(role: Role = Role.APP, **changes: object) -> ContainerFacts:
    base = ContainerFacts(name="main", image="a", role=role, state=Waiting("ContainerCreating"))
    return replace(base, **changes)  # type: ignore[arg-type]


def _pod(*containers: ContainerFacts, over: str | None = None) -> PodFacts:
    return PodFacts(containers, NOW, True, "127.0.0.9", "127.0.0.1", over)


DONE = Terminated(0, "Completed", NOW, NOW)
FAILED = Terminated(1, "Error", NOW, NOW)
UP = Running(NOW)


@pytest.mark.parametrize(
    ("containers", "policy", "expected"),
    [
        ([_container()], "Always", "Pending"),
        ([_container(state=UP)], "Always", "Running"),
        ([_container(state=UP), _container()], "Always", "Pending"),
        ([_container(state=Waiting("CrashLoopBackOff"), last=FAILED)], "Always", "Running"),
        ([_container(state=DONE)], "Always", "Running"),
        ([_container(state=DONE)], "OnFailure", "Succeeded"),
        ([_container(state=FAILED)], "OnFailure", "Running"),
        ([_container(state=FAILED)], "Never", "Failed"),
        ([_container(state=DONE), _container(state=FAILED)], "Never", "Failed"),
        ([_container(state=DONE), _container(state=UP)], "Never", "Running"),
        ([_container(Role.INIT, state=UP), _container()], "Always", "Pending"),
        ([_container(Role.INIT, state=FAILED), _container()], "Always", "Pending"),
        ([_container(Role.INIT, state=FAILED), _container()], "Never", "Failed"),
        ([_container(Role.INIT, state=DONE), _container(state=UP)], "Always", "Running"),
        ([_container(Role.SIDECAR, state=UP), _container(state=UP)], "Always", "Pending"),
        ([_container(Role.SIDECAR, state=UP, started=True), _container(state=UP)], "Always", "Running"),
    ],
)
def test_phases(containers: list[ContainerFacts], policy: str, expected: str) -> None:
    assert phase_of(_pod(*containers), policy) == expected


def test_conditions_keep_their_time_until_they_change() -> None:
    unready = pod_status(_pod(_container(state=UP, started=True)), POD, NOW)
    later = NOW + timedelta(minutes=1)
    ready = pod_status(_pod(_container(state=UP, started=True, ready=True)), {**POD, "status": unready}, later)
    conditions = {condition["type"]: condition for condition in ready["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert conditions["Ready"]["lastTransitionTime"] == "2026-01-02T03:05:05Z"
    assert conditions["Initialized"]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert conditions["Ready"]["observedGeneration"] == 2
    assert says_the_same(ready, ready)
    assert not says_the_same(ready, unready)


def test_readiness_gates_hold_the_pod_back() -> None:
    gated = {**POD, "spec": {**POD["spec"], "readinessGates": [{"conditionType": "x/y"}]}}
    status = pod_status(_pod(_container(state=UP, started=True, ready=True)), gated, NOW)
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions["ContainersReady"]["status"] == "True"
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "ReadinessGatesNotReady")


# Probes and waits


def test_a_verdict_needs_its_threshold_of_equal_results() -> None:
    verdict = Verdict(ProbeSettings(success_threshold=2, failure_threshold=3))
    assert [verdict.add(result) for result in (True, False, True, True)] == [False, False, False, True]
    assert verdict.value is True
    assert [verdict.add(False) for _ in range(3)] == [False, False, True]
    assert verdict.value is False


def test_probe_defaults_are_the_apis() -> None:
    assert ProbeSettings.of({}) == ProbeSettings(0, 10, 1, 1, 3)


def test_waits_double_from_nothing_and_are_forgotten_after_a_long_run() -> None:
    waits = BackOff(10)
    assert [waits.next(0, 1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert waits.next(0, 601) == 0


# Files


def test_files_are_switched_at_once_and_old_ones_go(tmp_path: Path) -> None:
    directory = tmp_path / "volume"
    write_payload(directory, {"a": (b"1", 0o644), "sub/b": (b"2", 0o400)})
    first = (directory / "..data").readlink()
    write_payload(directory, {"a": (b"1", 0o644), "sub/b": (b"2", 0o400)})
    assert (directory / "..data").readlink() == first
    assert (directory / "sub/b").read_bytes() == b"2"
    write_payload(directory, {"a": (b"3", 0o644)})
    assert (directory / "a").read_bytes() == b"3"
    assert sorted(path.name for path in directory.iterdir() if not path.name.startswith("..")) == ["a"]
    assert len([path for path in directory.iterdir() if path.is_dir() and not path.is_symlink()]) == 1


def test_payloads_of_secrets_and_config_maps() -> None:
    secret = {"data": {"k": base64.b64encode(b"v").decode()}}
    assert secret_payload({"items": [{"key": "k", "path": "p", "mode": 0o400}]}, secret, "s", 0o644) == {
        "p": (b"v", 0o400)
    }
    assert secret_payload({"optional": True}, None, "s", 0o644) == {}
    with pytest.raises(MountError, match="references non-existent secret key: x"):
        secret_payload({"items": [{"key": "x", "path": "p"}]}, secret, "s", 0o644)
    with pytest.raises(MountError, match='configmap "m" not found'):
        config_map_payload({}, None, "m", 0o644)


# Services


def _backend_pod(name: str, *, ready: bool, deleted: bool = False) -> Object:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web", "extra": "x"}}
        | ({"deletionTimestamp": "now"} if deleted else {}),
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "podIP": f"127.0.0.{name[-1]}",
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def _service(**spec: object) -> Object:
    ports = [{"name": "api", "port": 80, "targetPort": "http"}]
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "s"},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


def test_new_connections_go_to_ready_pods_or_else_to_those_that_still_serve() -> None:
    ready, unready = _backend_pod("p1", ready=True), _backend_pod("p2", ready=False)
    leaving = _backend_pod("p3", ready=True, deleted=True)
    found = backends(_service(), [ready, unready, leaving])
    assert targets(found, "api") == [("127.0.0.1", 8080)]
    assert targets(backends(_service(), [unready, leaving]), "api") == [("127.0.0.3", 8080)]
    assert targets(backends(_service(), [unready]), "api") == []
    assert len(targets(backends(_service(publishNotReadyAddresses=True), [unready]), "api")) == 1
    assert targets(backends(_service(ports=[{"port": 80, "targetPort": "other"}]), [ready]), "") == []
    conditions = [endpoint["conditions"] for endpoint in slice_manifest(_service(), found)["endpoints"]]
    assert conditions == [
        {"ready": True, "serving": True, "terminating": False},
        {"ready": False, "serving": False, "terminating": False},
        {"ready": False, "serving": True, "terminating": True},
    ]


def test_targets_that_are_gone_linger_for_a_moment() -> None:
    lingering = Lingering(delay=1)
    lingering.update([("a", 1), ("b", 1)], 0)
    assert lingering.at(0) == [("a", 1), ("b", 1)]
    lingering.update([("b", 1), ("c", 1)], 5)
    assert lingering.at(5.5) == [("b", 1), ("c", 1), ("a", 1)]
    assert lingering.at(6) == [("b", 1), ("c", 1)]
    lingering.update([("b", 1)], 7)
    lingering.update([("b", 1), ("c", 1)], 7.5)
    assert lingering.at(7.6) == [("b", 1), ("c", 1)]


# Failures on demand


def test_failures_are_read_from_annotations() -> None:
    def marked(**annotations: str) -> Object:
        return {"metadata": {"annotations": {f"devcluster/{k.replace('_', '-')}": v for k, v in annotations.items()}}}

    assert image_trouble(marked(image_pull="fail"), None, "a").refused
    assert image_trouble(marked(image_pull="2.5"), None, "a").delay == 2.5
    node = marked(broken_images="python", slow_images="a/b=3,c=x")
    assert image_trouble({"metadata": {}}, node, "registry/python:1").refused
    assert image_trouble({"metadata": {}}, node, "a/b:1").delay == 3
    assert not image_trouble({"metadata": {}}, node, "other").refused
    assert kill_order(marked(), marked(oom_kill="main/1"), "devcluster/oom-kill") == "main"
    assert kill_order(marked(oom_kill="main/1"), marked(oom_kill="main/1"), "devcluster/oom-kill") is None
    assert kill_order(marked(oom_kill="main/1"), marked(oom_kill="main/2"), "devcluster/oom-kill") == "main"
    assert signal_order(marked(), marked(signal="main/19/1")) == ("main", 19)
    assert signal_order(marked(signal="main/19/1"), marked(signal="main/18/2")) == ("main", 18)
    assert signal_order(marked(signal="main/19/1"), marked(signal="main/19/1")) is None


def test_a_broken_device_refuses_the_pods_that_ask_for_it() -> None:
    asks = {"spec": {"containers": [{}, {"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}}}]}}
    assert refused_device(asks, None) is None
    assert refused_device(asks, {"metadata": {"annotations": {BROKEN_DEVICES: "a/b,nvidia.com/gpu"}}}) == (
        "nvidia.com/gpu"
    )
    assert refused_device(asks, {"metadata": {"annotations": {BROKEN_DEVICES: "a/b"}}}) is None
