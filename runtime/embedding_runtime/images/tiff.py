"""The first picture of a TIFF, and nothing beside it: a directory of the tags that pixels depend on, within bounds.

Pillow and libtiff believe what tags say: Pillow makes an object of every number of a tag, follows Exif's directories
and turns a picture as its XMP says after it has told its size; libtiff makes room for a tile of any size. So the
directory is written anew, in its place: the tags below and no others, each once, without a next picture.

Formats: TIFF 6.0 with its technical notes, BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from embedding_runtime.images.errors import UnusableImageError

MOST_TAGS = 512
MOST_STRIPS = 65_536
# A tile may be larger than its picture, whose edge it covers; up to so many pixels it may be so by any amount.
MOST_TILE_PIXELS = 2048 * 2048
# How often the bytes of a file may be decoded: programs store pieces that are alike once.
_MOST_REPEATS = 16
_DAMAGED = "is damaged or incomplete"
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {3: "H", 4: "L", 8: "h", 9: "l", 16: "Q"}
_WIDTH, _LENGTH, _COMPRESSION, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES = 256, 257, 259, 273, 277, 278, 279
_PLANES, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES = 284, 322, 323, 324, 325
# NewSubfileType, SubfileType, ImageWidth, ImageLength, Compression, PhotometricInterpretation, FillOrder, Orientation,
# SamplesPerPixel, RowsPerStrip, PlanarConfiguration, T4Options, T6Options, Predictor, TileWidth, TileLength, InkSet,
# JPEGProc, JPEGInterchangeFormat and its length, JPEGRestartInterval, YCbCrPositioning. Of several values libraries
# take the first.
_SINGLE = frozenset({
    254, 255, _WIDTH, _LENGTH, _COMPRESSION, 262, 266, 274, _SAMPLES, _ROWS, _PLANES, 292, 293, 317, _TILE_WIDTH,
    _TILE_LENGTH, 332, 512, 513, 514, 515, 531,
})  # fmt: skip
# The most values of the others: BitsPerSample, pieces, ColorMap, ExtraSamples, SampleFormat, JPEGTables,
# JPEGLosslessPredictors, JPEGPointTransforms, JPEGQTables, JPEGDCTables, JPEGACTables, YCbCrCoefficients,
# YCbCrSubSampling, ReferenceBlackWhite.
_MOST_VALUES = {
    258: 64, _STRIPS: MOST_STRIPS, _STRIP_BYTES: MOST_STRIPS, 320: 3 * 65_536, _TILES: MOST_STRIPS,
    _TILE_BYTES: MOST_STRIPS, 338: 64, 339: 64, 347: 65_536, 517: 64, 518: 64, 519: 64, 520: 64, 521: 64, 529: 64,
    530: 64, 532: 64,
}  # fmt: skip
_PIECES = frozenset({_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES})


@dataclass(frozen=True, slots=True)
class _Tag:
    """An entry of a directory: its type, how many values it has, and the bytes that are these or their place."""

    kind: int
    count: int
    field: bytes


@dataclass(frozen=True, slots=True)
class _Form:
    """How the numbers of a file are written: the order of their bytes, and whether it is a BigTIFF."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHL4s"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def place(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "L"))


def first_picture(data: bytes) -> bytes:
    """The file with a directory of what its first picture needs, and no other.

    Raises UnusableImageError for more tags, pieces or bytes than a picture has, and for tiles far larger than it.
    """
    form = _Form("<" if data[:2] == b"II" else ">", data[2:4] in (b"\x2b\x00", b"\x00\x2b"))
    try:
        (begin,) = form.place.unpack_from(data, 8 if form.big else 4)
        tags = _kept(data, form, begin)
        _check_pieces(data, form, tags)
    except (struct.error, OverflowError, IndexError) as error:
        raise UnusableImageError(_DAMAGED) from error
    directory = form.count.pack(len(tags)) + b"".join(
        form.entry.pack(number, tag.kind, tag.count, tag.field) for number, tag in tags.items()
    )
    directory += form.place.pack(0)
    return b"".join((data[:begin], directory, data[begin + len(directory) :]))


def _kept(data: bytes, form: _Form, begin: int) -> dict[int, _Tag]:
    """The tags that count, in order; of one that is there twice the first. Raises struct.error behind the end."""
    (count,) = form.count.unpack_from(data, begin)
    if count > MOST_TAGS:
        raise UnusableImageError(f"has {count} tags; at most {MOST_TAGS} are allowed")
    begin += form.count.size
    kept: dict[int, _Tag] = {}
    held = 0
    for place in range(begin, begin + count * form.entry.size, form.entry.size):
        number, kind, values, field = form.entry.unpack_from(data, place)
        size = values * _TYPE_BYTES.get(kind, 0)
        held += size if size > len(field) else 0
        if number in kept or size == 0:
            continue
        tag = _Tag(kind, values, field)
        if number in _SINGLE and kind in _INTEGERS and _TYPE_BYTES[kind] <= len(field):
            kept[number] = _single(form, kind, _integers(data, form, tag, most=1)[0])
        elif number in _MOST_VALUES:
            _check_count(number, values)
            kept[number] = tag
    if held > len(data):
        raise UnusableImageError(_DAMAGED)
    return kept


def _check_count(number: int, values: int) -> None:
    most = _MOST_VALUES[number]
    if values <= most:
        return
    if number in _PIECES:
        raise UnusableImageError(f"has its pixels in {values} pieces; at most {most} are allowed")
    raise UnusableImageError(f"has {values} values of tag {number}; at most {most} are allowed")


def _check_pieces(data: bytes, form: _Form, tags: dict[int, _Tag]) -> None:
    """Strips or tiles: none far larger than the picture, no more than cover it, and no more bytes than there are.

    Sets how many rows a strip has to at most all of them: libtiff makes room for what is said.
    """
    said = {number: _integers(data, form, tags[number], most=1)[0] for number in _SINGLE & tags.keys()}
    width, length = said.get(_WIDTH, 0), said.get(_LENGTH, 0)
    if width < 1 or length < 1:
        raise UnusableImageError(_DAMAGED)
    across, down = _piece_size(said, width, length)
    # With strips and tiles, libraries do not agree on which there are.
    if across < 1 or down < 1 or (_STRIPS in tags and tags.keys() & {_TILE_WIDTH, _TILE_LENGTH, _TILES}):
        raise UnusableImageError(_DAMAGED)
    if across * down > max(MOST_TILE_PIXELS, _up(width) * _up(length)):
        raise UnusableImageError(f"has {width} x {length} pixels in tiles of {across} x {down}; send it as a PNG")
    if _ROWS in tags:
        tags[_ROWS] = _single(form, 4, min(said[_ROWS] if said[_ROWS] > 0 else length, length, 2**32 - 1))
    planes = max(1, said.get(_SAMPLES, 1)) if said.get(_PLANES, 1) == 2 else 1
    pieces = -(-width // across) * -(-length // down) * planes
    places = next((tags[number].count for number in (_STRIPS, _TILES) if number in tags), 0)
    if places > max(pieces, 1) and pieces > 1:
        raise UnusableImageError(f"has its pixels in {places} pieces of which {pieces} cover it")
    if said.get(_COMPRESSION, 1) != 1 and pieces > 1:
        _check_bytes(data, form, tags)


def _piece_size(said: Mapping[int, int], width: int, length: int) -> tuple[int, int]:
    """Width and length of a tile, or of a strip."""
    if _TILE_WIDTH in said or _TILE_LENGTH in said:
        return said.get(_TILE_WIDTH, 0), said.get(_TILE_LENGTH, 0)
    rows = said.get(_ROWS, length)
    return width, min(rows, length) if rows > 0 else length


def _check_bytes(data: bytes, form: _Form, tags: Mapping[int, _Tag]) -> None:
    """What is decoded of every piece, all together: where a file does not say it, libtiff takes the rest of the file
    for every one, and pieces may lie upon each other."""
    number = _TILE_BYTES if _TILE_BYTES in tags else _STRIP_BYTES
    if number not in tags or tags[number].kind not in _INTEGERS:
        raise UnusableImageError(f"is a compressed TIFF without the bytes of its pieces (tag {number})")
    sizes = _integers(data, form, tags[number], most=MOST_STRIPS)
    if sizes[0] == 0 or sum(map(abs, sizes)) > _MOST_REPEATS * len(data):
        raise UnusableImageError(_DAMAGED)


def _integers(data: bytes, form: _Form, tag: _Tag, *, most: int) -> tuple[int, ...]:
    """The first values of a tag. Raises struct.error behind the end."""
    numbers = struct.Struct(f"{form.order}{min(tag.count, most)}{_INTEGERS[tag.kind]}")
    if tag.count * _TYPE_BYTES[tag.kind] <= len(tag.field):
        return numbers.unpack_from(tag.field)
    return numbers.unpack_from(data, form.place.unpack(tag.field)[0])


def _single(form: _Form, kind: int, value: int) -> _Tag:
    """A tag of one value."""
    field = struct.pack(form.order + _INTEGERS[kind], value)
    return _Tag(kind, 1, field.ljust(form.place.size, b"\0"))


def _up(side: int) -> int:
    """To whole tiles, whose sides are multiples of 16."""
    return -(-side // 16) * 16
