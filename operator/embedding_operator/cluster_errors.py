"""How requests to the API server fail."""

from __future__ import annotations

import re
from typing import Final

_NO_RIGHT: Final = re.compile(r'\bUser "[^"]*" cannot \S+ ')
"""How the API server words that the authorizer said no (apiserver's `forbiddenMessage`)."""


class ClusterError(Exception):
    """The API server refused a request, or did not answer it.

    `status` is the HTTP status, 0 when there was no answer at all. `reason` is the API's own word (`AlreadyExists`,
    `Invalid`, …) or a short one of ours (`Timeout`, `ConnectionFailed`).
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """A precondition did not hold, or another writer was faster."""
        return self.status == 409

    @property
    def forbidden(self) -> bool:
        return self.status in (401, 403)

    @property
    def lacks_api(self) -> bool:
        """Whether the kind of object itself is unknown: its CustomResourceDefinition is not installed. An object or a
        namespace that is missing is named in the answer."""
        return self.status == 404 and " not found" not in self.message.replace("404 page not found", "")

    @property
    def lacks_rights(self) -> bool:
        """Whether the request itself is not ours to make. A quota, a limit or an admission policy also answers 403, and
        means the object."""
        return self.status == 401 or (self.status == 403 and _NO_RIGHT.search(self.message) is not None)

    @property
    def invalid(self) -> bool:
        """The object itself was refused (schema, admission): sending it again cannot help."""
        return self.status in (400, 422)


class NotLeading(Exception):
    """A write was stopped by the fence: this process is not (or no longer) the leader."""
