"""The queue of images: threads of their own, and a bound on how many are held, from their admission to their answer.

Decoding takes milliseconds to seconds and gives megabytes, so images neither share the threads of texts nor the bound
of the engine's queue. A request of many images decodes a few at a time, and so leaves room between them for others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
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
    Seeing,
    Truncation,
)

# Seconds over which the speed of images is measured.
_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class ImageWorkLimits:
    """Images decoded at a time, images of one request, images of all requests in progress, and the bytes that these
    may hold once they are prepared."""

    workers: int = 2
    per_request: int = 128
    held: int = 256
    held_bytes: int = 1536 * 1024 * 1024


def seconds_until_room(finished: Sequence[tuple[float, int]], since: float, now: float, images: int) -> float:
    """How long until so many more images are finished, going by those of the last minute.

    `finished` has when and how many; `since` is when images have been in progress from without a pause. While none is
    finished, it takes as long again as it took until now.
    """
    begin = max(since, now - _WINDOW)
    done = sum(count for at, count in finished if at >= begin)
    elapsed = max(now - begin, 0.0)
    return elapsed * images / done if done else elapsed


class ImageWork:
    """Prepares requests with images. To be used from one event loop."""

    def __init__(self, limits: ImageWorkLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=limits.workers, thread_name_prefix="image")
        self._held = 0
        self._since = 0.0
        self._finished: deque[tuple[float, int]] = deque()

    @property
    def held(self) -> int:
        """Images of all requests in progress."""
        return self._held

    def per_request(self, model: Model) -> int:
        """The most images of one request: as the limits say, and no more than memory is meant for."""
        return min(self._limits.per_request, self._room(model))

    @contextmanager
    def admit(self, images: int, model: Model) -> Iterator[None]:
        """Room for the images of a request until the block ends.

        Raises ApiError 429 when there is none; a request of more than `held` images is admitted when no other is.
        """
        now = self._clock()
        most = min(self._limits.held, self._room(model))
        if self._held and self._held + images > most:
            seconds = seconds_until_room(self._finished, self._since, now, self._held + images - most)
            raise unavailable(
                "too many images are in progress; try again later", seconds, status=429, kind="overloaded_error"
            )
        if not self._held:
            self._since = now
        self._held += images
        try:
            yield
        finally:
            self._held -= images
            self._finish(images)

    async def prepare(
        self, model: Model, inputs: Sequence[Input], input_type: InputType | None, truncation: Truncation
    ) -> list[Item]:
        """The items of a request's inputs, in order. Raises what Model.prepare does, always for the first bad input."""
        items: dict[int, Item] = {}
        blamed: dict[int, InputTooLongError | InvalidImageError] = {}
        tasks: dict[int, asyncio.Task[None]] = {}
        turn = asyncio.Semaphore(self._limits.workers)

        async def together(places: Sequence[int]) -> None:
            def work(checkpoint: Checkpoint) -> list[Item]:
                return model.prepare([inputs[place] for place in places], input_type, truncation, checkpoint)

            async with turn:
                try:
                    prepared = await in_thread(self._pool, work)
                except (InputTooLongError, InvalidImageError) as error:
                    place = places[error.index]
                    blamed[place] = error.at(place)
                    # Only what comes before can still change which input is named.
                    for first, task in tasks.items():
                        if first > place:
                            task.cancel()
                else:
                    items.update(zip(places, prepared, strict=True))

        texts = [place for place, value in enumerate(inputs) if isinstance(value, str)]
        images = [[place] for place, value in enumerate(inputs) if not isinstance(value, str)]
        try:
            async with asyncio.TaskGroup() as group:
                for places in sorted([texts, *images] if texts else images):
                    tasks[places[0]] = group.create_task(together(places))
        except BaseExceptionGroup as defects:
            raise defects.exceptions[0] from None
        if blamed:
            raise blamed[min(blamed)]
        return [items[place] for place in range(len(inputs))]

    def _room(self, model: Model) -> int:
        """How many prepared images the memory that is meant for them holds."""
        if not isinstance(model, Seeing):
            return max(self._limits.held, self._limits.per_request)
        return max(1, self._limits.held_bytes // model.largest_image_bytes)

    def _finish(self, images: int) -> None:
        now = self._clock()
        self._finished.append((now, images))
        while self._finished[0][0] < now - _WINDOW:
            self._finished.popleft()
