"""The installed operator is found by what the chart puts on it whatever its values, and read rightly."""

from __future__ import annotations

from typing import Any

from embedding_operator.commands.installed import OPERATOR_LABEL, identity_by, variables_of
from embedding_operator.control.operator import identity_of_operator
from embedding_operator.settings import Settings

OWN = identity_of_operator(Settings())
DEPLOYMENT: dict[str, Any] = {
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {"name": "sidecar", "env": [{"name": "EMBEDDING_OPERATOR_RUNTIME_IMAGE", "value": "other:1"}]},
                    {
                        "name": "operator",
                        "env": [
                            {"name": "EMBEDDING_OPERATOR_RUNTIME_IMAGE", "value": "registry.example/r:2"},
                            {"name": "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_SECRETS", "value": "one, two"},
                            {"name": "EMBEDDING_OPERATOR_NAMESPACE", "valueFrom": {"fieldRef": {}}},
                        ],
                    },
                ]
            }
        }
    }
}


def test_what_the_installed_operator_brings_along_is_taken() -> None:
    identity = identity_by(variables_of(DEPLOYMENT), "operators", OWN)
    assert identity.namespace == "operators"
    assert identity.defaults.image == "registry.example/r:2"
    assert identity.defaults.pull_secrets == ("one", "two")
    assert identity.pod_labels == OWN.pod_labels


def test_it_is_looked_for_by_no_label_that_a_release_can_rename() -> None:
    assert "app.kubernetes.io/name" not in OPERATOR_LABEL
    assert "app.kubernetes.io/component=operator" in OPERATOR_LABEL.split(",")
