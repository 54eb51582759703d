"""Progress is passed on always, logged now and then, and drawn on a terminal."""

from __future__ import annotations

import io
import logging

import pytest
from embedding_runtime.progress import Progress


def test_logged_by_step_and_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    seen: list[str] = []
    progress = Progress(seen.append, clock=lambda: now)
    messages = ["looking up m", "downloading m: 1 %", "downloading m: 2 %", "downloading m: 3 %", "loading m"]
    with caplog.at_level(logging.INFO, "embedding_runtime"):
        for message in messages:
            now += 3
            progress(message)
    assert seen == messages
    logged = [record.message for record in caplog.records]
    assert logged == ["looking up m", "downloading m: 1 %", "loading m"]


def test_drawn_on_a_terminal() -> None:
    terminal = io.StringIO()
    progress = Progress(lambda message: None, terminal)
    for message in ("looking up m", "downloading m: 50 %", "downloading m: 100 %", "loading m"):
        progress(message)
    progress.finish()
    assert terminal.getvalue() == "\r\x1b[Kdownloading m: 50 %\r\x1b[Kdownloading m: 100 %\r\x1b[K"
