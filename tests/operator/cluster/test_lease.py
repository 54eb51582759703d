"""A Lease that people touch: nobody writes before everybody who might has stopped. By each replica's own clock."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from embedding_operator.api.kinds import LEASES
from embedding_operator.cluster import ClusterClient
from embedding_operator.control.leader import (
    LEASE_SECONDS,
    MARGIN_SECONDS,
    RELEASED_SECONDS,
    RENEW_SECONDS,
    Leadership,
)
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from devcluster import Cluster

pytestmark = pytest.mark.cluster

FENCE = LEASE_SECONDS - MARGIN_SECONDS
"""So long after a renewal its maker may go on writing, whatever becomes of the Lease meanwhile."""


class Election:
    """One Lease and those who want it, on one clock that only the test moves."""

    def __init__(self, client: ClusterClient) -> None:
        self.client = client
        self.name = f"election-{uuid.uuid4().hex[:8]}"
        self.now = 0.0

    def candidate(self, identity: str) -> Leadership:
        async def nothing(leading: bool) -> None:
            return None

        return Leadership(self.client, "default", self.name, identity, lambda: self.now, nothing)

    async def given_up(self) -> None:
        """The Lease as a leader leaves it that ended in order."""
        spec = {"holderIdentity": "", "leaseDurationSeconds": RELEASED_SECONDS}
        metadata = {"namespace": "default", "name": self.name}
        await self.client.create(LEASES, {"metadata": metadata, "spec": spec})

    async def lease(self) -> dict[str, Any]:
        live = await self.client.get(LEASES, "default", self.name)
        assert live is not None
        return live

    async def deleted(self) -> None:
        await self.client.delete(LEASES, await self.lease())

    async def edited(self, **spec: Any) -> None:
        live = await self.lease()
        live["spec"].update(spec)
        await self.client.replace(LEASES, live)


def election(cluster: Cluster, scenario: Callable[[Election], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connection(cluster) as client:
            await scenario(Election(client))

    asyncio.run(main())


@contextlib.asynccontextmanager
async def connection(cluster: Cluster) -> AsyncIterator[ClusterClient]:
    configuration = Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield ClusterClient(api, timeout=3)


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_a_lease_that_somebody_took_away_is_waited_for(cluster: Cluster, how: str) -> None:
    async def scenario(world: Election) -> None:
        await world.given_up()
        first, second = world.candidate("first"), world.candidate("second")
        await first._attempt()
        await second._attempt()
        assert (first.may_write(), second.may_write()) == (True, False)
        await (world.deleted() if how == "deleted" else world.edited(holderIdentity=""))
        # The first hangs and knows nothing of it: its fence is open for as long as it ever is.
        steps = 0
        while world.now < 2 * LEASE_SECONDS and not second.may_write():
            await second._attempt()
            assert not (first.may_write() and second.may_write())
            world.now += RENEW_SECONDS / 2
            steps += 1
        assert second.may_write()
        assert not first.may_write()
        assert world.now >= FENCE + MARGIN_SECONDS, "a write that passed the first one's fence may still be under way"
        # The first comes back, and stands down.
        await first._attempt()
        assert not first.may_write()

    election(cluster, scenario)


def test_a_leader_whose_lease_was_taken_away_waits_too(cluster: Cluster) -> None:
    """Somebody may have held it, and written, in between."""

    async def scenario(world: Election) -> None:
        await world.given_up()
        only = world.candidate("only")
        await only._attempt()
        assert only.may_write()
        await world.deleted()
        await only._attempt()
        assert not only.may_write()
        for _ in range(LEASE_SECONDS):
            world.now += 1
            await only._attempt()
        assert only.may_write()

    election(cluster, scenario)


def test_a_lease_in_our_name_that_we_did_not_take_is_waited_for(cluster: Cluster) -> None:
    """A process of the same Pod before this one wrote until a moment ago, or a person wrote our name into it."""

    async def scenario(world: Election) -> None:
        await world.given_up()
        await world.candidate("same")._attempt()
        again = world.candidate("same")
        await again._attempt()
        assert not again.may_write()
        world.now += LEASE_SECONDS
        await again._attempt()
        assert again.may_write()

    election(cluster, scenario)


def test_a_lease_that_was_given_up_is_taken_at_once(cluster: Cluster) -> None:
    async def scenario(world: Election) -> None:
        await world.given_up()
        first, second, third = (world.candidate(name) for name in ("first", "second", "third"))
        await first._attempt()
        await first._release()
        await second._attempt()
        assert (first.may_write(), second.may_write()) == (False, True)
        # Who gives up while it still waits hands the waiting on.
        await world.deleted()
        await second._attempt()
        assert not second.may_write()
        await second._release()
        await third._attempt()
        assert not third.may_write()

    election(cluster, scenario)
