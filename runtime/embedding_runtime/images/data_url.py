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

TEXT, IMAGE, TEXT_IMAGE = "text", "image", "text_image"
_STEP = 256 * 1024
# What looks like an image more often than this and is none, is a text about them.
_MOST_CANDIDATES = 1000
_TAG_LENGTH = 1024
_START = re.compile(r"data:image/[a-z0-9.+-]{1,64}(?:;[a-z0-9!#$&^_.+-]{1,64}(?:=[a-z0-9!#$&^_.+-]{1,64})?){0,8}", re.I)
_PAYLOAD = re.compile(r"[A-Za-z0-9+/=]+")
_VISIBLE = re.compile(r"\S+")
_QUOTED = re.compile(r"[^\"'<>]+")
_TAG_OPENS = re.compile(r"<img\b[^<>\"']{0,256}(?:[\"'][^<>\"']{0,256}[\"'][^<>\"']{0,256}){0,8}$", re.I)
_SOURCE_OPENS = re.compile(r"\bsrc\s{0,8}=\s{0,8}([\"'])\s{0,8}$", re.I)
_TAG_ENDS = re.compile(r"[^<>\"']{0,256}(?:[\"'][^<>\"']{0,256}[\"'][^<>\"']{0,256}){0,8}>")
_REMOTE = re.compile(r"\s*(?:<img\b[^<>]{0,256}\bsrc\s{0,8}=\s{0,8}[\"']\s{0,8})?https?://", re.I)


class UnusableInputError(ValueError):
    """An input that cannot be what it is said or seems to be; the text completes the sentence "input[0] ..."."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An image in a string: where what stands for it begins and ends, and the characters of its payload."""

    begin: int
    end: int
    payload: slice
    quoted: bool
    is_base64: bool


def read_input(value: str, modality: str | None, max_bytes: int) -> Input:
    """The input as the modality says, or as it looks when there is none; images of at most `max_bytes`.

    An image alone stays alone; text around it is joined by one space. Raises UnusableInputError.
    """
    if modality == TEXT:
        return value
    found = list(islice(_images(value), 2))
    if not found:
        if modality is None:
            return value
        if _REMOTE.match(value):
            raise UnusableInputError("names an image by address, which is not fetched; send it as a data URL")
        raise UnusableInputError("has no image; send one as a data URL, such as data:image/png;base64,…")
    if len(found) > 1:
        raise UnusableInputError("has more than one image; send each as an input of its own")
    image = found[0]
    text = " ".join(part for part in (value[: image.begin].strip(), value[image.end :].strip()) if part)
    if text and modality == IMAGE:
        raise UnusableInputError("has text beside the image; use modality 'text_image', or leave the text out")
    return ImageInput(_decode(value, image, max_bytes), text)


def modality_of(value: Input) -> str:
    """What an input is."""
    if isinstance(value, str):
        return TEXT
    return TEXT_IMAGE if value.text else IMAGE


def _images(value: str) -> Iterator[_Found]:
    first = len(value) - len(value.lstrip())
    position = 0
    for _ in range(_MOST_CANDIDATES):
        start = value.find("data:image/", position)
        if start < 0:
            return
        opening = _START.match(value, start)
        found = None
        if opening is not None and value[opening.end() : opening.end() + 1] == ",":
            found = _in_tag(value, start, opening.end()) or _bare(value, start, opening.end(), alone=start == first)
        if found is not None:
            yield found
        position = found.end if found else start + len("data:image/")


def _bare(value: str, start: int, header: int, *, alone: bool) -> _Found | None:
    """A data URL by itself. With `alone`, nothing stands before it.

    A string that is nothing but a URL is one to its end, even when it is broken; inside of a text one ends where its
    alphabet does, and one that is not base64 has no alphabet to speak of.
    """
    is_base64 = _says_base64(value, start, header)
    end = _run(_VISIBLE, value, header + 1) if alone else header + 1
    if not alone or value[end : end + _STEP].strip():
        if not is_base64:
            return None
        end = _run(_PAYLOAD, value, header + 1)
    return _Found(start, end, slice(header + 1, end), quoted=False, is_base64=is_base64)


def _in_tag(value: str, start: int, header: int) -> _Found | None:
    """A data URL that is the source of an <img> tag, in either kind of quotes, with or without a closing slash."""
    source = _SOURCE_OPENS.search(value, max(0, start - 32), start)
    if source is None:
        return None
    tag = _TAG_OPENS.search(value, max(0, source.start() - _TAG_LENGTH), source.start())
    end = _run(_QUOTED, value, header + 1)
    if tag is None or value[end : end + 1] != source[1]:
        return None
    closing = _TAG_ENDS.match(value, end + 1)
    if closing is None:
        return None
    is_base64 = _says_base64(value, start, header)
    return _Found(tag.start(), closing.end(), slice(header + 1, end), quoted=True, is_base64=is_base64)


def _says_base64(value: str, start: int, header: int) -> bool:
    return value[start:header].lower().endswith(";base64")


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
    length = image.payload.stop - image.payload.start
    if length * 3 // 4 > max_bytes + 2 and not image.quoted:
        raise UnusableInputError(f"has an image of about {length * 3 // 4} bytes; at most {max_bytes} are allowed")
    payload = value[image.payload]
    if image.quoted:
        # Tags may be folded into lines.
        payload = "".join(payload.split())
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
