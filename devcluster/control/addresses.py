"""Addresses of a cluster: a part of 127.0.0.0/8 that no other cluster on this machine uses.

Linux answers on every address of 127.0.0.0/8, and several clusters can run side by side, so each takes a number N and
with it 127.(64+N).0.0/16 for its Services and 127.(128+N).0.0/16 for its Pods, nodes and control plane. The number is
claimed by an abstract Unix socket: it belongs to the network namespace as the addresses do, works across users, and
the kernel gives it back when the process dies.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from devcluster.errors import ClusterStartError

_CLUSTERS = 63


@dataclass(frozen=True)
class Addresses:
    """The addresses of cluster number `number`."""

    number: int

    @property
    def services(self) -> str:
        """The range of ClusterIPs."""
        return f"127.{64 + self.number}.0.0/16"

    @property
    def control_plane(self) -> str:
        """Where etcd, the API server, the controllers and the scheduler listen."""
        return f"127.{128 + self.number}.255.1"

    @property
    def kubernetes_service(self) -> str:
        """The ClusterIP of `kubernetes.default`."""
        return str(ipaddress.ip_network(self.services)[1])

    def node(self, index: int) -> str:
        """The InternalIP of a node; `index` counts from 0."""
        return f"127.{128 + self.number}.254.{index + 1}"

    def pod(self, index: int) -> str:
        """The address of a Pod; `index` counts from 0 to `POD_ADDRESSES` - 1."""
        return f"127.{128 + self.number}.{index // 250}.{index % 250 + 1}"


POD_ADDRESSES = 250 * 250


def claim_addresses() -> tuple[Addresses, socket.socket]:
    """Claim the lowest free number; it is held until the returned socket is closed.

    Raises:
        ClusterStartError: all numbers are taken.
    """
    for number in range(_CLUSTERS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0embedding-operator/devcluster/{number}")
        except OSError as problem:
            claim.close()
            if problem.errno != errno.EADDRINUSE:
                raise
            continue
        return Addresses(number), claim
    raise ClusterStartError(
        f"{_CLUSTERS} clusters are up on this machine, there is no room for another: take one down first"
    )


def free_port(address: str, preferred: int) -> int:
    """`preferred` when it can be listened on at `address`, else another port.

    Nothing else uses the cluster's own addresses, so only a program that listens on every address can be in the way,
    and a port found free stays free.
    """
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ClusterStartError(f"no port can be listened on at {address}")
