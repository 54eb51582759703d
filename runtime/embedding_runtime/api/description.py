"""The shapes of the answers, for the description of the API only: answers themselves are built as bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Usage(_Answer):
    """Tokens fed to the model: prompts and special tokens too, after truncation."""

    prompt_tokens: int
    total_tokens: int


class Embedding(_Answer):
    """One vector. It is an array of numbers, or with encoding_format base64 a string."""

    object: Literal["embedding"]
    index: int = Field(ge=0)
    embedding: list[float] | str


class EmbeddingResponse(_Answer):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class NugenEmbedding(_Answer):
    """One vector of Nugen's route."""

    object: Literal["embedding"]
    embedding: list[float]
    index: int


class NugenUsage(_Answer):
    """Tokens fed to the model."""

    total_tokens: int


class NugenResponse(_Answer):
    """The answer of Nugen's route."""

    id: str
    object: Literal["embedding"]
    data: list[NugenEmbedding]
    model: str
    created: float
    usage: NugenUsage


class ErrorResponse(_Answer):
    """Every error, on every path. `param` names the field at fault."""

    object: Literal["error"]
    message: str
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "not_found_error",
        "rate_limit_error",
        "overloaded_error",
        "unavailable_error",
        "internal_error",
    ]
    param: str | None
    code: str | None
    request_id: str


class ModelEntry(_Answer):
    """One name of the model. An alias's `root` is the model's id."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None


class ModelList(_Answer):
    """The model's id, then its aliases."""

    object: Literal["list"]
    data: list[ModelEntry]


class Readiness(_Answer):
    """Whether the server wants traffic; while it does not, `message` says what it is doing."""

    object: Literal["health.response"]
    message: str
    ready: bool


class Liveness(_Answer):
    """Whether only a restart can help."""

    object: Literal["health.response"]
    message: str
    live: bool


class License(_Answer):
    """A license text: `sha` is the SHA-1 of `content`, `size` its number of characters."""

    name: str
    path: str
    sha: str
    size: int
    url: str
    type: Literal["file"]
    content: str


class Version(_Answer):
    """Of the software, and of the API."""

    release: str
    api: str


class File(_Answer):
    """A file of the model."""

    path: str
    bytes: int
    sha256: str


class ModelIdentity(_Answer):
    """What decides which vectors come out. Equal fingerprints mean comparable vectors."""

    id: str
    revision: str
    source: str
    fingerprint: str
    dimensions: int
    supported_dimensions: list[int]
    max_input_tokens: int
    pooling: str
    normalized: bool
    modalities: list[str]
    prompts: dict[str, str]
    precision: str


class ManifestModel(ModelIdentity):
    """The model's identity and files."""

    files: list[File]


class Software(_Answer):
    """This server."""

    name: str
    version: str


class Manifest(_Answer):
    """The identity of the vector space and the files behind it."""

    schema_version: int
    model: ManifestModel
    runtime: Software


class ModelInfo(_Answer):
    """Where the model comes from and its name."""

    modelUrl: str  # noqa: N815 (NIM's spelling)
    shortName: str  # noqa: N815


class Metadata(_Answer):
    """What NIM's tools ask for, and the model's identity once it is loaded."""

    assetInfo: list[str]  # noqa: N815
    licenseInfo: License  # noqa: N815
    modelInfo: list[ModelInfo]  # noqa: N815
    repository_override: str
    version: str
    selectedModelProfileId: str  # noqa: N815
    model: ModelIdentity | None
    engine: dict[str, Any] | None
