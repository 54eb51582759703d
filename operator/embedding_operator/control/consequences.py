"""The one place where an error becomes a condition and a place in the queue. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_operator.cluster import ClusterError, NotLeading
from embedding_operator.errors import InvalidSpec, OperatorError, Retry, Waiting
from embedding_operator.judge.conditions import Truth, Verdict
from embedding_operator.judge.reasons import Reason

SLOW_RETRY_SECONDS = 60.0
"""For what only a person can change: looked at now and then, because the change may be outside the resource."""

FENCED_RETRY_SECONDS = 2.0
"""After a write that the fence stopped: a leader that only renewed late goes on at once, another has nothing queued."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from an error."""

    verdict: Verdict
    result: str
    """For the metric: `invalid`, `waiting`, `blocked` or `error`."""
    retry_after: float | None = None
    """Seconds; None means the queue's own back-off when `failed`, and no retry at all otherwise."""
    failed: bool = False
    """Whether the attempt counts as failed, with a growing back-off."""


def _reason(word: str, otherwise: Reason) -> Reason:
    try:
        return Reason(word)
    except ValueError:
        return otherwise


def consequence(error: OperatorError) -> Consequence:
    """What follows from an error of ours."""
    match error:
        case InvalidSpec():
            return Consequence(Verdict(Truth.FALSE, Reason.INVALID_SPEC, error.message), "invalid")
        case Waiting():
            verdict = Verdict(Truth.FALSE, _reason(error.reason, Reason.RETRYING), error.message)
            return Consequence(verdict, "waiting", error.seconds)
        case Retry():
            verdict = Verdict(Truth.FALSE, Reason.RETRYING, error.message)
            return Consequence(verdict, "error", error.after, failed=True)
        case _:
            verdict = Verdict(Truth.FALSE, _reason(error.reason, Reason.REFUSED), error.message)
            return Consequence(verdict, "blocked", SLOW_RETRY_SECONDS)


def retry_delay(error: Exception) -> float | None:
    """For an error that left no chance to write a status: seconds to wait, None for the queue's own back-off."""
    if isinstance(error, NotLeading):
        return FENCED_RETRY_SECONDS
    return error.retry_after if isinstance(error, ClusterError) else None
