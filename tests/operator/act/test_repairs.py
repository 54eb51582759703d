"""A race with somebody who changes a child back is ended; what people do is not taken for one."""

from __future__ import annotations

from datetime import timedelta

from embedding_operator.act.outcome import Change
from embedding_operator.act.repairs import HOLD, MOST, WITHIN, Repairs
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.build import NOW

KEY = ("search", "minilm")


def repair(*fields: str, verb: str = "updated") -> Change:
    return Change(verb, "Service", "minilm", fields or (".spec.selector",), {})


@given(gap=st.floats(0.05, 5))
def test_a_race_is_ended_for_a_while_and_begins_again(gap: float) -> None:
    repairs, moment = Repairs(), NOW
    for index in range(MOST):
        assert repairs.held(KEY, 1, moment) is None, index
        repairs.note(KEY, 1, [repair()], moment)
        moment += timedelta(seconds=gap)
    hold = repairs.held(KEY, 1, moment)
    assert hold is not None
    assert ".spec.selector of Service/minilm" in hold.message
    assert 0 < hold.seconds <= HOLD.total_seconds()
    # A new spec is the author's word and goes through at once.
    assert repairs.held(KEY, 2, moment) is None
    assert repairs.held(KEY, 1, moment + HOLD) is None


def test_what_is_no_race() -> None:
    repairs = Repairs()
    for index in range(10 * MOST):
        moment = NOW + timedelta(seconds=index)
        # Another field each time; a child that is deleted again and again; a spec that changes.
        repairs.note(KEY, 1, [repair(f".spec.field{index}"), repair(verb="created")], moment)
        assert repairs.held(KEY, 1, moment) is None
    for index in range(10 * MOST):
        repairs.note(KEY, index, [repair()], NOW)
        assert repairs.held(KEY, index, NOW) is None
    # Somebody who comes by every ten seconds.
    for index in range(10 * MOST):
        moment = NOW + (WITHIN / (MOST - 2)) * index
        repairs.note(KEY, 1, [repair()], moment)
        assert repairs.held(KEY, 1, moment) is None
