"""The HTTPS endpoint: verifies the front proxy, hands requests over, answers every failure with a Status."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from embedding_operator.metrics_api import answers
from embedding_operator.metrics_api.answers import Document, MetricRequest, Refusal
from embedding_operator.metrics_api.front_proxy import FrontProxy

log = logging.getLogger(__name__)

Answer = Callable[[MetricRequest, str, str], Document]
"""(request, label selector, metric selector) -> MetricValueList. May raise Refusal."""


class BadCertificate(Exception):
    """The serving certificate, its key or the front proxy's authority cannot be used."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything TLS depends on; equal as long as nothing was renewed."""

    certificate: bytes
    key: bytes
    front_proxy: FrontProxy


def read_identity(directory: Path, front_proxy: FrontProxy) -> Identity:
    """The serving certificate as the files hold it now. Raises BadCertificate when they cannot be read."""
    try:
        files = [(directory / name).read_bytes() for name in ("tls.crt", "tls.key")]
    except OSError as error:
        raise BadCertificate(f"the serving certificate cannot be read: {error}") from error
    return Identity(files[0], files[1], front_proxy)


def tls_context(directory: Path, identity: Identity) -> ssl.SSLContext:
    """A context that asks for the front proxy's certificate. Raises BadCertificate.

    Without a certificate the handshake succeeds, so that the answer can be a Status that says what is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
        context.load_verify_locations(cadata=identity.front_proxy.authority)
    except (OSError, ValueError) as error:
        raise BadCertificate(f"the certificate in {directory} or the front proxy's authority: {error}") from error
    return context


@dataclass(slots=True)
class Server:
    """Listens on one port. `use` starts it, and later exchanges the certificates without closing the port."""

    host: str | None
    port: int
    directory: Path
    answer: Answer
    identity: Identity | None = None
    _runner: web.AppRunner | None = field(default=None, init=False)
    _site: web.TCPSite | None = field(default=None, init=False)

    async def use(self, identity: Identity) -> None:
        """Listen with this identity. Raises BadCertificate (what listened before goes on), and OSError."""
        context = tls_context(self.directory, identity)
        if self._runner is None:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._handle)
            self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=5)
            await self._runner.setup()
        # The new listener is there before the old one goes: no connection is refused in between.
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=context, reuse_port=True)
        await site.start()
        before, self._site, self.identity = self._site, site, identity
        if before is not None:
            await before.stop()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._document(request))
        except Refusal as refusal:
            return web.json_response(answers.status(refusal), status=refusal.code)
        except Exception:
            log.exception("cannot answer %s", request.path)
            failure = Refusal(500, "InternalError", "the metrics API failed; the operator's log says why")
            return web.json_response(answers.status(failure), status=failure.code)

    def _document(self, request: web.Request) -> Document:
        if self.identity is not None:
            self.identity.front_proxy.check(common_name(request), request.headers)
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "MethodNotAllowed", f"{request.method} is not supported: metrics can only be read")
        asked = answers.parse_path(request.rel_url.raw_path)
        if asked is None:
            return answers.discovery()
        query = request.rel_url.query
        return self.answer(asked, query.get("labelSelector", ""), query.get("metricLabelSelector", ""))


def common_name(request: web.Request) -> str | None:
    """The common name of the client certificate, which TLS has verified; None without a certificate."""
    certificate = request.get_extra_info("peercert")
    if not certificate:
        return None
    parts = (part for relative in certificate.get("subject", ()) for part in relative)
    return next((str(value) for name, value in parts if name == "commonName"), "")
