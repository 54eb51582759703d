"""The operator's own metrics and its log format."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from embedding_operator.settings import LogFormat, LogLevel

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Metrics:
    """All metrics of one operator process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "embedding_operator_reconciles_total", "Reconciles by result.", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "embedding_operator_reconcile_seconds",
            "How long one reconcile takes.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.queue_depth = Gauge(
            "embedding_operator_queue_depth", "Services that are due and wait for a worker.", registry=self.registry
        )
        self.queue_oldest_seconds = Gauge(
            "embedding_operator_queue_oldest_seconds", "How long the longest-waiting is due.", registry=self.registry
        )
        self.api_requests = Counter(
            "embedding_operator_api_requests_total",
            "Requests to the API server by verb, resource and status; code 0 is no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.leader = Gauge("embedding_operator_leader", "1 while this replica may write.", registry=self.registry)
        self.services = Gauge("embedding_operator_services", "Known EmbeddingServices.", registry=self.registry)
        self.service_ready = Gauge(
            "embedding_operator_service_ready",
            "1 when the EmbeddingService's Ready condition is True.",
            ["namespace", "name"],
            registry=self.registry,
        )
        self.watch_age = Gauge(
            "embedding_operator_watch_age_seconds",
            "How long nothing was heard of the watch of a resource, not even that nothing changed.",
            ["resource"],
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "embedding_operator_watch_restarts_total",
            "How often the watch of EmbeddingServices was found to miss changes, and was begun anew.",
            registry=self.registry,
        )
        self.last_resync = Gauge(
            "embedding_operator_last_resync_timestamp_seconds",
            "When all services were last listed.",
            registry=self.registry,
        )

    def count_api_request(self, verb: str, resource: str, status: int) -> None:
        self.api_requests.labels(verb, resource, str(status)).inc()


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever a caller passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _TextFormatter(logging.Formatter):
    """`time LEVEL message key=value …`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        text = super().format(record)
        return text if not extra else text + "  " + " ".join(f"{key}={value}" for key, value in extra.items())


def configure_logging(form: LogFormat, level: LogLevel) -> None:
    """Send all logs to stderr in one format. kopf's own chatter is kept to warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form is LogFormat.JSON else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.value.upper(), force=True)
    noisy = logging.DEBUG if level is LogLevel.DEBUG else logging.WARNING
    for name in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(noisy)
    # It warns that it leaves the process's signals alone, which is why it runs in a thread.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
