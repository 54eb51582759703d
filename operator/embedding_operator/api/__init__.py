"""What users write: the EmbeddingService resource, the only source of the CRD and of docs/reference."""

from __future__ import annotations

from .accelerator import Accelerator, AcceleratorType, ExtendedResource
from .autoscaling import Autoscaling
from .model import HuggingFaceSource, ModelCache, ModelSpec, Pooling, Prompts, PullPolicy
from .parse import parse
from .runtime import BundledRuntime, NimRuntime, Precision, RuntimeImage, RuntimeSpec, RuntimeType, UpgradePolicy
from .service import EmbeddingService, EmbeddingServiceSpec, ObjectMeta
from .status import (
    Condition,
    ConditionStatus,
    ConditionType,
    EmbeddingServiceStatus,
    HistoryEntry,
    Load,
    ModelIdentity,
    Problem,
    RuntimeStatus,
)
from .workload import RolloutStrategy, ServiceType

__all__ = [
    "Accelerator",
    "AcceleratorType",
    "Autoscaling",
    "BundledRuntime",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "EmbeddingService",
    "EmbeddingServiceSpec",
    "EmbeddingServiceStatus",
    "ExtendedResource",
    "HistoryEntry",
    "HuggingFaceSource",
    "Load",
    "ModelCache",
    "ModelIdentity",
    "ModelSpec",
    "NimRuntime",
    "ObjectMeta",
    "Pooling",
    "Precision",
    "Problem",
    "Prompts",
    "PullPolicy",
    "RolloutStrategy",
    "RuntimeImage",
    "RuntimeSpec",
    "RuntimeStatus",
    "RuntimeType",
    "ServiceType",
    "UpgradePolicy",
    "parse",
]
