"""What becomes of Pods on the node agent: every state that a kubelet would report, from real processes.

All Pods are applied at once, so that they live through their stories side by side; each test waits for its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from devcluster import Cluster
from tests.devcluster.helpers import (
    Object,
    conditions_of,
    events_of,
    field,
    main_status,
    phase,
    pod,
    ready,
    shell,
    status_of,
    wait_for_pod,
    waiting,
)

pytestmark = pytest.mark.cluster
SECRET_MOUNT = {"volumeMounts": [{"name": "files", "mountPath": "/etc/keys"}]}


def _init(name: str, script: str, **changes: object) -> Object:
    return {**shell(script), "name": name, **changes}


PODS = [
    pod("completes", shell("echo fine"), restartPolicy="Never"),
    pod(
        "fails",
        shell("echo out; echo last words >&2; exit 42", terminationMessagePolicy="FallbackToLogsOnError"),
        restartPolicy="Never",
    ),
    pod("explains", shell("printf because > /dev/termination-log; exit 1"), restartPolicy="Never"),
    pod("signalled", shell("kill -9 $$; sleep 60"), restartPolicy="Never"),
    pod("loops", shell("echo run; exit 3")),
    pod("no-image", {"name": "main", "image": "registry.example/nothing:1"}),
    pod("bad-image", {"name": "main", "image": "Not/A/Reference:1"}),
    pod("never-pulled", {"name": "main", "image": "registry.example/nothing:1", "imagePullPolicy": "Never"}),
    pod("no-program", {"name": "main", "image": "python", "command": ["no-such-program"]}),
    pod("refused-start", shell("sleep 60")),
    pod("no-secret", shell("sleep 60", **SECRET_MOUNT), volumes=[{"name": "files", "secret": {"secretName": "late"}}]),
    pod(
        "no-key",
        shell(
            "sleep 60",
            env=[{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "absent"}}}],
        ),
    ),
    pod("root", shell("sleep 60", securityContext={"runAsNonRoot": True, "runAsUser": 0})),
    pod(
        "init-fails",
        shell("sleep 60"),
        initContainers=[_init("first", "exit 0"), _init("second", "exit 5")],
        restartPolicy="Never",
    ),
    pod(
        "init-order",
        shell("cat /data/log", volumeMounts=[{"name": "work", "mountPath": "/data"}]),
        initContainers=[
            _init(name, f"echo {name} >> /data/log", volumeMounts=[{"name": "work", "mountPath": "/data"}])
            for name in ("one", "two")
        ],
        volumes=[{"name": "work", "emptyDir": {}}],
        restartPolicy="Never",
    ),
    pod(
        "sidecar",
        shell("test -e /data/up", volumeMounts=[{"name": "work", "mountPath": "/data"}]),
        initContainers=[
            _init(
                "helper",
                "touch /data/up; exec sleep 600",
                restartPolicy="Always",
                startupProbe={"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1},
                volumeMounts=[{"name": "work", "mountPath": "/data"}],
            )
        ],
        volumes=[{"name": "work", "emptyDir": {}}],
        restartPolicy="Never",
    ),
    pod("unready", shell("sleep 600", readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})),
    pod(
        "dies-slowly",
        shell(
            "sleep 600",
            livenessProbe={
                "exec": {"command": ["sh", "-c", "echo tired; exit 1"]},
                "periodSeconds": 1,
                "failureThreshold": 2,
                "terminationGracePeriodSeconds": 1,
            },
        ),
    ),
    pod(
        "never-starts",
        shell("sleep 600", startupProbe={"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}),
    ),
    pod("eats-memory", shell("sleep 600")),
    pod(
        "over-limit",
        {
            "name": "main",
            "image": "python",
            "args": ["-c", "import time; kept = bytearray(96 << 20); time.sleep(600)"],
            "resources": {"limits": {"memory": "64Mi"}},
        },
    ),
    pod(
        "over-size",
        shell(
            "dd if=/dev/zero of=/cache/file bs=1M count=3; sleep 600",
            volumeMounts=[{"name": "cache", "mountPath": "/cache"}],
        ),
        volumes=[{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}],
    ),
    pod("hungry", shell("sleep 600", resources={"limits": {"nvidia.com/gpu": "5"}})),
    pod("too-long", shell("sleep 600"), activeDeadlineSeconds=1, restartPolicy="Never"),
    pod(
        "sees",
        {
            "name": "main",
            "image": "python",
            "command": ["sh", "-c"],
            "args": [
                "echo '$(GREETING) $$(NOT) $(UNKNOWN)'; echo $POD_IP $NODE $MEMORY $ALL_answer; id -u; hostname; pwd;"
                " touch /etc/x 2>&1; touch /tmp/x && echo tmp is mine; cat /podinfo/labels; exit 0"
            ],
            "workingDir": "/usr",
            "resources": {"limits": {"memory": "64Mi"}},
            "env": [
                {"name": "WHO", "value": "world"},
                {"name": "GREETING", "value": "hello $(WHO)"},
                field("POD_IP", "status.podIP"),
                field("NODE", "spec.nodeName"),
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            ],
            "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "info", "mountPath": "/podinfo"}],
        },
        volumes=[
            {
                "name": "info",
                "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            }
        ],
        securityContext={"runAsUser": 1234},
        restartPolicy="Never",
    ),
    pod(
        "read-only",
        shell(
            "touch /tmp/x; test ! -e /tmp/x && touch /data/x && echo right",
            securityContext={"readOnlyRootFilesystem": True},
            volumeMounts=[{"name": "data", "mountPath": "/data"}],
        ),
        volumes=[{"name": "data", "emptyDir": {}}],
        restartPolicy="Never",
    ),
]


@pytest.fixture(scope="module")
def stories(cluster: Cluster) -> Iterator[str]:
    """A namespace in which all of `PODS` live."""
    name = f"pods-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    cluster.wait_until(lambda: cluster.get("serviceaccount", "default", name) is not None, "ServiceAccount", timeout=20)
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"answer": "42"}}
    refused = next(item for item in PODS if item["metadata"]["name"] == "refused-start")
    refused["metadata"]["annotations"] = {"devcluster/start-error": "main"}
    cluster.apply(settings, *PODS, namespace=name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _ended(item: Object) -> Object:
    terminated: Object = main_status(item)["state"]["terminated"]
    return terminated


def test_a_container_that_completes_makes_the_pod_succeed(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "completes", phase("Succeeded"), "succeeds")
    assert (_ended(item)["exitCode"], _ended(item)["reason"]) == (0, "Completed")
    assert conditions_of(item)["Ready"]["reason"] == "PodCompleted"
    assert cluster.pod_logs("completes", stories) == "fine\n"


def test_exit_code_and_last_log_lines_explain_a_failure(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "fails", phase("Failed"), "fails")
    assert (_ended(item)["exitCode"], _ended(item)["reason"]) == (42, "Error")
    assert _ended(item)["message"] == "out\nlast words\n"


def test_the_termination_message_is_read_from_its_file(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "explains", phase("Failed"), "fails")
    assert _ended(item)["message"] == "because"


@pytest.mark.usefixtures("namespaces")
def test_a_signal_gives_128_and_its_number(cluster: Cluster, stories: str) -> None:
    # PID 1 of a PID namespace is not killed by itself, with a kubelet as here, so the shell goes on to sleep
    item = wait_for_pod(cluster, stories, "signalled", phase("Running"), "runs")
    assert main_status(item)["ready"]
    cluster.kill_container("signalled", "main", stories)
    item = wait_for_pod(cluster, stories, "signalled", phase("Failed"), "fails")
    assert (_ended(item)["exitCode"], _ended(item)["reason"]) == (137, "Error")


def test_a_crashing_container_is_restarted_with_growing_waits(cluster: Cluster, stories: str) -> None:
    def looping(item: Object) -> bool:
        return waiting("CrashLoopBackOff")(item) and main_status(item)["restartCount"] >= 2

    item = wait_for_pod(cluster, stories, "loops", looping, "is in CrashLoopBackOff after two restarts")
    status = main_status(item)
    assert status["state"]["waiting"]["message"].startswith("back-off ")
    assert "restarting failed container=main" in status["state"]["waiting"]["message"]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status_of(item)["phase"] == "Running"
    assert cluster.pod_logs("loops", stories, previous=True) == "run\n"
    assert any(reason == "BackOff" for reason, _ in events_of(cluster, stories, "loops"))


def test_an_unknown_image_is_pulled_in_vain(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "no-image", waiting("ImagePullBackOff"), "is in ImagePullBackOff")
    message = main_status(item)["state"]["waiting"]["message"]
    assert message.startswith('Back-off pulling image "registry.example/nothing:1": ErrImagePull: ')
    reasons = events_of(cluster, stories, "no-image")
    assert ("Failed", "Error: ErrImagePull") in reasons
    assert status_of(item)["phase"] == "Pending"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad-image", "InvalidImageName"),
        ("never-pulled", "ErrImageNeverPull"),
        ("no-key", "CreateContainerConfigError"),
        ("root", "CreateContainerConfigError"),
    ],
)
def test_what_cannot_be_configured_waits_with_a_reason(cluster: Cluster, stories: str, name: str, reason: str) -> None:
    item = wait_for_pod(cluster, stories, name, waiting(reason), f"waits for {reason}")
    message = main_status(item)["state"]["waiting"]["message"]
    expected = {
        "no-key": f"couldn't find key absent in ConfigMap {stories}/kube-root-ca.crt",
        "root": "container's runAsUser breaks non-root policy",
        "never-pulled": "is not present with pull policy of Never",
        "bad-image": "couldn't parse image name",
    }
    assert expected[name] in message


@pytest.mark.parametrize("name", ["no-program", "refused-start"])
def test_a_command_that_cannot_be_executed_is_a_start_error(cluster: Cluster, stories: str, name: str) -> None:
    item = wait_for_pod(cluster, stories, name, waiting("CrashLoopBackOff"), "is in CrashLoopBackOff")
    last = main_status(item)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (128, "StartError")
    if name == "no-program":
        assert 'exec: "no-such-program": executable file not found in $PATH' in last["message"]


def test_a_missing_secret_holds_the_pod_until_it_is_there(cluster: Cluster, stories: str) -> None:
    message = 'MountVolume.SetUp failed for volume "files" : secret "late" not found'
    cluster.wait_until(
        lambda: ("FailedMount", message) in events_of(cluster, stories, "no-secret"), "event FailedMount", timeout=20
    )
    item = cluster.get("pod", "no-secret", stories)
    assert item is not None
    assert main_status(item)["state"]["waiting"]["reason"] == "ContainerCreating"
    cluster.kubectl("create", "secret", "generic", "late", "--from-literal=key=value", "--namespace", stories)
    wait_for_pod(cluster, stories, "no-secret", ready, "is ready once the Secret exists")


def test_init_containers_run_in_order_and_a_failed_one_ends_the_pod(cluster: Cluster, stories: str) -> None:
    wait_for_pod(cluster, stories, "init-order", phase("Succeeded"), "succeeds")
    assert cluster.pod_logs("init-order", stories, "main") == "one\ntwo\n"
    item = wait_for_pod(cluster, stories, "init-fails", phase("Failed"), "fails")
    second = status_of(item)["initContainerStatuses"][1]
    assert second["state"]["terminated"]["exitCode"] == 5
    assert main_status(item)["state"]["waiting"]["reason"] == "PodInitializing"
    assert conditions_of(item)["Initialized"]["status"] == "False"


def test_a_sidecar_starts_first_and_ends_with_the_containers(cluster: Cluster, stories: str) -> None:
    wait_for_pod(cluster, stories, "sidecar", phase("Succeeded"), "succeeds")
    ended = "its sidecar ended"  # told after the end of the containers it served
    wait_for_pod(
        cluster,
        stories,
        "sidecar",
        lambda item: "terminated" in status_of(item)["initContainerStatuses"][0]["state"],
        ended,
    )


def test_a_failed_readiness_probe_keeps_the_pod_unready(cluster: Cluster, stories: str) -> None:
    cluster.wait_until(
        lambda: any(reason == "Unhealthy" for reason, _ in events_of(cluster, stories, "unready")), "event", timeout=20
    )
    item = cluster.get("pod", "unready", stories)
    assert status_of(item)["phase"] == "Running"
    assert conditions_of(item)["Ready"]["message"] == "containers with unready status: [main]"
    assert main_status(item)["started"]


def test_failed_liveness_and_startup_probes_restart_the_container(cluster: Cluster, stories: str) -> None:
    for name, kind in (("dies-slowly", "liveness"), ("never-starts", "startup")):
        item = wait_for_pod(cluster, stories, name, lambda item: main_status(item)["restartCount"] > 0, "restarts")
        assert main_status(item)["lastState"]["terminated"]["exitCode"] in (137, 143)
        assert ("Killing", f"Container main failed {kind} probe, will be restarted") in events_of(
            cluster, stories, name
        )
    assert ("Unhealthy", "Liveness probe failed: tired\n") in events_of(cluster, stories, "dies-slowly")


def test_out_of_memory_on_demand(cluster: Cluster, stories: str) -> None:
    wait_for_pod(cluster, stories, "eats-memory", ready, "is ready")
    cluster.kill_container("eats-memory", "main", stories, out_of_memory=True)
    item = wait_for_pod(
        cluster, stories, "eats-memory", lambda item: main_status(item)["restartCount"] == 1, "is restarted"
    )
    last = main_status(item)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")


def test_a_container_over_its_memory_limit_is_killed(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(
        cluster, stories, "over-limit", lambda item: main_status(item)["restartCount"] > 0, "is restarted"
    )
    last = main_status(item)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")


def test_a_pod_that_overfills_an_empty_dir_is_evicted(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "over-size", phase("Failed"), "is evicted")
    assert status_of(item)["reason"] == "Evicted"
    assert status_of(item)["message"] == 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". '


def test_more_gpus_than_the_node_has_cannot_be_scheduled(cluster: Cluster, stories: str) -> None:
    def unschedulable(item: Object) -> bool:
        return conditions_of(item).get("PodScheduled", {}).get("reason") == "Unschedulable"

    item = wait_for_pod(cluster, stories, "hungry", unschedulable, "is unschedulable")
    assert "Insufficient nvidia.com/gpu" in conditions_of(item)["PodScheduled"]["message"]


def test_the_active_deadline_ends_a_pod(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "too-long", phase("Failed"), "fails")
    assert status_of(item)["reason"] == "DeadlineExceeded"


@pytest.mark.usefixtures("namespaces")
def test_a_container_sees_what_kubernetes_promises(cluster: Cluster, stories: str) -> None:
    item = wait_for_pod(cluster, stories, "sees", phase("Succeeded"), "succeeds")
    lines = cluster.pod_logs("sees", stories).splitlines()
    greeting, facts, user, hostname, directory, refused, tmp, *labels = lines
    assert greeting == "hello world $(NOT) $(UNKNOWN)"
    assert facts == f"{status_of(item)['podIP']} {item['spec']['nodeName']} 64 42"
    assert (user, hostname, directory) == ("1234", "sees", "/usr")
    assert "Read-only file system" in refused
    assert tmp == "tmp is mine"
    assert 'app="sees"' in labels


@pytest.mark.usefixtures("namespaces")
def test_a_read_only_root_leaves_only_volumes_writable(cluster: Cluster, stories: str) -> None:
    wait_for_pod(cluster, stories, "read-only", phase("Succeeded"), "succeeds")
    assert cluster.pod_logs("read-only", stories).endswith("right\n")
