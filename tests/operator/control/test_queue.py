"""The work queue: no duplicates, one worker per key, nothing lost, back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from embedding_operator.control.queue import Key, Urgency, WorkQueue, backoff
from hypothesis import given
from hypothesis import strategies as st

A, B = ("ns", "a"), ("ns", "b")


def run(scenario: Callable[[WorkQueue], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(WorkQueue(asyncio.get_running_loop().time))

    asyncio.run(main())


def test_the_same_key_is_handed_out_once() -> None:
    async def scenario(queue: WorkQueue) -> None:
        for _ in range(5):
            queue.add(A)
        assert queue.depth == 1
        assert await queue.take() == A
        queue.done(A)
        assert queue.depth == 0

    run(scenario)


def test_a_key_added_while_it_runs_is_looked_at_again_but_never_by_two() -> None:
    async def scenario(queue: WorkQueue) -> None:
        queue.add(A)
        assert await queue.take() == A
        queue.add(A)
        queue.add(B)
        assert await queue.take() == B
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.take(), 0.02)
        queue.done(A)
        assert await asyncio.wait_for(queue.take(), 1) == A

    run(scenario)


def test_an_earlier_time_wins_over_a_later_one() -> None:
    async def scenario(queue: WorkQueue) -> None:
        queue.add(A, 60)
        queue.add(A, 0.01)
        queue.add(A, 60)
        assert await asyncio.wait_for(queue.take(), 1) == A

    run(scenario)


def test_a_waiting_take_wakes_for_a_new_key() -> None:
    async def scenario(queue: WorkQueue) -> None:
        queue.add(B, 60)
        taken = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(A)
        assert await asyncio.wait_for(taken, 1) == A

    run(scenario)


def test_failures_wait_longer_each_time_and_success_forgets_them() -> None:
    async def scenario(queue: WorkQueue) -> None:
        delays = []
        for _ in range(3):
            queue.add(A)
            await queue.take()
            delays.append(queue.failed(A))
        assert delays[0] < delays[1] < delays[2]
        queue.add(A)
        await queue.take()
        queue.done(A)
        queue.add(A)
        await queue.take()
        assert queue.failed(A) <= 1.2

    run(scenario)


def test_what_comes_while_a_key_is_forgotten_is_not_lost() -> None:
    async def scenario(queue: WorkQueue) -> None:
        queue.add(A)
        await queue.take()
        queue.add(A)
        queue.forget(A)
        queue.done(A)
        assert await asyncio.wait_for(queue.take(), 1) == A

    run(scenario)


def test_a_cancelled_worker_gives_its_key_back() -> None:
    async def scenario(queue: WorkQueue) -> None:
        started = asyncio.Event()

        async def never_ends(key: Key) -> None:
            started.set()
            await asyncio.Event().wait()

        worker = asyncio.create_task(queue.work(never_ends))
        queue.add(A)
        await started.wait()
        queue.add(A)
        assert queue.longest_running_seconds >= 0
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await asyncio.wait_for(queue.take(), 1) == A
        queue.clear()
        queue.add(A)
        assert await asyncio.wait_for(queue.take(), 1) == A

    run(scenario)


@given(st.integers(min_value=1, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_backoff_is_bounded(failures: int, jitter: float) -> None:
    assert 0.8 <= backoff(failures, lambda: jitter) <= 360.001


@given(st.lists(st.sampled_from([A, B, ("other", "a")]), min_size=1, max_size=50), st.integers(1, 4))
def test_nothing_is_lost_whatever_the_order(added: list[Key], workers: int) -> None:
    seen: list[Key] = []
    running: set[Key] = set()

    async def scenario(queue: WorkQueue) -> None:
        async def handle(key: Key) -> None:
            assert key not in running
            running.add(key)
            await asyncio.sleep(0)
            seen.append(key)
            running.discard(key)
            queue.done(key)

        tasks = [asyncio.create_task(queue.work(handle)) for _ in range(workers)]
        for key in added:
            queue.add(key)
            await asyncio.sleep(0)
        while set(seen) != set(added) or queue.depth:  # noqa: ASYNC110 - every turn of the loop is a step
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario)
    assert len(seen) <= len(added)


def test_a_long_queue_that_moves_is_not_stuck() -> None:
    """A thousand services at once once made the operator look dead, and it was restarted in the middle of them."""

    async def main() -> None:
        now = [0.0]
        queue = WorkQueue(lambda: now[0])
        for key in (A, B):
            queue.add(key)
        now[0] = 100.0
        assert (queue.oldest_seconds, queue.stuck_seconds) == (100.0, 100.0)
        key = await queue.take()
        assert (queue.oldest_seconds, queue.stuck_seconds) == (100.0, 0.0)
        now[0] = 150.0
        assert (queue.stuck_seconds, queue.longest_running_seconds) == (50.0, 50.0)
        queue.done(key)
        assert queue.stuck_seconds == 0.0
        await queue.take()
        now[0] = 1000.0
        assert queue.stuck_seconds == 0.0

    asyncio.run(main())


def test_what_changed_overtakes_routine_but_does_not_starve_it() -> None:
    async def main() -> None:
        now = [0.0]
        queue = WorkQueue(lambda: now[0])
        routine = [("ns", f"routine-{index:02}") for index in range(20)]
        changed = [("ns", f"changed-{index:02}") for index in range(12)]
        for key in routine:
            queue.add(key)
        now[0] = 1.0
        for key in changed:
            queue.add(key, urgency=Urgency.NEWS)
        taken = [await queue.take() for _ in range(16)]
        assert [key for key in taken if key in changed] == changed
        assert sum(key in routine for key in taken) == 4
        # What waits as routine and then changes is moved up, and handed out once.
        queue.add(routine[-1], urgency=Urgency.NEWS)
        rest = [await queue.take() for _ in range(16)]
        assert rest.index(routine[-1]) <= 1
        assert sorted(taken + rest) == sorted(routine + changed)
        assert queue.depth == 0

    asyncio.run(main())


def test_what_somebody_asked_for_overtakes_a_backlog_of_news_but_does_not_starve_it() -> None:
    async def main() -> None:
        now = [0.0]
        queue = WorkQueue(lambda: now[0])
        backlog = [("ns", f"new-{index:03}") for index in range(100)]
        for key in backlog:
            queue.add(key, 0.05, Urgency.NEWS)
        now[0] = 1.0
        edited = ("ns", "edited")
        queue.add(edited, 30)
        queue.add(edited, 0.05, Urgency.ASKED)
        now[0] = 1.1
        assert edited in [await queue.take() for _ in range(2)]
        # It keeps its rank while it is being looked at.
        queue.add(edited, 0.05, Urgency.ASKED)
        queue.done(edited, again_after=30)
        now[0] = 1.2
        assert edited in [await queue.take() for _ in range(2)]
        # Edits without end leave every fourth turn to what waits longest.
        queue.done(edited)
        others = 0
        for _ in range(100):
            queue.add(edited, 0, Urgency.ASKED)
            now[0] += 0.01
            key = await queue.take()
            others += key != edited
            queue.done(key)
        assert others == 25

    asyncio.run(main())


def test_what_was_superseded_takes_no_room() -> None:
    """A busy service is told of again and again, each time before its routine look is due."""

    async def scenario(queue: WorkQueue) -> None:
        keys = [("ns", str(index)) for index in range(10)]
        for _ in range(1000):
            for key in keys:
                queue.add(key, 300.0)
                queue.add(key, urgency=Urgency.NEWS)
            for _ in keys:
                queue.done(await queue.take(), 300.0)
            for key in keys:
                queue.add(key, urgency=Urgency.NEWS)
                queue.add(key, urgency=Urgency.NEWS)
        assert sum(map(len, queue._heaps)) < 200
        taken = [await queue.take() for _ in keys]
        assert sorted(taken) == keys

    run(scenario)
