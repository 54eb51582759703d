"""The endpoint over real TLS: whom it answers, and that renewed certificates are used without closing the port."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from embedding_operator.api.kinds import HORIZONTAL_POD_AUTOSCALERS, PODS
from embedding_operator.errors import CannotListen
from embedding_operator.metrics_api.answers import Document, MetricRequest, not_found
from embedding_operator.metrics_api.front_proxy import FrontProxy
from embedding_operator.metrics_api.server import BadCertificate, Server, read_identity
from embedding_operator.metrics_api.service import Listening, MetricsApi
from embedding_operator.observe.mirror import Mirror

from devcluster.control.certificates import Authority, KeyPair
from tests.operator.stand_in import stand_in

ROOT = "/apis/custom.metrics.k8s.io/v1beta2"
EVERY = f"{ROOT}/namespaces/search/pods/%2A/embedding_utilization"
USER = {"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Keys:
    """A front proxy, somebody else, and a serving certificate in the files that a Secret's mount has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.serving = Authority(directory, "serving-ca")
        self.front_proxy = Authority(directory, "front-proxy-ca")
        self.trusted = FrontProxy(self.front_proxy.path.read_text(), frozenset({"front-proxy-client"}), tuple(USER))
        self.issue()

    def issue(self) -> str:
        """A new serving certificate, as PEM."""
        return self.serving.issue("tls", "metrics", names=["localhost"]).certificate.read_text()

    def client(self, name: str = "front-proxy-client", authority: Authority | None = None) -> KeyPair:
        issuer = authority or self.front_proxy
        return issuer.issue(f"{name}-of-{issuer.path.stem}", name)


def answer(request: MetricRequest, labels: str, metric_labels: str) -> Document:
    if request.namespace != "search":
        raise not_found(f"nothing in {request.namespace}")
    return {"pod": request.pod, "labels": labels, "metricLabels": metric_labels}


def run(
    tmp_path: Path, scenario: Callable[[Server, Keys, Callable[[KeyPair | None], httpx.AsyncClient]], Awaitable[None]]
) -> None:
    async def main() -> None:
        keys = Keys(tmp_path)
        server = Server("127.0.0.1", free_port(), tmp_path, answer)
        await server.use(read_identity(tmp_path, keys.trusted))

        def connect(pair: KeyPair | None) -> httpx.AsyncClient:
            context = ssl.create_default_context(cafile=str(keys.serving.path))
            if pair is not None:
                context.load_cert_chain(pair.certificate, pair.key)
            url = f"https://localhost:{server.port}"
            return httpx.AsyncClient(base_url=url, verify=context, trust_env=False, headers=USER, timeout=10)

        try:
            await scenario(server, keys, connect)
        finally:
            await server.close()

    asyncio.run(main())


def test_the_front_proxy_is_answered(tmp_path: Path) -> None:
    async def scenario(server: Server, keys: Keys, connect: Callable[[KeyPair | None], httpx.AsyncClient]) -> None:
        async with connect(keys.client()) as client:
            found = await client.get(ROOT)
            assert found.json()["kind"] == "APIResourceList"
            query = {"labelSelector": "embedding-operator.io/service=minilm", "metricLabelSelector": "a"}
            found = await client.get(EVERY, params=query)
            assert found.status_code == 200
            assert found.headers["content-type"].startswith("application/json")
            assert found.json() == {"pod": None, "labels": query["labelSelector"], "metricLabels": "a"}
            for method, path, code, reason in (
                ("GET", EVERY.replace("search", "other"), 404, "NotFound"),
                ("GET", EVERY.replace("utilization", "latency"), 404, "NotFound"),
                ("GET", "/openapi/v2", 404, "NotFound"),
                ("POST", ROOT, 405, "MethodNotAllowed"),
            ):
                refused = await client.request(method, path)
                assert refused.status_code == code
                assert (refused.json()["kind"], refused.json()["reason"]) == ("Status", reason)

    run(tmp_path, scenario)


def test_nobody_else_is(tmp_path: Path) -> None:
    async def scenario(server: Server, keys: Keys, connect: Callable[[KeyPair | None], httpx.AsyncClient]) -> None:
        for pair, code in ((None, 401), (keys.client("somebody"), 403)):
            async with connect(pair) as client:
                for path in (ROOT, EVERY, "/"):
                    refused = await client.get(path)
                    assert refused.status_code == code
                    assert refused.json()["kind"] == "Status"
        async with connect(keys.client()) as client:
            assert (await client.get(EVERY, headers={"X-Remote-User": ""})).status_code == 401
        stranger = keys.client("front-proxy-client", Authority(tmp_path, "other-ca"))
        async with connect(stranger) as client:
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await client.get(EVERY)

    run(tmp_path, scenario)


def test_renewed_certificates_are_used_and_open_connections_go_on(tmp_path: Path) -> None:
    async def scenario(server: Server, keys: Keys, connect: Callable[[KeyPair | None], httpx.AsyncClient]) -> None:
        before = server.identity
        async with connect(keys.client()) as open_connection:
            assert (await open_connection.get(ROOT)).status_code == 200
            issued = keys.issue()
            old_client = keys.client("front-proxy-client")
            next_authority = Authority(tmp_path, "next-front-proxy-ca")
            trusted = FrontProxy(next_authority.path.read_text(), keys.trusted.allowed_names, tuple(USER))
            identity = read_identity(tmp_path, trusted)
            assert identity != before
            await server.use(identity)
            assert (await open_connection.get(ROOT)).status_code == 200
        shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))
        assert shown.split() == issued.split()
        async with connect(keys.client("front-proxy-client", next_authority)) as client:
            assert (await client.get(ROOT)).status_code == 200
        async with connect(old_client) as client:
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await client.get(ROOT)

    run(tmp_path, scenario)


def test_a_broken_certificate_changes_nothing(tmp_path: Path) -> None:
    async def scenario(server: Server, keys: Keys, connect: Callable[[KeyPair | None], httpx.AsyncClient]) -> None:
        client_pair = keys.client()
        before = server.identity
        key = (tmp_path / "tls.key").read_bytes()
        keys.issue()
        (tmp_path / "tls.key").write_bytes(key)  # half written: the certificate is new, its key is not
        with pytest.raises(BadCertificate):
            await server.use(read_identity(tmp_path, keys.trusted))
        assert server.identity == before
        async with connect(client_pair) as client:
            assert (await client.get(ROOT)).status_code == 200
        (tmp_path / "tls.crt").unlink()
        with pytest.raises(BadCertificate, match="cannot be read"):
            read_identity(tmp_path, keys.trusted)

    run(tmp_path, scenario)


def test_a_taken_port_ends_the_metrics_api_with_one_sentence(tmp_path: Path) -> None:
    """Not with a group of exceptions: a person has to read it."""
    keys = Keys(tmp_path)
    data = {
        "requestheader-client-ca-file": keys.front_proxy.path.read_text(),
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }

    async def config_map(request: web.Request) -> web.Response:
        return web.json_response({"kind": "ConfigMap", "data": data})

    async def scenario() -> None:
        mirror = Mirror(
            dict.fromkeys((HORIZONTAL_POD_AUTOSCALERS, PODS), 60.0),
            (None,),
            clock=time.monotonic,
            on_news=lambda key: None,
        )
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            async with stand_in(config_map) as client:
                listening = Listening("127.0.0.1", taken, tmp_path)
                served = MetricsApi(client, mirror, listening, lambda: datetime.now(UTC), 5)
                with pytest.raises(CannotListen, match=f"cannot listen on port {taken} for the metrics API"):
                    await asyncio.wait_for(served.run(), 20)

    asyncio.run(scenario())
