"""Following objects when the API server drops, expires and ends watches: what a listener on a real socket sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from embedding_operator.api.kinds import CONFIG_MAPS
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.observe import follow as following_module
from embedding_operator.observe.follow import follow
from kubernetes.aio.client import ApiClient, Configuration

from tests.operator.observe.sink import Seen

EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def live(name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "search", "name": name}}


@asynccontextmanager
async def api_server(watches: list[list[dict[str, Any]]], lists: list[list[str]]) -> AsyncIterator[ClusterClient]:
    """Answers lists and watches from these, one after another; a watch without an end stays open."""
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            names = lists.pop(0) if len(lists) > 1 else lists[0]
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": [live(name) for name in names]})
        assert request.query["resourceVersion"] == "7"
        response = web.StreamResponse()
        await response.prepare(request)
        for event in watches.pop(0) if watches else [{"type": "WAIT"}]:
            if event["type"] == "WAIT":
                await over.wait()
            elif event["type"] == "PAUSE":
                await asyncio.sleep(0.1)
            else:
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    application = web.Application()
    application.router.add_get("/api/v1/configmaps", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with ApiClient(Configuration(host=f"http://{host}:{port}")) as api:
        try:
            yield ClusterClient(api, timeout=5)
        finally:
            over.set()
            await runner.cleanup()


def test_an_expired_watch_is_an_error() -> None:
    async def scenario() -> None:
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}
        stream = [{"type": "ADDED", "object": live("a")}, bookmark, {"type": "ERROR", "object": EXPIRED}]
        async with api_server([stream], [[]]) as client:
            events = client.watch(CONFIG_MAPS, "7")
            assert (await anext(events))[0] == "ADDED"
            assert (await anext(events))[0] == "BOOKMARK"
            with pytest.raises(ClusterError) as refused:
                await anext(events)
            assert (refused.value.status, refused.value.reason) == (410, "Expired")

    asyncio.run(scenario())


def test_what_was_missed_between_two_watches_is_found_by_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "RETRY_SECONDS", 0.05)

    async def scenario() -> None:
        watches = [
            [
                {"type": "ADDED", "object": live("b")},
                {"type": "DELETED", "object": live("a")},
            ],  # resumed
            [{"type": "ERROR", "object": EXPIRED}],
            [{"type": "ERROR", "object": EXPIRED}],
            [{"type": "ADDED", "object": live("last")}, {"type": "WAIT"}],
        ]
        lists = [["a"], ["b", "c"], ["c"]]
        seen = Seen(awaited="last")
        async with api_server(watches, lists) as client:
            following = asyncio.create_task(follow(client, CONFIG_MAPS, None, seen))
            try:
                await asyncio.wait_for(seen.done.wait(), 10)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        assert seen.lists == 3
        assert seen.put_names == ["a", "b", "b", "c", "c", "last"]
        assert set(seen.entries) == {("search", "c"), ("search", "last")}

    asyncio.run(scenario())


def test_watches_that_end_at_once_are_no_watches_and_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something between here and the API server that cuts every watch off: lists go on telling, ever more rarely."""
    monkeypatch.setattr(following_module, "RETRY_SECONDS", 0.1)

    async def scenario() -> None:
        seen = Seen(awaited="never")
        async with api_server([[] for _ in range(100_000)], [["a"]]) as client:
            following = asyncio.create_task(follow(client, CONFIG_MAPS, None, seen))
            try:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(seen.done.wait(), 2)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        # Pauses of 0.1, 0.2, 0.4, 0.8 seconds, give or take a half of each.
        assert 3 <= seen.lists <= 7
        assert {error.reason for error in seen.errors} == {"EndedAtOnce"}
        # Only the lists were heard.
        assert seen.heard_times == seen.lists

    asyncio.run(scenario())


def test_watches_that_break_off_after_a_while_are_begun_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer that ends idle connections: the pause must not grow, for nothing is seen in it."""
    monkeypatch.setattr(following_module, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(following_module, "SHORT_WATCH_SECONDS", 0.05)
    broken = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "broken off"}

    async def scenario() -> None:
        seen = Seen(awaited="never")
        watches: list[list[dict[str, Any]]] = [[{"type": "PAUSE"}, {"type": "ERROR", "object": broken}]] * 100
        async with api_server(watches, [["a"]]) as client:
            following = asyncio.create_task(follow(client, CONFIG_MAPS, None, seen))
            try:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(seen.done.wait(), 2)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        # One round takes 0.1 s and a pause of at most 0.03 s. With pauses that grow, six rounds take 1.3 s at least.
        assert seen.lists >= 8

    asyncio.run(scenario())
