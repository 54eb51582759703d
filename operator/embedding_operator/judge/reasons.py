"""Every reason a condition can have. Reasons are API: they are documented in docs/conditions.md and never renamed."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase words that scripts and alerts may match on."""

    # Ready, and the parts it is made of, when all is well
    READY = "Ready"
    ACCEPTED = "Accepted"
    APPLIED = "Applied"
    SERVING = "Serving"
    ROLLED_OUT = "RolledOut"
    MODEL_LOADED = "ModelLoaded"
    SCALING_ACTIVE = "ScalingActive"

    # The resource and its children
    INVALID_SPEC = "InvalidSpec"
    REVISION_NOT_PINNED = "RevisionNotPinned"
    NAME_TAKEN = "NameTaken"
    WAITING_FOR_DELETION = "WaitingForDeletion"
    FORBIDDEN = "Forbidden"
    REFUSED = "Refused"
    RETRYING = "RetryingAfterError"
    NOT_OBSERVED = "NotObserved"
    SUSPENDED = "Suspended"

    # Rollout and replicas
    ROLLING_OUT = "RollingOut"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    SCALING = "Scaling"
    NO_PODS = "NoPods"

    # Pods
    WAITING_FOR_ACCELERATOR = "WaitingForAccelerator"
    UNSCHEDULABLE = "Unschedulable"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no password
    CONTAINER_CONFIGURATION = "ContainerConfigurationError"
    VOLUME_MOUNT_FAILED = "VolumeMountFailed"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    INIT_FAILED = "InitContainerFailed"
    CRASH_LOOP = "CrashLoop"
    PROBE_FAILED = "ProbeFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    EVICTED = "Evicted"
    POD_FAILED = "PodFailed"
    NODE_LOST = "NodeLost"
    STARTING = "Starting"
    FOREIGN_POD = "ForeignPod"

    # The model
    MODEL_DOWNLOADING = "ModelDownloading"
    MODEL_LOADING = "ModelLoading"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    FINGERPRINT_MISMATCH = "FingerprintMismatch"
    REPLICAS_DISAGREE = "ReplicasDisagree"
    ENDPOINT_UNREACHABLE = "EndpointUnreachable"
    IDENTITY_NOT_PUBLISHED = "IdentityNotPublished"

    # Autoscaling
    AUTOSCALING_OFF = "AutoscalingOff"
    METRIC_UNAVAILABLE = "MetricUnavailable"
    LIMITED_BY_MAX_REPLICAS = "LimitedByMaxReplicas"
    WAITING_FOR_AUTOSCALER = "WaitingForAutoscaler"
