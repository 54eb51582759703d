"""Everything that devcluster may raise, so that a caller can catch one type."""


class DevclusterError(Exception):
    """Something did not work; the message says what, and what to do next."""


class BuildError(DevclusterError):
    """A binary of the control plane could not be built."""


class ClusterStartError(DevclusterError):
    """The cluster did not come up."""


class NotRunningError(DevclusterError):
    """No cluster of that name is up."""


class CommandError(DevclusterError):
    """A command run against the cluster left with an exit code other than 0."""


class ApiError(DevclusterError):
    """The API server refused a request.

    Attributes:
        status: the HTTP status code.
        reason: the reason of the Status object, such as `NotFound`.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({status} {reason})")
        self.status = status
        self.reason = reason
