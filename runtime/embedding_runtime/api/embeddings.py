"""POST /v1/embeddings: from a body to vectors, keeping the event loop free."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from embedding_runtime.api.body import read_body
from embedding_runtime.api.errors import from_engine
from embedding_runtime.api.resolve import Job, resolve
from embedding_runtime.api.schema import EmbeddingRequest, parse
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.engine import Embedded, Engine
from embedding_runtime.engine.errors import EngineError
from embedding_runtime.engine.model import InputTooLongError, Item
from embedding_runtime.outputs.encode import list_answer, nugen_answer
from embedding_runtime.outputs.vectors import finish
from embedding_runtime.telemetry import Metrics

T = TypeVar("T")
# Below these sizes a hop to another thread costs more than the work.
_INLINE_CHARACTERS = 4_000
_INLINE_VALUES = 16_384


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of requests: bytes of a body, seconds until an answer."""

    body_bytes: int = 128 * 1024 * 1024
    request_timeout: float = 120.0


class EmbeddingHandler:
    """Serves the embedding routes of one server."""

    def __init__(self, state: ServiceState, metrics: Metrics, limits: ApiLimits) -> None:
        self._state = state
        self._metrics = metrics
        self._limits = limits
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="tokenise")

    async def embeddings(self, request: Request) -> Response:
        """The route of OpenAI and NIM."""
        engine = self._state.require_engine()
        body = await read_body(request, self._limits.body_bytes)
        parsed = await self._off_loop(len(body), _INLINE_CHARACTERS, lambda: parse(body))
        job = resolve(parsed, self._state.names, engine.model.identity)
        items, embedded = await self._run(request, engine, job)
        tokens = self._count(job, items)
        name = self._state.served_name
        return await self._respond(
            job, embedded, lambda values: list_answer(values, job.encoding, model=name, tokens=tokens), engine
        )

    async def nugen(self, request: Request) -> Response:
        """The route of Nugen's API: float vectors only, fewer fields, another envelope."""
        engine = self._state.require_engine()
        body = await read_body(request, self._limits.body_bytes)
        parsed = parse(body)
        reduced = EmbeddingRequest(model=parsed.model, input=parsed.input, dimensions=parsed.dimensions)
        job = resolve(reduced, self._state.names, engine.model.identity)
        items, embedded = await self._run(request, engine, job)
        tokens = self._count(job, items)
        answer_id = f"embed-{secrets.token_hex(12)}"
        return await self._respond(
            job, embedded,
            lambda values: nugen_answer(
                values, answer_id=answer_id, model=self._state.served_name, created=time.time(), tokens=tokens
            ),
            engine,
        )  # fmt: skip

    async def _run(self, request: Request, engine: Engine, job: Job) -> tuple[list[Item], Embedded]:
        """Tokenise and embed, giving up when the client hangs up."""
        model = engine.model
        began = time.perf_counter()
        engine.announce()
        try:
            items = await self._off_loop(
                sum(map(len, job.texts)),
                _INLINE_CHARACTERS,
                lambda: model.prepare(job.texts, job.input_type, job.truncation),
            )
        except InputTooLongError as error:
            raise from_engine(error) from error
        finally:
            engine.withdraw()
        self._metrics.stage_seconds.labels("tokenise").observe(time.perf_counter() - began)
        try:
            work = engine.submit(items, job.lane, self._limits.request_timeout)
            return items, await until_disconnect(request, work)
        except EngineError as error:
            raise from_engine(error) from error

    def _count(self, job: Job, items: list[Item]) -> int:
        tokens = sum(item.tokens for item in items)
        self._metrics.tokens.labels(job.input_type or "none").inc(tokens)
        self._metrics.inputs.labels("text").inc(len(items))
        return tokens

    async def _respond(self, job: Job, embedded: Embedded, encode: Callable[[Any], bytes], engine: Engine) -> Response:
        began = time.perf_counter()

        def build() -> bytes:
            normalized = engine.model.identity.normalized
            return encode(finish(embedded.vectors, dimensions=job.dimensions, normalized=normalized, kind=job.kind))

        body = await self._off_loop(embedded.vectors.size, _INLINE_VALUES, build)
        self._metrics.stage_seconds.labels("encode").observe(time.perf_counter() - began)
        headers = {
            "x-queue-time-ms": f"{embedded.queue_seconds * 1000:.3f}",
            "x-inference-time-ms": f"{embedded.inference_seconds * 1000:.3f}",
            "x-batch-tokens": str(embedded.batch_tokens),
        }
        return Response(body, headers=headers, media_type="application/json")

    async def _off_loop(self, size: int, inline: int, work: Callable[[], T]) -> T:
        """Run small work here and large work on a thread."""
        if size <= inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, cancelled when the client hangs up first. Raises ClientDisconnect then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for future in (task, gone):
            if not future.done():
                future.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await future


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
