"""Puts the server together: opens the socket, loads the model beside it, serves, and ends with the right status."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from embedding_runtime import __version__
from embedding_runtime.api.app import create_app
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.api.image_work import ImageWorkLimits
from embedding_runtime.api.keys import Gate
from embedding_runtime.api.listening import check_certificate, listen, raise_file_limit
from embedding_runtime.api.server import Server, ServerSettings
from embedding_runtime.api.state import ServiceState
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.model import Padding, Seeing
from embedding_runtime.engine.policy import Limits
from embedding_runtime.errors import FatalError, SettingsError
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.processors import usable_processors
from embedding_runtime.progress import Progress
from embedding_runtime.settings import Device, Precision, Settings, warnings
from embedding_runtime.telemetry import Metrics
from embedding_runtime.tracing import open_tracer

# Where batches are padded, so many inputs in order of arrival are batched by length.
_SORTED_ITEMS = 256
_log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises FatalError when the server cannot start or cannot go on."""
    if not settings.model:
        raise SettingsError("no model is given; use --model DIRECTORY_OR_REPOSITORY (EMBEDDING_MODEL)")
    for warning in warnings():
        _log.warning("%s", warning)
    raise_file_limit()
    _set_library_environment(settings)
    if settings.tls_cert_file and settings.tls_key_file:
        check_certificate(settings.tls_cert_file, settings.tls_key_file)
    state = ServiceState(settings.served_name, settings.model_aliases)
    metrics = Metrics()
    gate = Gate(settings.api_keys_dir)
    sockets = listen(settings.host, settings.port)
    for sock in sockets:
        address, port = sock.getsockname()[:2]
        _log.info("embedding-runtime %s listens on [%s]:%d", __version__, address, port)
    limits = ApiLimits(
        body_bytes=settings.max_body_bytes,
        all_bodies_bytes=4 * settings.max_body_bytes,
        request_timeout=settings.request_timeout_seconds,
        image_bytes=settings.max_image_bytes,
        images=ImageWorkLimits(
            workers=settings.image_workers or min(8, max(1, usable_processors() // 2)),
            per_request=settings.max_request_images,
            held=settings.max_images_in_progress,
        ),
    )
    tracer = open_tracer(settings.otlp_endpoint, settings.served_name) if settings.otlp_endpoint else None
    app = create_app(state, metrics, limits, gate, tracer)
    server = Server(app, state, _server_settings(settings))
    loader = threading.Thread(target=_load, args=(settings, state, metrics, server), name="loader", daemon=True)
    loader.start()
    server.run(sockets)
    if state.engine is not None:
        state.engine.stop()
    if tracer is not None:
        tracer.close()
    if server.fatal is not None:
        raise server.fatal
    _log.info("stopped")


def _set_library_environment(settings: Settings) -> None:
    """What huggingface_hub reads when it is imported; what the user set stays.

    Its caches go where ours are, as the home of a container's user may not be writable. A model directory needs no hub.
    """
    os.environ.setdefault("HF_HOME", str(settings.cache_dir / "huggingface"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if Path(settings.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _server_settings(settings: Settings) -> ServerSettings:
    return ServerSettings(
        drain_timeout=settings.drain_timeout_seconds,
        tls_certificate=settings.tls_cert_file,
        tls_key=settings.tls_key_file,
    )


def _load(settings: Settings, state: ServiceState, metrics: Metrics, server: Server) -> None:
    """Runs on the loader thread: whatever goes wrong here ends the process."""
    began = time.monotonic()
    # Loading would slow down the start of what answers the first probes.
    server.serving.wait()
    progress = Progress(state.report)

    try:
        try:
            with _without_long_collections():
                model = load_model(_load_request(settings), progress)
        finally:
            progress.finish()
        padded = isinstance(model, Padding) and model.padded
        limits = Limits(
            max_batch_tokens=settings.max_batch_tokens or model.default_batch_tokens,
            max_batch_items=settings.max_batch_items,
            max_batch_tiles=settings.max_batch_tiles
            or (model.default_batch_tiles if isinstance(model, Seeing) else None),
            max_queued_tokens=settings.max_queued_tokens,
            max_queued_requests=settings.max_queued_requests,
            max_wait=settings.max_wait_milliseconds / 1000,
            window_items=_SORTED_ITEMS if padded else 1,
            padded=padded,
        )
        engine = Engine(model, limits, observer=metrics)
        engine.start()
        metrics.watch(engine)
        state.ready(engine)
    except FatalError as error:
        server.fail(error)
    except BaseException as error:
        _log.exception("loading failed")
        server.fail(FatalError(f"cannot load model {settings.model}: {type(error).__name__}: {error}"))
    else:
        identity = model.identity
        _log.info(
            "ready after %.1f s: %s, %d dimensions, %s, %s",
            time.monotonic() - began, identity.id, identity.dimensions, identity.precision, identity.fingerprint,
        )  # fmt: skip


@contextlib.contextmanager
def _without_long_collections() -> Iterator[None]:
    """Do not look for reference cycles while loading, nor ever again among what loading leaves.

    Importing torch and transformers makes objects by the million. A full collection of them holds the interpreter's
    lock, and so the health endpoints, for half a second; copies of weights are freed by reference counting.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load_request(settings: Settings) -> LoadRequest:
    return LoadRequest(
        model=settings.model,
        revision=settings.revision,
        served_name=settings.served_name,
        cache=settings.cache_dir,
        max_input_tokens=settings.max_input_tokens,
        pooling=settings.pooling,
        query_prompt=settings.query_prompt,
        passage_prompt=settings.passage_prompt,
        precision=None if settings.precision is Precision.AUTO else settings.precision.lower(),
        device=None if settings.device is Device.AUTO else settings.device.lower(),
        expected_fingerprint=settings.expected_fingerprint,
        threads=settings.threads,
        workers=settings.workers,
        max_image_bytes=settings.max_image_bytes,
    )


def leave(status: int) -> NoReturn:
    """End the process with this status, now.

    At its normal end the interpreter waits for every thread it did not start as a daemon: those of a download, which
    would hold a server that was told to stop until their files have arrived or the hub gave up. A thread in the middle
    of torch's code may not outlive the interpreter either. What is written is flushed; partial downloads are resumed.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if any(thread is not threading.current_thread() for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)


def report(error: FatalError) -> None:
    """The last line on stderr is the reason, in one line: it is what a termination message shows."""
    logging.shutdown()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
