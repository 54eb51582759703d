"""Proof, before traffic arrives, that a loaded model computes what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from embedding_runtime.engine.model import InputType, Model, Truncation
from embedding_runtime.models.tokenizer import TextTokenizer, TokenIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embedding_runtime.models.backbone import Backbone

_TEXTS = ("The self-test embeds this sentence.", "A second one, a little longer than the first, shares its batch.")
# On which precisions are compared: short and long, plain and odd.
_VARIED = (
    *_TEXTS,
    "query",
    "What is a vector space?",
    "naïve café, Größe, 漢字, emoji \U0001f600",
    "def f(x): return {k: v**2 for k, v in x.items()}  # 3.14159",
    "Ships carry containers of bananas from Guayaquil to Rotterdam in about eighteen days, at thirteen degrees.",
    "The committee met, disagreed about the minutes of the last meeting, and agreed to meet again. " * 3,
)
_COMPARED_TOKENS = 48
# Largest difference of unit vectors by who shares the batch. Half precision rounds by about 1e-2 of a number.
_TOLERANCE = {"float32": 2e-5}
_HALF_TOLERANCE = 3e-2


class Testable(Model, Protocol):
    """A model whose transformer for text can be looked into."""

    @property
    def backbone(self) -> Backbone: ...


class SelfTestError(Exception):
    """The loaded model gave vectors that cannot be right."""


def built_in_tokens(tokenizer: Tokenizer, limit: int | None) -> list[TokenIds]:
    """The texts that precisions are compared on, without a prompt, cut to the model's limit."""
    texts = TextTokenizer(tokenizer, min(_COMPARED_TOKENS, limit or _COMPARED_TOKENS))
    return texts.tokenise(_VARIED, prompt="", truncation=Truncation.END)


def run_self_test(model: Testable) -> None:
    """Embed two texts alone and together, and check which way the model looks.

    Raises SelfTestError as `check_vectors` does, and when a model that is to look both ways looks back only (or the
    other way round).
    """
    check_vectors(model)
    check_direction(model.backbone)


def check_vectors(model: Model) -> None:
    """Raises SelfTestError when vectors are not finite, are zero, are all alike, or depend on who shared the batch."""
    payloads = [item.payload for item in model.prepare(_TEXTS, InputType.PASSAGE, Truncation.END)]
    together = model.embed(payloads)
    alone = np.concatenate([model.embed([payload]) for payload in payloads])
    dimensions = model.identity.dimensions
    if together.shape != (len(payloads), dimensions):
        raise SelfTestError(f"the self-test's vectors have shape {together.shape}, expected {dimensions} dimensions")
    lengths = np.linalg.norm(together, axis=1)
    if not np.isfinite(together).all() or not lengths.all():
        raise SelfTestError("the self-test's vectors are not finite or are zero: the weights are unusable")
    units = together / lengths[:, None]
    if float(units[0] @ units[1]) > 1 - 1e-6:
        raise SelfTestError("different texts get the same vector: the tokenizer or the weights are unusable")
    difference = float(np.abs((together - alone) / lengths[:, None]).max())
    if difference > tolerance(model.identity.precision):
        raise SelfTestError(f"the self-test's vectors depend on the batch they are in (by {difference:.1e})")


def tolerance(precision: str) -> float:
    """The largest difference of a number of unit vectors by who shares the batch."""
    return _TOLERANCE.get(precision, _HALF_TOLERANCE)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def check_direction(backbone: Backbone) -> None:
    """Change the last token: the first token's state must change, unless the model is causal, then it must not."""
    first = np.arange(3, 11, dtype=np.int32)
    second = first.copy()
    second[-1] = 12
    states = [backbone.forward([ids])[0].float() for ids in (first, second)]
    changed = not torch.equal(*states)
    if changed == backbone.architecture.is_causal:
        looks = "both ways" if changed else "back only"
        wanted = "back only" if changed else "both ways"
        raise SelfTestError(f"the model looks {looks} but its configuration says {wanted}: its vectors would be wrong")
