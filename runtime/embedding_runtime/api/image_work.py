"""The queue of images: threads of their own, and a bound on how many are held, from their admission to their answer.

Decoding takes milliseconds to seconds and gives megabytes, so images neither share the threads of texts nor the bound
of the engine's queue. A request of many images decodes a few at a time, and so leaves room between them for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from embedding_runtime.api.errors import unavailable
from embedding_runtime.api.threads import Checkpoint, in_thread
from embedding_runtime.engine.model import (
    Input,
    InputTooLongError,
    InputType,
    InvalidImageError,
    Item,
    Model,
    Truncation,
)


@dataclass(frozen=True, slots=True)
class ImageWorkLimits:
    """Images decoded at a time, images of one request, and images of all requests in progress."""

    workers: int = 2
    per_request: int = 128
    held: int = 256


class ImageWork:
    """Prepares requests with images. To be used from one event loop."""

    def __init__(self, limits: ImageWorkLimits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(max_workers=limits.workers, thread_name_prefix="image")
        self._held = 0

    @property
    def held(self) -> int:
        """Images of all requests in progress."""
        return self._held

    @contextmanager
    def admit(self, images: int, retry_after: Callable[[], float]) -> Iterator[None]:
        """Room for the images of a request until the block ends.

        Raises ApiError 429 when there is none; a request larger than the bound is admitted when no other is.
        """
        if self._held and self._held + images > self._limits.held:
            raise unavailable(
                "too many images are in progress; try again later", retry_after(), status=429, kind="overloaded_error"
            )
        self._held += images
        try:
            yield
        finally:
            self._held -= images

    async def prepare(
        self, model: Model, inputs: Sequence[Input], input_type: InputType | None, truncation: Truncation
    ) -> list[Item]:
        """The items of a request's inputs, in order. Raises what Model.prepare does, for the first known to fail."""
        items: dict[int, Item] = {}
        turn = asyncio.Semaphore(self._limits.workers)

        async def together(places: Sequence[int]) -> None:
            def work(checkpoint: Checkpoint) -> list[Item]:
                return model.prepare([inputs[place] for place in places], input_type, truncation, checkpoint)

            async with turn:
                try:
                    prepared = await in_thread(self._pool, work)
                except InputTooLongError as error:
                    raise InputTooLongError(places[error.index], error.length, error.limit) from None
                except InvalidImageError as error:
                    raise InvalidImageError(places[error.index], error.reason) from None
                items.update(zip(places, prepared, strict=True))

        texts = [place for place, value in enumerate(inputs) if isinstance(value, str)]
        images = [[place] for place, value in enumerate(inputs) if not isinstance(value, str)]
        try:
            async with asyncio.TaskGroup() as group:
                for places in [texts, *images] if texts else images:
                    group.create_task(together(places))
        except BaseExceptionGroup as failed:
            raise _first(failed.exceptions) from None
        return [items[place] for place in range(len(inputs))]


def _first(errors: Sequence[BaseException]) -> BaseException:
    """A defect before what is wrong with an input, and of the latter the first input's."""
    blamed = [error for error in errors if isinstance(error, InputTooLongError | InvalidImageError)]
    defects = [error for error in errors if not isinstance(error, InputTooLongError | InvalidImageError)]
    return defects[0] if defects else min(blamed, key=lambda error: error.index)
