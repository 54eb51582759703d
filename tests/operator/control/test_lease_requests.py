"""What the Lease's own connection bears with: an API server that answers reads and hangs on writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest
from embedding_operator.control.leader import LEASE_SECONDS, MARGIN_SECONDS, REQUEST_SECONDS
from embedding_operator.control.operator import Operator
from embedding_operator.settings import Settings
from kubernetes.aio.client import ApiClient, Configuration

LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"namespace": "default", "name": "embedding-operator", "resourceVersion": "1"},
    "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
}


@pytest.mark.timeout(30)
def test_a_renewal_that_hangs_is_given_up_in_time_for_another() -> None:
    written: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads are answered with a Lease that was given up; a write is taken, and nothing comes back."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                if not request.startswith(b"GET "):
                    written.append(request.split(b" ")[0])
                    await reader.read()
                    break
                body = json.dumps(LEASE).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()

    async def main() -> float:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, contextlib.AsyncExitStack() as stack:
            apis = [await stack.enter_async_context(ApiClient(Configuration(host=host))) for _ in range(3)]
            leadership = Operator(Settings(), *apis).leadership
            began = time.monotonic()
            await leadership._attempt()
            assert not leadership.may_write()
            took = time.monotonic() - began
        await asyncio.sleep(0)
        return took

    took = asyncio.run(main())
    assert written == [b"PUT"]
    assert REQUEST_SECONDS - 0.5 < took < REQUEST_SECONDS + 2 < LEASE_SECONDS - MARGIN_SECONDS
