"""What loading is doing, for the ready endpoint, for the log, and as a line that is redrawn on a terminal."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from embedding_runtime.models.advance import Advance

_LOG_SECONDS = 10.0
_DRAW_SECONDS = 0.1
_BAR = 20
_log = logging.getLogger(__name__)


def bar(advance: Advance, columns: int) -> str:
    """`downloading acme/tiny  [##########----------]  52 %  210/400 MB`, in fewer than `columns` characters."""
    full = int(_BAR * advance.share)
    done, total = min(advance.done, advance.total) / 1e6, advance.total / 1e6
    digits = 0 if total >= 100 else 1
    far = f"  [{'#' * full}{'-' * (_BAR - full)}] {100 * advance.share:3.0f} %  {done:.{digits}f}/{total:.{digits}f} MB"
    # A line that wraps cannot be drawn over.
    return f"{advance.step[: max(0, columns - 1 - len(far))]}{far}"[: max(0, columns - 1)]


class Progress:
    """Passes every message on at once; logs the first of each step and then one every few seconds."""

    def __init__(
        self,
        report: Callable[[str], None],
        terminal: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._terminal = terminal or (sys.stderr if sys.stderr.isatty() else None)
        self._clock = clock
        self._lock = threading.Lock()
        self._step = ""
        self._logged = float("-inf")
        self._drawn = False
        self._drawn_at = float("-inf")
        self._done = ""

    def __call__(self, message: str | Advance) -> None:
        """`message` is a step, or how far it is. May be called from several threads."""
        text = str(message)
        self._report(text)
        with self._lock:
            step = message.step if isinstance(message, Advance) else text
            now = self._clock()
            if self._terminal is not None and isinstance(message, Advance):
                self._draw(message, now)
            elif step != self._step or now - self._logged >= _LOG_SECONDS:
                self._clear()
                _log.info("%s", text)
                self._logged = now
            self._step = step

    def _draw(self, advance: Advance, now: float) -> None:
        """Draw over the line of before; what is done keeps its line."""
        is_new = advance.step != self._step
        if advance.step == self._done or not (is_new or advance.share == 1 or now - self._drawn_at >= _DRAW_SECONDS):
            return
        assert self._terminal is not None
        self._done = advance.step if advance.share == 1 else ""
        end = "\n" if self._done else ""
        self._terminal.write(f"\r\x1b[K{bar(advance, shutil.get_terminal_size().columns)}{end}")
        self._terminal.flush()
        self._drawn, self._drawn_at = not self._done, now

    def finish(self) -> None:
        """Leave the terminal on a fresh line."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._drawn and self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
            self._drawn = False
