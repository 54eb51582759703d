"""How large a batch may be, learned while running: what fits into memory, and what keeps a query's wait short.

Pure: callers pass times and measurements.
"""

from __future__ import annotations

from embedding_runtime.engine.work import Lane

_STREAK = 8
_GROWTH = 1.25
_MARGIN = 0.9
_FIRST_PATIENCE = 600.0
_LAST_PATIENCE = 4 * 3600.0


class MemoryBudget:
    """The token budget of a batch: halved when one did not fit into memory, recovered in steps while batches succeed.

    A size that failed is remembered, and approached to 90 % only, until `patience` seconds have passed without a
    failure; patience doubles with every failure after that, so that a device which is simply too small is not asked
    again and again, while one that was short for a moment gets its full budget back.
    """

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self._tokens = configured
        self._failed_at: int | None = None
        self._forget_at = 0.0
        self._patience = _FIRST_PATIENCE
        self._streak = 0

    @property
    def tokens(self) -> int:
        return self._tokens

    @property
    def share(self) -> float:
        """The budget as a part of the configured one, for what is counted in other units than tokens."""
        return self._tokens / self._configured

    def exhausted(self, tokens: int, now: float) -> None:
        """A batch of several items with so many tokens did not fit."""
        if self._failed_at is None and self._forget_at:
            self._patience = min(2 * self._patience, _LAST_PATIENCE)
        self._failed_at = tokens if self._failed_at is None else min(tokens, self._failed_at)
        self._forget_at = now + self._patience
        self._tokens = max(1, min(self._tokens, tokens) // 2)
        self._streak = 0

    def fitted(self, tokens: int, now: float) -> None:
        """A batch of so many tokens did fit. Batches much smaller than the budget prove nothing."""
        if self._tokens == self._configured or 2 * tokens < self._tokens:
            return
        self._streak += 1
        if self._streak < _STREAK:
            return
        self._streak = 0
        if self._failed_at is not None and now >= self._forget_at:
            self._failed_at = None
        ceiling = self._configured if self._failed_at is None else int(_MARGIN * self._failed_at)
        grown = min(max(self._tokens + 1, int(_GROWTH * self._tokens)), ceiling, self._configured)
        self._tokens = max(self._tokens, grown)


class Pace:
    """Keeps bulk batches short while queries come in, by what batches were seen to take.

    A query waits for the step that runs (a model that can be interrupted has several to a batch; others have one) and
    then for its own batch. Both stay near `query seconds`, what a batch of queries alone takes:

    - a bulk batch is cut so that its longest step takes no longer than that;
    - queries share their batch with only so many bulk tokens as prolong it by half.

    Until both were measured, and while no query came within `memory` seconds, bulk batches are not cut.
    """

    def __init__(self, *, memory: float = 10.0, weight: float = 0.1) -> None:
        self._memory = memory
        self._weight = weight
        self._query_seconds: float | None = None
        self._step_seconds_per_token: float | None = None
        self._seconds_per_token: float | None = None
        self._last_query = float("-inf")

    def arrived(self, lane: Lane, now: float) -> None:
        if lane is Lane.INTERACTIVE:
            self._last_query = now

    def ran(self, lanes: frozenset[Lane], tokens: int, seconds: float, longest_step: float) -> None:
        """A batch took `seconds`, and from one chance to interrupt it to the next at most `longest_step`."""
        if lanes == {Lane.INTERACTIVE}:
            self._query_seconds = self._smooth(self._query_seconds, seconds)
        elif lanes == {Lane.BULK} and tokens:
            self._step_seconds_per_token = self._smooth(self._step_seconds_per_token, longest_step / tokens)
            self._seconds_per_token = self._smooth(self._seconds_per_token, seconds / tokens)

    def bulk_tokens(self, budget: int, now: float) -> int:
        """What of the budget a batch of bulk items should use. Never less than a quarter: tiny batches waste most."""
        if now - self._last_query > self._memory or not self._query_seconds or not self._step_seconds_per_token:
            return budget
        return max(budget // 4, min(budget, int(self._query_seconds / self._step_seconds_per_token)), 1)

    def company_tokens(self) -> int:
        """How many bulk tokens may join a batch of queries."""
        if not self._query_seconds or not self._seconds_per_token:
            return 0
        return int(0.5 * self._query_seconds / self._seconds_per_token)

    def _smooth(self, mean: float | None, value: float) -> float:
        return value if mean is None else mean + self._weight * (value - mean)
