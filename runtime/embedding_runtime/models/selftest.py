"""Proof, before traffic arrives, that a loaded model computes what it should."""

from __future__ import annotations

import numpy as np

from embedding_runtime.engine.model import InputType, Model, Truncation

_TEXTS = ("The self-test embeds this sentence.", "A second one, a little longer than the first, shares its batch.")
_TOLERANCE = {"float32": 2e-5}
_HALF_TOLERANCE = 3e-2


class SelfTestError(Exception):
    """The loaded model gave vectors that cannot be right."""


def run_self_test(model: Model) -> None:
    """Embed two texts alone and together. Raises SelfTestError when vectors are not finite, are zero, or depend on
    who shared the batch."""
    payloads = [item.payload for item in model.prepare(_TEXTS, InputType.PASSAGE, Truncation.END)]
    together = model.embed(payloads)
    alone = np.concatenate([model.embed([payload]) for payload in payloads])
    dimensions = model.identity.dimensions
    if together.shape != (len(payloads), dimensions):
        raise SelfTestError(f"the self-test's vectors have shape {together.shape}, expected {dimensions} dimensions")
    lengths = np.linalg.norm(together, axis=1)
    if not np.isfinite(together).all() or not lengths.all():
        raise SelfTestError("the self-test's vectors are not finite or are zero: the weights are unusable")
    tolerance = _TOLERANCE.get(model.identity.precision, _HALF_TOLERANCE)
    difference = float(np.abs((together - alone) / lengths[:, None]).max())
    if difference > tolerance:
        raise SelfTestError(f"the self-test's vectors depend on the batch they are in (by {difference:.1e})")
