"""API keys from a directory: one file per client, re-read when they change; rate limits per client.

The directory is a mounted Secret: a file's name is the client's name, its content the key. `limits.yaml`, optional,
maps clients to `requestsPerMinute` and `tokensPerMinute`; `default` applies to clients it does not name.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from embedding_runtime.api.errors import ApiError, retry_after_header
from embedding_runtime.errors import SettingsError

_LIMITS_FILE = "limits.yaml"
_CHECK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class RateLimit(BaseModel):
    """What one client may use per minute; None is unlimited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(None, alias="requestsPerMinute", gt=0)
    tokens_per_minute: int | None = Field(None, alias="tokensPerMinute", gt=0)


_LIMITS = TypeAdapter(dict[str, RateLimit])


class Bucket:
    """A token bucket that holds one minute's worth. A take larger than that is allowed when it is full, on credit."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._capacity = float(per_minute)
        self._level = self._capacity
        self._updated = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 when it may be taken now."""
        self._refill(now)
        missing = min(amount, self._capacity) - self._level
        return max(0.0, missing * 60 / self._capacity)

    def take(self, amount: float, now: float) -> None:
        self._refill(now)
        self._level -= amount

    def _refill(self, now: float) -> None:
        gained = (now - self._updated) * self._capacity / 60
        self._level = min(self._capacity, self._level + gained)
        self._updated = now


class RateLimitError(ApiError):
    """A client has used up what it may use in a minute."""

    def __init__(self, message: str, seconds: float) -> None:
        headers = {"retry-after": retry_after_header(seconds)}
        super().__init__(429, message, kind="rate_limit_error", headers=headers)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a directory holds now, and what of it cannot be used, a sentence for each file.

    A file that holds no usable key admits nobody. `limits` is None when limits.yaml cannot be used.
    """

    digests: Mapping[str, bytes] = field(repr=False)
    limits: Mapping[str, RateLimit] | None
    problems: tuple[str, ...] = ()


class Gate:
    """Who may use the closed routes, and how much. Without a directory everybody may use everything."""

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._signature: object = None
        self._checked = float("-inf")
        self._digests: Mapping[str, bytes] = {}
        self._limits: Mapping[str, RateLimit] = {}
        self._buckets: dict[tuple[str, str], tuple[int, Bucket]] = {}
        if directory is not None:
            self._signature = _signature(directory)
            keys = read_keys(directory)
            if keys.problems:
                raise SettingsError("; ".join(keys.problems))
            self._use(keys)

    @property
    def is_open(self) -> bool:
        return self._directory is None

    def identify(self, authorization: str | None) -> str | None:
        """The client's name, None when no keys are configured. Raises ApiError 401 for a missing or wrong key alike."""
        if self._directory is None:
            return None
        self._reload()
        client = self._identify(authorization)
        if client is None:
            raise ApiError(
                401,
                "a valid API key is required; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return client

    def spend_request(self, client: str | None) -> None:
        """Charge a request. Raises RateLimitError when the client's requests are used up."""
        if client is not None:
            self._spend(client, "requests", self._limit(client).requests_per_minute, 1)

    def spend_tokens(self, client: str | None, tokens: int) -> None:
        """Charge a request's tokens. Raises RateLimitError when the client's tokens are used up."""
        if client is not None:
            self._spend(client, "tokens", self._limit(client).tokens_per_minute, tokens)

    def _identify(self, authorization: str | None) -> str | None:
        scheme, _, key = (authorization or "").partition(" ")
        given = hashlib.sha256(key.strip(" \t\r\n").encode("latin-1", "replace")).digest()
        found = None
        # Every key is compared, in constant time each: neither how many match nor where tells anything.
        for client, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = client
        return found if scheme.lower() == "bearer" else None

    def _limit(self, client: str) -> RateLimit:
        return self._limits.get(client) or self._limits.get("default") or RateLimit()

    def _spend(self, client: str, what: str, per_minute: int | None, amount: int) -> None:
        if per_minute is None:
            return
        now = self._clock()
        size, bucket = self._buckets.get((client, what), (0, None))
        if bucket is None or size != per_minute:
            bucket = Bucket(per_minute, now)
            self._buckets[(client, what)] = (per_minute, bucket)
        wait = bucket.wait(amount, now)
        if wait > 0:
            message = f"rate limit reached: {per_minute} {what} per minute; try again later"
            raise RateLimitError(message, wait)
        bucket.take(amount, now)

    def _reload(self) -> None:
        now = self._clock()
        if self._directory is None or now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        try:
            signature = _signature(self._directory)
            if signature == self._signature:
                return
            keys = read_keys(self._directory)
        except SettingsError as error:
            # Said once, not at every request.
            if self._signature != str(error):
                _log.error("%s; the earlier keys stay", error)
            self._signature = str(error)
            return
        self._signature = signature
        self._use(keys)
        _log.info("API keys of %d clients were read again", len(keys.digests))
        for problem in keys.problems:
            _log.error("%s", problem)

    def _use(self, keys: Keys) -> None:
        """A key that is gone is gone at once, whatever else is wrong; limits that cannot be read stay as they were."""
        self._digests = keys.digests
        if keys.limits is not None:
            self._limits = keys.limits


def read_keys(directory: Path) -> Keys:
    """The keys and limits in a directory. Raises SettingsError when it cannot be listed."""
    digests: dict[str, bytes] = {}
    limits: Mapping[str, RateLimit] | None = {}
    problems: list[str] = []
    for path in _files(directory):
        try:
            content = path.read_bytes().strip()
        except FileNotFoundError:
            # Removed since it was listed.
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
            if path.name == _LIMITS_FILE:
                limits = None
            continue
        if path.name == _LIMITS_FILE:
            try:
                limits = _LIMITS.validate_python(yaml.safe_load(content) or {})
            except (ValidationError, yaml.YAMLError) as error:
                limits = None
                problems.append(f"{path} must map clients to requestsPerMinute and tokensPerMinute: {_reason(error)}")
        elif content:
            digests[path.name] = hashlib.sha256(content).digest()
        else:
            problems.append(f"{path} holds no key; write the client's key into it or remove it")
    return Keys(digests, limits, tuple(problems))


def _reason(error: ValidationError | yaml.YAMLError) -> str:
    """What is wrong, without the content."""
    return str(error.errors(include_input=False)[0]["msg"]) if isinstance(error, ValidationError) else "no YAML"


def _files(directory: Path) -> list[Path]:
    """A mounted Secret's own bookkeeping starts with dots."""
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError as error:
        raise SettingsError(f"API keys cannot be read from {directory}: {error.strerror or error}") from error


def _signature(directory: Path) -> object:
    try:
        statuses = [(path.name, path.stat()) for path in _files(directory)]
    except OSError as error:
        raise SettingsError(f"API keys cannot be read from {directory}: {error.strerror or error}") from error
    return [(name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in statuses]
