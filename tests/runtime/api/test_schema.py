"""Counting the values of a body before it is parsed, and blanks of megabytes, without holding up other threads."""

from __future__ import annotations

import contextlib
import time

import orjson
import pytest
from embedding_runtime.api import schema
from embedding_runtime.api.errors import ApiError
from embedding_runtime.api.resolve import resolve
from embedding_runtime.api.schema import EmbeddingRequest, parse
from embedding_runtime.api.state import ServiceState
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.api.served import LetterModel
from tests.runtime.helpers import longest_pause


@given(st.lists(st.text(alphabet=st.sampled_from('",[]{}\\\\a é'), max_size=30), min_size=1, max_size=9))
def test_values_inside_of_strings_do_not_count(texts: list[str]) -> None:
    body = orjson.dumps({"model": "m", "input": texts})
    position = strings = 0
    while (start := body.find(b'"', position)) >= 0:
        position = schema._end_of_string(body, start + 1)
        assert isinstance(orjson.loads(body[start:position]), str)
        strings += 1
    assert strings == 3 + len(texts)


def test_many_commas_in_texts_are_no_values() -> None:
    request = parse(orjson.dumps({"model": "m", "input": ['a,[,"\\' * 300_000] * 3}), EmbeddingRequest)
    assert len(request.input) == 3


def test_many_values_behind_a_text_are_refused() -> None:
    body = b'{"model":"m","input":"' + b"a," * 600_000 + b'","x":[' + b"1," * 70_000 + b"1]}"
    with pytest.raises(ApiError, match="too many values"):
        parse(body, EmbeddingRequest)


@pytest.mark.parametrize("text", [" ", "a,[ ", '\\"', "\u0436, "])
def test_megabytes_hold_up_nobody(text: str) -> None:
    """Forty megabytes of blanks, of commas, of escapes. Only the JSON parser holds the lock in one piece."""
    body = orjson.dumps({"model": "m", "input": text * (40_000_000 // len(text.encode()))})

    def work() -> None:
        with contextlib.suppress(ApiError):
            resolve(parse(body, EmbeddingRequest), ("m",), LetterModel.identity)

    began = time.perf_counter()
    orjson.loads(body)
    parser = time.perf_counter() - began
    assert min(longest_pause(work) for _ in range(3)) < 0.1 + 2 * parser


def test_every_name_is_listed_once() -> None:
    assert ServiceState("m", ("a", "m", "b", "a")).names == ("m", "a", "b")
