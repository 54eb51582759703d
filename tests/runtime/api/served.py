"""A server without a model: the whole HTTP side, in this process, over a real socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from embedding_runtime.api.app import create_app
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.api.keys import Gate
from embedding_runtime.api.listening import listen
from embedding_runtime.api.protocol import ConnectionLimits
from embedding_runtime.api.server import Server, ServerSettings
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.model import (
    Input,
    InputTooLongError,
    InputType,
    Item,
    Matrix,
    ModelIdentity,
    Truncation,
    no_checkpoint,
)
from embedding_runtime.engine.policy import Limits
from embedding_runtime.telemetry import Metrics
from embedding_runtime.tracing import Tracer

from tests.runtime.helpers import wait_until


class LetterModel:
    """Embeds a text by its letters: a token a word, eight dimensions that may be cut to four. `gate` holds batches,
    `reading` holds tokenising.

    `broken` is a word that it cannot embed, `unreadable` one that it cannot tokenise.
    """

    identity = ModelIdentity(
        "acme/letters", "acme/letters", "", f"sha256:{'1' * 64}", 8, (4, 8), 16, "Mean", True, ("text",), "float32",
        {"query": "q: "},
    )  # fmt: skip
    default_batch_tokens = 256

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reading = threading.Event()
        self.reading.set()
        self.preparing = 0
        self.broken = self.unreadable = ""

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        self.preparing += 1
        try:
            while not self.reading.wait(0.01):
                checkpoint()
        finally:
            self.preparing -= 1
        items = []
        for index, text in enumerate(inputs):
            assert isinstance(text, str)
            if self.unreadable and self.unreadable in text:
                raise RuntimeError("the tokenizer's secret")
            words = len(text.split()) + (input_type is InputType.QUERY)
            if words > 16 and truncation is Truncation.NONE:
                raise InputTooLongError(index, words, 16)
            items.append(Item(min(words, 16), text))
        return items

    def embed(self, payloads: Sequence[object]) -> Matrix:
        assert self.gate.wait(60)
        if self.broken and any(self.broken in str(text) for text in payloads):
            raise RuntimeError("the model's secret")
        rows = [np.bincount([ord(c) % 8 for c in str(text)], minlength=8) + 0.5 for text in payloads]
        return np.array(rows, np.float32)


class Served:
    """A running server and what it is made of."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        api: ApiLimits | None = None,
        connections: ConnectionLimits | None = None,
        keys: Path | None = None,
        settings: ServerSettings | None = None,
        model: LetterModel | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.model = model or LetterModel()
        self.state = ServiceState("acme/letters", ("letters",))
        self.metrics = Metrics()
        self.engine = Engine(self.model, limits or Limits(256, 64, 10_000, 0.0), observer=self.metrics)
        self.app = create_app(self.state, self.metrics, api, Gate(keys), tracer)
        settings = settings or ServerSettings(
            drain_timeout=5, drain_quiet=1, connections=connections or ConnectionLimits()
        )
        self.server = Server(self.app, self.state, settings)
        self.sockets = listen("127.0.0.1", 0)
        self.port = int(self.sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: self.server.run(self.sockets), daemon=True)

    def start(self) -> None:
        self.engine.start()
        self.metrics.watch(self.engine)
        self.state.ready(self.engine)
        self._thread.start()
        wait_until(lambda: self.server.started, 10, "start")

    def stop(self) -> None:
        self.model.gate.set()
        self.model.reading.set()
        self.server.should_exit = True
        self._thread.join(15)
        self.engine.stop()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def served(**options: object) -> Iterator[Served]:
    """A server of LetterModel that is gone afterwards."""
    it = Served(**options)  # type: ignore[arg-type]
    it.start()
    try:
        yield it
    finally:
        it.stop()
