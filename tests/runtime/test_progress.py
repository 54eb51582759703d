"""Progress is passed on always, logged now and then, and drawn on a terminal."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from embedding_runtime.models.advance import Advance, read_ahead
from embedding_runtime.progress import Progress, bar


def test_logged_by_step_and_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    seen: list[str] = []
    progress = Progress(seen.append, clock=lambda: now)
    steps = [Advance("downloading m", done, 100_000_000) for done in (1_000_000, 2_000_000, 3_000_000, 50_000_000)]
    messages = ["looking up m", *steps, "loading m"]
    with caplog.at_level(logging.INFO, "embedding_runtime"):
        for message in messages:
            now += 3
            progress(message)
    assert seen == [str(message) for message in messages]
    assert seen[1] == "downloading m: 1 %, 1.0 of 100.0 MB"
    logged = [record.message for record in caplog.records]
    # The first of each step, then one every ten seconds.
    assert logged == ["looking up m", seen[1], "loading m"]


def test_drawn_on_a_terminal() -> None:
    terminal = io.StringIO()
    now = 0.0
    progress = Progress(lambda message: None, terminal, clock=lambda: now)
    progress("looking up m")
    for done in (0, 50, 51, 100, 100):
        progress(Advance("downloading m", done * 1_000_000, 100_000_000))
        now += 0.06
    progress("loading m")
    progress.finish()
    lines = terminal.getvalue().split("\r\x1b[K")
    # Redrawn at most ten times a second, and once when it is done.
    assert lines == [
        "",
        "downloading m  [--------------------]   0 %  0/100 MB",
        "downloading m  [##########----------]  51 %  51/100 MB",
        "downloading m  [####################] 100 %  100/100 MB\n",
    ]


def test_a_bar_never_wraps() -> None:
    advance = Advance("computing the fingerprint of a/very-long-name-of-a-model", 21_000_000, 40_000_000)
    assert bar(advance, 120).endswith("model  [##########----------]  52 %  21.0/40.0 MB")
    for columns in (80, 40, 10, 1):
        assert len(bar(advance, columns)) < max(columns, 1)


def test_files_are_read_ahead(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(bytes(9 * 1024 * 1024))
    seen: list[str | Advance] = []
    read_ahead(paths, "loading m", seen.append)
    total = 18 * 1024 * 1024
    assert len(seen) == 4
    assert seen[-1] == Advance("loading m", total, total)
    read_ahead([tmp_path / "missing"], "loading m", seen.append)
    assert len(seen) == 4
