"""Which files hold a module's weights, and the tensors in them, whatever the format and the number of shards."""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedding_runtime.models.files import DirectoryError, inside, read_object
from embedding_runtime.models.safetensors_file import read_header


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as stored: safetensors' dtype names, little-endian row-major bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview | bytes


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of one module's weights, in name order; all safetensors or all `.bin`."""

    paths: tuple[Path, ...]
    is_safetensors: bool


def find_weights(directory: Path) -> WeightFiles:
    """The weight files of a directory, checked to be there and whole.

    Raises DirectoryError with the missing, truncated or corrupt file.
    """
    for stem, is_safetensors in (("model.safetensors", True), ("pytorch_model.bin", False)):
        index = read_object(directory, f"{stem}.index.json")
        if index is not None and not (directory / stem).exists():
            paths = _shards(directory, f"{stem}.index.json", index)
        elif (directory / stem).exists():
            paths = (directory / stem,)
        else:
            continue
        if is_safetensors:
            for path in paths:
                read_header(path)
        return WeightFiles(paths, is_safetensors)
    raise DirectoryError("model.safetensors is missing")


def _shards(directory: Path, name: str, index: dict[str, object]) -> tuple[Path, ...]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DirectoryError(f"{name} has no weight_map")
    paths = tuple(inside(directory, shard) for shard in sorted({str(shard) for shard in weight_map.values()}))
    for path in paths:
        if not path.exists():
            raise DirectoryError(f"{path.name} is missing ({name} names it)")
    return paths


def stored_tensors(files: WeightFiles) -> Iterator[StoredTensor]:
    """Every stored tensor in name order, read lazily. Raises DirectoryError when a file cannot be read."""
    if files.is_safetensors:
        yield from _from_safetensors(files.paths)
    else:
        yield from _from_pickles(files.paths)


def _from_safetensors(paths: tuple[Path, ...]) -> Iterator[StoredTensor]:
    located = [(entry, path) for path in paths for entry in read_header(path)]
    maps: dict[Path, mmap.mmap] = {}
    for entry, path in sorted(located, key=lambda pair: pair[0].name):
        if path not in maps:
            with path.open("rb") as file:
                maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = memoryview(maps[path])[entry.begin : entry.end]
        yield StoredTensor(entry.name, entry.dtype, entry.shape, data)


def _from_pickles(paths: tuple[Path, ...]) -> Iterator[StoredTensor]:
    import torch

    names = {
        torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    merged: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            merged |= torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, TypeError, pickle.UnpicklingError) as error:
            raise DirectoryError(f"{path.name} is corrupt or unsafe: {str(error).splitlines()[0]}") from error
    for name in sorted(merged):
        tensor = merged[name].contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        yield StoredTensor(name, names[tensor.dtype], tuple(tensor.shape), data)
