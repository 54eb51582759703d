"""Names, suffixes and lanes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from embedding_runtime.api.errors import ApiError, shown
from embedding_runtime.api.resolve import resolve
from embedding_runtime.api.schema import EmbeddingRequest
from embedding_runtime.engine.model import InputType
from embedding_runtime.engine.work import Lane

from tests.runtime.api.served import LetterModel

IDENTITY = LetterModel.identity
WITH_IMAGE = "data:image/png;base64,AAAA"


def request(**fields: object) -> EmbeddingRequest:
    return EmbeddingRequest.model_validate({"model": "m", "input": "a"} | fields)


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("m", None, None),
        ("m", "query", InputType.QUERY),
        ("m-query", None, InputType.QUERY),
        ("m-query", "passage", InputType.QUERY),
        ("alias-passage", "query", InputType.PASSAGE),
        # An exact name wins over what looks like a suffix.
        ("named-query", None, None),
        ("named-query-query", None, InputType.QUERY),
    ],
)
def test_input_type(model: str, given: str | None, expected: InputType | None) -> None:
    job = resolve(request(model=model, input_type=given), ("m", "alias", "named-query"), IDENTITY)
    assert job.input_type == expected


@pytest.mark.parametrize("model", ["", "M", "m-", "-query", "m-query-query", "x" * 500, "\x1b[31m"])
def test_unknown_names_are_echoed_short_and_printable(model: str) -> None:
    with pytest.raises(ApiError) as refused:
        resolve(request(model=model), ("m",), IDENTITY)
    assert refused.value.status == 404
    assert refused.value.message == f"model '{shown(model)}' not found; available: 'm'"
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 120


def test_queries_and_single_texts_are_interactive() -> None:
    lanes = [
        resolve(request(**fields), ("m",), IDENTITY).lane
        for fields in (
            {"input": "a"},
            {"input": ["a", "b"]},
            {"input": ["a", "b"], "input_type": "query"},
            {"input": "a", "input_type": "passage"},
        )
    ]
    assert lanes == [Lane.INTERACTIVE, Lane.BULK, Lane.INTERACTIVE, Lane.BULK]


@pytest.mark.parametrize("value", [WITH_IMAGE, f"what is this? {WITH_IMAGE}", ["a", WITH_IMAGE]])
def test_images_are_in_the_way_of_nobody_who_waits(value: object) -> None:
    """One takes as long as a hundred queries: it is interactive only where it is said to be a query."""
    sees = replace(IDENTITY, modalities=("text", "image", "text_image"))
    for kind, lane in ((None, Lane.BULK), ("passage", Lane.BULK), ("query", Lane.INTERACTIVE)):
        job = resolve(request(input=value, input_type=kind), ("m",), sees)
        assert (job.lane, job.images) == (lane, 1)
    # To a model that does not see, it is a text.
    assert resolve(request(input=WITH_IMAGE), ("m",), IDENTITY).lane is Lane.INTERACTIVE
