"""Field types that several parts of the spec share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import ApiModel

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object in the same namespace."""

DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""An entry of a Secret."""

RelativePath = Annotated[
    str,
    Field(min_length=1, max_length=1024, pattern=r"^([^/.][^/]*|\.[^/.][^/]*)(/([^/.][^/]*|\.[^/.][^/]*))*$"),
]
"""A path below a volume's root: no leading slash, no `.` or `..` steps."""

MetadataKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=65536)]
Labels = Annotated[dict[MetadataKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[MetadataKey, AnnotationValue], Field(max_length=64)]


class LocalReference(ApiModel):
    """An object in the same namespace, by name."""

    name: Name
    """Name of the object in the namespace of the EmbeddingService."""


class SecretKeyReference(ApiModel):
    """One entry of a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""

    key: DataKey
    """Entry of the Secret that holds the value."""


class ClaimReference(ApiModel):
    """A PersistentVolumeClaim in the same namespace."""

    claim_name: Name
    """Name of the PersistentVolumeClaim."""
