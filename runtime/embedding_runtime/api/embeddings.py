"""The POST routes: from a body to vectors, keeping the event loop free."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from embedding_runtime.api.body import BodyReader
from embedding_runtime.api.connection import until_disconnect
from embedding_runtime.api.errors import ApiError, from_engine
from embedding_runtime.api.image_work import ImageWork, ImageWorkLimits
from embedding_runtime.api.keys import Gate
from embedding_runtime.api.resolve import ImageBounds, Job, resolve
from embedding_runtime.api.schema import EmbeddingRequest, NugenRequest, parse
from embedding_runtime.api.state import ServiceState
from embedding_runtime.api.threads import Checkpoint, in_thread
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import EngineError, ItemFailedError, QueueTimeoutError
from embedding_runtime.engine.model import InputTooLongError, InvalidImageError, Item, no_checkpoint
from embedding_runtime.engine.request import Embedded
from embedding_runtime.engine.work import Lane
from embedding_runtime.outputs.encode import list_answer, nugen_answer
from embedding_runtime.outputs.vectors import finish
from embedding_runtime.telemetry import Metrics
from embedding_runtime.tracing import annotate, stage

Values = NDArray[np.generic]
Encode = Callable[[Job, Values, int], bytes]
_log = logging.getLogger(__name__)
# Up to these sizes a hop to another thread costs more than the work.
_INLINE_BYTES = 4_000
_INLINE_VALUES = 16_384
# Beyond this size a request is prepared among its like.
_LARGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of requests: bytes of one body and of all bodies in progress, seconds until an answer, bytes of an image's
    file, and numbers of images."""

    body_bytes: int = 128 * 1024 * 1024
    all_bodies_bytes: int = 512 * 1024 * 1024
    request_timeout: float = 120.0
    image_bytes: int = 25 * 1024 * 1024
    images: ImageWorkLimits = field(default_factory=ImageWorkLimits)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request that the engine may be given, and how long its texts took to tokenise, and its images to decode, in
    seconds."""

    job: Job
    items: list[Item]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.items)


class EmbeddingHandler:
    """Serves the embedding routes of one server."""

    def __init__(self, state: ServiceState, metrics: Metrics, gate: Gate, limits: ApiLimits) -> None:
        self._state = state
        self._metrics = metrics
        self._gate = gate
        self._timeout = limits.request_timeout
        self._bodies = BodyReader(limits.body_bytes, limits.all_bodies_bytes)
        # Four queues: a request of megabytes takes seconds, an image may too, and neither others nor finished answers
        # wait behind them.
        self._prepare_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="prepare")
        self._prepare_large_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="prepare-large")
        self._images = ImageWork(limits.images)
        self._image_bytes = limits.image_bytes
        self._encode_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")

    async def embeddings(self, request: Request) -> Response:
        """The route of OpenAI and NIM."""

        def encode(job: Job, values: Values, tokens: int) -> bytes:
            return list_answer(values, job.encoding, model=self._state.served_name, tokens=tokens)

        return await self._answer(request, EmbeddingRequest, encode)

    async def nugen(self, request: Request) -> Response:
        """The route of Nugen's API: float vectors only, fewer fields, another envelope."""

        def encode(job: Job, values: Values, tokens: int) -> bytes:
            answer_id = f"embed-{secrets.token_hex(12)}"
            name = self._state.served_name
            return nugen_answer(values, answer_id=answer_id, model=name, created=time.time(), tokens=tokens)

        return await self._answer(request, NugenRequest, encode)

    async def _answer(
        self, request: Request, schema: type[EmbeddingRequest] | type[NugenRequest], encode: Encode
    ) -> Response:
        """Read, prepare, embed and encode. The body stays accounted for until the answer is there.

        From the end of the body on, all of it ends when the client hangs up, or when the request took too long.
        """
        engine = self._state.require_engine()
        async with self._bodies.read(request) as body:
            return await until_disconnect(request, self._serve(request, engine, body, schema, encode))

    async def _serve(
        self,
        request: Request,
        engine: Engine,
        body: list[bytes],
        schema: type[EmbeddingRequest] | type[NugenRequest],
        encode: Encode,
    ) -> Response:
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            prepared, embedded = await self._embed(request, engine, body, schema, deadline)
        except (EngineError, InputTooLongError, InvalidImageError) as error:
            if isinstance(error, ItemFailedError):
                # The client is told which input; why is for the log alone.
                _log.error("%s", error, exc_info=error.cause)
            raise from_engine(error) from error
        client, job = request.scope.get("client_name"), prepared.job
        self._metrics.answered(client, job.input_type, job.modalities, prepared.tokens)
        annotate(
            request.scope,
            inputs=len(prepared.items), tokens=prepared.tokens, batch_tokens=embedded.batch_tokens,
            input_type=job.input_type, client=client,
        )  # fmt: skip
        began = time.perf_counter()
        response = await self._respond(engine, prepared, embedded, encode)
        encoded = time.perf_counter()
        self._metrics.stage("encode", encoded - began)
        stage(request.scope, "encode", began, encoded)
        return response

    async def _embed(
        self,
        request: Request,
        engine: Engine,
        body: list[bytes],
        schema: type[EmbeddingRequest] | type[NugenRequest],
        deadline: float,
    ) -> tuple[_Prepared, Embedded]:
        """Prepare and embed before the deadline, a time of the event loop."""
        # Who is being prepared is not known before; but what is large is no query.
        lane = Lane.INTERACTIVE if sum(map(len, body)) <= _INLINE_BYTES else Lane.BULK
        engine.announce(lane)
        announced = True
        with ExitStack() as held:
            try:
                try:
                    async with asyncio.timeout_at(deadline):
                        prepared = await self._prepare(engine, body, schema, held)
                except TimeoutError:
                    self._metrics.rejected("timeout")
                    raise QueueTimeoutError(self._timeout, engine.drain_seconds()) from None
                ready = time.perf_counter()
                prepared_as = "image" if prepared.job.images else "tokenise"
                self._metrics.stage(prepared_as, prepared.seconds)
                stage(request.scope, prepared_as, ready - prepared.seconds, ready)
                self._gate.spend_tokens(request.scope.get("client_name"), prepared.tokens)
                announced = False
                left = deadline - asyncio.get_running_loop().time()
                embedded = await engine.submit(prepared.items, prepared.job.lane, left, announced=lane)
                taken = ready + embedded.queue_seconds
                stage(request.scope, "queue", ready, taken)
                stage(request.scope, "forward", taken, time.perf_counter())
                return prepared, embedded
            finally:
                if announced:
                    engine.withdraw(lane)

    async def _prepare(
        self,
        engine: Engine,
        body: list[bytes],
        schema: type[EmbeddingRequest] | type[NugenRequest],
        held: ExitStack,
    ) -> _Prepared:
        """Parse, check and tokenise; here when it is little, on a thread when it is not. Images have a queue of their
        own, where there is room for them until `held` is closed."""

        def work(checkpoint: Checkpoint) -> _Prepared | Job:
            request = parse(b"".join(body), schema)
            body.clear()
            bounds = ImageBounds(self._image_bytes, self._images.per_request(engine.model))
            job = resolve(request, self._state.names, engine.model.identity, bounds)
            checkpoint()
            if job.images:
                return job
            began = time.perf_counter()
            items = engine.model.prepare(job.inputs, job.input_type, job.truncation, checkpoint)
            return _Prepared(job.without_inputs(), items, time.perf_counter() - began)

        size = sum(map(len, body))
        if size <= _INLINE_BYTES:
            done = work(no_checkpoint)
        else:
            done = await in_thread(self._prepare_pool if size <= _LARGE_BYTES else self._prepare_large_pool, work)
        return await self._prepare_images(engine, done, held) if isinstance(done, Job) else done

    async def _prepare_images(self, engine: Engine, job: Job, held: ExitStack) -> _Prepared:
        try:
            held.enter_context(self._images.admit(job.images, engine.model))
        except ApiError:
            self._metrics.rejected("images_full")
            raise
        began = time.perf_counter()
        items = await self._images.prepare(engine.model, job.inputs, job.input_type, job.truncation)
        return _Prepared(job.without_inputs(), items, time.perf_counter() - began)

    async def _respond(self, engine: Engine, prepared: _Prepared, embedded: Embedded, encode: Encode) -> Response:
        job, vectors = prepared.job, embedded.vectors

        def build(_: Checkpoint = no_checkpoint) -> bytes:
            values = finish(
                vectors, dimensions=job.dimensions, normalized=engine.model.identity.normalized, kind=job.kind
            )
            return encode(job, values, prepared.tokens)

        body = build() if vectors.size <= _INLINE_VALUES else await in_thread(self._encode_pool, build)
        headers = {
            "x-queue-time-ms": f"{embedded.queue_seconds * 1000:.3f}",
            "x-inference-time-ms": f"{embedded.inference_seconds * 1000:.3f}",
            "x-batch-tokens": str(embedded.batch_tokens),
        }
        return Response(body, headers=headers, media_type="application/json")
