"""What is an image in an input, in every way it is written, and what only looks like one."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from embedding_runtime.engine.model import ImageInput, Input
from embedding_runtime.images.data_url import UnusableInputError, modality_of, read_input

BYTES = b"these are no pixels, only bytes"
PAYLOAD = base64.b64encode(BYTES).decode()
URL = f"data:image/png;base64,{PAYLOAD}"
ALONE = ImageInput(BYTES)


def read(value: str, modality: str | None = None) -> Input:
    return read_input(value, modality, 1000)


@pytest.mark.parametrize("value", [
    URL, f" \n{URL}\t", URL.rstrip("="), URL.replace("png", "svg+xml"), URL.replace(";base64", ";name=a.png;base64"),
    f'<img src="{URL}"/>', f"<img src='{URL}'/>", f'<img src="{URL}" />', f'<img src="{URL}">', f"<img src='{URL}'>",
    f'<IMG SRC="{URL}">', f'<img alt="a picture" src = "{URL}" width="3">', f'  <img\nsrc=" {URL}"\n/>  ',
    f'<img src="{URL[:40]}\n  {URL[40:]}"/>',
])  # fmt: skip
@pytest.mark.parametrize("modality", [None, "image", "text_image"])
def test_an_image_alone(value: str, modality: str | None) -> None:
    assert read(value, modality) == ALONE


@pytest.mark.parametrize(("value", "text"), [
    (f"look at {URL} closely", "look at closely"), (f"look at\n{URL}", "look at"), (f"{URL} below", "below"),
    (f'a <img src="{URL}"/> b', "a b"), (f"a<img src='{URL}'>b", "a b"), (f"({URL})", "( )"),
    (f"1 < 2 <img src='{URL}'> <IMG_CONTEXT> <img>", "1 < 2 <IMG_CONTEXT> <img>"),
])  # fmt: skip
@pytest.mark.parametrize("modality", [None, "text_image"])
def test_an_image_with_text(value: str, text: str, modality: str | None) -> None:
    assert read(value, modality) == ImageInput(BYTES, text)
    with pytest.raises(UnusableInputError, match="has text beside the image; use modality 'text_image'"):
        read(value, "image")


@pytest.mark.parametrize("value", [
    "What is NVIDIA?", "https://example.com/cat.png", '<img src="https://example.com/cat.png"/>', "<img>", "<image>",
    "a data:image/png here", "data:image/ is how they begin", "data:text/plain;base64,AAAA", "image/png;base64,AAAA",
    "text with data:image/svg+xml,%3Csvg inside", "data:image/png;base64 is missing its comma", "<img src=>",
])  # fmt: skip
def test_plain_text(value: str) -> None:
    assert read(value) == value
    assert modality_of(value) == "text"
    for modality in ("image", "text_image"):
        with pytest.raises(UnusableInputError, match=r"has no image|by address, which is not fetched"):
            read(value, modality)


def test_what_is_said_wins() -> None:
    assert read(URL, "text") == URL
    assert modality_of(ALONE) == "image"
    assert modality_of(ImageInput(BYTES, "a")) == "text_image"


@pytest.mark.parametrize(("value", "message"), [
    (f"{URL} {URL}", "has more than one image; send each as an input of its own"),
    ("data:image/png;base64,", "has an image without any data"),
    ("data:image/png;base64,AAA*", "has an image whose base64 is not valid"),
    ("data:image/png;base64,A", "has an image whose base64 is not valid"),
    ('<img src="data:image/png;base64,AA*A">', "has an image whose base64 is not valid"),
    ("data:image/svg+xml,%3Csvg", "has an image that is not base64; send data:image/png;base64,…"),
    ("data:image/png;base64," + "A" * 1340, "has an image of about 1005 bytes; at most 1000 are allowed"),
    (f'<img src="data:image/png;base64,{"A" * 1340}">', "has an image of 1005 bytes; at most 1000 are allowed"),
])  # fmt: skip
def test_what_cannot_be_used(value: str, message: str) -> None:
    with pytest.raises(UnusableInputError) as raised:
        read(value)
    assert str(raised.value) == message


def test_an_address_is_never_fetched() -> None:
    for value in ("https://example.com/a.png", " http://example.com/a.png", "<img src='https://example.com/a.png'/>"):
        with pytest.raises(UnusableInputError, match="names an image by address, which is not fetched"):
            read(value, "image")


@pytest.mark.parametrize("value", [
    "data:image/" * 500_000, "data:image/png," * 400_000, 'src="data:image/png,' * 300_000,
    '<img src="data:image/png;base64,' * 200_000, '<img src="' * 600_000, "<img " * 1_000_000 + URL,
    "x data:image/png;base64,! " * 200_000, '<img a="b"' * 500_000 + f'src="{URL}">',
], ids=range(8))  # fmt: skip
def test_hostile_strings_take_no_time(value: str) -> None:
    began = time.process_time()
    with contextlib.suppress(UnusableInputError):
        read(value)
    assert time.process_time() - began < 1
