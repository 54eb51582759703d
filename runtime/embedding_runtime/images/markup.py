"""`<img>` tags in a text, read as HTML does: attributes in any number and order, quoted either way or not at all.

Follows the tokenisation of the HTML standard (§13.2.5, start tags) for one tag, with bounds: what is not a complete
`<img …>` of at most `MOST_ATTRIBUTES` attributes is no tag, but text. Reading takes time in proportion to what is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_ATTRIBUTES = 1000
# Characters looked at without a chance for other threads.
_STEP = 1024 * 1024
# More blanks than this in a row are no markup.
_BLANKS = 64 * 1024
_OPENS = re.compile(r"<img(?=[\s/])", re.I)
_NAME = re.compile(r"[\s/]*+([^\s\"'<>/=]++)(\s*+=\s*+)?")
_CLOSES = re.compile(r"[\s/]*+>")
_UNQUOTED = re.compile(r"[^\s\"'<>`]++")
_BLANK = re.compile(r"\s++")


@dataclass(frozen=True, slots=True)
class Tag:
    """Where a tag begins and ends in its text, and where the value of its `src` lies, blanks around it left out."""

    begin: int
    end: int
    source: slice


def find_tag(text: str, begin: int, end: int) -> int:
    """Where the first `<img` is that begins between two places of a text; -1 when there is none."""
    while begin < end:
        stop = min(begin + _STEP, end)
        match = _OPENS.search(text, begin, min(stop + len("<img "), len(text)))
        if match is not None:
            return match.start() if match.start() < end else -1
        begin = stop
    return -1


def read_tag(text: str, begin: int) -> tuple[Tag | None, int]:
    """The tag that begins there, if it is a whole one and has a `src`; and how far the text was looked at."""
    position = begin + len("<img")
    source: slice | None = None
    for _ in range(MOST_ATTRIBUTES):
        closing = _CLOSES.match(text, position, position + _BLANKS)
        if closing is not None:
            return (None if source is None else Tag(begin, closing.end(), source)), closing.end()
        name = _NAME.match(text, position, position + _BLANKS)
        if name is None:
            return None, position
        position = name.end()
        if name[2] is None:
            continue
        found = _value(text, position)
        if found is None:
            return None, len(text) if text.startswith(("'", '"'), position) else position
        value, position = found
        if source is None and name[1].lower() == "src":
            source = slice(*stripped(text, value.start, value.stop))
    return None, position


def stripped(text: str, begin: int, end: int) -> tuple[int, int]:
    """Where what is between two places begins and ends without the blanks around it."""
    begin = skip_blanks(text, begin, end)
    while begin < end:
        piece = text[max(begin, end - _STEP) : end]
        kept = len(piece.rstrip())
        end -= len(piece) - kept
        if kept:
            break
    return begin, end


def skip_blanks(text: str, begin: int, end: int) -> int:
    """The first place that is no blank."""
    while begin < end and (match := _BLANK.match(text, begin, min(begin + _STEP, end))) is not None:
        begin = match.end()
    return begin


def _value(text: str, position: int) -> tuple[slice, int] | None:
    """The value of an attribute and the place behind it; None when its quote is never closed, or it is none."""
    if text.startswith(("'", '"'), position):
        quote = text[position]
        position += 1
        end = _find(text, quote, position)
        return None if end < 0 else (slice(position, end), end + 1)
    end = position
    while (match := _UNQUOTED.match(text, end, end + _STEP)) is not None:
        end = match.end()
    return None if end == position else (slice(position, end), end)


def _find(text: str, character: str, position: int) -> int:
    while position < len(text):
        found = text.find(character, position, position + _STEP)
        if found >= 0:
            return found
        position += _STEP
    return -1
