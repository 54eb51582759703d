"""The Services' TCP proxy: both directions, half-closed connections, back-pressure, resets, nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psutil
import pytest

from devcluster.control.addresses import free_port
from devcluster.network.proxy import Proxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ADDRESS = "127.0.0.1"


@asynccontextmanager
async def _proxied(handler: Handler) -> AsyncIterator[int]:
    """A server with `handler` behind a proxy; gives the proxy's port."""
    server = await asyncio.start_server(handler, ADDRESS, 0)
    target = server.sockets[0].getsockname()[:2]
    port = free_port(ADDRESS, 0)
    proxy = Proxy(ADDRESS, port, lambda: [target])
    await proxy.start()
    try:
        yield port
    finally:
        proxy.close()
        server.close()


def _connections() -> int:
    return len([c for c in psutil.Process().net_connections("tcp") if c.status != psutil.CONN_LISTEN])


async def _until_closed(before: int) -> None:
    async with asyncio.timeout(5):
        while _connections() > before:  # noqa: ASYNC110 - asks the kernel
            await asyncio.sleep(0.02)


def test_a_large_body_passes_both_ways_and_everything_is_closed() -> None:
    size = 20_000_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def run() -> int:
        before = _connections()
        async with _proxied(echo) as port:
            reader, writer = await asyncio.open_connection(ADDRESS, port)

            async def send() -> None:
                for _ in range(size // 100_000):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                writer.write_eof()

            _, received = await asyncio.gather(send(), reader.read(-1))
            writer.close()
            await _until_closed(before)
        return len(received)

    assert asyncio.run(run()) == size


@pytest.mark.parametrize("client_first", [True, False])
def test_whichever_side_ends_first_nothing_stays_open(client_first: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome\n")  # before the client has said anything
        if client_first:
            writer.write(await reader.read(-1))
        writer.close()

    async def run() -> bytes:
        before = _connections()
        async with _proxied(answer) as port:
            reader, writer = await asyncio.open_connection(ADDRESS, port)
            if client_first:
                writer.write(b"question")
                writer.write_eof()
            received = await reader.read(-1)
            writer.close()
            await _until_closed(before)
        return received

    assert asyncio.run(run()) == (b"welcome\nquestion" if client_first else b"welcome\n")


def test_connections_are_reset_while_nobody_is_there() -> None:
    async def run() -> None:
        port = free_port(ADDRESS, 0)
        proxy = Proxy(ADDRESS, port, lambda: [(ADDRESS, free_port(ADDRESS, 0))])
        await proxy.start()
        reader, writer = await asyncio.open_connection(ADDRESS, port)
        with pytest.raises(ConnectionResetError):
            assert await reader.read(1) != b""
        writer.close()
        proxy.close()

    asyncio.run(run())
