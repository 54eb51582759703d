"""What a delivered EmbeddingService is worth: who changed its spec waits, everybody else is news at most."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient
from embedding_operator.control import sources as module
from embedding_operator.control.queue import Key, Urgency
from embedding_operator.control.sources import Sources
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics
from kubernetes.aio.client import ApiClient, Configuration


def delivered(version: int, generation: int) -> dict[str, Any]:
    metadata = {
        "namespace": "search",
        "name": "minilm",
        "uid": "u",
        "resourceVersion": str(version),
        "generation": generation,
    }
    return {"metadata": metadata, "spec": {}}


def test_a_changed_spec_is_asked_for_and_a_written_status_is_not() -> None:
    async def main() -> None:
        told: list[Urgency] = []

        def enqueue(key: Key, delay: float, urgency: Urgency) -> None:
            assert key == ("search", "minilm")
            told.append(urgency)

        async with ApiClient(Configuration(host="http://127.0.0.1:1")) as api:
            sources = Sources(Settings(), ClusterClient(api), Metrics(), enqueue)
            scope = sources.mirror.scopes[EMBEDDING_SERVICES, None]
            expected = [
                ("ADDED", delivered(1, 1), [Urgency.NEWS]),
                ("MODIFIED", delivered(2, 1), [Urgency.NEWS]),
                ("MODIFIED", delivered(3, 2), [Urgency.NEWS, Urgency.ASKED]),
                # What a look has read already is no news when the watch brings it.
                ("MODIFIED", delivered(3, 2), []),
                ("DELETED", delivered(4, 2), [Urgency.NEWS]),
                ("ADDED", delivered(5, 1), [Urgency.NEWS]),
            ]
            for kind, live, urgencies in expected:
                told.clear()
                sources._event(scope, kind, live)
                assert told == urgencies, kind

    asyncio.run(main())


def test_what_was_deleted_between_two_lists_is_not_held_against_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists were closer together than the time that a watch is given to deliver."""
    monkeypatch.setattr(module, "DELIVERY_SECONDS", 0.05)

    async def main() -> None:
        async with ApiClient(Configuration(host="http://127.0.0.1:1")) as api:
            sources = Sources(Settings(), ClusterClient(api), Metrics(), lambda key, delay, urgency: None)
            scope = sources.mirror.scopes[EMBEDDING_SERVICES, None]
            sources._begin_check(None, {}, sources._deliveries.count)
            sources._event(scope, "ADDED", delivered(5, 1))
            sources._begin_check(None, {("search", "minilm"): "5"}, sources._deliveries.count)
            sources._event(scope, "DELETED", delivered(6, 1))
            await asyncio.gather(*sources._checks)
            assert not sources._stalled[None].is_set()
            # It is forgotten with the first list that was made after it was deleted.
            sources._begin_check(None, {}, sources._deliveries.count)
            await asyncio.gather(*sources._checks)
            assert not sources._deliveries.versions
            # What a list has and the watch does not deliver is still found out.
            sources._begin_check(None, {("search", "missed"): "7"}, sources._deliveries.count)
            await asyncio.gather(*sources._checks)
            assert sources._stalled[None].is_set()

    asyncio.run(main())
