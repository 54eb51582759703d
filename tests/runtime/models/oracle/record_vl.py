"""Record what NVIDIA's own class computes for the tiny checkpoint: values that no code of this project had a part in.

The reference is `nemo_automodel.components.models.llama_nemotron_vl` of nemo-automodel 0.7.0 (Apache-2.0), which needs
torchvision. Neither is a requirement of the tests; to record again, put both beside the development environment:

    uv venv reference --python 3.11
    VIRTUAL_ENV=$PWD/reference uv pip install --no-deps nemo-automodel==0.7.0 torchvision==0.28.0 requests
    PYTHONPATH=.:reference/lib/python3.11/site-packages .venv/bin/python -m tests.runtime.models.oracle.record_vl

Everything is computed in float32 with eager attention. Vectors are normalised here, as the model's card says, because
`encode_queries` and `encode_documents` return raw means.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.runtime.models import vl_checkpoints
from tests.runtime.models.oracle.cases import CASES, FILES, SIZES, VARIANTS, Case

HERE = Path(__file__).parent


def reference(directory: Path) -> Any:
    """NVIDIA's model and processor, as they load a directory."""
    from nemo_automodel.components.models.llama_nemotron_vl import model as models
    from nemo_automodel.components.models.llama_nemotron_vl import processor as processors
    from transformers import AutoProcessor

    AutoProcessor.register(models.LlamaNemotronVLConfig, processors.LlamaNemotronVLProcessor)
    loaded, info = models.LlamaNemotronVLModel.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    # Its view() of an earlier layer's states fails for their memory layout; the values are what they are.
    shuffle = loaded.pixel_shuffle
    loaded.pixel_shuffle = lambda states, scale_factor: shuffle(states.contiguous(), scale_factor=scale_factor)
    return loaded.eval()


def document(number: int, case: Case) -> dict[str, Any]:
    return {"image": vl_checkpoints.picture(*case.size, seed=number) if case.size else "", "text": case.text}


@torch.no_grad()
def vectors(model: Any, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    raw = model._embed_batch(inputs)
    return (raw / raw.norm(dim=1, keepdim=True)).numpy()


def record(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    model = reference(directory)
    arrays: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    documents = []
    for number, case in enumerate(CASES):
        if case.kind == "query":
            inputs = model.processor.process_queries([case.text])
        else:
            documents.append(document(number, case))
            inputs = model.processor.process_documents([documents[-1]])
        arrays[case.name] = vectors(model, dict(inputs))[0]
        tiles = inputs.get("pixel_values")
        counts[case.name] = {
            "ids": inputs["input_ids"][0].tolist(),
            "tiles": 0 if tiles is None else len(tiles),
        }
        if tiles is not None:
            arrays[f"{case.name}: first and last tile"] = tiles[[0, -1]].float().numpy()
    if model.config.pooling == "avg":
        # All passages in one left-padded batch: what sharing a batch may change, NVIDIA's way. Its cls pooling gives
        # zeros for padded texts.
        arrays["together"] = vectors(model, dict(model.processor.process_documents(documents)))
    return arrays, counts


def tilings() -> list[list[int]]:
    """Columns, rows and tiles (thumbnail counted) of every size."""
    from nemo_automodel.components.models.llama_nemotron_vl import processor

    chosen = []
    original = processor.find_closest_aspect_ratio

    def remember(*arguments: Any) -> tuple[int, int]:
        chosen.append(original(*arguments))
        return chosen[-1]

    processor.find_closest_aspect_ratio = remember
    rows = []
    for width, height in SIZES:
        tiles = processor.LlamaNemotronVLImageProcessor(image_size=512, max_num_tiles=6).dynamic_preprocess(
            torch.zeros(3, height, width, dtype=torch.uint8)
        )
        rows.append([width, height, *chosen[-1], len(tiles)])
    return rows


def normalised() -> list[float]:
    """What each of the 256 values of a pixel becomes."""
    from nemo_automodel.components.models.llama_nemotron_vl import processor

    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    tool = processor.LlamaNemotronVLImageProcessor(image_size=16, max_num_tiles=1)
    values = tool([image], return_tensors="pt")["pixel_values"].to(torch.bfloat16)
    return [float(value) for value in values[0, 0].flatten()]


def files(model: Any) -> dict[str, Any]:
    """Of every kind of file: its digest, and the tiles that the processor makes of it, each as a digest."""
    recorded = {}
    for name, (kind, mode, options) in FILES.items():
        data = vl_checkpoints.file_of(kind, mode, options)
        inputs = model.processor.process_documents([{"image": {"bytes": data}, "text": ""}])
        tiles = inputs["pixel_values"].float().numpy()
        recorded[name] = {
            "file": hashlib.sha256(data).hexdigest(),
            "tiles": [hashlib.sha256(tile.tobytes()).hexdigest() for tile in tiles],
        }
    return recorded


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts: dict[str, Any] = {}
        for name, options in VARIANTS.items():
            directory = vl_checkpoints.build(Path(folder) / name, **options)
            arrays, counts[name] = record(directory)
            counts[name]["digest"] = vl_checkpoints.digest(directory)
            if name == "atomic":
                seen = files(reference(directory))
            np.savez_compressed(HERE / f"vl_{name}.npz", **arrays)
    table = {"checkpoints": counts, "tilings": tilings(), "pixels": normalised(), "files": seen}
    (HERE / "vl.json").write_text(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
