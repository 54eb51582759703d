"""Played Pods for a test: the player of devcluster in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from devcluster import Cluster
from devcluster.player import NODE_LABEL, Player

PLAYED: dict[str, Any] = {"scheduling": {"nodeSelector": {NODE_LABEL: "true"}}}
"""Spec of an EmbeddingService whose Pods are played."""


@contextmanager
def playing(cluster: Cluster, load: Callable[[str], tuple[float, float]] = lambda pod: (0.0, 0.0)) -> Iterator[Player]:
    """A played node while the block runs."""
    player = Player(cluster.directory, load=load)
    started, failures = threading.Event(), list[BaseException]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def play() -> None:
        async with player.playing():
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(play())
        except BaseException as failure:
            failures.append(failure)
            started.set()

    thread = threading.Thread(target=work, name="player")
    thread.start()
    try:
        assert started.wait(30), "the player did not start"
        assert not failures, failures
        yield player
    finally:
        if not failures:
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not failures, failures
