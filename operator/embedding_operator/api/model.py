"""`spec.model`: which model is served, from where, and what overrides its own configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .common import ClaimReference, Name, RelativePath, SecretKeyReference
from .quantity import Quantity

ModelId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")]
Prompt = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
"""Any text without control characters, which no environment variable should carry; lines and tabs are fine."""


class Pooling(StrEnum):
    """How token vectors become one vector."""

    MEAN = "Mean"
    WEIGHTED_MEAN = "WeightedMean"
    MEAN_SQRT_LENGTH = "MeanSqrtLength"
    MAX = "Max"
    CLS = "Cls"
    LAST_TOKEN = "LastToken"  # noqa: S105 - a pooling, no password


class PullPolicy(StrEnum):
    """When the node fetches an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class HuggingFaceSource(ApiModel):
    """A repository of the Hugging Face hub. No code from the repository is ever run."""

    repository: Annotated[
        str, Field(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
    ]
    """Repository on the hub, as owner/name."""

    revision: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] | None = (
        None
    )
    """Commit, tag or branch. Without it the hub's default branch is used. Anything but a full 40-digit commit can
    change the vectors at any restart and is reported as RevisionNotPinned."""

    token_secret_ref: SecretKeyReference | None = None
    """Secret entry with a hub token, for gated and private repositories."""


class ClaimSource(ApiModel):
    """A model directory on a PersistentVolumeClaim, mounted read-only."""

    claim_name: Name
    """Name of the PersistentVolumeClaim."""

    path: RelativePath | None = None
    """Directory of the model below the root of the volume. Default: the root itself."""


class ImageSource(ApiModel):
    """A model directory in an OCI image, mounted read-only as an image volume (Kubernetes 1.33 or newer with the
    ImageVolume feature enabled; on by default since 1.35)."""

    reference: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
    """Image reference; give a digest to pin the weights."""

    pull_policy: PullPolicy | None = None
    """When the node fetches the image. Default: Always for the tag latest, otherwise IfNotPresent."""

    path: RelativePath | None = None
    """Directory of the model below the root of the image. Default: the root itself."""


class CacheEmptyDir(ApiModel):
    """A cache that lives as long as its Pod."""

    size_limit: Quantity | None = None
    """Largest size; the Pod is evicted above it. Default: what the node allows."""


class ModelCache(ApiModel):
    """Where downloads and computed fingerprints are kept: at most one of the fields."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.persistentVolumeClaim) && has(self.emptyDir))",
            message="set either persistentVolumeClaim or emptyDir, not both",
            holds=lambda cache: cache.persistent_volume_claim is None or cache.empty_dir is None,
        ),
    )

    persistent_volume_claim: ClaimReference | None = None
    """A claim that outlives Pods, so that restarts download nothing. Concurrent downloads into one claim lock. A
    ReadWriteOnce claim binds all replicas to one node and forbids surge rollouts across nodes."""

    empty_dir: CacheEmptyDir | None = None
    """A cache per Pod. This is the default."""


class Prompts(ApiModel):
    """What is put before each text. An empty string means no prompt."""

    query: Prompt | None = None
    """Before texts with input_type query. Default: the model's own."""

    passage: Prompt | None = None
    """Before texts with input_type passage. Default: the model's own."""


def _sources(model: ModelSpec) -> int:
    return sum(source is not None for source in (model.hugging_face, model.persistent_volume_claim, model.image))


class ModelSpec(ApiModel):
    """The model to serve. With runtime type Bundled exactly one of huggingFace, persistentVolumeClaim and image."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.huggingFace), has(self.persistentVolumeClaim), has(self.image)].filter(s, s).size() <= 1",
            message="set only one of huggingFace, persistentVolumeClaim and image",
            holds=lambda model: _sources(model) <= 1,
        ),
    )

    id: ModelId | None = None
    """What clients send as `model`. Default: the hub repository's name, otherwise the name of the EmbeddingService."""

    aliases: Annotated[tuple[ModelId, ...], Field(max_length=16), Schema({"x-kubernetes-list-type": "set"})] = ()
    """Further ids that clients may send. ID-query and ID-passage always work beside each id."""

    hugging_face: HuggingFaceSource | None = None
    """Download the model from the Hugging Face hub."""

    persistent_volume_claim: ClaimSource | None = None
    """Read the model from a PersistentVolumeClaim."""

    image: ImageSource | None = None
    """Read the model from an OCI image."""

    cache: ModelCache | None = None
    """Where downloads and computed fingerprints are kept. Default: an emptyDir without a size limit."""

    max_input_tokens: Annotated[int, Field(ge=1, le=1048576)] | None = None
    """Longest input in tokens, at most what the model was made for. Default: from the model."""

    pooling: Pooling | None = None
    """How token vectors become one vector. Default: from the model."""

    prompts: Prompts | None = None
    """Texts put before queries and passages. Default: from the model."""

    @property
    def has_source(self) -> bool:
        """Whether a model source is set."""
        return _sources(self) > 0

    @property
    def names_only(self) -> bool:
        """Whether nothing but `id`, `aliases` and `cache` is set, as NVIDIA's images need it."""
        overrides = (self.max_input_tokens, self.pooling, self.prompts)
        return not self.has_source and all(override is None for override in overrides)
