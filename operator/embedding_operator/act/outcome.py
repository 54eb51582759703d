"""What came of applying a service's children. Data only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from embedding_operator.act.children import key_of_child
from embedding_operator.errors import OperatorError, Retry, Waiting
from embedding_operator.observe.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Change:
    """One write that was made."""

    verb: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()
    """Paths that differed, for an update."""
    live: Mapping[str, Any] | None = None
    """The object after the write; None after a deletion. What is judged next must not be older than this."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of applying: the writes that were made, and what kept others from being made."""

    changes: tuple[Change, ...] = ()
    failures: tuple[OperatorError, ...] = ()

    @property
    def failure(self) -> OperatorError | None:
        """All failures as one: what may pass by itself decides when to try again, otherwise the first one's reason."""
        if len(self.failures) < 2:
            return next(iter(self.failures), None)
        message = "; ".join(dict.fromkeys(error.message for error in self.failures))
        decisive = next((it for it in self.failures if isinstance(it, Retry | Waiting)), self.failures[0])
        match decisive:
            case Retry():
                return Retry(message, reason=decisive.reason, after=decisive.after)
            case Waiting():
                return Waiting(message, reason=decisive.reason, seconds=decisive.seconds)
        return OperatorError(message, reason=decisive.reason)


def after(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """The snapshot with the children as they are after `changes`."""
    children = dict(snapshot.children)
    for change in changes:
        if change.live is not None:
            children[key_of_child(change.live)] = change.live
        else:
            gone = [key for key in children if key[1:] == (change.kind, change.name)]
            for key in gone:
                del children[key]
    return replace(snapshot, children=children)
