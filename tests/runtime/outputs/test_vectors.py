"""Slicing, normalising, quantising and encoding against plain numpy and the standard library."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import orjson
import pytest
from embedding_runtime.outputs.encode import EncodingFormat, list_answer, nugen_answer
from embedding_runtime.outputs.vectors import EmbeddingType, finish, normalise, quantise
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.runtime.helpers import longest_pause

finite = st.floats(-100, 100, width=32)
matrices = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=finite)


@given(matrices)
def test_rows_have_unit_length_or_are_zero(vectors: NDArray[np.float32]) -> None:
    unit = normalise(vectors)
    for row, original in zip(unit.astype(np.float64), vectors.astype(np.float64), strict=True):
        length = math.sqrt(float((original**2).sum()))
        if length > 1e-10:
            np.testing.assert_allclose(row, original / length, atol=3e-7)
        assert np.isfinite(row).all()


@given(matrices)
def test_integers_are_the_documented_formulas(vectors: NDArray[np.float32]) -> None:
    unit = normalise(vectors)
    int8 = [[int(np.float32(127) * min(max(x, np.float32(-1)), np.float32(1))) for x in row] for row in unit]
    assert quantise(unit, EmbeddingType.INT8).tolist() == int8
    one, two = np.float32(1), np.float32(2)
    uint8 = [[int((min(max(x, -one), one) + one) / two * np.float32(255)) for x in row] for row in unit]
    assert quantise(unit, EmbeddingType.UINT8).tolist() == uint8


@given(matrices)
def test_bits_are_packed_most_significant_first(vectors: NDArray[np.float32]) -> None:
    expected = []
    for row in vectors:
        bits = [1 if x > 0 else 0 for x in row] + [0] * (-len(row) % 8)
        expected.append([int("".join(map(str, bits[i : i + 8])), 2) for i in range(0, len(bits), 8)])
    ubinary = quantise(vectors, EmbeddingType.UBINARY)
    assert ubinary.tolist() == expected
    assert quantise(vectors, EmbeddingType.BINARY).tolist() == [[byte - 128 for byte in row] for row in expected]


@given(matrices, st.data())
def test_slicing_comes_before_normalising(vectors: NDArray[np.float32], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, vectors.shape[1]))
    cut = finish(vectors, dimensions=size, normalized=True, kind=EmbeddingType.FLOAT)
    np.testing.assert_array_equal(cut, normalise(np.ascontiguousarray(vectors[:, :size])))


def test_vectors_of_a_model_without_normalisation_keep_their_length() -> None:
    vectors = np.array([[3, 4]], np.float32)
    plain = finish(vectors, dimensions=2, normalized=False, kind=EmbeddingType.FLOAT)
    quantised = finish(vectors, dimensions=2, normalized=False, kind=EmbeddingType.INT8)
    assert plain.tolist() == [[3, 4]]
    assert quantised.tolist() == [[76, 101]]


@given(matrices, st.booleans())
def test_cut_vectors_have_unit_length_whatever_the_model(vectors: NDArray[np.float32], normalized: bool) -> None:
    """The contract: slice, then normalise again; a model without a Normalize module is no exception."""
    size = vectors.shape[1] // 2 + 1
    if size == vectors.shape[1]:
        return
    cut = finish(vectors, dimensions=size, normalized=normalized, kind=EmbeddingType.FLOAT)
    np.testing.assert_array_equal(cut, normalise(np.ascontiguousarray(vectors[:, :size])))


def test_the_documents_sample() -> None:
    sample = np.array([[0.012519836, -0.0126571655, 0.0101623535]], np.float32)
    assert quantise(sample, EmbeddingType.INT8).tolist() == [[1, -1, 1]]
    text = list_answer(sample, EncodingFormat.FLOAT, model="m", tokens=7).decode()
    assert "[0.012519836,-0.0126571655,0.0101623535]" in text


@given(arrays(np.float32, (2, 5), elements=finite))
def test_floats_are_the_shortest_decimals_that_read_back(vectors: NDArray[np.float32]) -> None:
    body = json.loads(list_answer(vectors, EncodingFormat.FLOAT, model="m", tokens=3))
    rows = [item["embedding"] for item in body["data"]]
    np.testing.assert_array_equal(np.array(rows, np.float32), vectors)
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@given(matrices, st.sampled_from(EmbeddingType))
def test_base64_is_the_little_endian_bytes(vectors: NDArray[np.float32], kind: EmbeddingType) -> None:
    values = finish(vectors, dimensions=vectors.shape[1], normalized=True, kind=kind)
    body = json.loads(list_answer(values, EncodingFormat.BASE64, model="m", tokens=1))
    for item, row in zip(body["data"], values, strict=True):
        raw = base64.b64decode(item["embedding"], validate=True)
        np.testing.assert_array_equal(np.frombuffer(raw, row.dtype.newbyteorder("<")), row)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("encoding", EncodingFormat)
def test_answers_written_in_pieces_are_whole(rows: int, encoding: EncodingFormat) -> None:
    vectors = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 7
    body = list_answer(vectors, encoding, model='m"', tokens=5)
    embeddings: list[object] = [row.tolist() for row in vectors]
    if encoding is EncodingFormat.BASE64:
        embeddings = [base64.b64encode(row.tobytes()).decode() for row in vectors]
    else:
        embeddings = json.loads(orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY))
    assert json.loads(body) == {
        "object": "list",
        "data": [{"object": "embedding", "index": n, "embedding": each} for n, each in enumerate(embeddings)],
        "model": 'm"',
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    nugen = json.loads(nugen_answer(vectors, answer_id="embed-1", model="m", created=1.5, tokens=5))
    assert [list(each) for each in nugen["data"]] == [["object", "embedding", "index"]] * rows
    assert nugen | {"data": []} == {
        "id": "embed-1", "object": "embedding", "data": [], "model": "m", "created": 1.5, "usage": {"total_tokens": 5},
    }  # fmt: skip


@pytest.mark.parametrize("encoding", EncodingFormat)
def test_large_answers_hold_up_nobody(encoding: EncodingFormat) -> None:
    """Tens of megabytes: other threads run meanwhile."""
    vectors = np.random.default_rng(1).standard_normal((8192, 1024), np.float32)
    pauses = [longest_pause(lambda: list_answer(vectors, encoding, model="m", tokens=1)) for _ in range(3)]
    assert min(pauses) < 0.1
