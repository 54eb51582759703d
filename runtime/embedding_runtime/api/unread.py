"""Answers that clients have not read yet: how much memory they hold together, and whose goes when it is too much."""

from __future__ import annotations

from collections.abc import Callable


class UnreadAnswers:
    """The connections of one server that hold answers nobody has taken, oldest first.

    One client that asks for large answers and reads them slowly costs their size for as long as it is patient; with
    many connections that is any amount. So all of them together hold at most `limit` bytes, and beyond that the
    connection that has held its answer longest is given up: who reads is never the oldest for long.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[object, tuple[Callable[[], int], Callable[[], None]]] = {}

    def hold(self, connection: object, size: Callable[[], int], give_up: Callable[[], None]) -> None:
        """The connection has an answer to be read: `size` says how many bytes of it are left, at any time."""
        self._held.setdefault(connection, (size, give_up))
        sizes = {connection: size() for connection, (size, _) in self._held.items()}
        total = sum(sizes.values())
        for each, left in sizes.items():
            if not left:
                self.release(each)
            elif total > self._limit and each is not connection:
                _, give_up_oldest = self._held.pop(each)
                give_up_oldest()
                total -= left

    def release(self, connection: object) -> None:
        """The connection has no answer to be read any more."""
        self._held.pop(connection, None)
