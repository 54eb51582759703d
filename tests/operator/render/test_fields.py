"""Every field of the spec has an effect on the children, and this is it.

A field added to the API without an entry in one of the tables, or in ELSEWHERE with who heeds it, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from embedding_operator.api.borrowed import REFERENCE
from embedding_operator.api.crd import own_schema

from tests.operator.helpers import MINIMAL
from tests.operator.render.effects_of_runtime import RUNTIME_EFFECTS
from tests.operator.render.effects_of_workload import WORKLOAD_EFFECTS
from tests.operator.render.rendered import Json, Rendered, nim, plus

EFFECTS = [*RUNTIME_EFFECTS, *WORKLOAD_EFFECTS]

ELSEWHERE = {
    "spec.replicas": "RenderContext.replicas, decided by control",
    "spec.rollout.strategy": "RenderContext.strategy, decided by judge",
    "spec.runtime.bundled.upgradePolicy": "RenderContext.runtime_image, decided by control",
}


@pytest.mark.parametrize(("path", "spec", "look", "expected"), EFFECTS, ids=[path for path, *_ in EFFECTS])
def test_effect(path: str, spec: Json, look: Callable[[Rendered], Any], expected: Any) -> None:
    assert look(Rendered(spec)) == expected


def leaves(schema: Json, path: str) -> Iterator[str]:
    below = schema["items"] if schema.get("type") == "array" else schema
    suffix = "[]" if schema.get("type") == "array" else ""
    if REFERENCE in below or not below.get("properties"):
        yield path
        return
    for name, child in below["properties"].items():
        yield from leaves(child, f"{path}{suffix}.{name}")


def test_every_field_of_the_spec_is_heeded() -> None:
    fields = set(leaves(own_schema()["properties"]["spec"], "spec"))
    covered = {f"spec.{path}" for path, *_ in EFFECTS} | set(ELSEWHERE)
    assert fields - covered == set()
    assert covered - fields == set()


def test_nim_gets_what_nvidias_operator_gives() -> None:
    spec = {**nim(), "model": {"id": "nvidia/x", "aliases": ["y"]}}
    rendered = Rendered(spec)
    assert rendered.env == {
        "NIM_CACHE_PATH": "/model-store",
        "NIM_SERVER_PORT": "8000",
        "NIM_HTTP_API_PORT": "8000",
        "NIM_JSONL_LOGGING": "1",
        "NIM_LOG_LEVEL": "INFO",
        "NIM_SERVED_MODEL_NAME": "nvidia/x,y",
        "NIM_SERVER_SERVED_MODEL_NAME": "nvidia/x,y",
    }
    assert rendered.mounts == {"tmp": "/tmp", "cache": "/model-store", "shm": "/dev/shm"}
    assert "readOnlyRootFilesystem" not in rendered.runtime["securityContext"]


def test_nim_logging_may_be_overridden_once() -> None:
    spec = nim()
    spec["runtime"]["env"] = [{"name": "NIM_LOG_LEVEL", "value": "DEBUG"}]
    variables = [it for it in Rendered(spec).runtime["env"] if it["name"] == "NIM_LOG_LEVEL"]
    assert variables == [{"name": "NIM_LOG_LEVEL", "value": "DEBUG"}]


def test_nim_over_tls() -> None:
    spec = nim()
    spec["runtime"]["tls"] = {"secretName": "t"}
    assert Rendered(spec).env["NIM_TLS_CERT_PATH"] == "/etc/embedding/tls/tls.crt"
    assert Rendered(spec).env["NIM_TLS_KEY_PATH"] == "/etc/embedding/tls/tls.key"


def test_service_monitor_follows_tls() -> None:
    spec = plus(runtime={"tls": {"secretName": "t"}}, monitoring={"serviceMonitor": {"enabled": True}})
    (endpoint,) = Rendered(spec).spec("ServiceMonitor")["endpoints"]
    assert endpoint["scheme"] == "https"


def test_users_containers_keep_their_own_security_context() -> None:
    own = {"readOnlyRootFilesystem": True, "capabilities": {"add": ["NET_BIND_SERVICE"]}, "runAsUser": 7}
    spec = plus(podTemplate={"sidecars": [{"name": "s", "image": "x", "securityContext": own}]})
    assert Rendered(spec).pod["containers"][1]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsUser": 7,
    }


def test_only_what_the_spec_sets_becomes_a_variable() -> None:
    """A newer operator's idea of a default must not restart a Pod."""
    assert set(Rendered(MINIMAL).env) == {
        "EMBEDDING_PORT",
        "EMBEDDING_CACHE_DIR",
        "EMBEDDING_DEVICE",
        "EMBEDDING_DRAIN_TIMEOUT_SECONDS",
    }
