"""The operator that is installed in a cluster, as a person at a desk can see it: what it brings along for services."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_operator.api.kinds import DEPLOYMENTS
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.control.operator import POD_LABELS
from embedding_operator.control.plan import OperatorIdentity
from embedding_operator.judge.decisions import RuntimeDefaults

OPERATOR_LABEL: Final = ",".join(f"{name}={value}" for name, value in POD_LABELS.items())
"""Whatever name the release was given."""
CONTAINER: Final = "operator"
_IMAGE: Final = "EMBEDDING_OPERATOR_RUNTIME_IMAGE"
_POLICY: Final = "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_POLICY"
_SECRETS: Final = "EMBEDDING_OPERATOR_RUNTIME_IMAGE_PULL_SECRETS"


@dataclass(frozen=True, slots=True)
class Installed:
    """Who renders, and what has to be said about how that was found out; None when it is certain."""

    identity: OperatorIdentity
    doubt: str | None = None


def variables_of(deployment: Mapping[str, Any]) -> dict[str, str]:
    """The literal variables of the operator's container. Pure."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    container = next((it for it in containers if it["name"] == CONTAINER), None) or {}
    return {it["name"]: str(it.get("value") or "") for it in container.get("env") or () if "valueFrom" not in it}


def identity_by(variables: Mapping[str, str], namespace: str, own: OperatorIdentity) -> OperatorIdentity:
    """The identity of an operator with these variables in this namespace. Pure."""
    secrets = tuple(part.strip() for part in variables.get(_SECRETS, "").split(",") if part.strip())
    defaults = RuntimeDefaults(
        variables.get(_IMAGE) or own.defaults.image, variables.get(_POLICY) or "IfNotPresent", secrets
    )
    return replace(own, namespace=namespace, defaults=defaults)


async def installed(cluster: ClusterClient, namespace: str, own: OperatorIdentity) -> Installed:
    """The operator of this namespace. Variables of this process count more; where none can be found, `own` is taken."""
    given = {name: value for name in (_IMAGE, _POLICY, _SECRETS) if (value := os.environ.get(name))}
    try:
        found, _ = await cluster.list(DEPLOYMENTS, namespace, labels=OPERATOR_LABEL)
    except ClusterError as error:
        why = f"the operator in {namespace} cannot be read: {error.message}"
    else:
        if found:
            return Installed(identity_by({**variables_of(found[0]), **given}, namespace, own))
        why = f"no operator is in {namespace}"
    if _IMAGE in given:
        return Installed(own)
    return Installed(
        own,
        f"{why}. For services that name no runtime image, {own.defaults.image} is taken: name the operator's namespace "
        f"by --operator-namespace, or set {_IMAGE}",
    )
