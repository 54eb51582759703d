"""A TIFF says much about itself that no pixel depends on: none of it costs memory, time, or another's vector."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from embedding_runtime.images.containers import read_container
from embedding_runtime.images.decode import ImageLimits, decode, image_size
from embedding_runtime.images.errors import UnusableImageError
from PIL import Image, TiffImagePlugin

from tests.runtime.images.files import encoded, tiff
from tests.runtime.models.vl_checkpoints import picture

LIMITS = ImageLimits()
PICTURE = picture(150, 90)
MODES = ("RGB", "L", "P", "1", "RGBA", "I;16", "CMYK")
XMP = b'<x tiff:Orientation="6"/>'


def by_pillow(data: bytes) -> object:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def with_tags(tags: dict[int, Any], image: Image.Image = PICTURE, **options: Any) -> bytes:
    """A TIFF with more tags: each is a value, or its type and values."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        if isinstance(value, tuple):
            directory.tagtype[tag] = value[0]
            directory[tag] = value[1]
        else:
            directory[tag] = value
    return encoded(image, "TIFF", tiffinfo=directory, **options)


def raw(*tags: tuple[int, int, int, int], behind: bytes) -> bytes:
    return tiff(*sorted(tags)) + behind


def one_tile(side: int, tile: int, compression: int = 1) -> bytes:
    """A grey picture of one tile, of which there are 64 bytes."""
    place = 8 + 2 + 10 * 12 + 4
    return raw(
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (277, 3, 1, 1), (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, place), (325, 4, 1, 64), behind=bytes(64),
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "compression"), [
    *[(mode, how) for mode in MODES for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")],
    *[(mode, "jpeg") for mode in ("RGB", "L", "CMYK")],
])  # fmt: skip
@pytest.mark.parametrize("big", [False, True])
def test_what_people_send_is_what_pillow_makes_of_it(mode: str, compression: str | None, big: bool) -> None:
    image = PICTURE.convert("L").convert(mode) if mode == "I;16" else PICTURE.convert(mode)
    data = encoded(image, "TIFF", compression=compression, big_tiff=big, dpi=(300, 300), strip_size=2000)
    if mode != "I;16":
        np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))
    assert image_size(data, LIMITS) == PICTURE.size


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_faxes(compression: str) -> None:
    for tags in ({}, {292: 1}):
        data = with_tags(tags, PICTURE.convert("1"), compression=compression)
        np.testing.assert_array_equal(decode(data, LIMITS), by_pillow(data))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_the_tag_of_orientation_turns_as_it_does_in_pillow(turn: int, compression: str | None) -> None:
    data = with_tags({274: turn}, compression=compression)
    pixels = decode(data, LIMITS)
    np.testing.assert_array_equal(pixels, by_pillow(data))
    assert image_size(data, LIMITS) == (pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_an_image_has_the_size_that_it_says(compression: str | None) -> None:
    """Pillow turns as XMP says, but tells the size before."""
    data = with_tags({700: XMP}, compression=compression)
    assert decode(data, LIMITS).shape == (90, 150, 3)
    assert image_size(data, LIMITS) == (150, 90)


@pytest.mark.parametrize("compression", [1, 5])
def test_a_tile_far_larger_than_its_picture_is_refused(compression: int) -> None:
    for side, tile in ((16, 16384), (1, 40_000), (2000, 4096)):
        with pytest.raises(UnusableImageError, match=f"in tiles of {tile} x {tile}; send it as a PNG"):
            decode(one_tile(side, tile, compression), LIMITS)


def test_a_tile_may_cover_the_edge_of_its_picture() -> None:
    for side, tile in ((100, 512), (1000, 2048), (4000, 4000), (2049, 2064)):
        read_container(one_tile(side, tile))


@pytest.mark.parametrize("tag", [282, 283, 34665, 34853, 33723, 50839, 34675, 700])
def test_values_that_no_pixel_depends_on_cost_nothing(tag: int) -> None:
    """Every rational is an object of 200 bytes in Pillow."""
    count = 3_000_000
    plain = encoded(PICTURE, "TIFF")
    begin = struct.unpack_from("<L", plain, 4)[0]
    number = struct.unpack_from("<H", plain, begin)[0]
    entries = plain[begin + 2 : begin + 2 + 12 * number]
    values, directory = len(plain), len(plain) + 8 * count
    # Behind a sub-directory's place lies one of nothing but such a tag.
    kind = (4, 1, directory + 2 + 12 * (number + 1) + 4) if tag in (34665, 34853) else (5, count, values)
    more = [entries[place : place + 12] for place in range(0, len(entries), 12)] + [struct.pack("<HHLL", tag, *kind)]
    data = b"".join([
        plain[:4], struct.pack("<L", directory), plain[8:], b"\1\0\0\0" * (2 * count),
        struct.pack("<H", number + 1), *sorted(more, key=lambda entry: struct.unpack("<H", entry[:2])), bytes(4),
        struct.pack("<HHHLLL", 1, 33434, 5, count, values, 0),
    ])  # fmt: skip
    began = time.process_time()
    tracemalloc.start()
    try:
        pixels = decode(data, LIMITS)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1
    assert most < 100_000_000
    np.testing.assert_array_equal(pixels, np.asarray(PICTURE))


def test_pieces_are_no_more_than_cover_the_picture() -> None:
    """Pillow would unpack a picture again for every strip behind its last."""
    count = 60_000
    place = 8 + 2 + 8 * 12 + 4
    data = raw(
        (256, 4, 1, 8000), (257, 4, 1, 8000), (258, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
        (278, 4, 1, 4000), (273, 4, count, place), behind=struct.pack("<L", place) * count + bytes(4_000_000),
    )  # fmt: skip
    with pytest.raises(UnusableImageError, match="has its pixels in 60000 pieces of which 2 cover it"):
        decode(data, LIMITS)


def test_strips_and_tiles_at_once_are_neither() -> None:
    data = one_tile(100, 512).replace(struct.pack("<HHL", 277, 3, 1), struct.pack("<HHL", 273, 3, 1))
    with pytest.raises(UnusableImageError, match="damaged"):
        decode(data, LIMITS)


@pytest.mark.parametrize("said", [True, False])
def test_a_piece_is_not_decoded_of_the_whole_file_each(said: bool) -> None:
    """Empty blocks of deflate, over and over: gigabytes to read for a picture of a thousand rows."""
    count, length = 1000, 2_000_000
    place = 8 + 2 + (9 if said else 8) * 12 + 4
    tags = [
        (256, 4, 1, 1000), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
        (278, 4, 1, 1), (273, 4, count, place),
    ]  # fmt: skip
    behind = struct.pack("<L", place + 8 * count) * count + struct.pack("<L", length) * count
    behind += b"\x78\x9c" + b"\0\0\0\xff\xff" * (length // 5)
    data = raw(*tags, *([(279, 4, count, place + 4 * count)] if said else []), behind=behind)
    began = time.process_time()
    with pytest.raises(
        UnusableImageError, match="damaged or incomplete" if said else "without the bytes of its pieces"
    ):
        decode(data, LIMITS)
    assert time.process_time() - began < 0.5


def test_a_picture_behind_the_first_is_not_looked_for() -> None:
    data = encoded(PICTURE, "TIFF", save_all=True, append_images=[picture(70, 50, seed=3)])
    np.testing.assert_array_equal(decode(data, LIMITS), np.asarray(PICTURE))
    with Image.open(io.BytesIO(read_container(data).data)) as image:
        assert image.n_frames == 1  # type: ignore[attr-defined]
