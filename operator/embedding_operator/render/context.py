"""What rendering needs to know beside the resource itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from embedding_operator.api import PullPolicy

Child = dict[str, Any]
"""An object ready for server-side apply: apiVersion, kind, metadata, and only the fields the operator owns."""


class Strategy(StrEnum):
    """How the Deployment replaces Pods, decided (never Auto)."""

    SURGE = "Surge"
    MAX_UNAVAILABLE = "MaxUnavailable"
    RECREATE = "Recreate"


@dataclass(frozen=True)
class RenderContext:
    """Decisions and settings that are not in the spec. None of it may depend on the operator's version.

    `runtime_image` is a full reference (repository:tag, repository@sha256:… or both), used where the spec names none.
    `replicas` is the count to own on the Deployment; None leaves the field to its other owner.
    `operator_namespace` and `operator_pod_labels` tell a NetworkPolicy who the operator is.
    """

    runtime_image: str
    replicas: int | None
    strategy: Strategy = Strategy.SURGE
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    pull_secrets: tuple[str, ...] = ()
    operator_namespace: str = "embedding-operator"
    operator_pod_labels: Mapping[str, str] = field(default_factory=dict)
