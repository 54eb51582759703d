"""Tokens of texts as large as a request body, exactly as one tokenisation gives them, holding a small part at a time.

A tokenizer's bookkeeping is twenty times the size of what it is given. So a long text is tokenised in windows that
overlap: near its edges a window's tokens may be wrong, as words are cut, but where the middle of an overlap is seen
equally by both windows, ids and places, both have forgotten their edges, and the one is continued by the other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

WINDOW = 64 * 1024
"""Characters tokenised at a time."""
EDGE = 1024
"""Characters at the edge of a window whose tokens are not trusted; far more than any tokenizer's longest word."""
_OVERLAP = 4 * EDGE
# A window grows until it agrees with its neighbour; a "word" longer than this is taken in pieces.
_LARGEST = 16 * WINDOW


@dataclass(frozen=True, slots=True)
class _Window:
    """The tokens of characters `begin` to `end`; offsets are places in the whole string."""

    begin: int
    end: int
    ids: list[int]
    offsets: list[tuple[int, int]]

    def between(self, low: int, high: int) -> slice:
        """The tokens that have a part in the characters from `low` to `high`."""
        first = bisect_right(self.offsets, low, key=lambda offset: offset[1])
        return slice(first, max(first, bisect_left(self.offsets, high, key=lambda offset: offset[0])))


class LongText:
    """A prompt and a text, tokenised as one string without special tokens."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, text: str, checkpoint: Callable[[], None]) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._text = text
        self._checkpoint = checkpoint
        self._length = len(prompt) + len(text)

    def count(self, keep: int) -> tuple[int, list[int]]:
        """How many tokens there are, and the first of them: at least `keep` when there are as many."""
        length = 0
        kept: list[int] = []
        for ids in self.stream():
            length += len(ids)
            if len(kept) < keep:
                kept += ids
        return length, kept

    def first(self, count: int, characters: int) -> list[int]:
        """The first tokens, at most `count`; usually by looking at the first `characters` only."""
        window = self._window(0, min(characters, self._length))
        sure = len(window.ids) if window.end == self._length else window.between(0, window.end - EDGE).stop - 1
        if sure >= count or window.end == self._length:
            return window.ids[:count]
        kept: list[int] = []
        for ids in self.stream():
            kept += ids
            if len(kept) >= count:
                break
        return kept[:count]

    def last(self, count: int, characters: int) -> list[int]:
        """The prompt's tokens and the last ones, `count` together, or all when there are not more than that."""
        fixed = self._prompt_ids()[:count]
        window = self._window(max(0, self._length - characters), self._length)
        unsure = window.between(window.begin, window.begin + EDGE).stop if window.begin else 0
        rest = count - len(fixed)
        if window.begin and len(window.ids) - unsure >= rest:
            return fixed + window.ids[len(window.ids) - rest :]
        length = 0
        kept: deque[int] = deque(maxlen=count)
        for ids in self.stream():
            length += len(ids)
            kept.extend(ids)
        tokens = list(kept)
        return tokens if length <= count else fixed + tokens[len(tokens) - rest :]

    def stream(self) -> Iterator[list[int]]:
        """All tokens, in portions."""
        window, start, size = self._window(0, min(WINDOW, self._length)), 0, WINDOW
        while window.end < self._length:
            begin = window.end - _OVERLAP
            following = self._window(begin, min(begin + WINDOW, self._length))
            joint = _joint(window, following)
            if joint is None and size < _LARGEST:
                size *= 2
                window = self._window(window.begin, min(window.begin + size, self._length))
                continue
            left, right = joint or _cut(window, following)
            yield window.ids[start:left]
            window, start, size = following, right, WINDOW
        yield window.ids[start:]

    def _prompt_ids(self) -> list[int]:
        """The tokens that begin in the prompt, a text behind it."""
        if not self._prompt:
            return []
        window = self._window(0, min(len(self._prompt) + 2 * EDGE, self._length))
        return window.ids[window.between(-1, len(self._prompt))]

    def _window(self, begin: int, end: int) -> _Window:
        self._checkpoint()
        skip = len(self._prompt)
        piece = self._prompt[begin:end] + self._text[max(0, begin - skip) : max(0, end - skip)]
        # As a batch, because only then the library lets other threads run meanwhile.
        encoding = self._tokenizer.encode_batch([piece], add_special_tokens=False)[0]
        offsets = encoding.offsets
        if begin:
            offsets = [(first + begin, last + begin) for first, last in offsets]
        return _Window(begin, end, encoding.ids, offsets)


def _joint(left: _Window, right: _Window) -> tuple[int, int] | None:
    """Where the left window may be left and the right one entered, as indices of tokens; None when they disagree."""
    low, high = right.begin + EDGE, left.end - EDGE
    here, there = left.between(low, high), right.between(low, high)
    if left.ids[here] != right.ids[there] or left.offsets[here] != right.offsets[there]:
        return None
    half = (here.stop - here.start) // 2
    return here.start + half, there.start + half


def _cut(left: _Window, right: _Window) -> tuple[int, int]:
    """The middle of the overlap, whatever the windows say there."""
    middle = (right.begin + left.end) // 2
    return left.between(-1, middle).stop, right.between(-1, middle).stop
