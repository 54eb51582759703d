"""Sockets, certificates and file limits: what must be right before a server can start."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from pathlib import Path

from embedding_runtime.errors import ListenError, SettingsError


def raise_file_limit() -> None:
    """Allow as many open files, that is connections, as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises SettingsError when the pair cannot be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or getattr(error, "reason", None) or error
        raise SettingsError(f"the TLS certificate {certificate} with key {key} cannot be used: {reason}") from error


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets; an empty host means every address, IPv4 and IPv6. Raises ListenError."""
    where = f"{host or '*'}:{port}"
    try:
        if not host:
            return [_listen_everywhere(port)]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        return [_bind(family, address) for family, address in addresses]
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {where}: the address is unknown ({error.strerror})") from error
    except OSError as error:
        reason = "the port is in use; stop what uses it or choose another --port (EMBEDDING_PORT)"
        if error.errno != errno.EADDRINUSE:
            reason = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(f"cannot listen on {where}: {reason}") from error


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return _bind(socket.AF_INET6, ("::", port), dualstack=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bind(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 (every address is what was asked for)


def _bind(family: int, address: tuple[object, ...], *, dualstack: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dualstack else 1)
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
