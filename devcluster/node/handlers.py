"""What probes and lifecycle hooks can do: an HTTP request, a TCP connection, a command in the container, a sleep."""

from __future__ import annotations

import asyncio
import os
import urllib.parse
from typing import Any

import aiohttp

from devcluster.node.process import ContainerProcess

Object = dict[str, Any]

_BODY_LIMIT = 10 * 1024
_REDIRECTS = 10
_SUPPORTED = ("httpGet", "tcpSocket", "exec", "sleep")


class HandlerError(Exception):
    """The handler did not succeed; the message is what kubelet's event says."""


def port_number(container: Object, port: int | str) -> int:
    """The number of a port given by number or by the name of one of the container's ports.

    Raises:
        HandlerError: the container has no port of that name.
    """
    if isinstance(port, int):
        return port
    for candidate in container.get("ports", ()):
        if candidate.get("name") == port:
            return int(candidate["containerPort"])
    if port.isdigit():
        return int(port)
    raise HandlerError(f"couldn't find port: {port} in container {container['name']}")


async def run_handler(
    handler: Object, container: Object, address: str, process: ContainerProcess, timeout: float | None
) -> None:
    """Run one handler once; `timeout` is in seconds, `address` the Pod's.

    Raises:
        HandlerError: it failed or took too long.
    """
    try:
        if "httpGet" in handler:
            await asyncio.wait_for(_http_get(handler["httpGet"], container, address), timeout)
        elif "tcpSocket" in handler:
            await asyncio.wait_for(_tcp_socket(handler["tcpSocket"], container, address), timeout)
        elif "exec" in handler:
            await _execute(handler["exec"]["command"], process, timeout)
        elif "sleep" in handler:
            await asyncio.sleep(handler["sleep"]["seconds"])
        else:
            kinds = ", ".join(kind for kind in handler if isinstance(handler[kind], dict)) or "none"
            raise HandlerError(f"the node knows the handlers {', '.join(_SUPPORTED)}, not {kinds}")
    except TimeoutError:
        raise HandlerError(f"timed out after {timeout:g} s: context deadline exceeded") from None


async def _execute(command: list[str], process: ContainerProcess, timeout: float | None) -> None:
    try:
        code, output = await process.execute(command, timeout)
    except TimeoutError:
        raise HandlerError(f"command timed out: {' '.join(command)!r} timed out after {timeout:g}s") from None
    if code != 0:
        raise HandlerError(output or f"command {' '.join(command)!r} exited with {code}")


async def _tcp_socket(target: Object, container: Object, address: str) -> None:
    host, port = target.get("host") or address, port_number(container, target["port"])
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as problem:
        raise HandlerError(f"dial tcp {host}:{port}: connect: {os.strerror(problem.errno or 0).lower()}") from None
    writer.close()


async def _http_get(target: Object, container: Object, address: str) -> None:
    host, port = target.get("host") or address, port_number(container, target["port"])
    scheme = target.get("scheme", "HTTP").lower()
    path = target.get("path") or "/"
    url = f"{scheme}://{host}:{port}/{path.lstrip('/')}"
    headers = {"User-Agent": "kube-probe/1.37", "Accept": "*/*"}
    headers |= {header["name"]: header["value"] for header in target.get("httpHeaders", ())}
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            for _ in range(_REDIRECTS):
                async with session.get(url, headers=headers, allow_redirects=False) as response:
                    body = await response.content.read(_BODY_LIMIT)
                    location = response.headers.get("Location")
                    if 300 <= response.status < 400 and location:
                        following = urllib.parse.urljoin(url, location)
                        if urllib.parse.urlsplit(following).hostname == urllib.parse.urlsplit(url).hostname:
                            url = following
                            continue
                        return  # a redirect to another host counts as success
                    if not 200 <= response.status < 400:
                        text = body.decode(errors="replace").strip()
                        raise HandlerError(
                            f"HTTP probe failed with statuscode: {response.status}" + (f": {text}" if text else "")
                        )
                    return
            raise HandlerError(f'Get "{url}": stopped after {_REDIRECTS} redirects')
    except aiohttp.ClientConnectorError as problem:
        reason = os.strerror(problem.os_error.errno or 0)
        raise HandlerError(f'Get "{url}": dial tcp {host}:{port}: connect: {reason.lower()}') from None
    except (aiohttp.ClientError, OSError) as problem:
        raise HandlerError(f'Get "{url}": {problem or type(problem).__name__}') from None
