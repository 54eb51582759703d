"""Loading CLIP and SigLIP: two stock towers, their processors, their identity, their proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from embedding_runtime.engine.model import Matrix, ModelFile, ModelIdentity
from embedding_runtime.errors import FingerprintMismatchError
from embedding_runtime.images.decode import ImageLimits
from embedding_runtime.models import identity as identities
from embedding_runtime.models.advance import Progress
from embedding_runtime.models.choices import LoadRequest, choose_device, choose_precision, default_name, input_limits
from embedding_runtime.models.dual_embedder import DualEmbedder, Towers
from embedding_runtime.models.dual_images import ImageProcessor
from embedding_runtime.models.dual_layout import DualLayout, read_dual
from embedding_runtime.models.embedder import Prompts
from embedding_runtime.models.files import DirectoryError, require_vocabulary
from embedding_runtime.models.fingerprint import canonical_config, canonical_tensors
from embedding_runtime.models.lean import leanly
from embedding_runtime.models.loading import check_loaded
from embedding_runtime.models.projection import load_projection, output_size
from embedding_runtime.models.selftest import SelfTestError
from embedding_runtime.models.source import Source
from embedding_runtime.models.tokenizer import load_tokenizer
from embedding_runtime.models.towers import accelerate_towers
from embedding_runtime.models.weights import StoredTensor, find_weights, stored_tensors

_MODALITIES = ("text", "image")
# How similarities are scaled, which is nobody's vector; buffers that older versions stored.
_UNUSED = re.compile(r"^logit_(scale|bias)$|(^|\.)position_ids$")


def load_dual(request: LoadRequest, source: Source, progress: Progress) -> DualEmbedder:
    """A model that passed its self-test. Raises DirectoryError and FingerprintMismatchError."""
    dual = read_dual(source.directory)
    layout = dual.layout
    given = (("query", request.query_prompt), ("passage", request.passage_prompt))
    layout = replace(layout, prompts={**layout.prompts, **{kind: text for kind, text in given if text is not None}})
    if request.pooling is not None:
        raise DirectoryError("gives one vector for each input by itself; leave --pooling (EMBEDDING_POOLING) out")
    require_vocabulary(layout.transformer)
    device = torch.device(choose_device(request.device))
    dtype, precision = choose_precision(request.precision, device.type)
    (towers, size, positions), computation = accelerate_towers(
        lambda: _load_towers(dual, dtype, device), lambda loaded: [loaded[0].module], _sample, precision, device
    )
    tokenizer, tokenizer_limit = load_tokenizer(layout.transformer, lowercase=layout.lowercase)
    projection = load_projection(layout.steps, device)
    dimensions = output_size(layout.steps, size)
    fingerprint, files = _identify(request, source, replace(dual, layout=layout), tokenizer.to_str(), progress)
    prompts = Prompts(layout.query_prompt, layout.passage_prompt, layout.prompts.get(layout.default_prompt or "", ""))
    limits = input_limits(request.max_input_tokens, layout, tokenizer_limit, positions)
    identity = ModelIdentity(
        id=request.served_name or default_name(source),
        source=source.name,
        revision=source.revision,
        fingerprint=fingerprint,
        dimensions=dimensions,
        supported_dimensions=tuple(sorted({*(size for size in layout.matryoshka if size < dimensions), dimensions})),
        max_input_tokens=max(limits.values()),
        pooling="Projection",
        normalized=layout.normalized,
        modalities=_MODALITIES,
        precision=precision,
        prompts={name: text for name, text in (("query", prompts.query), ("passage", prompts.passage)) if text},
        files=files,
        computation=computation,
    )
    if request.expected_fingerprint and request.expected_fingerprint != fingerprint:
        raise FingerprintMismatchError(request.expected_fingerprint, fingerprint)
    images = ImageLimits(request.max_image_bytes)
    model = DualEmbedder(identity, tokenizer, limits, prompts, towers, projection, images)
    progress(f"testing {source.name}")
    try:
        model.prove()
    except SelfTestError as error:
        raise DirectoryError(str(error)) from error
    return model


def _load_towers(dual: DualLayout, dtype: torch.dtype, device: torch.device) -> tuple[Towers, int, int]:
    """The towers, the size of their vectors, and how many tokens the text tower's positions reach."""
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = dual.layout.transformer
    find_weights(folder)
    try:
        model_class, processor_class = leanly(
            lambda: {
                "clip": lambda: (transformers.CLIPModel, transformers.CLIPImageProcessorPil),
                "siglip": lambda: (transformers.SiglipModel, transformers.SiglipImageProcessorPil),
            }[dual.family]()
        )
        module, info = leanly(
            lambda: model_class.from_pretrained(
                folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        )  # fmt: skip
        processor = processor_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DirectoryError(f"the towers cannot be loaded: {reason}") from error
    check_loaded(info, unused=_UNUSED)
    module.requires_grad_(False).eval().to(device)
    text, vision = module.config.text_config, module.config.vision_config
    positions = int(text.max_position_embeddings)
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
    is_clip = dual.family == "clip"
    towers = Towers(
        module,
        ImageProcessor(processor, int(vision.image_size)),
        # SigLIP looks at the last position whatever is there, and was trained with texts filled up.
        text_width=None if is_clip else positions,
        padding=int(text.pad_token_id if text.pad_token_id is not None else 1),
        image_side=int(vision.image_size),
        image_tokens=patches + (1 if is_clip else 0),
        dtype=dtype,
        device=device,
    )
    size = module.config.projection_dim if is_clip else getattr(text, "projection_size", None) or text.hidden_size
    return towers, int(size), positions


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _sample(loaded: tuple[Towers, int, int]) -> Matrix:
    """Vectors of a made-up text and of an image of noise."""
    towers = loaded[0]
    side = towers.image_side
    pixels = np.random.default_rng(7).standard_normal((3, side, side)).astype(np.float32)
    text = np.arange(3, min(19, loaded[2]), dtype=np.int32)
    vectors: Matrix = torch.cat([towers.texts([text]), towers.images([pixels])]).float().cpu().numpy()
    return vectors


def _identify(
    request: LoadRequest, source: Source, dual: DualLayout, loaded_tokenizer: str, progress: Progress
) -> tuple[str, tuple[ModelFile, ...]]:
    facts: dict[str, Any] = {
        "tokenizer": identities.tokenizer_facts(dual.layout.transformer, loaded_tokenizer),
        "config": canonical_config(dual.config),
        "images": {key: value for key, value in dual.processing.items() if not key.endswith(("_class", "_type"))},
        "steps": identities.step_facts(dual.layout.steps),
        "normalized": dual.layout.normalized,
        "prompts": identities.prompt_facts(dual.layout),
    }

    def tensors() -> Mapping[str, list[StoredTensor]]:
        towers = canonical_tensors(stored_tensors(find_weights(dual.layout.transformer)))
        kept = [tensor for tensor in towers if not _UNUSED.search(tensor.name)]
        return {"transformer": kept} | identities.step_tensors(dual.layout.steps)

    return identities.name(source, request.cache, facts, tensors, progress)
