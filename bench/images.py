"""`python -m bench.images`: images a second through the whole server on this machine, and where their time goes.

Two random checkpoints of llama_nemotron_vl with the published geometry (tiles of 512 pixels, 256 tokens each): a tiny
one, which shows what everything but the model costs, and a mid-size one of about 83 million parameters. Weights are
random, so vectors mean nothing; the work is the same.

Images and tokens a second are measured at `embedding-runtime serve`, in a process of its own: requests of one image
over HTTP, all different, a few in flight. Shares are of a single image's stages in this process, one after the other.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from embedding_runtime.engine.model import ImageInput, InputType, Item, Truncation
from embedding_runtime.images.decode import ImageLimits, decode
from embedding_runtime.images.tiling import cut
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.vl_embedder import VisionLanguageEmbedder
from embedding_runtime.models.vl_model import TokenSequence
from PIL import Image

from bench.errors import BenchError
from bench.servers import Role, ServerProcess, ServerSpec
from bench.workloads import MODEL_NAME
from tests.runtime.models.vl_checkpoints import PUBLISHED_LANGUAGE, PUBLISHED_VISION, build

MID_VISION = PUBLISHED_VISION | {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536,
}  # fmt: skip
MID_LANGUAGE = PUBLISHED_LANGUAGE | {
    "hidden_size": 768, "num_hidden_layers": 8, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 3072,
}  # fmt: skip
CHECKPOINTS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": (PUBLISHED_VISION, PUBLISHED_LANGUAGE), "mid-size": (MID_VISION, MID_LANGUAGE),
}  # fmt: skip
# Of random weights, as large models have it: with wider ones, rounding alone moves vectors.
_SPREAD = 0.03
# Requests in flight: as many as keep an engine busy while others are decoded.
_IN_FLIGHT = 4
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is sent: what to call it, its width and height in pixels, and its format."""

    label: str
    size: tuple[int, int]
    kind: str


# What one tile is made of, and a scanned page of seven.
PICTURES = (Picture("224 x 224 PNG", (224, 224), "PNG"), Picture("1275 x 1650 JPEG page", (1275, 1650), "JPEG"))


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """One kind of image with one checkpoint: its tokens and tiles, images a second through the server, and the seconds
    that one takes in each stage (medians over rounds)."""

    checkpoint: str
    picture: str
    tokens: int
    tiles: int
    images_per_second: float
    decode: float
    tiling: float
    vision: float
    language: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens fed to the model a second, as the server's `usage` counts them."""
        return self.tokens * self.images_per_second

    @property
    def shares(self) -> dict[str, float]:
        """Of the time of the stages together; they add up to one."""
        stages = {"decode": self.decode, "tiling": self.tiling, "vision": self.vision, "language": self.language}
        whole = sum(stages.values())
        return {name: seconds / whole for name, seconds in stages.items()}


@dataclass(frozen=True, slots=True)
class ImageReport:
    """The figures of a run; `images` were sent of each kind."""

    images: int
    figures: tuple[ImageFigures, ...]

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        rows = [
            dataclasses.asdict(each) | {"tokens_per_second": each.tokens_per_second, "shares": each.shares}
            for each in self.figures
        ]
        return {"images": self.images, "figures": rows}

    def table(self) -> str:
        """In Markdown."""
        head = "| checkpoint | image | tiles | tokens | images/s | tokens/s | decode | tiling | vision | language |"
        rows = [
            f"| {each.checkpoint} | {each.picture} | {each.tiles} | {each.tokens} | {each.images_per_second:.2f} "
            f"| {each.tokens_per_second:.0f} | {' | '.join(f'{share:.0%}' for share in each.shares.values())} |"
            for each in self.figures
        ]
        return "\n".join([head, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|", *rows])


def measure_images(
    images: int = 24,
    rounds: int = 3,
    checkpoints: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = CHECKPOINTS,
    pictures: Sequence[Picture] = PICTURES,
) -> ImageReport:
    """Measure every checkpoint with every kind of image: about two minutes on two processors.

    Raises BenchError when the server does not start or refuses.
    """
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-images-") as folder:
        for name, (vision, language) in checkpoints.items():
            directory = build(Path(folder) / name, vision=vision, language=language, spread=_SPREAD)
            model = load_model(LoadRequest(str(directory), cache=Path(folder), device="cpu"), lambda message: None)
            if not isinstance(model, VisionLanguageEmbedder):
                raise BenchError(f"{directory} was not loaded as a model that sees")
            stages = [_stages(name, model, picture, rounds) for picture in pictures]
            del model
            speeds = _serve(directory, pictures, images)
            figures += [
                dataclasses.replace(each, images_per_second=speed) for each, speed in zip(stages, speeds, strict=True)
            ]
    return ImageReport(images, tuple(figures))


def draw(picture: Picture, seed: int) -> bytes:
    """A seeded image: gradients and noise, about as hard to decode as a photograph."""
    width, height = picture.size
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    pixels = (np.stack([x * 200 / width, y * 200 / height, (x + y) % 200], axis=2) + noise).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, picture.kind)
    return buffer.getvalue()


def _median(rounds: int, work: Callable[[], object]) -> float:
    """Median seconds of `rounds` calls, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _stages(name: str, model: VisionLanguageEmbedder, picture: Picture, rounds: int) -> ImageFigures:
    """The seconds of each stage, of one image alone."""
    data, limits, rule = draw(picture, 0), ImageLimits(), model.settings.tiles
    pixels = decode(data, limits)
    item: Item = model.prepare([ImageInput(data)], InputType.PASSAGE, Truncation.NONE)[0]
    if not isinstance(item.payload, TokenSequence) or item.payload.tiles is None:
        raise BenchError("an image was prepared as something else")
    tiles = item.payload.tiles
    vision = _median(rounds, lambda: model.see(tiles))
    whole = _median(rounds, lambda: model.embed([item.payload]))
    return ImageFigures(
        name, picture.label, item.tokens, item.tiles, float("nan"),
        decode=_median(rounds, lambda: decode(data, limits)), tiling=_median(rounds, lambda: cut(pixels, rule)),
        vision=vision, language=max(whole - vision, 0.0),
    )  # fmt: skip


def _serve(directory: Path, pictures: Sequence[Picture], images: int) -> list[float]:
    """Images a second of each kind, through a server of its own."""
    command = (
        sys.executable, "-m", "embedding_runtime", "serve", "--model", str(directory), "--served-model-name",
        MODEL_NAME, "--cache-dir", str(directory / "cache"), "--host", "127.0.0.1", "--port", "{port}", "--device",
        "Cpu",
    )  # fmt: skip
    spec = ServerSpec("images", "embedding-runtime", Role.OURS, command, "/v1/health/ready", "/v1/embeddings")
    server = ServerProcess(spec, directory)
    try:
        server.wait_until_ready()
        return [_speed(server.url + spec.path, picture, images) for picture in pictures]
    finally:
        server.stop()


def _speed(url: str, picture: Picture, images: int) -> float:
    """Images a second: one a request, none sent twice."""
    kind = picture.kind.lower()
    bodies = [
        {"model": MODEL_NAME, "input": f"data:image/{kind};base64,{base64.b64encode(draw(picture, seed)).decode()}"}
        for seed in range(1, images + 1 + _IN_FLIGHT)
    ]
    with httpx.Client(timeout=600, trust_env=False) as client, ThreadPoolExecutor(_IN_FLIGHT) as pool:

        def post(body: dict[str, str]) -> None:
            answer = client.post(url, json=body)
            if answer.status_code != 200:
                raise BenchError(f"the server answered {answer.status_code} to an image: {answer.text[:300]}")

        # The first few do not count.
        list(pool.map(post, bodies[:_IN_FLIGHT]))
        began = time.perf_counter()
        list(pool.map(post, bodies[_IN_FLIGHT:]))
        return images / (time.perf_counter() - began)


@app.command(help=__doc__)
def main(
    images: Annotated[int, typer.Option(min=1, help="Images of each kind to send.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the stages; their figures are medians.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """The options are those of the help text."""
    try:
        report = measure_images(images, rounds)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else report.table())


if __name__ == "__main__":
    app()
