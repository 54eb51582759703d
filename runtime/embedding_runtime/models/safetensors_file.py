"""Headers of safetensors files (https://huggingface.co/docs/safetensors): checked before anything is loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from embedding_runtime.models.files import DirectoryError

_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> list[TensorEntry]:
    """The tensors of a file. Raises DirectoryError when the file is missing, truncated or corrupt."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(_MAX_HEADER, size - 8):
                raise DirectoryError(f"{path.name} is corrupt or truncated: its header is incomplete ({size} bytes)")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise DirectoryError(f"{path.name} is missing") from None
    except OSError as error:
        raise DirectoryError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DirectoryError(f"{path.name} is corrupt: its header is not JSON") from error
    return _entries(path.name, header, 8 + length, size)


def _entries(name: str, header: object, start: int, size: int) -> list[TensorEntry]:
    entries = []
    try:
        assert isinstance(header, dict)
        for tensor, value in header.items():
            if tensor == "__metadata__":
                continue
            begin, end = (start + int(offset) for offset in value["data_offsets"])
            shape = tuple(int(extent) for extent in value["shape"])
            bits = _DTYPE_BITS.get(value["dtype"], 0)
            if not bits or min(shape, default=0) < 0 or begin < start or math.prod(shape) * bits != (end - begin) * 8:
                raise DirectoryError(f"{name} is corrupt: tensor {tensor!r} has an impossible size")
            entries.append(TensorEntry(tensor, value["dtype"], shape, begin, end))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise DirectoryError(f"{name} is corrupt: its header has an unknown form") from error
    needed = max((entry.end for entry in entries), default=start)
    if needed != size:
        raise DirectoryError(f"{name} is truncated or corrupt: it has {size} bytes, its header says {needed}")
    return entries
