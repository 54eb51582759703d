"""Claims, files that change while mounted, in-Pod access to the API, deletion with hooks."""

from __future__ import annotations

import re
import time

import pytest

from devcluster import Cluster
from devcluster.errors import CommandError
from tests.devcluster.helpers import (
    Object,
    deployment,
    events_of,
    phase,
    pod,
    processes_with,
    ready,
    shell,
    status_of,
    wait_for_pod,
)

pytestmark = pytest.mark.cluster


def _claim(name: str, storage_class: str | None = None) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _with_claim(name: str, claim: str, script: str) -> Object:
    container = shell(script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return pod(name, container, volumes=volumes, restartPolicy="Never")


def test_claims_are_bound_and_keep_data_between_pods(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_claim("lazy"), _claim("eager", "devcluster-immediate"), namespace=namespace)
    cluster.kubectl(
        "wait", "pvc/eager", "--for=jsonpath={.status.phase}=Bound", "--timeout=20s", "--namespace", namespace
    )
    assert status_of(cluster.get("pvc", "lazy", namespace))["phase"] == "Pending"
    cluster.apply(_with_claim("writer", "lazy", "echo kept > /data/file"), namespace=namespace)
    wait_for_pod(cluster, namespace, "writer", phase("Succeeded"), "writes")
    cluster.apply(_with_claim("reader", "lazy", "cat /data/file"), namespace=namespace)
    wait_for_pod(cluster, namespace, "reader", phase("Succeeded"), "reads")
    assert cluster.pod_logs("reader", namespace) == "kept\n"
    cluster.kubectl("delete", "pod", "writer", "reader", "--namespace", namespace)
    cluster.kubectl("delete", "pvc", "lazy", "eager", "--namespace", namespace)
    ours = [volume for volume in cluster.objects("pv") if volume["spec"]["claimRef"]["namespace"] == namespace]
    cluster.wait_until(
        lambda: not [v for v in ours if cluster.get("pv", v["metadata"]["name"])], "the volumes are gone", timeout=30
    )


def test_a_claim_that_does_not_exist_is_the_schedulers_reason(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_with_claim("lost", "absent", "true"), namespace=namespace)
    wait_for_pod(
        cluster,
        namespace,
        "lost",
        lambda item: 'persistentvolumeclaim "absent" not found' in str(status_of(item).get("conditions")),
        "is unschedulable for want of its claim",
    )


def test_mounted_files_follow_their_source(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "words", "--from-literal=word=old", "--namespace", namespace)
    script = "until grep -q new /words/word; do sleep 0.1; done; cat /words/word; ls /words"
    container = shell(script, volumeMounts=[{"name": "words", "mountPath": "/words", "readOnly": True}])
    volumes = [{"name": "words", "configMap": {"name": "words"}}]
    cluster.apply(pod("follows", container, volumes=volumes, restartPolicy="Never"), namespace=namespace)
    wait_for_pod(cluster, namespace, "follows", phase("Running"), "runs")
    change = '{"data":{"word":"new","other":"x"}}'
    cluster.kubectl("patch", "configmap", "words", "--patch", change, "--namespace", namespace)
    wait_for_pod(cluster, namespace, "follows", phase("Succeeded"), "sees the change")
    assert cluster.pod_logs("follows", namespace).split() == ["newother", "word"]


ASK = """
import json, os, ssl, urllib.error, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
namespace = open(account + "namespace").read()
context = ssl.create_default_context(cafile=account + "ca.crt")
context.verify_flags |= ssl.VERIFY_X509_STRICT
for kind in ("configmaps", "secrets"):
    request = urllib.request.Request(f"{server}/api/v1/namespaces/{namespace}/{kind}",
                                     headers={"Authorization": "Bearer " + open(account + "token").read()})
    try:
        print(kind, urllib.request.urlopen(request, context=context).status)
    except urllib.error.HTTPError as problem:
        print(kind, problem.code, json.loads(problem.read())["message"])
"""


def test_a_pod_uses_its_service_account_and_rbac_decides(cluster: Cluster, namespace: str) -> None:
    scope = ("--namespace", namespace)
    cluster.kubectl("create", "serviceaccount", "reader", *scope)
    cluster.kubectl("create", "role", "reader", "--verb=list", "--resource=configmaps", *scope)
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", *scope)
    container = {"name": "main", "image": "python", "args": ["-c", ASK]}
    cluster.apply(pod("asks", container, serviceAccountName="reader", restartPolicy="Never"), namespace=namespace)
    wait_for_pod(cluster, namespace, "asks", phase("Succeeded"), "has asked")
    allowed, denied = cluster.pod_logs("asks", namespace).splitlines()
    user = f"system:serviceaccount:{namespace}:reader"
    assert allowed == "configmaps 200"
    assert denied.startswith(f'secrets 403 secrets is forbidden: User "{user}" cannot list resource')
    cluster.wait_until(lambda: len(cluster.audit_events(user)) == 2, "both requests are in the audit log", timeout=10)
    assert {event["responseStatus"]["code"] for event in cluster.audit_events(user)} == {200, 403}


def test_deletion_runs_pre_stop_then_term_then_kill(cluster: Cluster, namespace: str) -> None:
    notes = {"name": "notes", "mountPath": "/notes"}
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /notes/log; sleep 0.5"]}}}
    script = "trap 'echo term >> /notes/log' TERM; echo up; while :; do sleep 0.1; done"
    directory = [{"name": "notes", "persistentVolumeClaim": {"claimName": "notes"}}]
    cluster.apply(
        _claim("notes", "devcluster-immediate"),
        pod(
            "stubborn",
            shell(script, lifecycle=hook, volumeMounts=[notes]),
            volumes=directory,
            terminationGracePeriodSeconds=3,
        ),
        namespace=namespace,
    )
    wait_for_pod(cluster, namespace, "stubborn", ready, "is ready")
    cluster.wait_until(lambda: "up" in cluster.pod_logs("stubborn", namespace), "the trap is set", timeout=10)
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "stubborn", "--namespace", namespace)
    took = time.monotonic() - began
    assert 2.5 < took < 8
    cluster.apply(_with_claim("reads", "notes", "cat /data/log"), namespace=namespace)
    wait_for_pod(cluster, namespace, "reads", phase("Succeeded"), "has read")
    assert cluster.pod_logs("reads", namespace) == "hook\nterm\n"
    assert ("Killing", "Stopping container main") in events_of(cluster, namespace, "stubborn")


def test_a_forced_deletion_leaves_no_process(cluster: Cluster, namespace: str) -> None:
    marker = "31536000.7"
    cluster.apply(
        pod("forced", shell(f"trap '' TERM; sleep {marker} & wait"), terminationGracePeriodSeconds=60),
        namespace=namespace,
    )
    wait_for_pod(cluster, namespace, "forced", ready, "is ready")
    cluster.wait_until(lambda: bool(processes_with(marker)), "the process runs", timeout=10)
    cluster.kubectl("delete", "pod", "forced", "--force", "--grace-period=0", "--namespace", namespace)
    cluster.wait_until(lambda: not processes_with(marker), "the process is gone", timeout=10)


@pytest.mark.usefixtures("namespaces")
def test_pod_security_restricted_is_enforced(cluster: Cluster, namespace: str) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", namespace, label)
    with pytest.raises(CommandError, match=re.escape('violates PodSecurity "restricted')):
        cluster.apply(pod("lax", shell("sleep 60")), namespace=namespace)
    strict = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    cluster.apply(pod("strict", shell("id -u; sleep 60", securityContext=strict)), namespace=namespace)
    wait_for_pod(cluster, namespace, "strict", ready, "is ready")
    cluster.wait_until(lambda: cluster.pod_logs("strict", namespace) == "65532\n", "the image's user", timeout=5)


def test_a_slow_and_a_broken_pull_on_demand(cluster: Cluster, namespace: str) -> None:
    cluster.break_images("python")
    try:
        cluster.apply(pod("broken", shell("sleep 60")), namespace=namespace)
        wait_for_pod(
            cluster, namespace, "broken", lambda item: "ImagePullBackOff" in str(status_of(item)), "cannot be pulled"
        )
    finally:
        cluster.break_images()
    wait_for_pod(cluster, namespace, "broken", ready, "is ready once the image can be pulled")
    slow = pod("slow", shell("sleep 60"))
    slow["metadata"]["annotations"] = {"devcluster/image-pull": "1.5"}
    cluster.apply(slow, namespace=namespace)
    wait_for_pod(cluster, namespace, "slow", ready, "is ready after a while")
    assert any("in 1.5s" in message for _, message in events_of(cluster, namespace, "slow"))


def test_a_rollout_replaces_pods_without_surge_when_gpus_are_short(cluster: Cluster, namespace: str) -> None:
    container = shell("sleep 600", resources={"limits": {"nvidia.com/gpu": "3"}})
    cluster.apply(deployment("gpus", container, terminationGracePeriodSeconds=1), namespace=namespace)
    scope = ("--namespace", namespace)
    cluster.kubectl("rollout", "status", "deployment/gpus", "--timeout=30s", *scope)
    cluster.kubectl("set", "env", "deployment/gpus", "A=b", *scope)
    cluster.wait_until(
        lambda: "Insufficient nvidia.com/gpu" in str([status_of(p) for p in cluster.objects("pods", namespace)]),
        "the new Pod does not fit beside the old one",
        timeout=20,
    )
    strategy = '{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}'
    cluster.kubectl("patch", "deployment", "gpus", "--patch", strategy, *scope)
    cluster.kubectl("rollout", "status", "deployment/gpus", "--timeout=30s", *scope)
