"""A kube-apiserver with its etcd, for tests that need nothing else of a cluster."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "admin-token"
START_SECONDS = 60


class ControlPlaneError(Exception):
    """The API server did not come up; the message holds the end of its log."""


def binary(name: str) -> str:
    """Path of a control plane program, from KUBEBUILDER_ASSETS or PATH."""
    found = shutil.which(name, path=os.environ.get("KUBEBUILDER_ASSETS", "")) or shutil.which(name)
    if found is None:
        raise ControlPlaneError(f"{name} is neither in KUBEBUILDER_ASSETS nor on PATH; `make binaries` builds it")
    return found


@contextmanager
def api_server(directory: Path) -> Iterator[Path]:
    """A running API server; yields the path of a kubeconfig with every right."""
    etcd_port, peer_port, port = _free_ports(3)
    _write_keys(directory)
    with ExitStack() as stack:
        stack.enter_context(
            _process(
                directory / "etcd.log",
                binary("etcd"),
                f"--data-dir={directory / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                "--unsafe-no-fsync=true",
            )
        )
        server = stack.enter_context(
            _process(
                directory / "kube-apiserver.log",
                binary("kube-apiserver"),
                f"--etcd-servers=http://127.0.0.1:{etcd_port}",
                f"--cert-dir={directory / 'certificates'}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                # No controller creates the default ServiceAccount of a namespace here.
                "--disable-admission-plugins=ServiceAccount",
                f"--service-account-issuer=https://127.0.0.1:{port}/",
                f"--service-account-key-file={directory / 'service-account.pub'}",
                f"--service-account-signing-key-file={directory / 'service-account.key'}",
                f"--token-auth-file={directory / 'tokens.csv'}",
            )
        )
        kubeconfig = _kubeconfig(directory, port)
        _wait_until_ready(server, kubeconfig, directory / "kube-apiserver.log")
        yield kubeconfig


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _write_keys(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (directory / "service-account.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (directory / "service-account.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (directory / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n", encoding="utf-8")


@contextmanager
def _process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _kubeconfig(directory: Path, port: int) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "test",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority": str(directory / "certificates" / "apiserver.crt"),
                },
            }
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _wait_until_ready(server: subprocess.Popen[bytes], kubeconfig: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    command = [binary("kubectl"), f"--kubeconfig={kubeconfig}", "get", "--raw", "/readyz"]
    while time.monotonic() < deadline and server.poll() is None:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stdout == "ok":
            return
        time.sleep(0.2)
    raise ControlPlaneError(f"kube-apiserver is not ready:\n{log.read_text(errors='replace')[-4000:]}")
