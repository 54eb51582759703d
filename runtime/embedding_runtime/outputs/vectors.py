"""Slicing, normalising and quantising vectors: plain numpy on [n, dimensions] float32."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class EmbeddingType(StrEnum):
    """How the numbers of a vector are represented in the answer."""

    FLOAT = "float"
    BINARY = "binary"
    UBINARY = "ubinary"
    INT8 = "int8"
    UINT8 = "uint8"


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length in float32; a row of zeros stays zero (torch's F.normalize, eps 1e-12)."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32))
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))[:, None]
    return unit


def quantise(unit: NDArray[np.float32], kind: EmbeddingType) -> NDArray[np.generic]:
    """Rows of unit length as the values of the answer.

    int8 = trunc(127 x) and uint8 = trunc((x + 1) / 2 * 255), computed in float32 on x clipped to [-1, 1];
    ubinary packs the bits x > 0, most significant first, padded with zero bits; binary = ubinary - 128.
    """
    one, top = np.float32(1), np.float32(127)
    values: NDArray[np.generic]
    match kind:
        case EmbeddingType.FLOAT:
            values = unit
        case EmbeddingType.INT8:
            values = np.trunc(np.clip(unit, -1, 1) * top).astype(np.int8)
        case EmbeddingType.UINT8:
            values = np.trunc((np.clip(unit, -1, 1) + one) / np.float32(2) * np.float32(255)).astype(np.uint8)
        case EmbeddingType.UBINARY:
            values = np.packbits(unit > 0, axis=1)
        case EmbeddingType.BINARY:
            values = (np.packbits(unit > 0, axis=1).astype(np.int16) - 128).astype(np.int8)
    return values


def finish(
    vectors: NDArray[np.float32], *, dimensions: int, normalized: bool, kind: EmbeddingType
) -> NDArray[np.generic]:
    """The answer's values from the model's raw vectors: slice to `dimensions`, normalise, quantise.

    Float vectors of full size from a model that does not normalise keep their length. Cut or quantised ones are always
    of unit length: a part of a vector has no length of its own that would mean anything.
    """
    sliced = np.ascontiguousarray(vectors[:, :dimensions])
    if normalized or kind is not EmbeddingType.FLOAT or dimensions < vectors.shape[1]:
        sliced = normalise(sliced)
    return np.ascontiguousarray(quantise(sliced, kind))
