"""Shows how a build goes: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

_PLAIN_PERIOD = 30.0


def elapsed(seconds: float) -> str:
    """Minutes and seconds, such as `3:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Step:
    """One step that takes a while; use as a context manager."""

    def __init__(self, text: str, stream: TextIO | None = None) -> None:
        self._text, self._stream = text, stream or sys.stderr
        self._began = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._write(self._text, live=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        took = elapsed(time.monotonic() - self._began)
        self._write(f"{self._text}: {'done in' if problem is None else 'stopped after'} {took}", live=False)

    def _show(self) -> None:
        terminal = self._stream.isatty()
        while not self._done.wait(1.0 if terminal else _PLAIN_PERIOD):
            self._write(f"{self._text} {elapsed(time.monotonic() - self._began)}", live=True)

    def _write(self, text: str, *, live: bool) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{text}" + ("" if live else "\n"))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
