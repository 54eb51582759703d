"""Probes, deadlines and the way a Pod ends. All follow from `startupTimeoutSeconds` and `drainTimeoutSeconds`."""

from __future__ import annotations

import math
from typing import Any, Final

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import HEALTH_LIVE_PATH, HEALTH_READY_PATH, PORT_NAME

STARTUP_PERIOD_SECONDS: Final = 5
IMAGE_PULL_ALLOWANCE_SECONDS: Final = 600
PRE_STOP_SECONDS: Final = 5
"""Time for endpoints and proxies to forget a stopping Pod, which meanwhile serves on."""
TERMINATION_MARGIN_SECONDS: Final = 10


def probes(service: EmbeddingService) -> dict[str, Any]:
    """The three probes of the runtime container.

    Timeouts are long because a process that feeds a busy GPU may answer late; what is stuck is told by the runtime
    itself, whose liveness compares the engine's heartbeat.
    """
    scheme = "HTTPS" if service.spec.runtime.tls else "HTTP"
    return {
        "startupProbe": {
            "httpGet": _get(HEALTH_READY_PATH, scheme),
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(service.spec.runtime.startup_timeout_seconds / STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": {
            "httpGet": _get(HEALTH_READY_PATH, scheme),
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "successThreshold": 1,
        },
        "livenessProbe": {
            "httpGet": _get(HEALTH_LIVE_PATH, scheme),
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }


def progress_deadline_seconds(service: EmbeddingService) -> int:
    """How long a rollout may make no progress: the startup budget and the time to fetch the image."""
    return service.spec.runtime.startup_timeout_seconds + IMAGE_PULL_ALLOWANCE_SECONDS


def termination_grace_period_seconds(service: EmbeddingService) -> int:
    """Time from the decision to stop a Pod to the kill: preStop, drain, and a margin to end."""
    return PRE_STOP_SECONDS + service.spec.runtime.drain_timeout_seconds + TERMINATION_MARGIN_SECONDS


def _get(path: str, scheme: str) -> dict[str, Any]:
    return {"path": path, "port": PORT_NAME, "scheme": scheme}
