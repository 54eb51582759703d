"""What is an image in an input, in every way it is written, and what only looks like one."""

from __future__ import annotations

import base64
import contextlib
import threading
import time

import pytest
from embedding_runtime.engine.model import ImageInput, Input
from embedding_runtime.images.data_url import UnusableInputError, modality_of, read_input
from hypothesis import given, settings
from hypothesis import strategies as st

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
    f'<img src="{URL[:40]}\n  {URL[40:]}"/>', f'<img alt="it\'s a cat" src="{URL}">',
    f"<img alt='say \"a\"' src='{URL}'/>",
    f'<img alt="1 > 0 < 2" src="{URL}">', f'<img src="{URL}" alt="<b>bold</b> > \'quoted\'" />', f"<img src={URL}>",
    f"<img src={URL} >", f"<img src={URL}/>", f'<img loading=lazy hidden src="{URL}">',
    f'<img alt="{"long " * 50_000}" src="{URL}" title="{"x" * 100_000}">', f'<img alt=""src="{URL}">',
    f'<img {" ".join(f"data-{n}=&quot;{n}" for n in range(900))} src="{URL}">',
    f'<img alt="a <img src=\'b\'> c" src="{URL}">',
    f'<img alt="{URL}" src="{URL}">', f'<img src="{URL}" src="other">',
    f'<img/src="{URL}"/>', f'<img src = {URL} alt=a>',
    f'<IMG  Alt="Größe 漢字"\n\tSrc=\'{URL}\'\n>',
])  # fmt: skip
@pytest.mark.parametrize("modality", [None, "image", "text_image"])
def test_an_image_alone(value: str, modality: str | None) -> None:
    assert read(value, modality) == ALONE


@pytest.mark.parametrize(("value", "text"), [
    (f"look at {URL} closely", "look at closely"), (f"look at\n{URL}", "look at"), (f"{URL} below", "below"),
    (f'a <img src="{URL}"/> b', "a b"), (f"a<img src='{URL}'>b", "a b"), (f"({URL})", "( )"),
    (f"1 < 2 <img src='{URL}'> <IMG_CONTEXT> <img>", "1 < 2 <IMG_CONTEXT> <img>"),
    (f"<image> <img src='{URL}'> </img>", "<image> </img>"), (f"<img> {URL}", "<img>"),
    (f"<IMG_CONTEXT>{URL}", "<IMG_CONTEXT>"),
    (f"<img alt='never closed {URL}", "<img alt='never closed"),
    (f'<img src="a.png"> {URL}', '<img src="a.png">'),
    (f"<imgs src='{URL}'>", "<imgs src=' '>"), (f"<img data-src='{URL}'>", "<img data-src=' '>"),
    (f'it\'s <img src="{URL}"> isn\'t', "it's isn't"), (f"<img srcset='a' {URL} b>", "<img srcset='a' b>"),
])  # fmt: skip
@pytest.mark.parametrize("modality", [None, "text_image"])
def test_an_image_with_text(value: str, text: str, modality: str | None) -> None:
    assert read(value, modality) == ImageInput(BYTES, text)
    with pytest.raises(UnusableInputError, match="has text beside the image; use modality 'text_image'"):
        read(value, "image")


@pytest.mark.parametrize("value", [
    "What is NVIDIA?", "https://example.com/cat.png", '<img src="https://example.com/cat.png"/>', "<img>", "<image>",
    "a data:image/png here", "they begin data:image/ and so on", "data:text/plain;base64,AAAA", "image/png;base64,AAAA",
    "text with data:image/svg+xml,%3Csvg inside", "a data:image/png;base64 is missing its comma", "<img src=>",
])  # fmt: skip
def test_plain_text(value: str) -> None:
    assert read(value) == value
    assert modality_of(value) == "text"
    for modality in ("image", "text_image"):
        with pytest.raises(UnusableInputError, match=r"has no image|by address, which is not fetched"):
            read(value, modality)


LARGE = bytes(range(256)) * 3
FOLDED = base64.encodebytes(LARGE).decode()


@pytest.mark.parametrize("payload", [
    FOLDED, FOLDED.replace("\n", "\r\n"), "\n" + FOLDED.replace("\n", "\n  "), FOLDED.replace("\n", " "),
    FOLDED.rstrip(),
    "\n".join(base64.b64encode(LARGE).decode()[n : n + 400] for n in range(0, 1024, 400)), FOLDED.replace("=", ""),
])  # fmt: skip
def test_a_payload_folded_into_lines(payload: str) -> None:
    """As base64.encodebytes, `base64` and mail programs write it."""
    for url in (f"data:image/png;base64,{payload}", f" data:image/png;base64,{payload}\n "):
        for modality in (None, "image"):
            assert read(url, modality) == ImageInput(LARGE)
        assert read(f"look: {url}") == ImageInput(LARGE, "look:")


def test_words_behind_a_payload_are_no_lines_of_it() -> None:
    line = base64.b64encode(bytes(75)).decode()
    for text in ("blue", "red square", "This is what it looks like", "a b c d", f"{line[:-1]} a"):
        assert read(f"data:image/png;base64,{line}\n{text}") == ImageInput(bytes(75), text)


@pytest.mark.parametrize("value", [
    "data:image/", "data:image/png", "data:image/png;base64", " data:image/png;base64 is missing its comma",
    "data:image/ is how they begin", "data:image/png,not base64", "data:image/p g;base64,AAAA",
])  # fmt: skip
@pytest.mark.parametrize("modality", [None, "image", "text_image"])
def test_what_begins_like_an_image_is_no_text(value: str, modality: str | None) -> None:
    with pytest.raises(UnusableInputError, match="begins like an image and is none; send one as"):
        read(value, modality)
    assert read(value, "text") == value


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
    (f'<img src="data:image/png;base64,{"A " * 2000}">', "has an image of about 2999 bytes; at most 1000 are allowed"),
    (f'<img src="data:image/png;base64,{" " * 4000}">', "has an image without any data"),
    ("<img src=data:image/png;base64,AAA*>", "has an image whose base64 is not valid"),
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
    "<img a " * 700_000 + URL, "<img " + "a=b " * 1_000_000 + f"src='{URL}'>", "<img a='" * 600_000 + URL,
    "<img a='<img b=\"' " * 200_000 + URL, "<img " + " " * 5_000_000 + URL,
    "<img a" + " " * 5_000_000 + f"=b src='{URL}'>",
    "<img a=" + "b" * 5_000_000 + f" {URL}", f"<img src='{URL[:-1]}" * 50_000, " " * 20_000_000 + URL,
    URL + " " * 20_000_000 + "a", "data:image/png;base64," + " " * 20_000_000,
    f"<img src='data:image/png;base64,{' ' * 20_000_000}'>", f"<img src='data:image/png;base64,{'A ' * 4_000_000}'>",
    "data:image/png;base64," + "QUJD" * 4 + "\n", "data:image/png;base64," + ("QUJD" * 19 + "\n") * 300_000 + "!",
    "data:image/png;base64," + ("QUJD" * 4 + "\n") * 1_500_000, ("data:image/png;base64," + "QUJD " * 8) * 200_000,
    "<img src='data:image/png;base64," + "A" * 20_000_000, "<img/" * 1_000_000 + URL, "<img a='b'>" * 400_000 + URL,
], ids=range(28))  # fmt: skip
def test_hostile_strings_take_no_time(value: str) -> None:
    began = time.process_time()
    with contextlib.suppress(UnusableInputError):
        read(value)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("value", [
    " " * 100_000_000 + "a", f"<img src='data:image/png;base64,{' ' * 100_000_000}'>",
    "data:image/png;base64," + "A" * 100_000_000,
    f"<img alt='{'x' * 100_000_000}' src='{URL}'>",
], ids=range(4))  # fmt: skip
def test_other_threads_have_their_turn(value: str) -> None:
    """A hundred megabytes of blanks or payload never hold the interpreter's lock for long. What else the machine does
    may hold up a thread too, so the best of three counts."""
    assert min(longest_gap(value) for _ in range(3)) < 0.15


def longest_gap(value: str) -> float:
    """Seconds for which another thread got no turn."""
    gaps = [0.0]
    ended = threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not ended.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for modality in (None, "image"):
            with contextlib.suppress(UnusableInputError):
                read_input(value, modality, 25 * 1024 * 1024)
    finally:
        ended.set()
        watcher.join()
    return max(gaps)


BLANKS = st.text(" \t\n", min_size=1, max_size=3)
NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9:_-]{0,8}", fullmatch=True).filter(lambda name: name.lower() != "src")
_PLAIN = st.characters(exclude_characters="\"'<>=/`", exclude_categories=["Cs", "Z", "Cc"])
PIECES = ["<img ", "src=", '"', "'", ">", "/", " ", "a", "=", "data:image/png;base64,", "QUJD", "<"]
WORDS = st.text(_PLAIN, min_size=1, max_size=9)


@st.composite
def attributes(draw: st.DrawFn) -> str:
    name, equals = draw(NAMES), draw(st.sampled_from(["=", " = ", "= "]))
    quote = draw(st.sampled_from(['"', "'"]))
    inside = draw(st.text(st.characters(exclude_characters=quote, exclude_categories=["Cs"]), max_size=20))
    return draw(st.sampled_from([name, f"{name}{equals}{draw(WORDS)}", f"{name}{equals}{quote}{inside}{quote}"]))


@st.composite
def tags(draw: st.DrawFn) -> str:
    source = draw(st.sampled_from([f'src="{URL}"', f"src='{URL}'", f"SRC={URL}", f'src = " {URL}\n"']))
    parts = [*draw(st.lists(attributes(), max_size=6)), source, *draw(st.lists(attributes(), max_size=6))]
    body = "".join(draw(BLANKS) + part for part in parts)
    return f"<img{body}{draw(BLANKS)}{draw(st.sampled_from(['>', '/>']))}"


@settings(max_examples=300, deadline=None)
@given(tags())
def test_any_tag_with_a_source_is_that_image(tag: str) -> None:
    assert read(tag) == ALONE
    assert read(f"before {tag} after") == ImageInput(BYTES, "before after")
    assert read(tag, "image") == ALONE


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_text_at_all_is_something(parts: list[str]) -> None:
    value = "".join(parts)
    with contextlib.suppress(UnusableInputError):
        found = read(value)
        assert found == value or isinstance(found, ImageInput)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: "data:image/" not in text))
def test_a_text_without_a_data_url_is_itself(value: str) -> None:
    assert read(value) == value
