"""Kubeconfig files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from devcluster.control.certificates import KeyPair, write_secret


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def write_kubeconfig(path: Path, *, cluster: str, server: str, authority: Path, client: KeyPair) -> Path:
    """Write a self-contained kubeconfig that authenticates with a client certificate."""
    user = {"client-certificate-data": _encoded(client.certificate), "client-key-data": _encoded(client.key)}
    return write_secret(path, _document(cluster, server, authority, user))


def write_token_kubeconfig(path: Path, *, server: str, authority: Path, token_file: Path, namespace: str) -> Path:
    """Write a kubeconfig that authenticates with the token that a file holds at the time of each request."""
    return write_secret(path, _document("pod", server, authority, {"tokenFile": str(token_file)}, namespace))


def _document(cluster: str, server: str, authority: Path, user: dict[str, str], namespace: str = "default") -> bytes:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _encoded(authority)}}
        ],
        "users": [{"name": cluster, "user": user}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster, "namespace": namespace}}],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()
