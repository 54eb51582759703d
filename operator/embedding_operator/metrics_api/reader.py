"""Asks the Pods of autoscaled services for their utilization, over and over, and answers from what they said."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Never

from embedding_operator.api.constants import RUNTIME_PORT
from embedding_operator.metrics_api import answers, selectors
from embedding_operator.metrics_api.answers import Document, Figure, MetricRequest, Refusal, not_found
from embedding_operator.metrics_api.directory import Directory, Target
from embedding_operator.observe.endpoints import EndpointReader

log = logging.getLogger(__name__)


class Reader:
    """The newest figure of each Pod. A Pod without a fresh one is left out of the answers: nothing is ever guessed."""

    def __init__(
        self, directory: Directory, endpoints: EndpointReader, now: Callable[[], datetime], period: float
    ) -> None:
        self.directory = directory
        self.endpoints = endpoints
        self.now = now
        self.period = period
        self.stale_after = timedelta(seconds=3 * period + 2 * endpoints.timeout)
        self.figures: dict[str, Figure] = {}
        """By the Pod's uid."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._troubled: set[str] = set()
        """Uids of the Pods that did not answer the last time."""

    async def run(self) -> Never:
        """Read every Pod once per period; the endpoint reader bounds how many at a time."""
        try:
            while True:
                await self.read_once()
                await asyncio.sleep(self.period * (0.9 + 0.2 * random.random()))  # noqa: S311 - jitter
        finally:
            for task in self._asking.values():
                task.cancel()

    async def read_once(self) -> None:
        """Ask every Pod that is not being asked still. One that hangs is waited for no longer than a period."""
        targets = list(self.directory.targets())
        for target in targets:
            if target.uid not in self._asking:
                task = asyncio.create_task(self._read(target))
                self._asking[target.uid] = task
                task.add_done_callback(partial(self._asked, target.uid))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=self.period)
        known = {target.uid for target in targets}
        self.figures = {uid: figure for uid, figure in self.figures.items() if uid in known}
        self._troubled &= known

    def _asked(self, uid: str, _: asyncio.Task[None]) -> None:
        self._asking.pop(uid, None)

    async def _read(self, target: Target) -> None:
        if target.ip is None:
            self.figures.pop(target.uid, None)
            return
        try:
            troubled = target.uid in self._troubled
            reading = await self.endpoints.read(
                target.ip, port=RUNTIME_PORT, tls=target.tls, manifest=False, troubled=troubled
            )
        except Exception:
            # A Pod may answer anything: what that breaks must stay its own business, and end no operator.
            log.exception("cannot read Pod %s/%s", target.namespace, target.name)
            return
        if reading.error is not None:
            self._troubled.add(target.uid)
            return  # the last figure stands until it is stale
        self._troubled.discard(target.uid)
        if reading.metrics is None or not answers.plausible(reading.metrics.utilization):
            self.figures.pop(target.uid, None)
            return
        self.figures[target.uid] = Figure(reading.metrics.utilization, reading.metrics.at)

    def answer(self, request: MetricRequest, label_selector: str, metric_selector: str) -> Document:
        """The MetricValueList for a request. Raises Refusal: 400 for a selector that cannot be understood, 503 before
        everything has been seen once, 404 when no Pod that is asked for has a fresh figure."""
        try:
            selector, of_metric = selectors.parse(label_selector), selectors.parse(metric_selector)
        except selectors.BadSelector as error:
            raise Refusal(400, "BadRequest", str(error)) from error
        if not self.directory.filled:
            raise Refusal(503, "ServiceUnavailable", "the Pods have not been listed yet")
        if not selectors.matches(of_metric, {}):
            raise not_found(f"the metric carries no labels, so {metric_selector!r} matches nothing")
        asked = [
            target
            for target in self.directory.targets()
            if target.namespace == request.namespace
            and request.pod in (None, target.name)
            and selectors.matches(selector, target.labels)
        ]
        oldest = self.now() - self.stale_after
        fresh = [
            (target.name, figure)
            for target in asked
            if (figure := self.figures.get(target.uid)) is not None and figure.at >= oldest
        ]
        if not fresh:
            raise not_found(_missing(request, label_selector, len(asked)))
        return answers.metric_value_list(request.namespace, sorted(fresh, key=lambda item: item[0]))


def _missing(request: MetricRequest, label_selector: str, pods: int) -> str:
    which = request.pod or (label_selector and f"matching {label_selector}") or "at all"
    if not pods:
        return f"namespace {request.namespace} has no Pod {which} of an EmbeddingService with spec.autoscaling"
    return (
        f"none of the {pods} Pods {which} in namespace {request.namespace} has a fresh figure: they are "
        "loading, cannot be reached, or run an image that reports no utilization"
    )
