"""Pods that hang cost nobody else anything, and what they say in the end is not lost. Real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
from aiohttp import web
from embedding_operator.observe.endpoints import MAX_PARALLEL, MAX_PARALLEL_TROUBLED, EndpointReader
from embedding_operator.observe.follow import Key
from embedding_operator.observe.polling import FAILURES, FIRST_PATIENCE, Poller
from embedding_operator.observe.snapshot import PodState, Reading

from tests.operator.build import NOW, POD, manifest

KEY, OTHER = ("search", "a"), ("search", "b")
METRICS = "embedding_utilization 0.5\nembedding_tokens_total 10\nembedding_queue_tokens 3\n"


class Runtime:
    """Answers on every address of this machine's loopback network; some addresses may hang."""

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.go_on = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        self.asked.append((address, request.path))
        if address in self.hanging:
            await self.go_on.wait()
        if request.path.endswith("ready"):
            return web.json_response({"message": "ready", "ready": True})
        if request.path.endswith("manifest"):
            return web.Response(body=orjson.dumps(manifest()))
        return web.Response(text=METRICS)


@asynccontextmanager
async def runtime(news: list[Key], timeout: float = 3.0) -> AsyncIterator[tuple[Runtime, Poller]]:
    served = Runtime()
    application = web.Application()
    application.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))  # noqa: S104 - every Pod of the test has a loopback address of its own
    await web.SockSite(runner, listener).start()
    served.port = listener.getsockname()[1]
    poller = Poller(EndpointReader(lambda: NOW, timeout=timeout), news.append)
    try:
        yield served, poller
    finally:
        served.go_on.set()
        await poller.aclose()
        await poller.endpoints.aclose()
        await runner.cleanup()


def pods(count: int, network: int) -> list[PodState]:
    return [
        replace(POD, name=f"{network}-{index}", uid=f"{network}-{index}", ip=f"127.99.{network}.{index + 1}")
        for index in range(count)
    ]


def test_a_crowd_of_hanging_pods_delays_neither_their_service_nor_others() -> None:
    async def main() -> None:
        async with runtime([]) as (served, poller):
            crowd, (healthy,) = pods(MAX_PARALLEL + MAX_PARALLEL_TROUBLED, 1), pods(1, 2)
            served.hanging = {pod.ip or "" for pod in crowd}

            async def look(key: Key, asked: list[PodState]) -> dict[str, Reading]:
                return await poller.readings(key, asked, port=served.port)

            started = time.monotonic()
            assert await look(KEY, crowd) == {}
            assert time.monotonic() - started < FIRST_PATIENCE + 1
            # Once they are known not to answer, nobody waits for them, and they take no place of others.
            async with asyncio.timeout(20):
                while len(await look(KEY, crowd)) < len(crowd):  # noqa: ASYNC110 - a look is the condition
                    await asyncio.sleep(0.1)
            started = time.monotonic()
            troubled = await look(KEY, crowd)
            assert all(reading.error for reading in troubled.values())
            assert time.monotonic() - started < 0.5
            answered = await look(OTHER, [healthy])
            assert answered[healthy.name].ready
            assert time.monotonic() - started < 1.5

    asyncio.run(main())


def test_a_late_answer_is_news_and_the_next_look_has_it() -> None:
    async def main() -> None:
        news: list[Key] = []
        async with runtime(news, timeout=30) as (served, poller):
            (pod,) = pods(1, 1)
            served.hanging = {pod.ip or ""}
            assert await poller.readings(KEY, [pod], port=served.port) == {}
            assert news == []
            served.hanging.clear()
            served.go_on.set()
            async with asyncio.timeout(5):
                while not news:  # noqa: ASYNC110 - filled by a callback
                    await asyncio.sleep(0.01)
            assert news == [KEY]
            readings = await poller.readings(KEY, [pod], port=served.port)
            assert readings[pod.name].manifest is not None
            assert news == [KEY]

    asyncio.run(main())


def test_a_process_is_asked_for_its_manifest_once() -> None:
    async def main() -> None:
        async with runtime([]) as (served, poller):
            (pod,) = pods(1, 1)
            for _ in range(3):
                readings = await poller.readings(KEY, [pod], port=served.port)
                assert (readings[pod.name].manifest or {})["model"] == manifest()["model"]
            assert sum(path.endswith("manifest") for _, path in served.asked) == 1
            (container, *rest) = pod.containers
            restarted = replace(pod, containers=(replace(container, restarts=container.restarts + 1), *rest))
            await poller.readings(KEY, [restarted], port=served.port)
            assert sum(path.endswith("manifest") for _, path in served.asked) == 2
            assert await poller.readings(KEY, [], port=served.port) == {}

    asyncio.run(main())


def test_a_hiccup_changes_nothing_and_silence_does() -> None:
    async def main() -> None:
        news: list[Key] = []
        async with runtime(news, timeout=0.1) as (served, poller):
            (pod,) = pods(1, 1)
            seen = []
            await poller.readings(KEY, [pod], port=served.port)
            served.hanging = {pod.ip or ""}
            async with asyncio.timeout(10):
                while not seen or seen[-1] is None:
                    readings = await poller.readings(KEY, [pod], port=served.port)
                    seen.append(readings[pod.name].error)
                    await asyncio.sleep(0.05)
            asked = len([path for _, path in served.asked if path.endswith("ready")])
            assert asked >= 1 + FAILURES
            assert seen[0] is None
            assert news == [KEY]
            served.hanging.clear()
            async with asyncio.timeout(10):
                while (await poller.readings(KEY, [pod], port=served.port))[pod.name].error:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    asyncio.run(main())
