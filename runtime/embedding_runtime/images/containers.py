"""The structure of an image's file, looked at before any library does: its kind by its bytes, and nothing endless.

Libraries read what surrounds the pixels with care for its correctness, not for its quantity: Pillow needs minutes for a
JPEG or a GIF that is all metadata, and gigabytes for a TIFF of a few tags. So the parts are counted here, and metadata
that no pixel depends on is left out where it can be. Steps are counted, whatever they find, so that no file takes long
to be refused.

Formats: JPEG (ITU-T T.81 annex B), PNG (W3C PNG 3), GIF89a, TIFF 6.0 and BigTIFF, WebP (RFC 9649), BMP.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedding_runtime.images.errors import UnusableImageError
from embedding_runtime.images.tiff import first_picture

# What a careful encoder never reaches, and what takes no time to walk.
MOST_SEGMENTS = 4096
MOST_SCANS = 100
MOST_CHUNKS = 20_000
MOST_BLOCKS = 20_000
MOST_RUN_LENGTH_BYTES = 2 * 1024 * 1024
_KINDS = "is not a PNG, JPEG, WebP, GIF, BMP or TIFF file"
_DAMAGED = "is damaged or incomplete"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# SOF0 to SOF15 without DHT, JPG and DAC, which are numbered among them; those of the progressive process.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# Segments without a length: TEM, RST0 to RST7, SOI.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_IS_MARKER = np.array([code not in (0x00, 0xFF, *range(0xD0, 0xD8)) for code in range(256)])
# Bytes looked at in one step.
_FIRST_STEP, _STEP = 256, 256 * 1024
# Application segments and comments; JFIF's and Adobe's decide how colours are stored.
_METADATA = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}


@dataclass(frozen=True, slots=True)
class Container:
    """A file that may be given to Pillow: Pillow's name of its format, its bytes without surplus metadata, and whether
    a decoder must hold all of its pixels in another form before it has the first."""

    kind: str
    data: bytes
    buffered: bool = False


def read_container(data: bytes) -> Container:
    """What the file is. Raises UnusableImageError for what is of no known kind, or of endless parts."""
    for magic, place, read in _READERS:
        if data.startswith(magic, place):
            return read(data)
    raise UnusableImageError(_KINDS)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas (RFC 9649); None for anything else."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            packed = int.from_bytes(data[21:25], "little")
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None


def _jpeg(data: bytes) -> Container:
    """Markers up to the first scan, without metadata; from there to the end of the image, scans are counted.

    Pillow reads metadata in quadratic time; libjpeg goes over the whole picture for each scan of a progressive file.
    """
    kept = [data[:2]]
    position, components, progressive = 2, 0, False
    for _ in range(MOST_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise UnusableImageError(_DAMAGED)
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            # Padding, and what libraries pass over.
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _END_OF_IMAGE or length < 2:
            raise UnusableImageError(_DAMAGED)
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            components = data[position + 9] if length >= 8 and position + 9 < len(data) else 0
        if marker == _START_OF_SCAN:
            partial = position + 4 < len(data) and data[position + 4] < components
            kept.append(data[position : _jpeg_end(data, position)])
            return Container("JPEG", b"".join(kept), buffered=progressive or partial)
        end = position + 2 + length
        if marker not in _METADATA:
            kept.append(data[position:end])
        position = end
    raise UnusableImageError(f"has more than {MOST_SEGMENTS} segments before its pixels")


def _jpeg_end(data: bytes, position: int) -> int:
    """Where the image ends whose first scan begins there; telephones put a film behind it, or another picture.

    Goes from marker to marker as libjpeg does. A file may be cut off: then its end.
    """
    scans = 0
    for _ in range(MOST_SEGMENTS):
        marker = data[position + 1]
        if marker == _END_OF_IMAGE:
            return position + 2
        scans += marker == _START_OF_SCAN
        if scans > MOST_SCANS:
            raise UnusableImageError(f"has more than {MOST_SCANS} scans")
        # What is reserved has no length that libjpeg would go by between two restarts.
        has_length = marker >= 0xC0 and marker not in _BARE
        position += 2 + (int.from_bytes(data[position + 2 : position + 4], "big") if has_length else 0)
        following = _next_marker(data, position)
        if following is None:
            return len(data)
        position = following
    raise UnusableImageError(f"has more than {MOST_SEGMENTS} segments")


def _next_marker(data: bytes, position: int) -> int | None:
    """The first marker behind coded pixels, in which FF00 is a byte and FFD0 to FFD7 are restarts; None without one.

    In steps, so that other threads have their turn; the first are short, for markers that are close together.
    """
    step = _FIRST_STEP
    while position + 1 < len(data):
        block = np.frombuffer(data, np.uint8, min(step + 1, len(data) - position), position)
        found = (block[:-1] == 0xFF) & _IS_MARKER[block[1:]]
        first = int(found.argmax())
        if found[first]:
            return position + first
        position += step
        step = min(4 * step, _STEP)
    return None


def _png(data: bytes) -> Container:
    position = 8
    for _ in range(MOST_CHUNKS):
        length = int.from_bytes(data[position : position + 4], "big")
        position += 12 + length
        if position + 8 > len(data):
            return Container("PNG", data)
    raise UnusableImageError(f"has more than {MOST_CHUNKS} chunks")


def _gif(data: bytes) -> Container:
    """Blocks up to the first frame; of the extensions only those that control it. What follows is never looked at."""
    if len(data) < 13:
        raise UnusableImageError(_KINDS)
    begin = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept = [data[:begin]]
    position = begin
    extension: int | None = None
    for _ in range(MOST_BLOCKS):
        if extension is None:
            if data[position : position + 1] != b"\x21":
                return Container("GIF", b"".join([*kept, data[position:]]))
            extension = position
            position += 2
        size = _byte(data, position)
        position += 1 + size
        if not size:
            if _byte(data, extension + 1) == 0xF9:
                kept.append(data[extension:position])
            extension = None
    raise UnusableImageError(f"has more than {MOST_BLOCKS} blocks before its first frame")


def _tiff(data: bytes) -> Container:
    return Container("TIFF", first_picture(data), buffered=True)


def _webp(data: bytes) -> Container:
    return Container("WEBP", data, buffered=True)


def _bmp(data: bytes) -> Container:
    """Pillow reads run lengths byte by byte in Python."""
    compression = int.from_bytes(data[30:34], "little") if _byte(data, 14) >= 40 else 0
    if compression in (1, 2) and len(data) > MOST_RUN_LENGTH_BYTES:
        raise UnusableImageError(
            f"is a BMP of run lengths with {len(data)} bytes; at most {MOST_RUN_LENGTH_BYTES} are allowed: "
            "send it as a PNG"
        )
    return Container("BMP", data)


def _byte(data: bytes, position: int) -> int:
    """0 behind the end."""
    return data[position] if position < len(data) else 0


_READERS: tuple[tuple[bytes, int, Callable[[bytes], Container]], ...] = (
    (b"\xff\xd8\xff", 0, _jpeg),
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"GIF87a", 0, _gif),
    (b"GIF89a", 0, _gif),
    (b"WEBP", 8, _webp),
    (b"II\x2a\x00", 0, _tiff),
    (b"MM\x00\x2a", 0, _tiff),
    (b"II\x2b\x00", 0, _tiff),
    (b"MM\x00\x2b", 0, _tiff),
    (b"BM", 0, _bmp),
)
