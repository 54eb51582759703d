"""`support-bundle` against a cluster: what is in it, and what is not."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from tests.cluster.services import OPERATOR_NAMESPACE, Services, service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PROGRAM = str(Path(sys.executable).with_name("embedding-operator"))
KEY = "caller-key-7c1f2b9e"
LITERAL = "literal-value-55aa77cc"
HUB = "hf_planted0123456789"
ROOT = "embedding-operator-bundle"


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for entry in archive.getmembers():
            file = archive.extractfile(entry)
            assert file is not None
            assert entry.mode == 0o600
            found[entry.name.removeprefix(f"{ROOT}/")] = file.read().decode()
        return found


def secret(name: str, **entries: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries}


def test_a_bundle_has_what_helps_and_no_secret(services: Services, tmp_path: Path) -> None:
    services.apply(secret("keys", alice=KEY), secret("hub", token=HUB))
    shouting = {
        "name": "shouting",
        "image": "python",
        "command": ["python", "-u", "-c"],
        "args": [f"import time; print('Authorization: Bearer {KEY}', '{LITERAL}', 'well'); time.sleep(3600)"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    services.apply(
        service(
            authentication={"apiKeysSecretRef": {"name": "keys"}},
            model={
                "huggingFace": {
                    **service()["spec"]["model"]["huggingFace"],
                    "tokenSecretRef": {"name": "hub", "key": "token"},
                }
            },
            runtime={"env": [{"name": "MY_PASSWORD", "value": LITERAL}]},
            podTemplate={"sidecars": [shouting]},
        )
    )
    services.wait_ready()
    (pod,) = services.pods()
    pod_name = pod["metadata"]["name"]
    services.cluster.kill_container(pod_name, "shouting", services.namespace)
    services.wait(
        "the sidecar was restarted",
        lambda: any(it["restartCount"] for it in services.pods()[0]["status"]["containerStatuses"]),
    )
    services.wait_ready()

    path = tmp_path / "bundle.tar.gz"
    arguments = ("support-bundle", "minilm", "--namespace", services.namespace, "--output", str(path))
    done = services.cluster.run(PROGRAM, *arguments, "--operator-namespace", OPERATOR_NAMESPACE)
    assert done.stdout == f"{path}\n"
    assert path.stat().st_mode & 0o077 == 0
    files = unpacked(path)
    place = f"{services.namespace}/minilm"
    wanted = {
        "README.txt",
        "versions.yaml",
        *(
            f"{place}/{file}"
            for file in ("embeddingservice.yaml", "status.txt", "events.yaml", "deployment-minilm.yaml")
        ),
        *(f"{place}/{kind}-minilm.yaml" for kind in ("service", "poddisruptionbudget")),
        *(
            f"{place}/pods/{pod_name}/{file}"
            for file in ("pod.yaml", "runtime.log", "shouting.log", "shouting.previous.log")
        ),
        *(f"{place}/pods/{pod_name}/{file}" for file in ("ready.json", "manifest.json", "metrics.txt")),
        "operator/deployment-embedding-operator.yaml",
        "operator/lease-embedding-operator.yaml",
    }
    assert wanted <= set(files), wanted - set(files)
    operators = [file for file in files if file.startswith("operator/pods/")]
    assert {file.rpartition("/")[2] for file in operators} >= {"pod.yaml", "operator.log", "metrics.txt"}
    assert '"fingerprint"' in files[f"{place}/pods/{pod_name}/manifest.json"]
    assert "embedding_utilization" in files[f"{place}/pods/{pod_name}/metrics.txt"]
    assert "well" in files[f"{place}/pods/{pod_name}/shouting.log"]
    assert "name: hub" in files[f"{place}/deployment-minilm.yaml"]
    assert "Everything could be read." in files["README.txt"]

    for planted in (KEY, LITERAL, HUB):
        assert not [name for name, text in files.items() if planted in text], planted

    again = services.cluster.run(PROGRAM, *arguments, check=False)
    assert again.returncode != 0
    assert "cannot write" in again.stderr


def test_what_cannot_be_read_is_said(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    arguments = ("support-bundle", "nobody", "--namespace", services.namespace, "--operator-namespace", "nowhere")
    done = services.cluster.run(PROGRAM, *arguments, "--output", str(path))
    readme = unpacked(path)["README.txt"]
    for text in (
        f"there is no EmbeddingService {services.namespace}/nobody",
        "no Pod of the operator is in nowhere: name its namespace by --operator-namespace",
    ):
        assert f"not in the bundle: {text}" in done.stderr
        assert text in readme
