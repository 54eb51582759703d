"""Volumes made of files that change while they are mounted: every update appears at once, as kubelet's do."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]
Payload = dict[str, tuple[bytes, int]]
"""Relative path to content and mode."""


class MountError(Exception):
    """A volume cannot be set up now; the message is what the event says."""


def write_payload(directory: Path, payload: Payload) -> None:
    """Make `directory` show exactly `payload`, atomically: files are links through `..data`, which is switched.

    Nothing is touched when the content is already there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    current = directory / "..data"
    if current.is_symlink() and _read_payload(current) == payload:
        return
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755)
    for name, (content, mode) in payload.items():
        file = fresh / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
    old = directory / os.readlink(current) if current.is_symlink() else None
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    link.replace(current)
    tops = {name.split("/")[0] for name in payload}
    for name in tops:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _read_payload(directory: Path) -> Payload:
    root = directory.resolve()
    return {
        str(file.relative_to(root)): (file.read_bytes(), file.stat().st_mode & 0o777)
        for file in root.rglob("*")
        if file.is_file()
    }


def _select(data: Mapping[str, bytes], source: Object, mode: int, what: str) -> Payload:
    items = source.get("items")
    if not items:
        return {key: (content, mode) for key, content in data.items()}
    payload: Payload = {}
    for item in items:
        if item["key"] not in data:
            if source.get("optional"):
                continue
            raise MountError(f"references non-existent {what} key: {item['key']}")
        payload[item["path"]] = (data[item["key"]], item.get("mode", mode))
    return payload


def secret_payload(source: Object, secret: Object | None, name: str, mode: int) -> Payload:
    """The files of a Secret.

    Raises:
        MountError: it does not exist, or lacks a key, and is not optional.
    """
    if secret is None:
        if source.get("optional"):
            return {}
        raise MountError(f'secret "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
    return _select(data, source, mode, "secret")


def config_map_payload(source: Object, config_map: Object | None, name: str, mode: int) -> Payload:
    """The files of a ConfigMap.

    Raises:
        MountError: it does not exist, or lacks a key, and is not optional.
    """
    if config_map is None:
        if source.get("optional"):
            return {}
        raise MountError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (config_map.get("data") or {}).items()}
    data |= {key: base64.b64decode(value) for key, value in (config_map.get("binaryData") or {}).items()}
    return _select(data, source, mode, "config")
