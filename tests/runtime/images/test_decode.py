"""Every kind of image that Pillow writes comes out as the reference would see it; what is no image is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_runtime.images.decode import ImageLimits, UnusableImageError, decode, image_size
from PIL import Image

from tests.runtime.images.files import chunk, encoded
from tests.runtime.models.vl_checkpoints import picture

LIMITS = ImageLimits()
PICTURE = picture(20, 14)


def by_pillow(data: bytes) -> Any:
    """The pixels as NVIDIA's processor takes them."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


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
    np.testing.assert_array_equal(pixels, by_pillow(data))
    if kind in ("PNG", "BMP", "TIFF") or options.get("lossless"):
        np.testing.assert_array_equal(pixels, np.asarray(PICTURE))


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


@pytest.mark.parametrize(("mode", "kind"), [
    ("F", "TIFF"), ("I", "TIFF"), ("CMYK", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "TIFF"), ("1", "TIFF"), ("RGBA", "TIFF"),
    ("P", "TIFF"), ("P", "BMP"), ("1", "BMP"), ("RGBA", "BMP"), ("L", "JPEG"), ("RGBA", "WEBP"), ("LA", "WEBP"),
    ("L", "GIF"), ("P", "GIF"), ("RGBA", "GIF"),
])  # fmt: skip
def test_modes_of_other_formats(mode: str, kind: str) -> None:
    image = lab() if mode == "LAB" else PICTURE.convert(mode)
    data = encoded(image, kind)
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))


def lab() -> Image.Image:
    return Image.frombytes("LAB", PICTURE.size, PICTURE.tobytes())


def test_sixteen_bits() -> None:
    """Grey of 16 bits keeps its upper eight, in either order of bytes; Pillow would make nearly all of it white."""
    values = (np.arange(280, dtype=np.uint32) * 234).astype(np.uint16).reshape(14, 20)
    grey = Image.fromarray(values)
    for data in (encoded(grey), encoded(grey, "TIFF"), encoded(Image.fromarray(values.astype(">u2")), "TIFF")):
        np.testing.assert_array_equal(decode(data, LIMITS), (values >> 8).astype(np.uint8)[..., None].repeat(3, 2))
        assert by_pillow(data).mean() > 250
    # Three channels of 16 bits come out of Pillow with eight.
    rows = b"".join(b"\0" + bytes(range(120)) for _ in range(14))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 14, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(data, LIMITS)[0].flatten(), np.arange(0, 120, 2))


def test_cmyk() -> None:
    data = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))


def test_the_orientation_a_camera_noted_is_not_applied() -> None:
    """NVIDIA's processor opens and converts, no more."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PICTURE, "JPEG", exif=exif)
    assert image_size(data, LIMITS) == (20, 14)
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(encoded(PICTURE, "JPEG")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied(orientation: int) -> None:
    """Pillow does so on its own, and with it NVIDIA's processor."""
    data = encoded(PICTURE, "TIFF", tiffinfo={0x0112: orientation})
    expected = by_pillow(data)
    assert expected.shape == ((14, 20, 3) if orientation < 5 else (20, 14, 3))
    assert image_size(data, LIMITS) == expected.shape[1::-1]
    np.testing.assert_array_equal(decode(data, LIMITS), expected)
    assert orientation == 1 or not np.array_equal(expected, np.asarray(PICTURE))


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


@pytest.mark.parametrize(("kind", "size", "options", "message"), [
    ("WEBP", (8000, 5001), {"method": 0, "quality": 10}, "a WebP may have 40 million at most"),
    ("TIFF", (8000, 8001), {"compression": "tiff_adobe_deflate"}, "a TIFF may have 64 million at most"),
    ("JPEG", (8000, 8001), {"progressive": True}, "a progressive JPEG may have 64 million at most"),
])  # fmt: skip
def test_formats_that_take_more_memory_may_have_fewer_pixels(
    kind: str, size: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    data = encoded(Image.new("RGB", size), kind, **options)
    with pytest.raises(UnusableImageError, match=message):
        image_size(data, LIMITS)
    if kind == "JPEG":
        assert image_size(encoded(Image.new("RGB", size), kind), LIMITS) == size


@pytest.mark.parametrize(("kind", "size", "options"), [
    ("JPEG", (16384, 8192), {}), ("WEBP", (8000, 5000), {"method": 0, "quality": 10}),
])  # fmt: skip
def test_the_memory_of_the_largest_images(tmp_path: Path, kind: str, size: tuple[int, int], options: Any) -> None:
    """As docs/operations.md says, measured in a process of its own."""
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.effect_noise((size[0] // 8, size[1] // 8), 60).resize(size), kind, **options))
    program = (
        "import resource, sys; from pathlib import Path; from embedding_runtime.images.decode import *\n"
        "data = Path(sys.argv[1]).read_bytes(); used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used(); decode(data, ImageLimits()); print((used() - before) // 1024)"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1100


def test_files_over_the_limit_are_not_opened() -> None:
    with pytest.raises(UnusableImageError, match="has 1001 bytes; at most 1000 are allowed"):
        image_size(bytes(1001), ImageLimits(file_bytes=1000))
