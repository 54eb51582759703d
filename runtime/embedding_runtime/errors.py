"""Failures that end the process, each with its exit status and words for whoever reads the last log line."""

from __future__ import annotations


class FatalError(Exception):
    """The server cannot serve. Its text is complete and says what to do; `exit_status` tells supervisors the cause."""

    exit_status = 1


class SettingsError(FatalError):
    """A flag, an environment variable or a configured file has a value that cannot be used."""

    exit_status = 2


class ModelLoadError(FatalError):
    """The model cannot be found, downloaded, read or trusted."""

    exit_status = 3

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"cannot load model {model}: {reason}")
        self.model = model
        self.reason = reason


class FingerprintMismatchError(FatalError):
    """The model spans another vector space than the one this server is told to serve."""

    exit_status = 4

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(
            f"FingerprintMismatch: expected {expected} but the model's fingerprint is {actual}; "
            "its vectors must not be mixed with those already stored. "
            "Serve the earlier model or revision, or re-embed everything and expect the new fingerprint"
        )
        self.expected = expected
        self.actual = actual


class ListenError(FatalError):
    """The address cannot be listened on."""

    exit_status = 5


class EngineFailedError(FatalError):
    """The device or the thread that runs the model is lost; only a new process can serve again."""

    exit_status = 6


EXIT_STATUSES = {
    0: "stopped on request, every admitted request answered",
    1: "a defect of the server itself",
    2: "a flag, environment variable or configured file is wrong",
    3: "the model cannot be loaded",
    4: "the model's fingerprint is not the expected one",
    5: "the address cannot be listened on (port in use, not permitted)",
    6: "the device or the thread that runs the model failed",
}
