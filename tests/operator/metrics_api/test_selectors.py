"""Label selectors, against the grammar and the meaning that the API gives them."""

from __future__ import annotations

import contextlib

import pytest
from embedding_operator.metrics_api.selectors import BadSelector, matches, parse
from hypothesis import given
from hypothesis import strategies as st

LABELS = {"embedding-operator.io/service": "minilm", "tier": "web", "size": "5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("embedding-operator.io/service=minilm", True),
        ("embedding-operator.io/service == minilm", True),
        ("embedding-operator.io/service=other", False),
        ("tier=web,size=5", True),
        ("tier=web,size=6", False),
        ("tier!=db", True),
        ("absent!=db", True),
        ("tier!=web", False),
        ("tier in (db, web)", True),
        ("tier in (db,web),embedding-operator.io/service=minilm", True),
        ("tier in (db)", False),
        ("absent in (db)", False),
        ("tier notin (db,cache)", True),
        ("absent notin (db)", True),
        ("tier notin (web)", False),
        ("tier", True),
        ("absent", False),
        ("!absent", True),
        ("! tier", False),
        ("size>4", True),
        ("size > 5", False),
        ("size<6", True),
        ("tier<6", False),
        ("absent>1", False),
        ("empty=", True),
        ("empty in ()", True),
        ("absent=", False),
    ],
)
def test_selectors_select(text: str, expected: bool) -> None:
    assert matches(parse(text), LABELS) is expected


@pytest.mark.parametrize(
    "text", ["=a", "a=b c", "a in b", "a in (b", "a,,b", "a=b,", "a>x", "a in (b c)", "-a=b", "a=-b", "a=b=c", "*"]
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(BadSelector, match="is no label selector"):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BadSelector):
        matches(parse(text), LABELS)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9]{0,8}", fullmatch=True)))
def test_the_selector_of_a_label_set_selects_it(labels: dict[str, str]) -> None:
    selector = parse(",".join(f"{key}={value}" for key, value in labels.items()))
    assert matches(selector, labels | {"another": "one"} if "another" not in labels else labels)
    assert not labels or not matches(selector, {key: value + "x" for key, value in labels.items()})
