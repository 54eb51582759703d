"""`diff` writes nothing, by the API server's own audit log; it knows the installed operator and leaves others alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.services import OPERATOR_NAMESPACE, Services, as_json, service

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("embedding-operator"))
AGENT = "(command line)"
SUSPENDED = {"suspend": True}


def requests_of_the_command_line(services: Services) -> list[dict[str, Any]]:
    """What the program asked of the API server, in this test's namespace."""
    return [
        event
        for event in services.cluster.audit_events()
        if event["stage"] == "ResponseComplete"
        and event.get("userAgent", "").endswith(AGENT)
        and f"/namespaces/{services.namespace}/" in event["requestURI"]
    ]


def run_diff(services: Services, manifest: Path, *arguments: str, **spec: object) -> tuple[int, str, str]:
    manifest.write_text(as_json(service(**SUSPENDED, **spec)))
    done = services.cluster.run(
        PROGRAM, "diff", str(manifest), "--namespace", services.namespace, *arguments, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_diff_writes_nothing_whatever_it_finds(services: Services, tmp_path: Path) -> None:
    manifest = tmp_path / "service.yaml"
    foreign = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "minilm"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
    }
    # A service that is not there yet, beside somebody else's object of its name: nothing of it would be begun.
    services.apply(foreign)
    code, text, _ = run_diff(services, manifest)
    assert code == 1
    assert "# PodDisruptionBudget/minilm exists and does not belong to this EmbeddingService" in text
    assert "Deployment" not in text
    services.kubectl("delete", "pdb", "minilm")

    # One that is to be created, changed, and to lose a child.
    code, text, warnings = run_diff(services, manifest)
    assert (code, warnings) == (1, "")
    operator = services.cluster.get("deployment", "embedding-operator", OPERATOR_NAMESPACE) or {}
    variables = {it["name"]: it.get("value") for it in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    image = variables["EMBEDDING_OPERATOR_RUNTIME_IMAGE"]
    assert f"+        image: {image}\n" in text, "the image that the installed operator brings along"
    services.apply(service(**SUSPENDED))
    services.wait_reason("Suspended")
    assert run_diff(services, manifest) == (0, "", "")
    changed: dict[str, Any] = {"runtime": {"drainTimeoutSeconds": 31}, "disruptionBudget": {"enabled": False}}
    code, text, _ = run_diff(services, manifest, **changed)
    assert code == 1
    assert "--- live/PodDisruptionBudget/minilm" in text
    # Where the operator is not found, the doubt is said.
    _, _, warnings = run_diff(services, manifest, "--operator-namespace", "nowhere")
    assert "no operator is in nowhere" in warnings

    # A name that was taken later: that child is left alone, the others are compared.
    services.cluster.kubectl("delete", "emb", "minilm", "--namespace", services.namespace, "--cascade=orphan")
    code, text, _ = run_diff(services, manifest)
    assert code == 1
    assert "# Deployment/minilm exists and does not belong to this EmbeddingService" in text

    asked = requests_of_the_command_line(services)
    assert [event["verb"] for event in asked].count("patch") >= 6, "dry runs were asked for"
    written = [
        f"{event['verb']} {event['requestURI']}"
        for event in asked
        if event["verb"] not in ("get", "list", "watch") and "dryRun=All" not in event["requestURI"]
    ]
    assert written == []
