"""Decoding images that strangers send: what it is, is read from its bytes; how large it is, before it is decoded.

Pixels are those of NVIDIA's processor: what Pillow opens, converted to RGB. So transparency is dropped rather than
blended, of an animation the first frame counts, and orientation is applied where Pillow does so by itself, which is by
the tag of a TIFF only: a photograph's EXIF note is not followed. Two things differ: 16-bit grey is scaled to 8 bits,
where Pillow would clip nearly everything to white, and a TIFF without the tag is not turned as its XMP says.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedding_runtime.images.containers import Container, read_container, webp_size
from embedding_runtime.images.errors import UnusableImageError

# Pixels from which an image is decoded alone: it may take a gigabyte meanwhile.
_LARGE = 16_000_000
# What may be decoded at once of files that libraries hold in another form beside the pixels. With these, no format
# takes more than about 1.1 GB: 8.4 bytes a pixel as a rule, up to 15 of a JPEG in several scans, 17 of a WebP.
_MOST_PIXELS = {"WEBP": 40_000_000, "TIFF": 64_000_000, "JPEG": 64_000_000}
_CALLED = {"WEBP": "a WebP", "TIFF": "a TIFF", "JPEG": "a progressive JPEG"}
_STRIP = 256
# Bytes of a file that are decoded between two checkpoints; a library may make a thousand times as much of them.
_BLOCK = 16 * 1024
_WAIT_SECONDS = 0.02
_one_large = threading.Lock()
# Sizes are checked here, against limits that are ours, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about odd metadata, but whoever sent an image does not read our log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be at most. The longer side may be `long_side` pixels, the shorter one `short_side`."""

    file_bytes: int = 25 * 1024 * 1024
    long_side: int = 16384
    short_side: int = 8192


def _never() -> None:
    """The checkpoint of work that is always to be finished."""


def image_size(data: bytes, limits: ImageLimits, checkpoint: Callable[[], None] = _never) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises UnusableImageError for a file that is too large, says that it has too many pixels, or is no image.
    """
    with _open(data, limits, checkpoint) as image:
        return image.size


def decode(data: bytes, limits: ImageLimits, checkpoint: Callable[[], None] = _never) -> NDArray[np.uint8]:
    """As `decoded`, for pixels that are kept."""
    with decoded(data, limits, checkpoint) as pixels:
        return pixels


@contextmanager
def decoded(data: bytes, limits: ImageLimits, checkpoint: Callable[[], None] = _never) -> Iterator[NDArray[np.uint8]]:
    """The pixels as RGB [height, width, 3]. Until the block ends, no other large image is decoded beside a large one.

    `checkpoint` is called every few milliseconds, while the image waits for its turn too; only what a WebP, a TIFF or
    the end of a progressive JPEG takes, a second at most, is not interrupted. Raises what it raises, and
    UnusableImageError as `image_size` does, and for a file that is damaged or ends too early.
    """
    with _open(data, limits, checkpoint) as image, _turn(image, checkpoint):
        pixels = _pixels(image, checkpoint)
        # What Pillow holds is given back before the caller goes on.
        image.close()
        yield pixels


class _Reader(io.BytesIO):
    """A file that calls a checkpoint whenever it is read."""

    def __init__(self, data: bytes, checkpoint: Callable[[], None]) -> None:
        super().__init__(data)
        self._checkpoint = checkpoint

    def read(self, size: int | None = -1, /) -> bytes:
        self._checkpoint()
        return super().read(size)


@contextmanager
def _turn(image: Image.Image, checkpoint: Callable[[], None]) -> Iterator[None]:
    """A large image waits until no other is worked on."""
    if image.width * image.height <= _LARGE:
        yield
        return
    while not _one_large.acquire(timeout=_WAIT_SECONDS):
        checkpoint()
    try:
        yield
    finally:
        _one_large.release()


def _open(data: bytes, limits: ImageLimits, checkpoint: Callable[[], None]) -> Image.Image:
    if len(data) > limits.file_bytes:
        raise UnusableImageError(f"has {len(data)} bytes; at most {limits.file_bytes} are allowed")
    container = read_container(data)
    # Pillow makes room for all of a WebP's pixels as soon as it opens one.
    if container.kind == "WEBP" and (size := webp_size(data)) is not None:
        _check_size(*size, limits, container)
    try:
        image = Image.open(_Reader(container.data, checkpoint), formats=(container.kind,))
    except Exception as error:
        checkpoint()
        raise UnusableImageError("is not a PNG, JPEG, WebP, GIF, BMP or TIFF file") from error
    _check_size(*image.size, limits, container)
    return image


def _check_size(width: int, height: int, limits: ImageLimits, container: Container) -> None:
    if width < 1 or height < 1:
        raise UnusableImageError("has no pixels")
    if max(width, height) > limits.long_side or min(width, height) > limits.short_side:
        most = f"{limits.short_side} x {limits.long_side} or {limits.long_side} x {limits.short_side}"
        raise UnusableImageError(f"has {width} x {height} pixels; at most {most} are allowed")
    pixels = _MOST_PIXELS.get(container.kind) if container.buffered else None
    if pixels is not None and width * height > pixels:
        raise UnusableImageError(
            f"has {width} x {height} pixels; {_CALLED[container.kind]} may have {pixels // 1_000_000} million at most: "
            "send it as a PNG or a baseline JPEG, or smaller"
        )


def _pixels(image: Image.Image, checkpoint: Callable[[], None]) -> NDArray[np.uint8]:
    try:
        image.decodermaxblock = _BLOCK  # type: ignore[attr-defined]
        image.load()
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        # In strips, so that what conversions need beside the result is small.
        for top in range(0, image.height, _STRIP):
            checkpoint()
            strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
            pixels[top : top + _STRIP] = _rgb(strip)
        return pixels
    except MemoryError:
        raise
    except Exception as error:
        checkpoint()
        raise UnusableImageError("is damaged or incomplete") from error


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
