"""What an input of a model that sees is: a text, an image, or both. Images come as data URLs (RFC 2397) only.

Inputs may be megabytes, so nothing here looks at more than a step of characters without giving other threads a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pybase64

from embedding_runtime.engine.model import ImageInput, Input
from embedding_runtime.images.markup import Tag, find_tag, read_tag, skip_blanks, stripped

TEXT, IMAGE, TEXT_IMAGE = "text", "image", "text_image"
_STEP = 256 * 1024
_SCHEME = "data:image/"
# Characters of a line of a payload that is folded: what programs make, and MIME's (RFC 2045, 6.8).
_SHORTEST_LINE, _LONGEST_LINE, _MIME_LINE = 16, 4096, 76
# What looks like an image more often than this and is none, is a text about them.
_MOST_CANDIDATES = 1000
# Characters of what looks like a tag and is none, before what looks like one is no longer tried; each counts for as
# many as trying it costs.
_BROKEN_TAGS = 1024 * 1024
_BROKEN_TAG = 64
_START = re.compile(r"data:image/[a-z0-9.+-]{1,64}(?:;[a-z0-9!#$&^_.+-]{1,64}(?:=[a-z0-9!#$&^_.+-]{1,64})?){0,8}", re.I)
_PAYLOAD = re.compile(r"[A-Za-z0-9+/=]++")
_VISIBLE = re.compile(r"\S++")
_REMOTE = re.compile(r"https?://", re.I)


class UnusableInputError(ValueError):
    """An input that cannot be what it is said or seems to be; the text completes the sentence "input[0] ..."."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An image in a string: where what stands for it begins and ends, and the characters of its payload.

    A payload may be folded into lines when it is the value of an attribute.
    """

    begin: int
    end: int
    payload: slice
    folded: bool
    is_base64: bool


def read_input(value: str, modality: str | None, max_bytes: int) -> Input:
    """The input as the modality says, or as it looks when there is none; images of at most `max_bytes`.

    An image alone stays alone; text around it is joined by one space. Raises UnusableInputError.
    """
    if modality == TEXT:
        return value
    found = list(islice(_images(value), 2))
    if not found:
        if value.startswith(_SCHEME, skip_blanks(value, 0, len(value))):
            raise UnusableInputError("begins like an image and is none; send one as data:image/png;base64,…")
        if modality is None:
            return value
        if _names_address(value):
            raise UnusableInputError("names an image by address, which is not fetched; send it as a data URL")
        raise UnusableInputError("has no image; send one as a data URL, such as data:image/png;base64,…")
    if len(found) > 1:
        raise UnusableInputError("has more than one image; send each as an input of its own")
    image = found[0]
    around = (stripped(value, 0, image.begin), stripped(value, image.end, len(value)))
    text = " ".join(value[begin:end] for begin, end in around if begin < end)
    if text and modality == IMAGE:
        raise UnusableInputError("has text beside the image; use modality 'text_image', or leave the text out")
    return ImageInput(_decode(value, image, max_bytes), text)


def modality_of(value: Input) -> str:
    """What an input is."""
    if isinstance(value, str):
        return TEXT
    return TEXT_IMAGE if value.text else IMAGE


def _images(value: str) -> Iterator[_Found]:
    """Every image, in order: the sources of tags, and data URLs by themselves."""
    first = skip_blanks(value, 0, len(value))
    tags = _Tags(value)
    position = 0
    for _ in range(_MOST_CANDIDATES):
        start = value.find(_SCHEME, position)
        if start < 0:
            return
        header = _header(value, start)
        found = None
        if header is not None:
            tag = tags.around(start)
            found = _in_tag(value, tag) if tag else _bare(value, start, header, alone=start == first)
        if found is not None:
            yield found
        position = found.end if found else start + len(_SCHEME)


class _Tags:
    """The tags of a text whose source is a data URL, found once, in order."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._from = 0
        self._left = _BROKEN_TAGS

    def around(self, start: int) -> Tag | None:
        """The tag that this place is in. To be asked for places in order."""
        while self._left > 0:
            begin = find_tag(self._value, self._from, start)
            if begin < 0:
                self._from = max(self._from, start)
                return None
            tag, looked = read_tag(self._value, begin)
            if tag is not None and start < tag.end and _header(self._value, tag.source.start) is not None:
                self._from = tag.end
                return tag
            self._from = begin + len("<img")
            self._left -= max(_BROKEN_TAG, looked - begin)
        return None


def _header(value: str, start: int) -> int | None:
    """Where the comma of a data URL is; None when it is no data URL."""
    opening = _START.match(value, start)
    if opening is None or value[opening.end() : opening.end() + 1] != ",":
        return None
    return opening.end()


def _bare(value: str, start: int, header: int, *, alone: bool) -> _Found | None:
    """A data URL by itself. With `alone`, nothing stands before it.

    A string that is nothing but a URL is one to its end, even when it is broken or folded into lines; inside of a text
    one ends where its alphabet does, and one that is not base64 has no alphabet to speak of.
    """
    is_base64 = _says_base64(value, start, header)
    folded = _folded_end(value, header + 1) if is_base64 else None
    if folded is not None:
        return _Found(start, folded, slice(header + 1, folded), folded=True, is_base64=True)
    end = _run(_VISIBLE, value, header + 1) if alone else header + 1
    if not alone or skip_blanks(value, end, len(value)) < len(value):
        if not is_base64:
            return None
        end = _run(_PAYLOAD, value, header + 1)
    return _Found(start, end, slice(header + 1, end), folded=False, is_base64=is_base64)


def _folded_end(value: str, begin: int) -> int | None:
    """Where a payload ends that is folded into lines and takes the rest of the string; None when there is none.

    Words are base64 too, so lines have one length but for the last. Two lines of more than MIME's 76 characters may
    also be a small image and a word.
    """
    begin = skip_blanks(value, begin, len(value))
    width = _run(_PAYLOAD, value, begin) - begin
    if not _SHORTEST_LINE <= width <= _LONGEST_LINE or width % 4:
        return None
    lines = re.compile(rf"(?:[A-Za-z0-9+/]{{{width}}}\s{{1,64}})++")
    position = begin
    while (match := lines.match(value, position, position + _STEP)) is not None:
        position = skip_blanks(value, match.end(), len(value))
    end = _run(_PAYLOAD, value, position)
    if position == begin or end - position > width or skip_blanks(value, end, len(value)) < len(value):
        return None
    return end if width <= _MIME_LINE or position - begin > 2 * width else None


def _in_tag(value: str, tag: Tag) -> _Found:
    """The source of a tag. Behind one without quotes a slash may belong to the tag instead: `<img src=data:…/>`."""
    header = _header(value, tag.source.start) or tag.source.stop
    begin, end = header + 1, tag.source.stop
    if value[end : end + 1] == ">" and value[end - 1] == "/" and (value[end - 2] == "=" or (end - begin) % 4 == 1):
        end -= 1
    return _Found(
        tag.begin, tag.end, slice(begin, max(begin, end)), folded=True,
        is_base64=_says_base64(value, tag.source.start, header),
    )  # fmt: skip


def _says_base64(value: str, start: int, header: int) -> bool:
    return value[start:header].lower().endswith(";base64")


def _names_address(value: str) -> bool:
    """Whether the string is an address, or begins with a tag whose source is one."""
    begin = skip_blanks(value, 0, len(value))
    if find_tag(value, begin, begin + 1) == begin:
        tag, _ = read_tag(value, begin)
        begin = tag.source.start if tag else begin
    return _REMOTE.match(value, begin) is not None


def _run(pattern: re.Pattern[str], value: str, position: int) -> int:
    """The end of what `pattern` matches from `position` on, in steps."""
    while (match := pattern.match(value, position, position + _STEP)) is not None:
        position = match.end()
        if position < match.endpos:
            break
    return position


def _decode(value: str, image: _Found, max_bytes: int) -> bytes:
    if not image.is_base64:
        raise UnusableInputError("has an image that is not base64; send data:image/png;base64,…")
    begin, end = image.payload.start, image.payload.stop
    # What folding adds is a fraction; more blanks than payload are none.
    most = 2 * (max_bytes + 2) if image.folded else max_bytes + 2
    if (end - begin) * 3 // 4 > most:
        size = (end - begin) * 3 // 4
        raise UnusableInputError(f"has an image of about {size} bytes; at most {max_bytes} are allowed")
    payload = _unfolded(value, begin, end) if image.folded else value[begin:end]
    payload = payload.rstrip("=")
    if len(payload) * 3 // 4 > max_bytes:
        raise UnusableInputError(f"has an image of {len(payload) * 3 // 4} bytes; at most {max_bytes} are allowed")
    try:
        data: bytes = pybase64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except ValueError as error:
        raise UnusableInputError("has an image whose base64 is not valid") from error
    if not data:
        raise UnusableInputError("has an image without any data")
    return data


def _unfolded(value: str, begin: int, end: int) -> str:
    """What is between two places, without any blanks."""
    steps = range(begin, end, _STEP)
    return "".join("".join(value[step : min(step + _STEP, end)].split()) for step in steps)
