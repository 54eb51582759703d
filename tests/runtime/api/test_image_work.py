"""The queue of images: bounded, apart from texts, given back when nobody waits any more."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import httpx
import numpy as np
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.api.image_work import ImageWorkLimits
from embedding_runtime.engine.model import (
    ImageInput,
    Input,
    InputTooLongError,
    InputType,
    InvalidImageError,
    Item,
    Matrix,
    Truncation,
    no_checkpoint,
)

from tests.runtime.api.served import LetterModel, Served, served
from tests.runtime.helpers import samples, wait_until


class PictureModel(LetterModel):
    """Embeds images by their bytes, four tokens each. `sight` holds their preparation; `most` were held at once."""

    identity = replace(LetterModel.identity, modalities=("text", "image", "text_image"), prompts={})

    def __init__(self) -> None:
        super().__init__()
        self.sight = threading.Event()
        self.sight.set()
        self.looking = self.most = 0
        self._lock = threading.Lock()

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        texts = iter(super().prepare([v for v in inputs if isinstance(v, str)], input_type, truncation, checkpoint))
        return [
            next(texts) if isinstance(value, str) else self._look(index, value, checkpoint)
            for index, value in enumerate(inputs)
        ]

    def _look(self, index: int, value: ImageInput, checkpoint: Callable[[], None]) -> Item:
        with self._lock:
            self.looking += 1
            self.most = max(self.most, self.looking)
        try:
            while not self.sight.wait(0.01):
                checkpoint()
        finally:
            with self._lock:
                self.looking -= 1
        if value.image == b"broken":
            raise InvalidImageError(index, "is damaged")
        if value.image == b"long":
            raise InputTooLongError(index, 40, 16)
        return Item(4, value.image.decode(), 1)

    def embed(self, payloads: Sequence[object]) -> Matrix:
        rows: Matrix = super().embed(payloads)
        return np.asarray(rows, np.float32)


def image(data: bytes = b"pixels") -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def post(it: Served, *inputs: str) -> httpx.Response:
    return httpx.post(f"{it.url}/v1/embeddings", json={"model": "letters", "input": list(inputs)}, timeout=30)


def test_over_the_bound_is_429_and_room_comes_back() -> None:
    model = PictureModel()
    limits = ApiLimits(images=ImageWorkLimits(workers=2, per_request=10, held=4))
    with served(api=limits, model=model) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        model.sight.clear()
        running = pool.submit(post, it, image(), image(), image())
        wait_until(lambda: model.looking == 2, 5, "two images being decoded")
        refused = post(it, image(), "text", image())
        assert (refused.status_code, refused.json()["type"]) == (429, "overloaded_error")
        assert refused.json()["message"] == "too many images are in progress; try again later"
        assert int(refused.headers["retry-after"]) >= 1
        fits = pool.submit(post, it, image())
        model.sight.set()
        assert [each.result().status_code for each in (running, fits)] == [200, 200]
        assert post(it, image(), "text", image()).status_code == 200
        # As many at a time as there are workers, whoever asks.
        assert model.most == 2
        found = samples(httpx.get(f"{it.url}/v1/metrics").text)
        assert found["embedding_rejected_total", (("reason", "images_full"),)] == 1


def test_images_in_the_model_count_as_held() -> None:
    model = PictureModel()
    limits = ApiLimits(images=ImageWorkLimits(workers=2, per_request=10, held=2))
    with served(api=limits, model=model) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        model.gate.clear()
        running = pool.submit(post, it, image(), image())
        wait_until(lambda: it.engine.utilization() > 0, 5, "a running batch")
        wait_until(lambda: post(it, image()).status_code == 429, 5, "a refusal")
        model.gate.set()
        assert running.result().status_code == 200
        assert post(it, image()).status_code == 200


def test_a_request_larger_than_the_bound_is_answered_alone() -> None:
    limits = ApiLimits(images=ImageWorkLimits(workers=2, per_request=10, held=2))
    with served(api=limits, model=PictureModel()) as it:
        inputs = [image(f"image {number}".encode()) if number % 2 else f"text {number}" for number in range(12)]
        answer = post(it, *inputs)
        assert answer.status_code == 200
        vectors = [entry["embedding"] for entry in answer.json()["data"]]
        alone = [post(it, value).json()["data"][0]["embedding"] for value in inputs]
        np.testing.assert_allclose(vectors, alone, atol=1e-6)
        assert answer.json()["usage"]["prompt_tokens"] == 6 * 4 + 6 * 2


def test_texts_and_probes_do_not_wait_for_images() -> None:
    model = PictureModel()
    limits = ApiLimits(images=ImageWorkLimits(workers=1, per_request=10, held=10))
    with served(api=limits, model=model) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        model.sight.clear()
        stuck = [pool.submit(post, it, image(), image()) for _ in range(4)]
        wait_until(lambda: model.looking == 1, 5, "an image being decoded")
        assert post(it, "a text").status_code == 200
        assert httpx.get(f"{it.url}/v1/health/live").status_code == 200
        model.sight.set()
        assert [each.result().status_code for each in stuck] == [200] * 4


def test_hanging_up_ends_the_work_and_gives_the_room_back() -> None:
    model = PictureModel()
    limits = ApiLimits(images=ImageWorkLimits(workers=2, per_request=10, held=4))
    with served(api=limits, model=model) as it:
        model.sight.clear()
        body = {"model": "letters", "input": [image()] * 4}
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(f"{it.url}/v1/embeddings", json=body, timeout=0.5)
        wait_until(lambda: model.looking == 0, 5, "the end of the work")
        model.sight.set()
        assert post(it, *[image()] * 4).status_code == 200


def test_the_first_input_at_fault_is_named() -> None:
    limits = ApiLimits(images=ImageWorkLimits(workers=1, per_request=10, held=10))
    with served(api=limits, model=PictureModel()) as it:
        broken = post(it, "text", image(), image(b"broken"), image(b"broken"))
        assert (broken.status_code, broken.json()["message"]) == (400, "input[2]: the image is damaged")
        assert (broken.json()["param"], broken.json()["code"]) == ("input", "invalid_image")
        long = post(it, image(), "text", image(b"long"))
        assert "Input length 40 exceeds maximum allowed token size 16 (input[2])" in long.json()["message"]
        text = post(it, image(), "a " * 20, image())
        assert "Input length 20 exceeds maximum allowed token size 16 (input[1])" in text.json()["message"]


def test_without_prompts_an_image_may_ask() -> None:
    """Only where queries and passages differ are images passages alone."""
    with served(model=PictureModel()) as it:
        body = {"model": "letters", "input": image(), "input_type": "query"}
        assert httpx.post(f"{it.url}/v1/embeddings", json=body).status_code == 200


def test_models_of_texts_and_images_alone_take_no_mixture() -> None:
    model = PictureModel()
    model.identity = replace(model.identity, modalities=("text", "image"))  # type: ignore[misc]
    with served(model=model) as it:
        answer = post(it, f"look {image()}")
        assert (answer.status_code, answer.json()["message"]) == (
            400, "model 'acme/letters' does not support modality 'text_image'; supported: 'text', 'image'",
        )  # fmt: skip
