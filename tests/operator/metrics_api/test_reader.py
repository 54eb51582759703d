"""Which Pods are read, what of them is answered, and what is left out. The Pods are listeners on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from embedding_operator.api.constants import RUNTIME_PORT
from embedding_operator.api.kinds import HORIZONTAL_POD_AUTOSCALERS, PODS, Resource
from embedding_operator.metrics_api.answers import MetricRequest, Refusal
from embedding_operator.metrics_api.directory import Directory
from embedding_operator.metrics_api.reader import Reader
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.follow import key_of
from embedding_operator.observe.mirror import Mirror

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVERY = MetricRequest("search", None)
NETWORK = "127.81.33."


@dataclass
class Clock:
    moment: datetime = START

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Runtime:
    """One Pod's listener. `figure` None: still loading; a text: what it answers as its metrics."""

    address: str
    figure: str | None = "embedding_utilization 0.5"
    asked: int = 0
    runner: web.AppRunner | None = field(default=None)

    async def start(self) -> None:
        async def ready(request: web.Request) -> web.Response:
            self.asked += 1
            return web.json_response({"message": "loading"}, status=503 if self.figure is None else 200)

        async def metrics(request: web.Request) -> web.Response:
            return web.Response(text=f"{self.figure}\n")

        application = web.Application()
        application.router.add_get("/v1/health/ready", ready)
        application.router.add_get("/v1/metrics", metrics)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.address, RUNTIME_PORT).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()


class World:
    """What the watches have delivered so far."""

    def __init__(self) -> None:
        kinds = (HORIZONTAL_POD_AUTOSCALERS, PODS)
        self.mirror = Mirror(dict.fromkeys(kinds, 60.0), (None,), clock=lambda: 0.0, on_news=lambda key: None)
        self.version = 0

    def fill(self, resource: Resource, objects: list[dict[str, Any]]) -> None:
        for live in objects:
            self.put(resource, live)
        self.mirror.scopes[resource, None].keep({key_of(live) for live in objects}, str(self.version))

    def put(self, resource: Resource, live: dict[str, Any], *, gone: bool = False) -> None:
        self.version += 1
        metadata = {**live["metadata"], "resourceVersion": str(self.version)}
        self.mirror.scopes[resource, None].put({**live, "metadata": metadata}, gone=gone)


def pod(name: str, ip: str | None, *, service: str = "minilm", namespace: str = "search", **metadata: Any) -> Any:
    running = {"startedAt": "2026-11-20T11:00:00Z"}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-11-20T11:00:00Z",
            "labels": {"embedding-operator.io/service": service},
            **metadata,
        },
        "spec": {"nodeName": "node"},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "containerStatuses": [{"name": "runtime", "state": {"running": running}}] if ip else [],
        },
    }


def autoscaler(name: str = "minilm", namespace: str = "search") -> Any:
    owner = {"kind": "EmbeddingService", "name": name, "uid": f"uid-{name}", "controller": True}
    labels = {"embedding-operator.io/service": name}
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"hpa-{name}",
        "labels": labels,
        "ownerReferences": [owner],
    }
    return {"metadata": metadata, "spec": {"maxReplicas": 3}}


def run(scenario: Callable[[World, Reader, Clock, list[Runtime]], Awaitable[None]], runtimes: int = 3) -> None:
    async def main() -> None:
        clock, world = Clock(), World()
        listeners = [Runtime(f"{NETWORK}{number + 1}") for number in range(runtimes)]
        endpoints = EndpointReader(clock, timeout=2)
        for listener in listeners:
            await listener.start()
        try:
            reader = Reader(Directory(world.mirror), endpoints, clock, period=5)
            await scenario(world, reader, clock, listeners)
        finally:
            await endpoints.aclose()
            for listener in listeners:
                await listener.stop()

    asyncio.run(main())


def values(reader: Reader, selector: str = "", request: MetricRequest = EVERY) -> dict[str, str]:
    items = reader.answer(request, selector, "")["items"]
    return {item["describedObject"]["name"]: item["value"] for item in items}


def refusal(reader: Reader, selector: str = "", request: MetricRequest = EVERY, metric_selector: str = "") -> Refusal:
    with pytest.raises(Refusal) as refused:
        reader.answer(request, selector, metric_selector)
    return refused.value


def test_only_autoscaled_services_are_read_and_selectors_select() -> None:
    async def scenario(world: World, reader: Reader, clock: Clock, runtimes: list[Runtime]) -> None:
        assert refusal(reader).code == 503
        world.fill(HORIZONTAL_POD_AUTOSCALERS, [autoscaler(), autoscaler("large")])
        world.fill(
            PODS,
            [
                pod("a", runtimes[0].address),
                pod("b", runtimes[1].address, service="large"),
                pod("c", runtimes[2].address, service="still"),
            ],
        )
        runtimes[1].figure = "embedding_utilization 1.2345"
        await reader.read_once()
        assert values(reader) == {"a": "500m", "b": "1234m"}
        assert values(reader, "embedding-operator.io/service=large") == {"b": "1234m"}
        assert values(reader, "embedding-operator.io/service in (minilm)") == {"a": "500m"}
        assert values(reader, request=MetricRequest("search", "a")) == {"a": "500m"}
        assert runtimes[2].asked == 0
        for selector in ("embedding-operator.io/service=still", "embedding-operator.io/service=none"):
            assert "has no Pod matching" in refusal(reader, selector).message
        assert refusal(reader, request=MetricRequest("other", None)).code == 404
        assert refusal(reader, request=MetricRequest("search", "z")).code == 404
        assert refusal(reader, "a=b=c").code == 400
        assert refusal(reader, metric_selector="verb=get").code == 404
        # Autoscaling is switched off: at the next question already there is nothing.
        world.put(HORIZONTAL_POD_AUTOSCALERS, autoscaler(), gone=True)
        assert values(reader) == {"b": "1234m"}

    run(scenario)


def test_loading_implausible_and_foreign_pods_are_left_out() -> None:
    async def scenario(world: World, reader: Reader, clock: Clock, runtimes: list[Runtime]) -> None:
        world.fill(HORIZONTAL_POD_AUTOSCALERS, [autoscaler()])
        names = "abc"
        world.fill(PODS, [pod(name, runtime.address) for name, runtime in zip(names, runtimes, strict=True)])
        await reader.read_once()
        assert set(values(reader)) == set(names)
        runtimes[0].figure = None  # it loads again
        runtimes[1].figure = "embedding_utilization NaN"
        runtimes[2].figure = "another_metric 1"
        await reader.read_once()
        refused = refusal(reader)
        assert refused.code == 404
        assert "none of the 3 Pods" in refused.message
        runtimes[0].figure = "embedding_utilization 0"
        await reader.read_once()
        assert values(reader) == {"a": "0m"}  # idle is a figure, not a missing one

    run(scenario)


def test_a_pod_that_falls_silent_is_left_out_when_its_figure_is_stale() -> None:
    async def scenario(world: World, reader: Reader, clock: Clock, runtimes: list[Runtime]) -> None:
        world.fill(HORIZONTAL_POD_AUTOSCALERS, [autoscaler()])
        world.fill(PODS, [pod("a", runtimes[0].address), pod("b", runtimes[1].address)])
        await reader.read_once()
        await runtimes[0].stop()
        clock.forward(10)
        await reader.read_once()
        (first, second) = reader.answer(EVERY, "", "")["items"]
        assert first["timestamp"] == "2026-11-20T12:00:00Z"  # the old figure, under its own time
        assert second["timestamp"] == "2026-11-20T12:00:10Z"
        clock.forward(reader.stale_after.total_seconds() - 9.9)
        assert set(values(reader)) == {"b"}

    run(scenario)


def test_a_pod_on_its_way_out_is_left_out_and_forgotten() -> None:
    async def scenario(world: World, reader: Reader, clock: Clock, runtimes: list[Runtime]) -> None:
        world.fill(HORIZONTAL_POD_AUTOSCALERS, [autoscaler()])
        world.fill(PODS, [pod("a", runtimes[0].address), pod("b", runtimes[1].address), pod("c", None)])
        await reader.read_once()
        assert set(values(reader)) == {"a", "b"}
        world.put(PODS, pod("a", runtimes[0].address, deletionTimestamp="2026-11-20T12:00:00Z"))
        assert set(values(reader)) == {"b"}
        world.put(PODS, pod("b", runtimes[1].address), gone=True)
        assert refusal(reader).code == 404
        await reader.read_once()
        assert reader.figures == {}

    run(scenario)
