"""Decoding images that strangers send: what it is, is read from its bytes; how large it is, before it is decoded.

Pixels are converted as NVIDIA's processor does, by Pillow's plain conversion to RGB: transparency is dropped rather
than blended, the orientation a camera noted (EXIF) is not applied, and of an animation the first frame counts. One
thing differs: 16-bit grey is scaled to 8 bits, where Pillow would clip nearly everything to white.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Pixels from which an image is decoded alone: it may take a gigabyte meanwhile.
_LARGE = 16_000_000
_STRIP = 256
_one_large = threading.Lock()
# Sizes are checked here, against limits that are ours, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about odd metadata, but whoever sent an image does not read our log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnusableImageError(ValueError):
    """The image cannot be used; the text completes the sentence "the image ..."."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be at most. The longer side may be `long_side` pixels, the shorter one `short_side`."""

    file_bytes: int = 25 * 1024 * 1024
    long_side: int = 16384
    short_side: int = 8192


def image_size(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises UnusableImageError for a file that is too large, says that it has too many pixels, or is no image.
    """
    with _open(data, limits) as image:
        return image.size


def decode(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """The pixels as RGB [height, width, 3].

    Raises UnusableImageError as `image_size` does, and for a file that is damaged or ends too early.
    """
    with _open(data, limits) as image:
        if image.width * image.height <= _LARGE:
            return _pixels(image)
        with _one_large:
            return _pixels(image)


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if len(data) > limits.file_bytes:
        raise UnusableImageError(f"has {len(data)} bytes; at most {limits.file_bytes} are allowed")
    # Pillow makes room for all of a WebP's pixels as soon as it opens one.
    if (size := _webp_size(data)) is not None:
        _check_size(*size, limits)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        raise UnusableImageError("is not a PNG, JPEG, WebP, GIF, BMP or TIFF file") from error
    _check_size(*image.size, limits)
    return image


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise UnusableImageError("has no pixels")
    if max(width, height) > limits.long_side or min(width, height) > limits.short_side:
        most = f"{limits.short_side} x {limits.long_side} or {limits.long_side} x {limits.short_side}"
        raise UnusableImageError(f"has {width} x {height} pixels; at most {most} are allowed")


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    try:
        image.load()
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        # In strips, so that what conversions need beside the result is small.
        for top in range(0, image.height, _STRIP):
            strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
            pixels[top : top + _STRIP] = _rgb(strip)
        return pixels
    except MemoryError:
        raise
    except Exception as error:
        raise UnusableImageError("is damaged or incomplete") from error


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _webp_size(data: bytes) -> tuple[int, int] | None:
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
