"""`status` and `diff` against a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cluster.services import Services, as_json, service

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("embedding-operator"))
SUSPENDED = {"suspend": True}


def test_diff_shows_what_would_change_and_writes_nothing(services: Services, tmp_path: Path) -> None:
    manifest = tmp_path / "service.yaml"

    def diff(**spec: object) -> tuple[int, str]:
        manifest.write_text(as_json(service(**SUSPENDED, **spec)))
        done = services.cluster.run(PROGRAM, "diff", str(manifest), "--namespace", services.namespace, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, done.stdout

    code, text = diff()
    assert code == 1
    assert "+++ wanted/Deployment/minilm" in text
    assert services.get("deployment") is None

    services.apply(service(**SUSPENDED))
    services.wait_reason("Suspended")
    assert diff() == (0, "")
    before = services.existing("deployment")["metadata"]["resourceVersion"]
    code, text = diff(runtime={"drainTimeoutSeconds": 31}, disruptionBudget={"enabled": False})
    assert code == 1
    assert "-      terminationGracePeriodSeconds: 45" in text
    assert "+      terminationGracePeriodSeconds: 46" in text
    assert "--- live/PodDisruptionBudget/minilm" in text
    assert services.existing("deployment")["metadata"]["resourceVersion"] == before


def test_status_is_a_page_for_people(services: Services) -> None:
    services.apply(service(**SUSPENDED))
    services.wait_reason("Suspended")
    page = services.cluster.run(PROGRAM, "status", "minilm", "--namespace", services.namespace).stdout
    assert f"http://minilm.{services.namespace}.svc:8000/v1" in page
    assert page.startswith(f"{services.namespace}/minilm: not ready: Suspended, 0 of 0 Pods")
    assert "✗ Ready" in page
    assert "- ScalingActive" in page
    assert "✓ Applied" in page
    assert "Suspended" in page
    missing = services.cluster.run(PROGRAM, "status", "nobody", "--namespace", services.namespace, check=False)
    assert missing.returncode != 0
    assert "there is no EmbeddingService" in missing.stderr
