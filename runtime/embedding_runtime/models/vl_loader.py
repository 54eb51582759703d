"""Loading llama_nemotron_vl: what its directory says, its three parts, its identity, its proof."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from embedding_runtime.engine.model import InputType, Matrix, ModelFile, ModelIdentity
from embedding_runtime.errors import FingerprintMismatchError
from embedding_runtime.images.decode import ImageLimits
from embedding_runtime.models import identity as identities
from embedding_runtime.models.advance import Progress
from embedding_runtime.models.choices import LoadRequest, choose_device, choose_precision, default_name, input_limits
from embedding_runtime.models.embedder import Prompts
from embedding_runtime.models.files import DirectoryError, require_vocabulary
from embedding_runtime.models.fingerprint import canonical_config
from embedding_runtime.models.pooling import pool
from embedding_runtime.models.selftest import SelfTestError
from embedding_runtime.models.source import Source
from embedding_runtime.models.tokenizer import load_tokenizer
from embedding_runtime.models.towers import accelerate_towers
from embedding_runtime.models.vl_config import VisionLanguage, read_vision_language
from embedding_runtime.models.vl_embedder import VisionLanguageEmbedder
from embedding_runtime.models.vl_model import TokenSequence, VisionLanguageModel
from embedding_runtime.models.vl_weights import canonical_name, language_architecture, load_towers
from embedding_runtime.models.weights import StoredTensor, find_weights, stored_tensors

MODALITIES = ("text", "image", "text_image")
_log = logging.getLogger(__name__)


def plan_vision_language(request: LoadRequest, source: Source) -> VisionLanguage:
    """What is to be loaded. Reads no weights. Raises DirectoryError."""
    settings = read_vision_language(source.directory, request.pooling)
    require_vocabulary(source.directory)
    given = (("query", request.query_prompt), ("passage", request.passage_prompt))
    chosen = {kind: text for kind, text in given if text is not None}
    return replace(settings, layout=replace(settings.layout, prompts={**settings.layout.prompts, **chosen}))


def load_vision_language(request: LoadRequest, source: Source, progress: Progress) -> VisionLanguageEmbedder:
    """A model that passed its self-test. Raises DirectoryError and FingerprintMismatchError."""
    settings = plan_vision_language(request, source)
    layout = settings.layout
    device = torch.device(choose_device(request.device))
    dtype, precision = choose_precision(request.precision, device.type)
    architecture = language_architecture(settings)

    def load() -> VisionLanguageModel:
        vision, projector, language = load_towers(settings, architecture, dtype, device)
        return VisionLanguageModel(vision, projector, language, architecture, settings, dtype, device)

    model, computation = accelerate_towers(
        load, lambda model: (model.vision, model.projector, model.language), _sample, precision, device
    )
    tokenizer, tokenizer_limit = load_tokenizer(source.directory, lowercase=False)
    fingerprint, files = _identify(request, source, settings, tokenizer.to_str(), progress)
    dimensions = int(architecture.config.hidden_size) * len(layout.poolings)
    positions = int(architecture.config.max_position_embeddings)
    limits = input_limits(request.max_input_tokens, layout, tokenizer_limit, positions)
    identity = ModelIdentity(
        id=request.served_name or default_name(source),
        source=source.name,
        revision=source.revision,
        fingerprint=fingerprint,
        dimensions=dimensions,
        supported_dimensions=tuple(sorted({*(size for size in layout.matryoshka if size < dimensions), dimensions})),
        max_input_tokens=max(limits[kind] for kind in InputType),
        pooling="+".join(layout.poolings),
        normalized=True,
        modalities=MODALITIES,
        precision=precision,
        images_as_queries=False,
        prompts={kind: text for kind, text in layout.prompts.items() if text},
        files=files,
        computation=computation,
    )
    if request.expected_fingerprint and request.expected_fingerprint != fingerprint:
        raise FingerprintMismatchError(request.expected_fingerprint, fingerprint)
    prompts = Prompts(layout.query_prompt, layout.passage_prompt, layout.query_prompt)
    images = ImageLimits(request.max_image_bytes)
    embedder = VisionLanguageEmbedder(identity, tokenizer, limits, prompts, model, images)
    largest = settings.tiles.largest * settings.tile_tokens
    if limits[InputType.PASSAGE] < largest:
        _log.warning(
            "an image can be %d tokens, but inputs may have %d only: images that become so many are refused",
            largest, limits[InputType.PASSAGE],
        )  # fmt: skip
    progress(f"testing {source.name}")
    try:
        embedder.prove()
    except SelfTestError as error:
        raise DirectoryError(str(error)) from error
    return embedder


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _sample(model: VisionLanguageModel) -> Matrix:
    """Vectors of made-up tokens: a text, and an image of noise among some."""
    settings = model.settings
    side = settings.tiles.side
    tiles = np.random.default_rng(7).integers(0, 256, (1, 3, side, side), dtype=np.uint8)
    text = np.arange(3, 35, dtype=np.int32) % int(model.architecture.config.vocab_size)
    text = text[text != settings.image_token]
    image = np.concatenate([text[:5], np.full(settings.tile_tokens, settings.image_token, np.int32), text[5:]])
    sequences = [TokenSequence(text), TokenSequence(image, tiles, 5)]
    vectors: Matrix = (
        pool(model.forward(sequences), [len(each.ids) for each in sequences], settings.layout.poolings).cpu().numpy()
    )
    return vectors


def _identify(
    request: LoadRequest, source: Source, settings: VisionLanguage, loaded_tokenizer: str, progress: Progress
) -> tuple[str, tuple[ModelFile, ...]]:
    facts = {
        "tokenizer": identities.tokenizer_facts(source.directory, loaded_tokenizer),
        "vision": canonical_config(settings.vision),
        "language": canonical_config(settings.language),
        "pooling": list(settings.layout.poolings),
        "prompts": identities.prompt_facts(settings.layout),
        "images": {
            "tiles": dataclasses.asdict(settings.tiles),
            "token": settings.image_token,
            "downsample": settings.downsample,
            "layer": settings.select_layer,
            "mean": settings.mean,
            "deviation": settings.deviation,
        },
    }

    def tensors() -> Mapping[str, list[StoredTensor]]:
        stored = (
            replace(tensor, name=known)
            for tensor in stored_tensors(find_weights(source.directory))
            if (known := canonical_name(tensor.name)) is not None
        )
        return {"model": sorted(stored, key=lambda tensor: tensor.name)}

    return identities.name(source, request.cache, facts, tensors, progress)
