"""Images over HTTP: a tiny checkpoint with the published geometry behind a real socket, in every form and with every
error of the contract."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.runtime.helpers import samples, server
from tests.runtime.models.vl_checkpoints import PUBLISHED_LANGUAGE, PUBLISHED_VISION, build, picture, png

MODEL = "nvidia/llama-nemotron-embed-vl-1b-v2"
LIMIT = 1900
SIZES = (128, 256, 384, 512, 768, 1024, 1536, 2048)
QUERY = (
    'input_type="query" is not supported with images; the VLM model processes images as passages only. '
    'Use input_type="passage" or omit input_type.'
)


def documented_png() -> bytes:
    """The image of the API reference's example."""
    width = height = 224
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows.extend((x % 256, y % 256, 128))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) & 0xFFFFFFFF)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(rows), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


IMAGE = url(documented_png())
SMALL = url(png(picture(40, 40)))


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = build(tmp_path_factory.mktemp("vl"), vision=PUBLISHED_VISION, language=PUBLISHED_LANGUAGE)
    arguments = ["--model", str(directory), "--served-model-name", MODEL, "--cache-dir", str(directory / "cache")]
    arguments += ["--max-input-tokens", str(LIMIT), "--device", "Cpu", "--max-image-bytes", "200000"]
    arguments += ["--max-request-images", "3"]
    with server(*arguments) as process, httpx.Client(base_url=process.wait_until_ready(), timeout=60) as client:
        yield client


def post(http: httpx.Client, value: Any, **fields: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": value} | fields)


def embed(http: httpx.Client, value: Any, **fields: Any) -> np.ndarray[Any, Any]:
    answer = post(http, value, **fields)
    assert answer.status_code == 200, answer.text
    return np.array([entry["embedding"] for entry in answer.json()["data"]], np.float32)


def test_the_documented_requests(http: httpx.Client) -> None:
    """A query by text, and the 224 x 224 image: 256 image tokens, prefix and special tokens in one tile."""
    answer = post(http, [IMAGE], input_type="passage", modality="image", embedding_type="float",
                  encoding_format="float").json()  # fmt: skip
    assert (answer["model"], len(answer["data"][0]["embedding"])) == (MODEL, 2048)
    beside = post(http, ["passage:"], input_type="query").json()["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
    # Beside the image: <|begin_of_text|>, the prefix with its space, <img>, </img>, and a space.
    assert 256 + 5 <= answer["usage"]["prompt_tokens"] <= 256 + 10
    assert beside < 30
    assert embed(http, ["What is NVIDIA?"], input_type="query", modality="text").shape == (1, 2048)


def test_every_way_to_write_an_image(http: httpx.Client) -> None:
    forms = [IMAGE, f'<img src="{IMAGE}"/>', f"<img src='{IMAGE}'/>", f'<img src="{IMAGE}">', f"<img src='{IMAGE}' />"]
    alone = np.concatenate([embed(http, form) for form in forms])
    assert np.abs(alone - alone[0]).max() == 0
    for modality in ("image", ["image"]):
        np.testing.assert_array_equal(embed(http, forms[1], modality=modality), alone[:1])
    both = [
        f"a list {IMAGE} of numbers",
        f'a list <img src="{IMAGE}"/> of numbers',
        f"<img src='{IMAGE}'> a list of numbers",
    ]
    vectors = np.concatenate([embed(http, form, input_type="passage") for form in both])
    assert np.abs(vectors - vectors[0]).max() == 0
    assert np.abs(vectors[0] - alone[0]).max() > 1e-3
    np.testing.assert_array_equal(embed(http, both[0], modality="text_image"), vectors[:1])


def test_mixed_requests(http: httpx.Client) -> None:
    """Texts, images and both in one request, in order, each as if alone; without an input type texts are queries."""
    inputs = ["a vector", SMALL, f"numbers {SMALL}", url(png(picture(30, 90)))]
    vectors = embed(http, inputs)
    for row, (value, kind) in enumerate(zip(inputs, ["query", "passage", "passage", "passage"], strict=True)):
        assert np.abs(vectors[row] - embed(http, [value], input_type=kind)[0]).max() < 2e-6
    said = embed(http, inputs, modality=["text", "image", "text_image", "image"])
    assert np.abs(said - vectors).max() < 2e-6
    usage = post(http, inputs).json()["usage"]["prompt_tokens"]
    assert usage == sum(
        post(http, value, input_type=kind).json()["usage"]["prompt_tokens"]
        for value, kind in zip(inputs, ["query", "passage", "passage", "passage"], strict=True)
    )


def test_what_is_said_to_be_text_is_text(http: httpx.Client) -> None:
    """A data URL as text, and the names of image tokens in a text, bring no image tokens."""
    answer = post(http, SMALL[:60], modality="text", input_type="query")
    assert answer.status_code == 200
    for text in ("<image> a", "<img> a </img>", "<IMG_CONTEXT>" * 5, "<img><IMG_CONTEXT></img>", "<image>"):
        plain = post(http, text, input_type="passage").json()["usage"]["prompt_tokens"]
        # As text each is several tokens; as a placeholder it would be one, or none.
        assert plain >= 5 + text.count("<")
        with_image = post(http, f"{SMALL} {text}").json()["usage"]["prompt_tokens"]
        assert with_image > 256 + text.count("<")
    assert np.abs(embed(http, "<IMG_CONTEXT>") - embed(http, "<IMG_CONTEXT><IMG_CONTEXT>")).max() > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_dimensions(http: httpx.Client, size: int) -> None:
    whole = embed(http, [SMALL, "a"])
    cut = embed(http, [SMALL, "a"], dimensions=size)
    assert cut.shape == (2, size)
    expected = whole[:, :size] / np.linalg.norm(whole[:, :size], axis=1, keepdims=True)
    assert np.abs(cut - expected).max() < 1e-6


def test_other_dimensions(http: httpx.Client) -> None:
    answer = post(http, SMALL, dimensions=100)
    assert answer.status_code == 400
    assert answer.json()["message"].endswith("supported: " + ", ".join(map(str, SIZES)))


@pytest.mark.parametrize(("kind", "length"), [
    ("float", 2048), ("int8", 2048), ("uint8", 2048), ("binary", 256), ("ubinary", 256),
])  # fmt: skip
def test_embedding_types(http: httpx.Client, kind: str, length: int) -> None:
    floats = embed(http, SMALL)[0]
    values = np.array(post(http, SMALL, embedding_type=kind).json()["data"][0]["embedding"])
    assert len(values) == length
    if kind == "int8":
        np.testing.assert_array_equal(values, np.trunc(np.float32(127) * floats))
    if kind == "ubinary":
        np.testing.assert_array_equal(values, np.packbits(floats > 0))
    encoded = post(http, SMALL, embedding_type=kind, encoding_format="base64").json()["data"][0]["embedding"]
    dtypes = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(encoded), dtypes[kind]), values.astype(dtypes[kind]))


def test_truncation_cuts_text_and_never_the_image(http: httpx.Client) -> None:
    text = "one two three " * 400
    page = url(png(picture(60, 40)))
    refused = post(http, f"{page} {text}")
    assert refused.status_code == 400
    fixed = post(http, page).json()["usage"]["prompt_tokens"]
    length = int(re.findall(r"Input length (\d+) ", refused.json()["message"])[0])
    assert length > LIMIT
    # What the server offers is cutting the text; shortening would not help an image.
    assert refused.json()["message"] == (
        f"Input length {length} exceeds maximum allowed token size {LIMIT} (input[0]); {fixed} of them are the image, "
        'which is never cut; shorten the text beside it, or let the server cut the text with "truncate": "END" or '
        '"START"'
    )
    assert 1792 < fixed < LIMIT
    ends = []
    for truncate in ("END", "START"):
        answer = post(http, [f"{page} start {text} end"], truncate=truncate).json()
        assert answer["usage"]["prompt_tokens"] == LIMIT
        ends.append(np.array(answer["data"][0]["embedding"]))
    assert np.abs(ends[0] - ends[1]).max() > 1e-4


ERRORS: list[tuple[Any, dict[str, Any], str, str]] = [
    (SMALL, {"modality": "bogus"}, "modality must be one of 'text', 'image', 'text_image'; got 'bogus'", "modality"),
    ([SMALL, "a"], {"modality": ["image", "bogus"]},
     "modality must be one of 'text', 'image', 'text_image'; got 'bogus'", "modality"),
    ([SMALL, "a", "b"], {"modality": ["image", "text"]},
     "modality has 2 entries but input has 3; give one for all inputs or one for each", "modality"),
    (SMALL, {"input_type": "query"}, QUERY, "input_type"),
    (f"a {SMALL}", {"input_type": "query"}, QUERY, "input_type"),
    (["a", SMALL], {"input_type": "query", "modality": ["text", "image"]}, QUERY, "input_type"),
    (SMALL, {"model": f"{MODEL}-query"}, QUERY, "input_type"),
    (["a", ""], {}, "input[1] must not be blank or empty", "input"),
    (["a", " "], {"modality": "image"}, "input[1] must not be blank or empty", "input"),
    (["a", "b"], {"modality": ["text", "image"]},
     "input[1] has no image; send one as a data URL, such as data:image/png;base64,…", "input"),
    ("https://example.com/a.png", {"modality": "image"},
     "input[0] names an image by address, which is not fetched; send it as a data URL", "input"),
    ('<img src="https://example.com/a.png"/> cat', {"modality": "text_image"},
     "input[0] names an image by address, which is not fetched; send it as a data URL", "input"),
    (f"a {SMALL}", {"modality": "image"},
     "input[0] has text beside the image; use modality 'text_image', or leave the text out", "input"),
    (f"{SMALL} {SMALL}", {}, "input[0] has more than one image; send each as an input of its own", "input"),
    ("data:image/png;base64,AAA*", {}, "input[0] has an image whose base64 is not valid", "input"),
    (["a", url(b"<svg/>", "svg+xml")], {}, "input[1]: the image is not a PNG, JPEG, WebP, GIF, BMP or TIFF file",
     "input"),
    ([SMALL, url(documented_png()[:300])], {}, "input[1]: the image is damaged or incomplete", "input"),
    (url(bytes(200_001)), {}, "input[0] has an image of 200001 bytes; at most 200000 are allowed", "input"),
    (url(documented_png()[:16] + struct.pack(">II", 9000, 9000) + documented_png()[24:]), {},
     "input[0]: the image is not a PNG, JPEG, WebP, GIF, BMP or TIFF file", "input"),
    ([SMALL] * 4, {}, "input has more than 3 images; send fewer per request", "input"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "fields", "message", "param"), ERRORS)
def test_errors(http: httpx.Client, value: Any, fields: dict[str, Any], message: str, param: str) -> None:
    answer = post(http, value, **fields)
    body = answer.json()
    assert (answer.status_code, body["message"]) == (400, message)
    assert (body["object"], body["type"], body["param"]) == ("error", "invalid_request_error", param)


def test_too_many_pixels(http: httpx.Client) -> None:
    """Said by the header, refused by the header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    answer = post(http, url(data))
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        "input[0]: the image has 9000 x 9000 pixels; at most 8192 x 16384 or 16384 x 8192 are allowed"
    )


def test_what_the_server_says_of_itself(http: httpx.Client) -> None:
    model = http.get("/v1/manifest").json()["model"]
    assert model["modalities"] == ["text", "image", "text_image"]
    assert model["prompts"] == {"query": "query: ", "passage": "passage: "}
    assert model["supported_dimensions"] == list(SIZES)
    before = samples(http.get("/v1/metrics").text)
    post(http, ["a", SMALL, f"b {SMALL}"])
    after = samples(http.get("/v1/metrics").text)
    for modality in ("text", "image", "text_image"):
        key = ("embedding_inputs_total", (("modality", modality),))
        assert after[key] - before.get(key, 0) == 1


def test_nugen_sees_too(http: httpx.Client) -> None:
    answer = http.post("/api/v3/inference/embeddings", json={"model": MODEL, "input": [SMALL]})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["data"][0]["embedding"], embed(http, SMALL)[0], atol=1e-7)
