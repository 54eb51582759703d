"""Bytes of an answer, built once: shortest float32 decimals, or base64 of little-endian values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

# Vectors written at a time: a few hundred kilobytes, a few milliseconds.
_ROWS = 32


class EncodingFormat(StrEnum):
    """Whether a vector is a list of numbers or base64 of its bytes."""

    FLOAT = "float"
    BASE64 = "base64"


def as_json_values(values: NDArray[np.generic], encoding: EncodingFormat) -> Iterable[object]:
    """One value per row that `orjson` with OPT_SERIALIZE_NUMPY writes: the row itself, or its base64 text."""
    if encoding is EncodingFormat.FLOAT:
        return values
    little_endian = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return (pybase64.b64encode_as_string(np.ascontiguousarray(row).data.cast("B")) for row in little_endian)


def list_answer(values: NDArray[np.generic], encoding: EncodingFormat, *, model: str, tokens: int) -> bytes:
    """The body of POST /v1/embeddings."""
    data = _data(
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(as_json_values(values, encoding))
    )
    rest = {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return b"".join([b'{"object":"list","data":[', *data, b"],", orjson.dumps(rest)[1:]])


def nugen_answer(values: NDArray[np.generic], *, answer_id: str, model: str, created: float, tokens: int) -> bytes:
    """The body of POST /api/v3/inference/embeddings."""
    data = _data({"object": "embedding", "embedding": row, "index": index} for index, row in enumerate(values))
    head = {"id": answer_id, "object": "embedding"}
    rest = {"model": model, "created": created, "usage": {"total_tokens": tokens}}
    return b"".join([orjson.dumps(head)[:-1], b',"data":[', *data, b"],", orjson.dumps(rest)[1:]])


def _data(entries: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """The entries of a JSON array, some at a time: writing holds the interpreter's lock, and so the event loop."""
    remaining = iter(entries)
    separator = b""
    while some := list(islice(remaining, _ROWS)):
        yield separator
        yield orjson.dumps(some, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        separator = b","
