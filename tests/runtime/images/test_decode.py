"""Every kind of image that Pillow writes comes out as the reference would see it; what is no image is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from embedding_runtime.images.decode import ImageLimits, UnusableImageError, decode, image_size
from PIL import Image

from tests.runtime.models.vl_checkpoints import picture

LIMITS = ImageLimits()
PICTURE = picture(20, 14)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True}),
    ("GIF", {}), ("JPEG", {"quality": 95}), ("WEBP", {"quality": 90}), ("MPO", {}),
])  # fmt: skip
def test_formats_are_known_by_their_bytes(kind: str, options: dict[str, Any]) -> None:
    data = encoded(PICTURE, kind, **options)
    assert image_size(data, LIMITS) == (20, 14)
    pixels = decode(data, LIMITS)
    assert (pixels.shape, pixels.dtype) == ((14, 20, 3), np.uint8)
    lossless = kind in ("PNG", "BMP", "TIFF") or options.get("lossless")
    assert np.abs(pixels.astype(int) - np.asarray(PICTURE)).mean() < (1e-9 if lossless else 25)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_png(mode: str) -> None:
    image = Image.new("I;16", (20, 14), 0x8040) if mode == "I;16" else PICTURE.convert(mode)
    pixels = decode(encoded(image), LIMITS)
    if mode == "I;16":
        assert (pixels == 0x80).all()
    else:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_transparency_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (3, 3), (200, 10, 30, 0))
    assert (decode(encoded(image), LIMITS) == (200, 10, 30)).all()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_palettes_with_transparency() -> None:
    image = PICTURE.convert("P")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(image, transparency=bytes(range(200))), LIMITS), expected)


def test_cmyk() -> None:
    data = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data, LIMITS), np.asarray(image.convert("RGB")))


def test_the_orientation_a_camera_noted_is_not_applied() -> None:
    """NVIDIA's processor opens and converts, no more."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PICTURE, "JPEG", exif=exif)
    assert image_size(data, LIMITS) == (20, 14)
    assert decode(data, LIMITS).shape == (14, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), LIMITS)
    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_files(kind: str) -> None:
    whole = encoded(picture(60, 50), kind)
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(UnusableImageError, match=r"damaged or incomplete|is not a PNG"):
            decode(whole[: int(len(whole) * share)], LIMITS)
    generator = np.random.default_rng(7)
    for _ in range(30):
        bent = bytearray(whole)
        for place in generator.integers(0, len(whole), 8):
            bent[place] = int(generator.integers(0, 256))
        with contextlib.suppress(UnusableImageError):
            assert decode(bytes(bent), ImageLimits(long_side=4000, short_side=4000)).ndim == 3


@pytest.mark.parametrize("data", [
    b"", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"GIF89a", b"RIFF\x04\x00\x00\x00WEBP",
    b"\x00" * 100, bytes(range(256)), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
])  # fmt: skip
def test_what_is_no_image(data: bytes) -> None:
    for look in (image_size, decode):
        with pytest.raises(UnusableImageError, match="is not a PNG, JPEG, WebP, GIF, BMP or TIFF file"):
            look(data, LIMITS)


def test_formats_that_nobody_asked_for_stay_closed() -> None:
    for kind in ("PPM", "ICO", "PCX", "TGA", "JPEG2000", "PDF"):
        with pytest.raises(UnusableImageError, match="is not a PNG"):
            decode(encoded(PICTURE, kind), LIMITS)


@pytest.mark.parametrize(("width", "height", "allowed"), [
    (8192, 16384, True), (16384, 8192, True), (16384, 8193, False), (8193, 16384, False), (16385, 1, False),
    (1, 16385, False), (2**31 - 1, 2**31 - 1, False),
])  # fmt: skip
def test_sizes_are_checked_before_decoding(width: int, height: int, allowed: bool) -> None:
    data = png_header(width, height)
    if allowed:
        assert image_size(data, LIMITS) == (width, height)
        return
    tracemalloc.start()
    try:
        with pytest.raises(UnusableImageError, match=f"has {width} x {height} pixels; at most 8192 x 16384 or"):
            decode(data, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_bombs() -> None:
    """Small files that say they are huge: of a WebP, Pillow would make room for all pixels on opening it."""
    lossless = b"RIFF\x20\x00\x00\x00WEBPVP8L\x14\x00\x00\x00\x2f" + (16382 | 16382 << 14).to_bytes(4, "little")
    extended = b"RIFF\x40\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + (2**24 - 2).to_bytes(3, "little") * 2
    lossy = b"RIFF\x40\x00\x00\x00WEBPVP8 \x14\x00\x00\x00\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)
    for data in (lossless, extended, lossy):
        with pytest.raises(UnusableImageError, match="pixels; at most"):
            image_size(data + bytes(32), LIMITS)
    # Text that unpacks to a hundred megabytes is not unpacked.
    text = chunk(b"zTXt", b"comment\x00\x00" + zlib.compress(bytes(100_000_000), 9))
    whole = encoded(PICTURE)
    with pytest.raises(UnusableImageError):
        decode(whole[:33] + text + whole[33:], LIMITS)


def test_files_over_the_limit_are_not_opened() -> None:
    with pytest.raises(UnusableImageError, match="has 1001 bytes; at most 1000 are allowed"):
        image_size(bytes(1001), ImageLimits(file_bytes=1000))
