"""Errors that carry their consequence.

    OperatorError
    ├── InvalidSpec      the user must act; nothing is retried until the resource changes
    ├── Waiting          a known wait; looked at again after `seconds`
    └── Retry            something failed that may pass; retried with back-off

Exactly one place turns them into conditions and queue entries: `control.consequences`.
"""

from __future__ import annotations


class OperatorError(Exception):
    """A failure with a CamelCase `reason` (API: it becomes a condition's reason) and a message for people."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class InvalidSpec(OperatorError):
    """The resource cannot be understood or asks for something impossible. Only a change by its author helps."""

    def __init__(self, message: str, reason: str = "InvalidSpec") -> None:
        super().__init__(message, reason=reason)


class Waiting(OperatorError):
    """Something that others will provide is not there yet."""

    def __init__(self, message: str, *, reason: str, seconds: float) -> None:
        super().__init__(message, reason=reason)
        self.seconds = seconds


class Retry(OperatorError):
    """A call failed in a way that may pass by itself."""

    def __init__(self, message: str, *, reason: str = "RetryingAfterError", after: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.after = after
        """Seconds that the other side asked to wait (Retry-After), or None for the queue's own back-off."""


class CannotListen(Exception):
    """A port is taken, or may not be opened: the process cannot do its work, and ends."""

    def __init__(self, what: str, port: int, setting: str, cause: OSError) -> None:
        why = cause.strerror or str(cause)
        super().__init__(f"cannot listen on port {port} for the {what}: {why}; free it, or set {setting}")
