"""Proof, before traffic arrives and whenever it is asked for again, that a model that sees computes what it should."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from embedding_runtime.engine.model import ImageInput, Input, InputType, Model, Truncation
from embedding_runtime.models.selftest import SelfTestError, tolerance


@cache
def _pictures() -> tuple[ImageInput, ImageInput]:
    """Two small squares, which every rule cuts into the fewest tiles."""
    return _picture(20), _picture(240)


def _picture(colour: int) -> ImageInput:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (colour, 255 - colour, 90)).save(file, "PNG")
    return ImageInput(file.getvalue())


def check_sight(model: Model) -> None:
    """Raises SelfTestError when vectors of images are not finite, are zero, are all alike, or depend on who shared the
    batch."""
    inputs: list[Input] = [*_pictures(), "The self-test embeds this sentence beside two images."]
    payloads = [item.payload for item in model.prepare(inputs, InputType.PASSAGE, Truncation.END)]
    together = model.embed(payloads)[:2]
    lengths = np.linalg.norm(together, axis=1)
    if not np.isfinite(together).all() or not lengths.all():
        raise SelfTestError("the self-test's image vectors are not finite or are zero: the vision weights are unusable")
    units = together / lengths[:, None]
    if np.array_equal(units[0], units[1]):
        raise SelfTestError("different images get the same vector: the vision weights are unusable")
    alone = model.embed(payloads[:1])[0] / lengths[0]
    difference = float(np.abs(units[0] - alone).max())
    if difference > tolerance(model.identity.precision):
        raise SelfTestError(f"the self-test's image vectors depend on the batch they are in (by {difference:.1e})")
