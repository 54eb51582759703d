"""Errors that carry their consequence; one place maps them to conditions and to the queue."""

from __future__ import annotations


class InvalidSpec(Exception):
    """The user must change the resource; trying again changes nothing."""

    def __init__(self, message: str, reason: str = "InvalidSpec") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
