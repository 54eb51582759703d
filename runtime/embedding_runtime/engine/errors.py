"""Why the engine did not answer a request."""

from __future__ import annotations


class EngineError(Exception):
    """The engine did not answer."""


class RefusedError(EngineError):
    """The request was not admitted. `retry_after` is the measured time, in seconds, until it may be."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(RefusedError):
    """Too many tokens are waiting."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; there is room in about {retry_after:.1f} s", retry_after)


class DeadlineError(RefusedError):
    """At the measured speed the request would not be done within its `timeout` seconds."""

    def __init__(self, timeout: float, retry_after: float) -> None:
        super().__init__(f"the request would take {timeout + retry_after:.0f} s; the limit is {timeout:g}", retry_after)
        self.timeout = timeout


class QueueTimeoutError(EngineError):
    """The request waited longer than it may. `retry_after` is the measured time, in seconds, the queue needs."""

    def __init__(self, waited: float, retry_after: float) -> None:
        super().__init__(f"the request waited {waited:.1f} s for its turn")
        self.waited = waited
        self.retry_after = retry_after


class StoppedError(EngineError):
    """The engine is stopping, or its device is lost."""


class ItemFailedError(EngineError):
    """The model failed on input `index` of the request, alone in a batch, with `cause`."""

    def __init__(self, index: int, cause: BaseException) -> None:
        super().__init__(f"the model failed on input[{index}]: {type(cause).__name__}")
        self.index = index
        self.cause = cause
