"""Asks the runtime's own endpoints (ready, manifest, metrics) of each Pod: bounded in time, bytes and parallelism.

A Pod that cannot be reached (a service mesh, a network policy, a dead process) gives a `Reading` with an error, never
an exception: not being able to look is not the same as something being wrong.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from embedding_operator.api import ModelIdentity
from embedding_operator.api.constants import HEALTH_READY_PATH, MANIFEST_PATH, METRICS_PATH
from embedding_operator.observe.snapshot import Object, Reading, RuntimeMetrics

MAX_BODY_BYTES = 256 << 10
MAX_TEXT = 512
MAX_NUMBER = 2**53
"""Of what a Pod answers nothing longer or larger is believed."""
TIMEOUT_SECONDS = 3.0
MAX_PARALLEL = 32
MAX_PARALLEL_TROUBLED = 16
"""Pods that did not answer the last time have a lane of their own: however many hang, the others are asked at once."""

_FIGURES = ("embedding_utilization", "embedding_tokens_total", "embedding_queue_tokens")


class UnreadableEndpoint(Exception):
    """The endpoint answered something that is not what the contract says."""


@dataclass(slots=True)
class EndpointReader:
    """Reads Pods' endpoints. One for the whole operator; close it with `aclose`.

    The serving certificate of a Pod cannot name the Pod's address, so it is not verified: what is read is status,
    no secret is sent, and the connection stays inside the cluster's network.
    """

    now: Callable[[], datetime]
    timeout: float = TIMEOUT_SECONDS
    _limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PARALLEL), init=False)
    _troubled_limit: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MAX_PARALLEL_TROUBLED), init=False
    )
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        """Made at the first use: it belongs to the running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many at a time is bounded by the lanes. A Pod is asked again long after its connection was closed.
                connector=aiohttp.TCPConnector(ssl=False, limit=0, keepalive_timeout=2),
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                auto_decompress=False,
                trust_env=False,
                headers={"accept-encoding": "identity"},
            )
        return self._session

    async def read(self, ip: str, *, port: int, tls: bool, manifest: bool = True, troubled: bool = False) -> Reading:
        """What the runtime at this address answers; the manifest (where wanted) and metrics only once it is ready.

        `troubled` says that it did not answer the last time.
        """
        host = f"[{ip}]" if ":" in ip else ip
        base = f"{'https' if tls else 'http'}://{host}:{port}"
        try:
            async with self._troubled_limit if troubled else self._limit, asyncio.timeout(2 * self.timeout):
                ready, message = _parse_ready(*await self._get(base + HEALTH_READY_PATH, expect={200, 503}))
                if not ready:
                    return Reading(ready=False, message=message)
                identity = (await self._get(base + MANIFEST_PATH, expect={200, 404}))[1] if manifest else None
                _, metrics = await self._get(base + METRICS_PATH, expect={200})
            return Reading(
                ready=True,
                message=message,
                manifest=None if identity is None else _parse_manifest(identity),
                metrics=parse_metrics(metrics.decode("utf-8", "replace"), self.now()),
            )
        except UnreadableEndpoint as error:
            return Reading(error=str(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Reading(error=f"{base} did not answer: {str(error) or type(error).__name__}")

    async def _get(self, url: str, *, expect: set[int]) -> tuple[int, bytes]:
        async with self._client().get(url, allow_redirects=False) as response:
            if response.status not in expect:
                raise UnreadableEndpoint(f"{url} answered {response.status}")
            if "content-encoding" in response.headers:
                raise UnreadableEndpoint(f"{url} answered with a content-encoding nobody asked for")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise UnreadableEndpoint(f"{url} answered more than {MAX_BODY_BYTES} bytes")
            return response.status, bytes(body)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableEndpoint(f"the runtime's answer is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise UnreadableEndpoint("the runtime's answer is not a JSON object")
    return answer


def _parse_ready(status: int, body: bytes) -> tuple[bool, str]:
    """(ready, message). NVIDIA's images answer with other extra fields; the status code decides."""
    try:
        message = str(_json_object(body).get("message") or "")
    except UnreadableEndpoint:
        message = ""
    return status == 200, message[:300]


def _parse_manifest(body: bytes) -> Object | None:
    """What is used of the bundled runtime's manifest, or None where another runtime answers something else.

    It ends up in the status, which the API server refuses as a whole for one value of a wrong type.
    """
    try:
        manifest = _json_object(body)
    except UnreadableEndpoint:
        return None
    if not isinstance(manifest.get("model"), dict):
        return None
    try:
        model = ModelIdentity.model_validate_json(orjson.dumps(manifest["model"]), strict=True).model_dump(mode="json")
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnreadableEndpoint(f"the runtime's manifest has an unusable value in model.{field}") from error
    for field, value in model.items():
        if not all(map(_fits, value if isinstance(value, list) else [value])):
            raise UnreadableEndpoint(f"the runtime's manifest has an unusable value in model.{field}")
    runtime = manifest.get("runtime")
    version = runtime.get("version") if isinstance(runtime, dict) else None
    return {"model": model, "runtime": {"version": version if isinstance(version, str) and _fits(version) else None}}


def _fits(value: object) -> bool:
    """Whether a status has room for it."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return not isinstance(value, int) or abs(value) <= MAX_NUMBER


def _is_figure(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= MAX_NUMBER


def parse_metrics(text: str, at: datetime) -> RuntimeMetrics | None:
    """The runtime's Prometheus text as `RuntimeMetrics`, or None when it is not the bundled runtime's."""
    sums: dict[str, float] = {}
    try:
        # The other lines, some hundreds, would take most of the time.
        lines = "\n".join(line for line in text.splitlines() if line.startswith(_FIGURES))
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + float(sample.value)
    except Exception:  # whatever the parser makes of it: what a Pod answers must not stop the operator
        return None
    if "embedding_utilization" not in sums or not all(_is_figure(sums.get(name, 0.0)) for name in _FIGURES):
        return None
    return RuntimeMetrics(
        utilization=sums["embedding_utilization"],
        tokens_total=sums.get("embedding_tokens_total", 0.0),
        queued_tokens=sums.get("embedding_queue_tokens", 0.0),
        at=at,
    )
