"""Image references, and what they stand for on this machine. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from devcluster.settings import Image

_REFERENCE = re.compile(
    r"(?P<repository>(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Reference:
    """A parsed image reference."""

    repository: str
    tag: str | None
    digest: str | None


def parse_reference(text: str) -> Reference | None:
    """Split a reference; None when it is malformed."""
    match = _REFERENCE.fullmatch(text)
    return Reference(match["repository"], match["tag"], match["digest"]) if match else None


def default_pull_policy(text: str) -> str:
    """What the API server fills in: `Always` for the tag latest or none, else `IfNotPresent`."""
    reference = parse_reference(text)
    untagged = reference is not None and reference.digest is None and reference.tag in (None, "latest")
    return "Always" if untagged else "IfNotPresent"


def find_image(images: Mapping[str, Image], text: str) -> Image | None:
    """The program that an image reference stands for.

    A key that contains a slash has to equal the repository; one without also matches its last part.
    """
    reference = parse_reference(text)
    if reference is None:
        return None
    exact = images.get(reference.repository)
    return exact if exact is not None else images.get(reference.repository.rpartition("/")[2])


def find_directory(directories: Mapping[str, str], text: str) -> str | None:
    """The directory that an image volume's reference stands for: by the whole reference, else by its repository."""
    reference = parse_reference(text)
    if text in directories or reference is None:
        return directories.get(text)
    return directories.get(reference.repository)


def image_id(text: str) -> str:
    """A stable `repository@digest` for a reference: its own digest, or one made from what it stands for."""
    reference = parse_reference(text)
    if reference is None:
        return text
    digest = reference.digest or "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return f"{reference.repository}@{digest}"


def pull_refused(text: str) -> str:
    """The message of a pull that no registry answers, in containerd's words."""
    return (
        f'failed to pull and unpack image "{text}": failed to resolve reference "{text}": pull access denied, '
        "repository does not exist or may require authorization"
    )
