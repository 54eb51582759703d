"""`python -m bench.images`: images on this machine, and where their time goes.

Two random checkpoints of llama_nemotron_vl with the published geometry (tiles of 512 pixels, 256 tokens each): a tiny
one, which shows what everything but the model costs, and a mid-size one of about ninety million parameters. Weights are
random, so vectors mean nothing; the work is the same.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from embedding_runtime.engine.model import ImageInput, InputType, Item, Truncation
from embedding_runtime.images.decode import ImageLimits, decode
from embedding_runtime.images.tiling import cut
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.vl_embedder import VisionLanguageEmbedder
from embedding_runtime.models.vl_model import TokenSequence
from PIL import Image

from tests.runtime.models.vl_checkpoints import PUBLISHED_LANGUAGE, PUBLISHED_VISION, build

MID_VISION = PUBLISHED_VISION | {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536,
}  # fmt: skip
MID_LANGUAGE = PUBLISHED_LANGUAGE | {
    "hidden_size": 768, "num_hidden_layers": 8, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 3072,
}  # fmt: skip
CHECKPOINTS = {"tiny": (PUBLISHED_VISION, PUBLISHED_LANGUAGE), "mid-size": (MID_VISION, MID_LANGUAGE)}
# Name, size and format: what one tile is made of, and a scanned page of seven.
PICTURES = (("224 x 224 PNG", (224, 224), "PNG"), ("1275 x 1650 JPEG page", (1275, 1650), "JPEG"))
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Figures:
    """Medians over rounds, for one image: seconds of each stage; tokens and tiles."""

    checkpoint: str
    picture: str
    tokens: int
    tiles: int
    decode: float
    tile: float
    vision: float
    language: float

    @property
    def seconds(self) -> float:
        return self.decode + self.tile + self.vision + self.language

    def row(self) -> str:
        share = " | ".join(
            f"{part / self.seconds:.0%}" for part in (self.decode, self.tile, self.vision, self.language)
        )
        return (
            f"| {self.checkpoint} | {self.picture} | {self.tiles} | {self.tokens} | {1 / self.seconds:.2f} "
            f"| {self.tokens / self.seconds:.0f} | {share} |"
        )


def picture(size: tuple[int, int], kind: str) -> bytes:
    """A seeded image: gradients and noise, about as hard to decode as a photograph."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(5).integers(0, 40, (height, width, 3))
    pixels = (np.stack([x * 200 / width, y * 200 / height, (x + y) % 200], axis=2) + noise).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def median(rounds: int, work: Callable[[], object]) -> float:
    """Median seconds of `rounds` calls, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure(name: str, model: VisionLanguageEmbedder, label: str, data: bytes, images: int, rounds: int) -> Figures:
    """`images` of them in a batch."""
    limits = ImageLimits()
    rule = model.settings.tiles
    pixels = decode(data, limits)
    items: Sequence[Item] = model.prepare([ImageInput(data)] * images, InputType.PASSAGE, Truncation.NONE)
    payloads = [item.payload for item in items]
    tiles = np.concatenate([p.tiles for p in payloads if isinstance(p, TokenSequence) and p.tiles is not None])
    vision = median(rounds, lambda: model.see(tiles)) / images
    whole = median(rounds, lambda: model.embed(payloads)) / images
    return Figures(
        name, label, items[0].tokens, items[0].tiles, median(rounds, lambda: decode(data, limits)),
        median(rounds, lambda: cut(pixels, rule)), vision, max(whole - vision, 0.0),
    )  # fmt: skip


@app.command(help=__doc__)
def main(
    images: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; figures are medians.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (vision, language) in CHECKPOINTS.items():
            directory = build(Path(folder) / name, vision=vision, language=language)
            model: Any = load_model(LoadRequest(str(directory), cache=Path(folder)), lambda message: None)
            for label, size, kind in PICTURES:
                figures.append(measure(name, model, label, picture(size, kind), images, rounds))
    if as_json:
        typer.echo(json.dumps([vars(each) | {"images_per_second": 1 / each.seconds} for each in figures], indent=2))
        return
    typer.echo("| checkpoint | image | tiles | tokens | images/s | tokens/s | decode | tiling | vision | language |")
    typer.echo("|---|---|---|---|---|---|---|---|---|---|")
    for each in figures:
        typer.echo(each.row())


if __name__ == "__main__":
    app()
