"""Bytes of an answer, built once: shortest float32 decimals, or base64 of little-endian values."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray


class EncodingFormat(StrEnum):
    """Whether a vector is a list of numbers or base64 of its bytes."""

    FLOAT = "float"
    BASE64 = "base64"


def as_json_values(values: NDArray[np.generic], encoding: EncodingFormat) -> list[object]:
    """One value per row that `orjson` with OPT_SERIALIZE_NUMPY writes: the row itself, or its base64 text."""
    if encoding is EncodingFormat.FLOAT:
        return list(values)
    little_endian = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return [pybase64.b64encode_as_string(np.ascontiguousarray(row).data.cast("B")) for row in little_endian]


def list_answer(values: NDArray[np.generic], encoding: EncodingFormat, *, model: str, tokens: int) -> bytes:
    """The body of POST /v1/embeddings."""
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(as_json_values(values, encoding))
    ]
    body = {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def nugen_answer(values: NDArray[np.generic], *, answer_id: str, model: str, created: float, tokens: int) -> bytes:
    """The body of POST /api/v3/inference/embeddings."""
    data = [{"object": "embedding", "embedding": row, "index": index} for index, row in enumerate(values)]
    body = {
        "id": answer_id,
        "object": "embedding",
        "data": data,
        "model": model,
        "created": created,
        "usage": {"total_tokens": tokens},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
