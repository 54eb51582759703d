"""When readiness and liveness fall, and when they do not: bad inputs, failing devices, stuck and dead threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import ItemFailedError, StoppedError
from embedding_runtime.engine.health import Health
from embedding_runtime.engine.model import DeviceLostError, Matrix
from embedding_runtime.engine.work import Lane

from tests.runtime.engine.test_engine import LIMITS, NumberModel, Running, items
from tests.runtime.helpers import wait_until


class ProvableModel(NumberModel):
    """Proves itself, unless the test says that its device is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.device_error: Exception | None = None
        self.proofs = 0

    def prove(self) -> None:
        self.proofs += 1
        if self.device_error:
            raise self.device_error

    def embed(self, payloads: Sequence[object]) -> Matrix:
        if self.device_error:
            raise self.device_error
        return super().embed(payloads)


def served(model: ProvableModel, health: Health | None = None) -> tuple[Engine, ServiceState]:
    engine = Engine(model, LIMITS, health=health)
    engine.start()
    state = ServiceState("m")
    state.ready(engine)
    return engine, state


def test_a_bad_input_changes_neither_readiness_nor_liveness() -> None:
    async def scenario() -> None:
        model = ProvableModel()
        engine, state = served(model)
        try:
            model.poison = 3
            with pytest.raises(ItemFailedError):
                await engine.submit(items(3), Lane.BULK, 30)
            await asyncio.to_thread(wait_until, lambda: model.proofs == 1, 10, "the self-test after a failure")
            assert (await engine.submit(items(1), Lane.BULK, 30)).vectors.tolist() == [[1, 1]]
            assert state.readiness() == (True, "ready")
            assert state.is_live()
            # A flood of them does not make the engine test itself for ever.
            for _ in range(20):
                with pytest.raises(ItemFailedError):
                    await engine.submit(items(3), Lane.BULK, 30)
            assert model.proofs == 1
        finally:
            engine.stop()

    asyncio.run(scenario())


def test_readiness_falls_while_the_device_fails_and_comes_back_with_it() -> None:
    async def scenario() -> None:
        model = ProvableModel()
        engine, state = served(model, Health(time.monotonic(), retry=0.05, attempts=1000))
        try:
            model.device_error = RuntimeError("the driver is confused")
            with pytest.raises(ItemFailedError):
                await engine.submit(items(1), Lane.BULK, 30)
            await asyncio.to_thread(wait_until, lambda: not state.readiness()[0], 10, "unreadiness")
            assert state.readiness()[1] == "the self-test failed: the driver is confused"
            assert state.is_live()
            model.device_error = None
            await asyncio.to_thread(wait_until, lambda: state.readiness()[0], 10, "readiness")
        finally:
            engine.stop()

    asyncio.run(scenario())


def test_a_device_that_fails_again_and_again_ends_the_engine() -> None:
    async def scenario() -> None:
        model = ProvableModel()
        engine, state = served(model, Health(time.monotonic(), retry=0.01, attempts=3))
        model.device_error = RuntimeError("the driver is confused")
        with pytest.raises((ItemFailedError, StoppedError)):
            await engine.submit(items(1), Lane.BULK, 30)
        await asyncio.to_thread(wait_until, lambda: not state.is_live(), 10, "death")
        assert model.proofs == 3
        assert engine.failure == "DeviceLostError: the self-test failed: the driver is confused"
        assert not state.readiness()[0]

    asyncio.run(scenario())


def test_an_idle_engine_finds_a_lost_device_before_a_client_does() -> None:
    model = ProvableModel()
    model.device_error = DeviceLostError("fell off the bus")
    engine, state = served(model, Health(time.monotonic(), interval=0.05))
    wait_until(lambda: not state.is_live(), 10, "death")
    assert "fell off the bus" in str(engine.failure)


def test_a_stuck_engine_is_not_alive_until_it_moves_again() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.engine._stuck_after = 0.2
            task = await it.occupy()
            await asyncio.to_thread(wait_until, lambda: not it.engine.is_alive(), 10, "being stuck")
            it.model.gate.set()
            await task
            it.engine._stuck_after = 300.0
            assert it.engine.is_alive()

    asyncio.run(scenario())


def test_vectors_that_are_no_numbers_fail_their_input_only() -> None:
    class Overflowing(NumberModel):
        def embed(self, payloads: Sequence[object]) -> Matrix:
            return np.array([[np.nan if payload == 2 else payload, 0] for payload in payloads], np.float32)

    async def scenario() -> None:
        engine = Engine(Overflowing(), LIMITS)
        engine.start()
        try:
            bad, good = await asyncio.gather(
                engine.submit(items(1, 2), Lane.BULK, 30), engine.submit(items(3), Lane.BULK, 30),
                return_exceptions=True,
            )  # fmt: skip
            assert isinstance(bad, ItemFailedError)
            assert (bad.index, str(bad.cause)) == (1, "the vector is not finite")
            assert not isinstance(good, BaseException)
        finally:
            engine.stop()

    asyncio.run(scenario())


def test_out_of_memory_shrinks_the_budget_and_success_restores_it_below_what_failed() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.fits = 40
            assert (await it.submit(*range(64))).vectors[:, 0].tolist() == list(range(64))
            assert it.engine.batch_token_budget() == 32
            for _ in range(60):
                await it.submit(*range(64))
            # Larger ones were tried and did not fit; what is left does, and goes on to.
            assert 32 < it.engine.batch_token_budget() <= 40
            it.model.batches.clear()
            await it.submit(*range(64))
            assert max(map(len, it.model.batches)) <= 40
            assert it.engine.trouble is None

    asyncio.run(scenario())


def test_an_input_that_does_not_fit_alone_fails_alone() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.fits = 0
            with pytest.raises(ItemFailedError):
                await it.submit(1)
            assert it.engine.batch_token_budget() == 64
            assert it.engine.is_alive()

    asyncio.run(scenario())
