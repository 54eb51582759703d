"""Reading the files of a model directory with errors that name the file and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class DirectoryError(Exception):
    """A file of the model directory is missing, unreadable or says something that cannot be served."""


def read_json(directory: Path, name: str) -> Any:
    """The parsed file, or None when it does not exist. Raises DirectoryError when it is not JSON."""
    try:
        text = (directory / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{name} cannot be read: {error}") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise DirectoryError(f"{name} is not valid JSON: {error}") from error


def read_object(directory: Path, name: str) -> dict[str, Any] | None:
    """Like `read_json`, for a file that must hold a JSON object."""
    value = read_json(directory, name)
    if value is not None and not isinstance(value, dict):
        raise DirectoryError(f"{name} must hold a JSON object, not {type(value).__name__}")
    return value


def require_object(directory: Path, name: str) -> dict[str, Any]:
    """Like `read_object`, for a file that must exist."""
    value = read_object(directory, name)
    if value is None:
        raise DirectoryError(f"{name} is missing")
    return value


def inside(directory: Path, name: str) -> Path:
    """The path `name` inside the directory. Raises DirectoryError when it points out of it."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise DirectoryError(f"path {name!r} points out of the model directory")
    return directory / path


_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken")


def require_vocabulary(directory: Path) -> None:
    """Raises DirectoryError when there is nothing a tokenizer could know its tokens from.

    Libraries invent an empty tokenizer then, and every text becomes the same sequence of unknown tokens.
    """
    if not any(any(directory.glob(pattern)) for pattern in _VOCABULARIES):
        raise DirectoryError("tokenizer.json is missing, and no other vocabulary is there")
