"""Work that must not run on the event loop, and how it is told that nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Checkpoint = Callable[[], None]


class AbandonedError(Exception):
    """Nobody waits for this work any more; raised in it at a checkpoint."""


async def in_thread(pool: ThreadPoolExecutor, work: Callable[[Checkpoint], T]) -> T:
    """The result of `work` on a thread of the pool.

    When the awaiting task is cancelled, the work's next call of its checkpoint raises, and the cancellation waits for
    that: until then the work holds memory that must stay accounted for.
    """
    abandoned = threading.Event()

    def checkpoint() -> None:
        if abandoned.is_set():
            raise AbandonedError

    def run() -> T:
        checkpoint()
        return work(checkpoint)

    running = pool.submit(run)
    result = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        abandoned.set()
        if not running.cancel():
            await asyncio.wait({result})
            result.exception()
        raise
