"""From a valid request to what the engine must do, given the model that is served: ids, prompts, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from embedding_runtime.api.errors import ApiError, shown
from embedding_runtime.api.schema import EmbeddingRequest, NugenRequest
from embedding_runtime.engine.model import ImageInput, Input, InputType, ModelIdentity, Truncation
from embedding_runtime.engine.work import Lane
from embedding_runtime.images.data_url import IMAGE, TEXT, UnusableInputError, modality_of, read_input
from embedding_runtime.outputs.encode import EncodingFormat
from embedding_runtime.outputs.vectors import EmbeddingType

# Characters looked at without a chance for other threads.
_STEP = 64 * 1024
_IMAGE_AS_QUERY = (
    'input_type="query" is not supported with images; the VLM model processes images as passages only. '
    'Use input_type="passage" or omit input_type.'
)
_SUFFIXES = {"-query": InputType.QUERY, "-passage": InputType.PASSAGE}


@dataclass(frozen=True, slots=True)
class ImageBounds:
    """What is allowed of images: bytes of one file, images of one request."""

    file_bytes: int = 25 * 1024 * 1024
    per_request: int = 128


_BOUNDS = ImageBounds()


@dataclass(frozen=True, slots=True)
class Job:
    """A request that can be served. `modalities` counts its inputs by what they are."""

    inputs: Sequence[Input]
    input_type: InputType | None
    truncation: Truncation
    dimensions: int
    kind: EmbeddingType
    encoding: EncodingFormat
    lane: Lane
    modalities: Mapping[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """How many of the inputs have an image."""
        return sum(count for modality, count in self.modalities.items() if modality != TEXT)

    def without_inputs(self) -> Job:
        """What is still needed once the inputs are prepared, which may be megabytes."""
        return replace(self, inputs=())


def resolve(
    request: EmbeddingRequest | NugenRequest,
    names: Sequence[str],
    identity: ModelIdentity,
    images: ImageBounds = _BOUNDS,
) -> Job:
    """What to do for a request. `names` are the served id and its aliases.

    Raises ApiError: 404 for an unknown model, 400 for what the model cannot do, for blank inputs and for what should be
    an image and is none.
    """
    if isinstance(request, NugenRequest):
        request = EmbeddingRequest(model=request.model, input=request.input, dimensions=request.dimensions)
    suffix = _check_model(request.model, names)
    input_type = suffix or (InputType(request.input_type) if request.input_type else None)
    kind = EmbeddingType(request.embedding_type or "float")
    dimensions = _check_dimensions(request.dimensions, kind, identity)
    _check_modality(request, identity)
    for index, text in enumerate(request.input):
        if _is_blank(text):
            raise ApiError(400, f"input[{index}] must not be blank or empty", param="input")
    inputs = _read_inputs(request, identity, images)
    modalities = Counter(map(modality_of, inputs))
    has_image = modalities.total() > modalities[TEXT]
    if input_type is InputType.QUERY and has_image and not identity.images_as_queries:
        raise ApiError(400, _IMAGE_AS_QUERY, param="input_type")
    return Job(
        inputs=inputs,
        modalities=modalities,
        input_type=input_type,
        truncation=Truncation(request.truncate or "NONE"),
        dimensions=dimensions,
        kind=kind,
        encoding=EncodingFormat(request.encoding_format or "float"),
        lane=_lane(input_type, len(request.input), has_image=has_image),
    )


def _lane(input_type: InputType | None, inputs: int, *, has_image: bool) -> Lane:
    """Queries have somebody waiting, and so may a text that does not say what it is; who says passage is indexing, and
    so is who sends an image, which takes a hundred times as long."""
    if input_type is InputType.QUERY or (input_type is None and inputs == 1 and not has_image):
        return Lane.INTERACTIVE
    return Lane.BULK


def _is_blank(text: str) -> bool:
    """Whether there is nothing but Unicode white space, looked at in steps that do not hold up other threads."""
    return all(text[start : start + _STEP].isspace() for start in range(0, len(text), _STEP))


def _check_model(name: str, names: Sequence[str]) -> InputType | None:
    """The input type that the name's suffix asks for. An exact name wins over a suffix."""
    if name in names:
        return None
    for suffix, input_type in _SUFFIXES.items():
        if name.removesuffix(suffix) in names:
            return input_type
    raise unknown_model(name, names)


def unknown_model(name: str, names: Sequence[str]) -> ApiError:
    available = ", ".join(f"'{known}'" for known in names)
    return ApiError(
        404, f"model '{shown(name)}' not found; available: {available}", param="model", code="model_not_found"
    )


def _check_dimensions(wanted: int | None, kind: EmbeddingType, identity: ModelIdentity) -> int:
    if wanted is None:
        return identity.dimensions
    if kind is not EmbeddingType.FLOAT:
        raise ApiError(
            400, f"dimensions cannot be combined with embedding_type '{kind}'; leave one of them out",
            param="dimensions",
        )  # fmt: skip
    if wanted not in identity.supported_dimensions:
        supported = ", ".join(str(size) for size in identity.supported_dimensions)
        given = wanted if abs(wanted) < 2**63 else f"{wanted:.0e}"
        raise ApiError(
            400, f"dimensions {given} is not supported by this model; supported: {supported}",
            param="dimensions",
        )  # fmt: skip
    return wanted


def _check_modality(request: EmbeddingRequest, identity: ModelIdentity) -> None:
    if request.modality is None:
        return
    if len(request.modality) not in (1, len(request.input)):
        raise ApiError(
            400,
            f"modality has {len(request.modality)} entries but input has {len(request.input)}; "
            "give one for all inputs or one for each",
            param="modality",
        )
    for modality in request.modality:
        _check_supported(modality, identity)


def _check_supported(modality: str, identity: ModelIdentity) -> None:
    if modality not in identity.modalities:
        supported = ", ".join(f"'{known}'" for known in identity.modalities)
        raise ApiError(
            400,
            f"model '{identity.id}' does not support modality '{modality}'; supported: {supported}",
            param="modality",
        )


def _read_inputs(request: EmbeddingRequest, identity: ModelIdentity, bounds: ImageBounds) -> Sequence[Input]:
    """The inputs as what they are. To a model that knows text alone everything is text, a data URL too."""
    if IMAGE not in identity.modalities:
        return request.input
    given: Sequence[str | None] = request.modality or [None]
    modalities = given if len(given) == len(request.input) else list(given) * len(request.input)
    inputs: list[Input] = []
    images = 0
    for index, (value, modality) in enumerate(zip(request.input, modalities, strict=True)):
        try:
            inputs.append(read_input(value, modality, bounds.file_bytes))
        except UnusableInputError as error:
            raise ApiError(400, f"input[{index}] {error}", param="input", code="invalid_image") from error
        _check_supported(modality_of(inputs[-1]), identity)
        images += isinstance(inputs[-1], ImageInput)
        if images > bounds.per_request:
            raise ApiError(
                400, f"input has more than {bounds.per_request} images; send fewer per request", param="input"
            )
    return inputs
