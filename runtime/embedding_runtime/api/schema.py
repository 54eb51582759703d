"""The request of POST /v1/embeddings: fields, defaults and the exact words for what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from embedding_runtime.api.errors import ApiError, shown

MAX_INPUTS = 8192
# More than any valid request has: inputs, their modalities, and room for fields that are ignored.
_MAX_VALUES = 8 * MAX_INPUTS
_SMALL_BODY = 1024 * 1024
_STRING_PART = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){1,32}+', re.DOTALL)
_MODALITIES = ("text", "image", "text_image")
_ENUMS = {
    "input_type": ("query", "passage"),
    "encoding_format": ("float", "base64"),
    "truncate": ("NONE", "START", "END"),
    "modality": _MODALITIES,
}


def _validate_input(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("input", "input must be a string or an array of strings")
    if not value:
        raise PydanticCustomError("input", "input must not be empty")
    if len(value) > MAX_INPUTS:
        raise PydanticCustomError("input", f"input has {len(value)} entries; at most {MAX_INPUTS} are allowed")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise PydanticCustomError("input", f"input[{index}] {_not_a_string(item)}")
    return value


def _not_a_string(item: object) -> str:
    """What is wrong with an input: a token, or an array of them, is LangChain's default and worth a hint."""
    tokens = item if isinstance(item, list) else [item]
    if tokens and all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        return (
            "is not a string: token arrays are not supported, send text. "
            "With LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False"
        )
    return "must be a string"


def _whole_number(value: object) -> object:
    """Integers too large for the JSON parser arrive as floats: they are wrong sizes, not wrong types."""
    return int(value) if isinstance(value, float) and abs(value) >= 2**63 else value


def _validate_modality(value: object) -> list[str] | None:
    if value is None:
        return None
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values:
        raise PydanticCustomError("modality", "modality must not be empty")
    for item in values:
        if item not in _MODALITIES:
            raise PydanticCustomError("modality", _one_of("modality", _MODALITIES, item))
    return values


def _one_of(name: str, allowed: Sequence[str], value: object) -> str:
    return f"{name} must be one of {', '.join(repr(item) for item in allowed)}; got '{shown(value)}'"


Input = Annotated[
    list[str],
    PlainValidator(_validate_input),
    WithJsonSchema({
        "oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MAX_INPUTS},
        ],
    }),
]  # fmt: skip
Dimensions = Annotated[int, BeforeValidator(_whole_number)]
_MODALITY_SCHEMA = {"type": "string", "enum": list(_MODALITIES)}
Modality = Annotated[
    list[str] | None,
    PlainValidator(_validate_modality),
    WithJsonSchema({
        "anyOf": [
            _MODALITY_SCHEMA, {"type": "array", "items": _MODALITY_SCHEMA, "minItems": 1}, {"type": "null"},
        ],
    }),
]  # fmt: skip


class EmbeddingRequest(BaseModel):
    """What to embed and how to answer. Unknown fields are ignored; null for an optional field equals leaving it out."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    model: str = Field(
        description="The served model's id or an alias. `-query` or `-passage` behind it sets `input_type`."
    )
    input: Input = Field(
        description="One input, or up to 8192 of them: texts; for models that see also images as data URLs "
        '(`data:image/png;base64,…`), alone, in the midst of a text, or as `<img src="…"/>`.'
    )
    input_type: Literal["query", "passage"] | None = Field(
        None, description="What the texts are: asymmetric models put another prompt before a query than a passage."
    )
    modality: Modality = Field(
        None, description="What the inputs are; one value for all, or one for each [seen from each input]."
    )
    embedding_type: Literal["float", "binary", "ubinary", "int8", "uint8"] | None = Field(
        "float", description="Numbers of the vectors: float32, scaled integers, or packed bits."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="Arrays of numbers, or base64 of the little-endian bytes."
    )
    dimensions: Dimensions | None = Field(
        None, description="Size of the vectors, for models trained to be cut (Matryoshka); else the full size only."
    )
    truncate: Literal["NONE", "START", "END"] | None = Field(
        "NONE", description="For texts over the token limit: refuse, drop the start or drop the end."
    )
    user: str | None = Field(None, description="Accepted and ignored.")


class NugenRequest(BaseModel):
    """The request of Nugen's route. Its other fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    model: str = Field(description="The served model's id or an alias.")
    input: Input = Field(description="One text, or up to 8192 of them.")
    dimensions: Dimensions | None = Field(None, description="Size of the vectors, for models trained to be cut.")


R = TypeVar("R", bound=BaseModel)


def parse(body: bytes, schema: type[R]) -> R:
    """The request in a body. Raises ApiError 400 with the field and what is wrong with it.

    Bodies of megabytes are to be given to a thread; nothing but the JSON parser itself holds the interpreter's lock for
    longer than a few milliseconds then.
    """
    _check_structure(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not valid JSON: {_json_reason(error)}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = str(first["loc"][0])
        raise ApiError(400, _message(param, first), param=param) from error


def _check_structure(body: bytes) -> None:
    """Refuse a large body of countless tiny values before parsing: each would take fifty times its bytes in memory."""
    if len(body) <= _SMALL_BODY or _count(body, 0, len(body)) <= _MAX_VALUES:
        return
    # So many commas may be those of texts: count again without what is inside of strings.
    values = position = 0
    while values <= _MAX_VALUES and (start := body.find(b'"', position)) >= 0:
        values += 1 + _count(body, position, start)
        position = _end_of_string(body, start + 1)
    if values + _count(body, position, len(body)) > _MAX_VALUES:
        raise ApiError(400, f"the body has too many values; at most {MAX_INPUTS} inputs are allowed", param="input")


def _count(body: bytes, start: int, end: int) -> int:
    """What begins another value: commas and opening brackets."""
    return body.count(b",", start, end) + body.count(b"[", start, end)


def _end_of_string(body: bytes, position: int) -> int:
    """Behind the quote that ends the string whose contents are at `position`; the body's end when there is none.

    In steps of at most 128 KiB, because a match holds the interpreter's lock and so everything else.
    """
    while match := _STRING_PART.match(body, position):
        position = match.end()
    return min(position + 1, len(body))


def _json_reason(error: orjson.JSONDecodeError) -> str:
    """Where and why, without the text."""
    return f"{error.msg.split(':')[0]} (line {error.lineno}, column {error.colno})"


def _message(name: str, error: ErrorDetails) -> str:
    match error["type"]:
        case "missing":
            return f"{name} is required"
        case "input" | "modality":
            return error["msg"]
        case "literal_error" if name == "embedding_type":
            return error["msg"]
        case "literal_error":
            return _one_of(name, _ENUMS[name], error["input"])
        case "string_type" | "string_unicode":
            return f"{name} must be a string"
        case "int_type":
            return f"{name} must be an integer"
        case _:
            return f"{name}: {error['msg']}"
