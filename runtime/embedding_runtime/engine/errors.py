"""Why the engine did not answer a request."""

from __future__ import annotations


class EngineError(Exception):
    """The engine did not answer."""


class QueueFullError(EngineError):
    """Too many tokens are waiting. `retry_after` is the measured time, in seconds, until there is room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; there is room in about {retry_after:.1f} s")
        self.retry_after = retry_after


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
