"""Image files as people make them, and as only somebody with bad intentions does."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A file of the format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments right behind its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def tiff(*tags: tuple[int, int, int, int], order: str = "<") -> bytes:
    """A TIFF's header and first directory; tags are number, type, count and value or offset."""
    mark = b"II" if order == "<" else b"MM"
    entries = b"".join(struct.pack(f"{order}HHLL", *tag) for tag in tags)
    return mark + struct.pack(f"{order}HLH", 42, 8, len(tags)) + entries + bytes(4)
