"""What the engine and the API know about a model: its identity, how inputs are prepared and how they are embedded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class InputType(StrEnum):
    """What a text is to a retrieval model."""

    QUERY = "query"
    PASSAGE = "passage"


class Truncation(StrEnum):
    """What to do with an input longer than the model's limit: refuse, cut its start or cut its end."""

    NONE = "NONE"
    START = "START"
    END = "END"


class Pooling(StrEnum):
    """How token vectors become one vector. The names are those of the EmbeddingService API."""

    MEAN = "Mean"
    WEIGHTED_MEAN = "WeightedMean"
    MEAN_SQRT_LENGTH = "MeanSqrtLength"
    MAX = "Max"
    CLS = "Cls"
    LAST_TOKEN = "LastToken"  # noqa: S105


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image, or an image with a text, that is to become one vector. `image` is a file as it came, unchecked."""

    image: bytes
    text: str = ""


# What one vector is asked for. Texts are plain strings: there are thousands of them in a request.
Input = str | ImageInput


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of the model, by its path inside the model directory."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Computation:
    """How vectors are computed here, which moves them by rounding only: it is no part of the vector space.

    `reason` says why this precision, `kernel` what multiplies matrices. `max_difference` of a number of unit vectors
    and `min_cosine` are measured against float32 on built-in texts at start; None when memory did not allow it.
    """

    device: str
    precision: str
    reason: str
    kernel: str
    threads: int
    max_difference: float | None
    min_cosine: float | None


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What decides which vectors come out, and what they are called.

    `dimensions` is the full size; `supported_dimensions` lists every size a request may ask for, the full one too.
    `max_input_tokens` counts special and prompt tokens. `fingerprint` is `sha256:<hex>` (models/fingerprint.py).
    """

    id: str
    source: str
    revision: str
    fingerprint: str
    dimensions: int
    supported_dimensions: tuple[int, ...]
    max_input_tokens: int
    pooling: str
    normalized: bool
    modalities: tuple[str, ...]
    precision: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    files: tuple[ModelFile, ...] = ()
    computation: Computation | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One input, prepared: how many tokens and image tiles the model is fed, and what only the model understands.

    Items with equal keys give equal vectors, whatever request they come from: one of them is computed for all. None
    means that nothing is known to be equal.
    """

    tokens: int
    payload: object
    tiles: int = 0
    key: Hashable | None = None


class InputTooLongError(ValueError):
    """An input exceeds the model's limit and may not be truncated. `length` counts prompt and special tokens."""

    def __init__(self, index: int, length: int, limit: int) -> None:
        super().__init__(f"input[{index}] has {length} tokens; the limit is {limit}")
        self.index = index
        self.length = length
        self.limit = limit


class InvalidImageError(ValueError):
    """The image of an input cannot be used. `reason` completes the sentence "the image ..."."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"input[{index}]: the image {reason}")
        self.index = index
        self.reason = reason


class OutOfMemoryError(RuntimeError):
    """The device had not enough memory for this batch; a smaller one may fit."""


class DeviceLostError(RuntimeError):
    """The device no longer computes; nothing on it can be trusted or retried."""


class NotFiniteError(RuntimeError):
    """The model gave infinities or not-a-number for an input."""

    def __init__(self) -> None:
        super().__init__("the vector is not finite")


def no_checkpoint() -> None:
    """Work that is always to be finished."""


class Model(Protocol):
    """A loaded model. `prepare` may be called from any thread, `embed` from one thread at a time (but see Parallel)."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def default_batch_tokens(self) -> int:
        """The token budget of a batch that keeps this device busy without waste."""

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        """Tokenise with prompts and special tokens; decode images. Only inputs of `identity.modalities` may be given.

        `checkpoint` is called every few milliseconds of work.

        Raises InputTooLongError for the first input over the limit when `truncation` is NONE, or when its image alone
        is over it, InvalidImageError for the first image that cannot be used, and what `checkpoint` raises to end work
        that nobody waits for any more.
        """

    def embed(self, payloads: Sequence[object]) -> Matrix:
        """Vectors as the model gives them, before slicing and normalising: [len(payloads), dimensions].

        Raises OutOfMemoryError (retry with less) and DeviceLostError (give up); anything else is blamed on an input.
        """


@runtime_checkable
class Interruptible(Protocol):
    """A model whose `embed` can be interrupted between its steps (layers, say), to embed something more urgent."""

    def between_steps(self, call: Callable[[], None]) -> None:
        """From now on call this between the steps of every `embed`, on its thread.

        It may call `embed` itself: nothing that belongs to one batch may be kept outside its call.
        """


@runtime_checkable
class Parallel(Protocol):
    """A model that embeds several batches side by side, each on a thread of its own and on a part of the device."""

    @property
    def workers(self) -> int:
        """How many batches at once keep the device busy best; each has one of so many equal parts of it."""

    def take(self, parts: int, tokens: int) -> int:
        """The calling thread embeds a batch of so many tokens next and may use `parts` of the device, at least one.

        Returns how many it will use.
        """


@runtime_checkable
class Provable(Protocol):
    """A model that can show that it still computes what it should."""

    def prove(self) -> None:
        """Embed what is known, on the thread of `embed`. Raises when the vectors cannot be right."""


@runtime_checkable
class Seeing(Protocol):
    """A model that takes images too."""

    @property
    def default_batch_tiles(self) -> int:
        """How many tiles of images a batch may have to keep this device busy without taking its memory."""


@runtime_checkable
class Padding(Protocol):
    """A model that may fill all items of a batch up to the longest, so that lengths decide what a batch costs."""

    @property
    def padded(self) -> bool:
        """Whether it does."""
