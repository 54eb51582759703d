"""Files that are all structure and no picture are refused, or read without it, in no time; honest ones lose nothing."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from embedding_runtime.images.containers import (
    MOST_BLOCKS,
    MOST_CHUNKS,
    MOST_RUN_LENGTH_BYTES,
    MOST_SCANS,
    MOST_SEGMENTS,
    read_container,
)
from embedding_runtime.images.decode import ImageLimits, decode, image_size
from embedding_runtime.images.errors import UnusableImageError
from embedding_runtime.images.tiff import MOST_STRIPS, MOST_TAGS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.runtime.images.files import chunk, encoded, segment, tiff, with_segments
from tests.runtime.models.vl_checkpoints import picture

LIMITS = ImageLimits()
PICTURE = picture(70, 50)
JPEG = encoded(PICTURE, "JPEG")
PNG = encoded(PICTURE)
GIF = encoded(PICTURE, "GIF")
EXIF = segment(0xE1, b"Exif\0\0" + b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
LARGE_SEGMENT = segment(0xE1, b"Exif\0\0" + bytes(65_000))


def by_pillow(data: bytes) -> object:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def gif_comment(length: int) -> bytes:
    whole, rest = divmod(length, 255)
    return b"\x21\xfe" + (b"\xff" + b"c" * 255) * whole + (bytes([rest]) + b"c" * rest if rest else b"") + b"\0"


def with_blocks(gif: bytes, blocks: bytes) -> bytes:
    begin = 13 + (3 << (gif[10] & 7) + 1)
    return gif[:begin] + blocks + gif[begin:]


def scans(jpeg: bytes, number: int) -> bytes:
    begin = jpeg.index(b"\xff\xda")
    return jpeg[:begin] + jpeg[begin:-2] * number + jpeg[-2:]


def run_lengths(size: int) -> bytes:
    header = struct.pack("<LLLHHLLLLLL", 40, 16384, 8192, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<LLL", 0, 0, 14 + 40 + 1024) + header + bytes(1024) + b"\1\0" * (size // 2)


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("a million APP1", lambda: with_segments(JPEG, EXIF * 1_000_000), f"more than {MOST_SEGMENTS} segments"),
    ("a million comments", lambda: with_segments(JPEG, segment(0xFE, b"") * 1_000_000), "segments before its pixels"),
    ("padding", lambda: b"\xff\xd8" + b"\xff" * 20_000_000, f"more than {MOST_SEGMENTS} segments"),
    ("restarts", lambda: b"\xff\xd8\xff" + b"\xd0\xff" * 5_000_000, f"more than {MOST_SEGMENTS} segments"),
    ("scans", lambda: scans(encoded(PICTURE, "JPEG", progressive=True), 20), f"more than {MOST_SCANS} scans"),
    ("empty chunks", lambda: PNG[:33] + chunk(b"IDAT", b"") * 2_000_000 + PNG[33:], f"more than {MOST_CHUNKS} chunks"),
    ("texts", lambda: PNG[:33] + chunk(b"tEXt", b"a\0b") * 1_000_000 + PNG[33:], f"more than {MOST_CHUNKS} chunks"),
    ("blocks", lambda: with_blocks(GIF, gif_comment(25_000_000)), f"more than {MOST_BLOCKS} blocks"),
    ("extensions", lambda: with_blocks(GIF, b"\x21\xfe\0" * 5_000_000), f"more than {MOST_BLOCKS} blocks"),
    ("tags", lambda: tiff(*[(n, 7, 20_000_000, 8) for n in range(60_000)]) + bytes(20_000_000),
     f"has 60000 tags; at most {MOST_TAGS}"),
    ("large tags", lambda: tiff(*[(40_000 + n, 7, 20_000_000, 8) for n in range(500)]) + bytes(20_000_000),
     "is damaged or incomplete"),
    ("strips", lambda: tiff((256, 4, 1, 99), (257, 4, 1, 99), (273, 4, 5_000_000, 8)) + bytes(20_000_000),
     f"has its pixels in 5000000 pieces; at most {MOST_STRIPS}"),
    ("run lengths", lambda: run_lengths(20_000_000), f"at most {MOST_RUN_LENGTH_BYTES} are allowed: send it as a PNG"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [(make, message) for _, make, message in HOSTILE],
                         ids=[name for name, _, _ in HOSTILE])  # fmt: skip
def test_endless_structure_is_refused_in_no_time(make: Callable[[], bytes], message: str) -> None:
    data = make()
    for look in (image_size, decode):
        began = time.process_time()
        with pytest.raises(UnusableImageError, match=message):
            look(data, ImageLimits(file_bytes=100_000_000))
        assert time.process_time() - began < 0.5


@pytest.mark.parametrize("data", [
    pytest.param(with_segments(JPEG, LARGE_SEGMENT * 380), id="25 MB of EXIF"),
    pytest.param(with_segments(JPEG, EXIF * (MOST_SEGMENTS - 100)), id="thousands of APP1"),
    pytest.param(with_blocks(GIF, gif_comment(255 * (MOST_BLOCKS - 10))), id="5 MB of comment"),
    pytest.param(PNG[:33] + chunk(b"tEXt", b"a\0b") * (MOST_CHUNKS - 10) + PNG[33:], id="thousands of texts"),
])  # fmt: skip
def test_what_is_still_allowed_takes_no_time_either(data: bytes) -> None:
    began = time.process_time()
    pixels = decode(data, LIMITS)
    assert time.process_time() - began < 0.5
    plain = {b"\xff\xd8": JPEG, b"GI": GIF, b"\x89P": PNG}[data[:2]]
    np.testing.assert_array_equal(pixels, by_pillow(plain))


def test_metadata_is_left_out_and_nothing_else() -> None:
    icc = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(400))
    for mode in ("RGB", "L", "CMYK", "YCbCr"):
        plain = encoded(PICTURE.convert(mode), "JPEG", quality=93)
        data = with_segments(plain, EXIF, icc, segment(0xFE, b"hello"), segment(0xED, b"Photoshop 3.0\0"))
        container = read_container(data)
        assert (container.kind, container.buffered) == ("JPEG", False)
        assert container.data == plain
        np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))
    # A camera's file of several pictures: the first counts.
    several = encoded(PICTURE, "MPO", save_all=True, append_images=[picture(70, 50, seed=3)])
    np.testing.assert_array_equal(decode(several, LIMITS), by_pillow(several))


@pytest.mark.parametrize("progressive", [False, True])
def test_what_lies_behind_an_image_is_not_looked_at(progressive: bool) -> None:
    """A film behind a photograph, as telephones make them, is full of what would be scans; restarts are none."""
    film = np.random.default_rng(3).bytes(10_000_000)
    assert film.count(b"\xff\xda") > MOST_SCANS
    for options in ({}, {"restart_marker_blocks": 1}):
        photograph = encoded(PICTURE, "JPEG", progressive=progressive, **options)
        container = read_container(photograph + film)
        assert container.data == read_container(photograph).data == photograph
        np.testing.assert_array_equal(decode(photograph + film, LIMITS), by_pillow(photograph))


@pytest.mark.parametrize(("fill", "message"), [
    (b"\xff\x00", None), (b"\xff\xd0", None), (b"\xff", None), (b"\xff\x01", "segments"), (b"\xff\xfe\0\2", "segments"),
    (b"\xff\xda\0\2", "scans"), (b"\xff\x02\xff\xda", "scans"), (b"\xff\xda\xff\xff", "scans"),
])  # fmt: skip
def test_pixels_are_walked_through_in_no_time(fill: bytes, message: str | None) -> None:
    data = JPEG[:-2] + fill * (24_000_000 // len(fill)) + JPEG[-2:]
    began = time.process_time()
    if message is None:
        read_container(data)
    else:
        with pytest.raises(UnusableImageError, match=f"more than .* {message}"):
            read_container(data)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("between", [b"\xff", b"\xff" * 7, b"\0\0\0", b"junk", b"\xff\x00", b"\0\xff\xff"])
def test_what_libraries_pass_over_is_passed_over(between: bytes) -> None:
    """Fill bytes before a marker, and what some programs leave between segments."""
    end = 2 + 2 + int.from_bytes(JPEG[4:6], "big")
    data = JPEG[:end] + between + JPEG[end:]
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(JPEG))


def test_files_that_need_their_pixels_twice() -> None:
    for data, buffered in (
        (encoded(PICTURE, "JPEG", progressive=True), True), (JPEG, False), (PNG, False), (GIF, False),
        (encoded(PICTURE, "TIFF"), True), (encoded(PICTURE, "WEBP"), True), (encoded(PICTURE, "BMP"), False),
    ):  # fmt: skip
        assert read_container(data).buffered is buffered


def test_the_control_of_the_first_frame_is_kept() -> None:
    """Transparency and a frame smaller than the canvas, behind a comment and an application's block."""
    frames = [Image.new("P", (9, 7), n) for n in (1, 2)]
    for frame in frames:
        frame.putpalette([n for colour in range(256) for n in (colour, 255 - colour, colour // 2)])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=3, transparency=1, comment=b"a")
    np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))


def test_big_tiffs_in_both_orders() -> None:
    for order in ("<", ">"):
        mark = b"II" if order == "<" else b"MM"
        many = mark + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, 10**6) + bytes(1000)
        with pytest.raises(UnusableImageError, match="has 1000000 tags"):
            read_container(many)
    big = encoded(PICTURE, "TIFF", big_tiff=True)
    assert big[2] == 43
    np.testing.assert_array_equal(decode(big, LIMITS), np.asarray(PICTURE))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([JPEG, PNG, GIF, encoded(PICTURE, "TIFF"), encoded(PICTURE, "BMP"), encoded(PICTURE, "WEBP")]),
       st.integers(0, 400), st.binary(max_size=12), st.integers(0, 12))  # fmt: skip
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes, place: int, put: bytes, dropped: int) -> None:
    bent = data[:place] + put + data[place + dropped :]
    try:
        container = read_container(bent)
    except UnusableImageError:
        return
    assert len(container.data) <= len(bent)
