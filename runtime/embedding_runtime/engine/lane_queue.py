"""One lane of the queue: in order of arrival, but by length within a window that is emptied before the next one opens.

Where batches are padded, sequences of similar length share one at less cost. (Where they are packed, no difference was
measured: the window is 1, first come, first served.) The window bounds what that may cost anyone: a sequence is
overtaken by fewer than `window` later ones.
"""

from __future__ import annotations

from collections import OrderedDict

from embedding_runtime.engine.work import Work


class LaneQueue:
    """The queued work of one lane. A window of 1 is first come, first served."""

    def __init__(self, window: int) -> None:
        self._window_size = window
        # Ordered dictionaries drop any element in constant time: a cancelled request may be anywhere.
        self._arrivals: OrderedDict[Work, None] = OrderedDict()
        self._window: list[Work] = []  # longest first: the next one is taken from the end
        self._window_opened_by = 0.0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._arrivals) + len(self._window)

    def push(self, work: Work) -> None:
        self._arrivals[work] = None
        self.tokens += work.tokens

    def peek(self) -> Work | None:
        """The work that is next."""
        if not self._window and not self._open():
            return None
        return self._window[-1]

    def pop(self) -> Work:
        """Take the work that is next. Raises IndexError when there is none."""
        if not self._window:
            self._open()
        work = self._window.pop()
        self.tokens -= work.tokens
        return work

    def remove(self, work: Work) -> None:
        """Take out work wherever it stands. Raises ValueError when it does not queue here."""
        if work in self._arrivals:
            del self._arrivals[work]
        else:
            self._window.remove(work)
        self.tokens -= work.tokens

    def waiting_since(self) -> float | None:
        """A time no later than the arrival of anything queued here; exact while no window is open."""
        if self._window:
            return self._window_opened_by
        return next(iter(self._arrivals)).arrived if self._arrivals else None

    def oldest_arrival(self) -> float | None:
        """When the oldest queued work arrived."""
        oldest = min((work.arrived for work in self._window), default=None)
        if oldest is None and self._arrivals:
            oldest = next(iter(self._arrivals)).arrived
        return oldest

    def _open(self) -> bool:
        for _ in range(min(self._window_size, len(self._arrivals))):
            self._window.append(self._arrivals.popitem(last=False)[0])
        if self._window:
            self._window_opened_by = self._window[0].arrived
            # Equal lengths keep their order of arrival.
            self._window.reverse()
            self._window.sort(key=_length, reverse=True)
        return bool(self._window)


def _length(work: Work) -> int:
    return work.item.tokens
