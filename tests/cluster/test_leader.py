"""Leader election against a real API server: one writer at a time, by each replica's own clock."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from embedding_operator.api.kinds import CONFIG_MAPS, LEASES
from embedding_operator.cluster import ClusterClient, NotLeading, load_configuration
from embedding_operator.control.leader import (
    LEASE_SECONDS,
    MARGIN_SECONDS,
    RELEASED_SECONDS,
    SETTLE_SECONDS,
    Leadership,
)
from kubernetes.aio.client import ApiClient

from devcluster import Cluster

pytestmark = pytest.mark.cluster


class Clock:
    """A clock that a test can move: the time a process spends stopped passes on it all the same."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


async def _nothing(leading: bool) -> None:
    return None


@asynccontextmanager
async def candidates(count: int, name: str) -> AsyncIterator[list[tuple[Leadership, Clock]]]:
    """Candidates for a Lease that the last leader has given up in order, so that nobody has to wait for it."""
    apis = [ApiClient(await load_configuration()) for _ in range(count)]
    clocks = [Clock() for _ in apis]
    given_up = {"holderIdentity": "", "leaseDurationSeconds": RELEASED_SECONDS}
    metadata = {"namespace": "default", "name": name}
    await ClusterClient(apis[0]).create(LEASES, {"metadata": metadata, "spec": given_up})
    try:
        yield [
            (Leadership(ClusterClient(api, timeout=3), "default", name, f"replica-{index}", clock, _nothing), clock)
            for index, (api, clock) in enumerate(zip(apis, clocks, strict=True))
        ]
    finally:
        for api in apis:
            await api.close()


@pytest.fixture
def election(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Awaitable[None]]], None]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    def run(scenario: Callable[[str], Awaitable[None]]) -> None:
        asyncio.run(scenario(f"election-{uuid.uuid4().hex[:8]}"))  # type: ignore[arg-type]

    return run


async def until(check: Callable[[], bool], timeout: float) -> None:
    async with asyncio.timeout(timeout):
        while not check():  # noqa: ASYNC110 - polls what another task does
            await asyncio.sleep(0.05)


def test_one_leads_and_hands_over_when_it_ends(election: Callable[..., None]) -> None:
    async def scenario(name: str) -> None:
        async with candidates(2, name) as [(first, _), (second, _)]:
            one, two = asyncio.create_task(first.run()), asyncio.create_task(second.run())
            await until(lambda: first.may_write() or second.may_write(), 10)
            assert first.may_write() != second.may_write()
            leading, waiting = (one, second) if first.may_write() else (two, first)
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await until(waiting.may_write, 6)
            for task in (one, two):
                task.cancel()
            await asyncio.gather(one, two, return_exceptions=True)

    election(scenario)


def test_a_stopped_process_stops_writing_before_another_begins(election: Callable[..., None]) -> None:
    async def scenario(name: str) -> None:
        async with candidates(2, name) as [(first, clock), (second, later)]:
            await first._attempt()
            assert first.may_write()
            await second._attempt()
            assert not second.may_write()
            # The first is stopped: its clock goes on, no renewal happens, and the fence closes by itself.
            clock.ahead += LEASE_SECONDS - MARGIN_SECONDS
            assert not first.may_write()
            fenced = ClusterClient(first.cluster.api, may_write=first.may_write)
            with pytest.raises(NotLeading):
                await fenced.create(CONFIG_MAPS, {"metadata": {"namespace": "default", "name": name}})
            # Only after a whole lease duration without a change may the second take over.
            later.ahead += LEASE_SECONDS - 1
            await second._attempt()
            assert not second.may_write()
            later.ahead += 2
            await second._attempt()
            assert not second.may_write()
            # What the first had sent to an API server that hung comes before anything the second writes.
            later.ahead += SETTLE_SECONDS
            assert second.may_write()
            # The first comes back, sees a younger leader, and does not write again.
            await first._attempt()
            assert not first.may_write()

    election(scenario)


def test_an_api_server_that_cannot_be_reached_ends_the_leadership(
    election: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(name: str) -> None:
        async with candidates(1, name) as [(only, clock)]:
            await only._attempt()
            assert only.may_write()
            only.cluster.api.configuration.host = "https://127.0.0.1:1"
            clock.ahead += LEASE_SECONDS - MARGIN_SECONDS
            await only._attempt()
            assert not only.may_write()

    election(scenario)
