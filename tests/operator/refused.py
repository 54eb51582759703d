"""Specs that must be refused, by the parser and by the API server alike."""

from __future__ import annotations

from typing import Any

from tests.operator.helpers import MINIMAL

FINGERPRINT = "sha256:" + "0" * 64
NIM: dict[str, Any] = {
    "type": "NIM",
    "nim": {"image": {"repository": "nvcr.io/nim/nvidia/nv-embedqa-e5-v5", "tag": "1.6.0"}},
}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "set one of model.huggingFace"),
    ({"model": {"id": "x"}}, "set one of model.huggingFace"),
    ({"model": {**MINIMAL["model"], "image": {"reference": "r"}}}, "set only one of huggingFace"),
    ({**MINIMAL, "replicas": -1}, "spec.replicas: "),
    ({**MINIMAL, "autoscaling": {"minReplicas": 5}}, "minReplicas must not be larger"),
    ({**MINIMAL, "runtime": {"type": "NIM"}}, "type NIM needs nim.image"),
    ({**MINIMAL, "runtime": {**NIM, "type": "Bundled"}}, "nim needs type: NIM"),
    ({**MINIMAL, "runtime": {**NIM, "bundled": {}}}, "bundled needs type: Bundled"),
    ({**MINIMAL, "runtime": NIM}, "brings its own model"),
    ({"runtime": NIM, "authentication": {"apiKeysSecretRef": {"name": "k"}}}, "knows no API keys"),
    ({"runtime": NIM, "vectorSpace": {"expectedFingerprint": FINGERPRINT}}, "reports no fingerprint"),
    ({"runtime": NIM, "autoscaling": {}}, "set autoscaling.metrics"),
    ({"runtime": NIM, "monitoring": {"alerts": {"enabled": True}}}, "disable monitoring.alerts"),
    ({"runtime": NIM, "monitoring": {"dashboard": {"enabled": True}}}, "disable monitoring.dashboard"),
    ({**MINIMAL, "runtime": {"env": [{"name": "HF_TOKEN", "value": "x"}]}}, "use the field"),
    ({**MINIMAL, "runtime": {"bundled": {"image": {"tag": "1"}}}}, "give repository together with tag or digest"),
    ({"runtime": {"type": "NIM", "nim": {"image": {"repository": "r"}}}}, "give tag or digest"),
    ({"runtime": {**NIM, "nim": {**NIM["nim"], "grpcPort": 8000}}}, "must differ from each other and from 8000"),
    ({"runtime": {**NIM, "nim": {**NIM["nim"], "grpcPort": 9000, "metricsPort": 9000}}}, "must differ from each other"),
    (
        {"runtime": {**NIM, "nim": {**NIM["nim"], "grpcPort": 8001}}, "service": {"port": 8001}},
        "service.port must differ from runtime.nim.grpcPort",
    ),
    ({**MINIMAL, "resources": {"limits": {"cpu": 1}, "requests": {"cpu": "1001m"}}}, "must not be larger than limits"),
    ({**MINIMAL, "accelerator": {"type": "None", "extendedResource": {}}}, "extendedResource needs type"),
    ({**MINIMAL, "accelerator": {"type": "ResourceClaim"}}, "need each other"),
    ({**MINIMAL, "accelerator": {"resourceClaimTemplateName": "x"}}, "need each other"),
    ({**MINIMAL, "resources": {"limits": {"nvidia.com/gpu": 1}}}, "must not name the accelerator's resource"),
    (
        {
            **MINIMAL,
            "accelerator": {"extendedResource": {"name": "example.com/gpu"}},
            "resources": {"requests": {"example.com/gpu": "1"}},
        },
        "must not name the accelerator's resource",
    ),
    (
        {
            **MINIMAL,
            "model": {**MINIMAL["model"], "cache": {"persistentVolumeClaim": {"claimName": "c"}, "emptyDir": {}}},
        },
        "not both",
    ),
    (
        {**MINIMAL, "podTemplate": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        "hostPath volumes are refused",
    ),
    ({**MINIMAL, "podTemplate": {"volumes": [{"name": "cache", "emptyDir": {}}]}}, "use another"),
    *(
        ({**MINIMAL, "podTemplate": {"volumeMounts": [{"name": "v", "mountPath": path}]}}, "use another")
        for path in ("/tmp", "/tmp/", "/tmp/x", "/", "/etc", "/etc/embedding/", "/dev/shm/a/b")
    ),
    (
        {**MINIMAL, "podTemplate": {"sidecars": [{"name": "s", "securityContext": {"privileged": True}}]}},
        "privileged sidecars are refused",
    ),
    (
        {**MINIMAL, "podTemplate": {"initContainers": [{"name": "s", "securityContext": {"privileged": True}}]}},
        "privileged init containers are refused",
    ),
    ({**MINIMAL, "podTemplate": {"sidecars": [{"name": "runtime"}]}}, "container name runtime"),
    ({**MINIMAL, "podTemplate": {"initContainers": [{"name": "runtime"}]}}, "container name runtime"),
    (
        {**MINIMAL, "podTemplate": {"initContainers": [{"name": "a"}], "sidecars": [{"name": "a"}]}},
        "must not have the same name",
    ),
    ({**MINIMAL, "podTemplate": {"labels": {"embedding-operator.io/service": "x"}}}, "use another prefix"),
    ({"model": {"persistentVolumeClaim": {"claimName": "c", "path": "../x"}}}, "spec.model.persistentVolumeClaim.path"),
    ({"model": {"persistentVolumeClaim": {"claimName": "c", "path": "/x"}}}, "spec.model.persistentVolumeClaim.path"),
]
"""Specs that both the API server and the parser refuse, with words of the parser's message."""
