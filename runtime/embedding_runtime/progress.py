"""What loading is doing, for the ready endpoint, for the log, and as a line that is redrawn on a terminal."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_LOG_SECONDS = 10.0
_log = logging.getLogger(__name__)


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

    def __call__(self, message: str) -> None:
        """`message` is a step, or `step: how far`. May be called from several threads."""
        self._report(message)
        with self._lock:
            step, _, far = message.partition(":")
            now = self._clock()
            if self._terminal is not None and far:
                self._terminal.write(f"\r\x1b[K{message}")
                self._terminal.flush()
                self._drawn = True
            elif step != self._step or now - self._logged >= _LOG_SECONDS:
                self._clear()
                _log.info("%s", message)
                self._logged = now
            self._step = step

    def finish(self) -> None:
        """Leave the terminal on a fresh line."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._drawn and self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
            self._drawn = False
