"""The queue of images: bounded, apart from texts, given back when nobody waits any more."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import httpx
import numpy as np
import pytest
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.api.errors import ApiError, from_engine
from embedding_runtime.api.image_work import ImageWork, ImageWorkLimits, seconds_until_room
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
        self.looking = self.most = self.seen = 0
        self.delays: dict[bytes, float] = {}
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
            self.seen += 1
            self.most = max(self.most, self.looking)
        try:
            while not self.sight.wait(0.01):
                checkpoint()
            until = time.monotonic() + self.delays.get(value.image, 0)
            while time.monotonic() < until:
                checkpoint()
        finally:
            with self._lock:
                self.looking -= 1
        if value.image.startswith(b"broken"):
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


@pytest.mark.parametrize("order", list(itertools.permutations([0.0, 0.15, 0.3])))
def test_whichever_fails_first_the_first_input_is_named(order: tuple[float, ...]) -> None:
    """Bad images that are found out about in any order, on a thread each."""
    model = PictureModel()
    model.delays = {f"broken{place}".encode(): delay for place, delay in enumerate(order)}
    inputs = [ImageInput(b"fine"), *[ImageInput(name) for name in model.delays]]
    work = ImageWork(ImageWorkLimits(workers=4))
    with pytest.raises(InvalidImageError, match=r"input\[1\]: the image is damaged"):
        asyncio.run(work.prepare(model, inputs, None, Truncation.NONE))
    with pytest.raises(InputTooLongError) as raised:
        asyncio.run(work.prepare(model, ["a", "b " * 20, *inputs], None, Truncation.NONE))
    assert raised.value.index == 1
    with pytest.raises(InvalidImageError, match=r"input\[1\]"):
        asyncio.run(work.prepare(model, [*inputs, "b " * 20], None, Truncation.NONE))
    assert model.looking == 0


def test_what_comes_behind_a_bad_input_is_not_decoded() -> None:
    model = PictureModel()
    inputs = [ImageInput(b"broken"), *[ImageInput(b"fine%d" % number) for number in range(50)]]
    with pytest.raises(InvalidImageError):
        asyncio.run(ImageWork(ImageWorkLimits(workers=1)).prepare(model, inputs, None, Truncation.NONE))
    assert model.seen <= 2


def test_an_image_that_is_too_long_by_itself() -> None:
    """No text to shorten, nothing to cut: only another image helps."""
    error = from_engine(InputTooLongError(3, 1797, 1024, fixed=1797))
    assert (error.status, error.message) == (
        400,
        "Input length 1797 exceeds maximum allowed token size 1024 (input[3]); 1797 of them are the image, which is "
        "never cut; send one of other proportions (a square becomes the fewest tokens)",
    )


def test_whether_an_image_may_ask_is_for_the_model_to_say() -> None:
    """Not for its prompts: a model may have some for texts, or none and take images as passages alone."""
    model = PictureModel()
    for prompts in ({}, {"query": "q: "}):
        for allowed in (True, False):
            model.identity = replace(model.identity, prompts=prompts, images_as_queries=allowed)  # type: ignore[misc]
            with served(model=model) as it:
                body = {"model": "letters", "input": image(), "input_type": "query"}
                answer = httpx.post(f"{it.url}/v1/embeddings", json=body)
                assert answer.status_code == (200 if allowed else 400)


def test_when_to_come_back_follows_from_the_speed_of_images() -> None:
    """What was finished in the last minute, while some were in progress."""
    assert seconds_until_room([(10.0, 5), (20.0, 5)], 0.0, 20.0, 4) == 8.0
    assert seconds_until_room([(10.0, 5), (20.0, 5)], 15.0, 20.0, 1) == 1.0
    assert seconds_until_room([], 100.0, 130.0, 7) == 30.0
    assert seconds_until_room([(10.0, 600), (170.0, 3)], 0.0, 200.0, 1) == 20.0
    now = 0.0
    work = ImageWork(ImageWorkLimits(held=4), clock=lambda: now)
    model = PictureModel()
    with work.admit(2, model):
        with work.admit(2, model):
            now = 50.0
        with work.admit(2, model), pytest.raises(ApiError) as refused, work.admit(3, model):
            pass
        # Two in fifty seconds, and three are to be finished first.
        assert refused.value.headers["retry-after"] == "75"
        assert work.held == 2
    assert work.held == 0


class LargePictureModel(PictureModel):
    """Its prepared images hold a tenth of what all may hold."""

    default_batch_tiles = 8
    largest_image_bytes = 100


def test_images_are_bounded_by_the_memory_they_hold() -> None:
    limits = ApiLimits(images=ImageWorkLimits(workers=2, per_request=128, held=256, held_bytes=450))
    model = LargePictureModel()
    with served(api=limits, model=model) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        answer = post(it, *[image()] * 5)
        assert (answer.status_code, answer.json()["message"]) == (
            400, "input has more than 4 images; send fewer per request",
        )  # fmt: skip
        model.sight.clear()
        running = pool.submit(post, it, *[image()] * 3)
        wait_until(lambda: model.looking == 2, 5, "two images being decoded")
        assert post(it, image(), image()).status_code == 429
        model.sight.set()
        assert running.result().status_code == 200
        assert post(it, *[image()] * 4).status_code == 200


def test_models_of_texts_and_images_alone_take_no_mixture() -> None:
    model = PictureModel()
    model.identity = replace(model.identity, modalities=("text", "image"))  # type: ignore[misc]
    with served(model=model) as it:
        answer = post(it, f"look {image()}")
        assert (answer.status_code, answer.json()["message"]) == (
            400, "model 'acme/letters' does not support modality 'text_image'; supported: 'text', 'image'",
        )  # fmt: skip
