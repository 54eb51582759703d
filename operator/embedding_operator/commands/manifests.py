"""EmbeddingServices from files, and their children as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from embedding_operator.api import EmbeddingService, parse
from embedding_operator.api.constants import KIND
from embedding_operator.control.plan import OperatorIdentity, plan
from embedding_operator.errors import InvalidSpec
from embedding_operator.observe.snapshot import Snapshot
from embedding_operator.render import Child


class UnusableFile(Exception):
    """A file that holds no EmbeddingService, or a faulty one. The message names the file and the fault."""


def read_services(path: Path) -> Iterator[dict[str, Any]]:
    """The EmbeddingServices in a YAML file (`-` is standard input). Raises UnusableFile."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UnusableFile(f"{path} is not YAML: {error}") from error
    found = [document for document in documents if isinstance(document, dict) and document.get("kind") == KIND]
    if not found:
        raise UnusableFile(f"{path} holds no {KIND}")
    yield from found


def in_namespace(resource: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The resource in its own namespace, or in this one when it names none."""
    return {**resource, "metadata": {"namespace": namespace, **(resource.get("metadata") or {})}}


def parsed(resource: Mapping[str, Any]) -> EmbeddingService:
    """The resource as a model. Raises UnusableFile with every fault."""
    try:
        return parse(resource)
    except InvalidSpec as error:
        name = (resource.get("metadata") or {}).get("name", "(without a name)")
        raise UnusableFile(f"{KIND} {name}: {error.message}") from error


def children_of(resource: dict[str, Any], operator: OperatorIdentity) -> tuple[Child, ...]:
    """What the operator would create for this resource in an empty namespace. Raises UnusableFile."""
    return plan(parsed(resource), Snapshot(resource=resource, now=datetime.now(UTC)), operator).children


def as_yaml(objects: tuple[Child, ...]) -> str:
    """Objects as a YAML stream."""
    return yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True, width=120)
