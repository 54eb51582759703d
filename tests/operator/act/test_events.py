"""Which Events are posted, and how many at most."""

from __future__ import annotations

from datetime import datetime, timedelta

from embedding_operator.act.events import BURST, NOTE_BYTES, Notice, Throttle, within
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.build import NOW

KEY, OTHER = ("search", "a"), ("search", "b")


def notice(message: str = "Service/minilm updated") -> Notice:
    return Notice(False, "Updated", "Updated", message)


def test_the_same_words_are_worth_one_event_a_minute() -> None:
    throttle = Throttle()
    assert throttle.admit(KEY, [notice(), notice()], NOW) == [notice()]
    assert throttle.admit(KEY, [notice()], NOW + timedelta(seconds=59)) == []
    assert throttle.admit(OTHER, [notice()], NOW) == [notice()]
    assert throttle.admit(KEY, [notice()], NOW + timedelta(seconds=60)) == [notice()]


@given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_no_service_posts_without_end_whatever_it_says(gaps: list[float]) -> None:
    """Two controllers that undo each other's changes, or a Pod that flaps."""
    throttle, moment, posted = Throttle(), NOW, list[datetime]()
    for index, gap in enumerate(gaps):
        moment += timedelta(seconds=gap)
        posted += [moment for _ in throttle.admit(KEY, [notice(f"change {index}")], moment)]
    elapsed = (moment - NOW).total_seconds()
    assert len(posted) <= BURST + elapsed / 60
    # A few in a row are never held back.
    assert len(posted) >= min(len(gaps), BURST)


@given(text=st.text(max_size=3000))
def test_a_note_fits_whatever_it_is_written_in(text: str) -> None:
    cut = within(text, NOTE_BYTES)
    assert len(cut.encode()) <= NOTE_BYTES
    assert text.startswith(cut)
    assert cut == text or len(cut.encode()) > NOTE_BYTES - 4
