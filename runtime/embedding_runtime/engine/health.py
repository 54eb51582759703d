"""When the model must prove again that it computes, and what follows when it does not. Pure."""

from __future__ import annotations


class Health:
    """Asks for a self-test after a failure that may be the device's and after every idle `interval`.

    While the self-test fails there is `trouble`; it is repeated every `retry` seconds, and after `attempts` failures in
    a row only a restart can help. An input that fails while the self-test passes was at fault itself.
    """

    def __init__(self, now: float, *, interval: float = 60.0, retry: float = 5.0, attempts: int = 3) -> None:
        self._interval = interval
        self._retry = retry
        self._attempts = attempts
        self._proven_at = now
        self._tested_at = float("-inf")
        self._suspected = False
        self._failures = 0
        self.trouble: str | None = None

    @property
    def is_hopeless(self) -> bool:
        return self._failures >= self._attempts

    def next_test(self) -> float:
        """When the next self-test is due."""
        if self.trouble is not None or self._suspected:
            return self._tested_at + self._retry
        return self._proven_at + self._interval

    def ran(self, now: float, *, suspicious: bool) -> None:
        """A batch ended. `suspicious`: something in it failed for another reason than its size."""
        self._suspected = self._suspected or suspicious
        if not suspicious:
            self._proven_at = now

    def passed(self, now: float) -> None:
        self._tested_at = self._proven_at = now
        self._suspected = False
        self._failures = 0
        self.trouble = None

    def failed(self, error: Exception, now: float) -> None:
        self._tested_at = now
        self._failures += 1
        self.trouble = f"the self-test failed: {error}"
