"""The POST routes: from a body to vectors, keeping the event loop free."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from embedding_runtime.api.body import BodyReader
from embedding_runtime.api.connection import until_disconnect
from embedding_runtime.api.errors import from_engine
from embedding_runtime.api.keys import Gate
from embedding_runtime.api.resolve import Job, resolve
from embedding_runtime.api.schema import EmbeddingRequest, NugenRequest, parse
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import EngineError, ItemFailedError
from embedding_runtime.engine.model import InputTooLongError, Item
from embedding_runtime.engine.request import Embedded
from embedding_runtime.outputs.encode import list_answer, nugen_answer
from embedding_runtime.outputs.vectors import finish
from embedding_runtime.telemetry import Metrics

T = TypeVar("T")
_log = logging.getLogger(__name__)
# Below these sizes a hop to another thread costs more than the work.
_INLINE_CHARACTERS = 4_000
_INLINE_VALUES = 16_384


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of requests: bytes of one body and of all bodies in progress, seconds until an answer."""

    body_bytes: int = 128 * 1024 * 1024
    all_bodies_bytes: int = 512 * 1024 * 1024
    request_timeout: float = 120.0


class EmbeddingHandler:
    """Serves the embedding routes of one server."""

    def __init__(self, state: ServiceState, metrics: Metrics, gate: Gate, limits: ApiLimits) -> None:
        self._state = state
        self._metrics = metrics
        self._gate = gate
        self._timeout = limits.request_timeout
        self._bodies = BodyReader(limits.body_bytes, limits.all_bodies_bytes)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="tokenise")

    async def embeddings(self, request: Request) -> Response:
        """The route of OpenAI and NIM."""
        async with self._job(request, EmbeddingRequest) as (engine, job):
            tokens, embedded = await self._run(request, engine, job)
            name = self._state.served_name
            return await self._respond(
                job, embedded, lambda values: list_answer(values, job.encoding, model=name, tokens=tokens), engine
            )

    async def nugen(self, request: Request) -> Response:
        """The route of Nugen's API: float vectors only, fewer fields, another envelope."""
        async with self._job(request, NugenRequest) as (engine, job):
            tokens, embedded = await self._run(request, engine, job)
            name, created, answer_id = self._state.served_name, time.time(), f"embed-{secrets.token_hex(12)}"
            return await self._respond(
                job,
                embedded,
                lambda values: nugen_answer(values, answer_id=answer_id, model=name, created=created, tokens=tokens),
                engine,
            )

    @asynccontextmanager
    async def _job(
        self, request: Request, schema: type[EmbeddingRequest] | type[NugenRequest]
    ) -> AsyncIterator[tuple[Engine, Job]]:
        """The engine and what it must do for a request. The body stays accounted for until the block ends."""
        engine = self._state.require_engine()
        async with self._bodies.read(request) as body:
            parsed = await self._off_loop(len(body), _INLINE_CHARACTERS, lambda: parse(body, schema))
            yield engine, resolve(parsed, self._state.names, engine.model.identity)

    async def _run(self, request: Request, engine: Engine, job: Job) -> tuple[int, Embedded]:
        """Tokenise and embed, giving up when the client hangs up: the tokens used, and the vectors."""
        engine.announce(job.lane)
        announced = True
        try:
            items = await self._prepare(engine, job)
            tokens = sum(item.tokens for item in items)
            self._gate.spend_tokens(request.scope.get("client_name"), tokens)
            announced = False
            work = engine.submit(items, job.lane, self._timeout, announced=True)
            embedded = await until_disconnect(request, work)
        except (EngineError, InputTooLongError) as error:
            if isinstance(error, ItemFailedError):
                # The client is told which input; why is for the log alone.
                _log.error("%s", error, exc_info=error.cause)
            raise from_engine(error) from error
        finally:
            if announced:
                engine.withdraw(job.lane)
        self._metrics.answered(request.scope.get("client_name"), job.input_type, ["text"] * len(items), tokens)
        return tokens, embedded

    async def _prepare(self, engine: Engine, job: Job) -> list[Item]:
        began = time.perf_counter()
        items = await self._off_loop(
            sum(map(len, job.texts)),
            _INLINE_CHARACTERS,
            lambda: engine.model.prepare(job.texts, job.input_type, job.truncation),
        )
        self._metrics.tokenise_seconds.observe(time.perf_counter() - began)
        return items

    async def _respond(self, job: Job, embedded: Embedded, encode: Callable[[Any], bytes], engine: Engine) -> Response:
        began = time.perf_counter()

        def build() -> bytes:
            normalized = engine.model.identity.normalized
            return encode(finish(embedded.vectors, dimensions=job.dimensions, normalized=normalized, kind=job.kind))

        body = await self._off_loop(embedded.vectors.size, _INLINE_VALUES, build)
        self._metrics.encode_seconds.observe(time.perf_counter() - began)
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
