"""What the two images promise, read from their Dockerfiles. Building them needs an image builder: `make images`."""

import re
import shlex
from dataclasses import dataclass

import pytest

from tests.chart.helpers import REPOSITORY

IMAGES = ("operator", "runtime")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and its text with continuation lines joined."""

    name: str
    text: str


def instructions(image: str) -> list[Instruction]:
    """The instructions of Dockerfile.IMAGE in their order, without comments."""
    lines = [
        line
        for line in (REPOSITORY / f"Dockerfile.{image}").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name.upper(), text) for name, text in found]


def stages(image: str) -> list[list[Instruction]]:
    """The instructions of each stage, without those before the first FROM."""
    found: list[list[Instruction]] = []
    for instruction in instructions(image):
        if instruction.name == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def values(stage: list[Instruction], name: str) -> list[str]:
    """The texts of all instructions of that name."""
    return [instruction.text for instruction in stage if instruction.name == name]


def commands(stage: list[Instruction]) -> list[list[str]]:
    """Every shell command of a stage's RUN instructions, as words."""
    return [shlex.split(part) for text in values(stage, "RUN") for part in re.split(r"&&|;|\|\|?", text)]


@pytest.mark.parametrize("image", IMAGES)
def test_every_stage_is_from_the_base_argument(image: str) -> None:
    before = instructions(image)[: [item.name for item in instructions(image)].index("FROM")]
    assert [(item.name, item.text) for item in before] == [("ARG", "BASE=python:3.13-slim-bookworm")]
    sources = [values(stage, "FROM")[0].split()[0] for stage in stages(image)]
    assert sources == ["${BASE}", "${BASE}"]


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_installed_is_pinned_by_hash(image: str) -> None:
    build, final = stages(image)
    installs = [words for words in commands(build) if "install" in words and words[0].endswith("/pip")]
    assert len(installs) == 3
    for words in installs:
        # From an index only with hashes; our own wheel is built from the tree and installed without any index.
        assert "--require-hashes" in words or {"--no-index", "--no-deps"} <= set(words), words
    assert not [words for words in commands(final) if "install" in words]
    for name in ("bootstrap", image):
        pins = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
        entries = re.split(r"\n(?=\S)", pins.strip())
        assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_downloaded_by_other_means(image: str) -> None:
    for stage in stages(image):
        assert not values(stage, "ADD")
        for words in commands(stage):
            assert not {"curl", "wget", "apt-get", "apt", "apk", "git"} & set(words), words


@pytest.mark.parametrize("image", IMAGES)
def test_the_final_stage_takes_the_environment_and_drops_the_installer(image: str) -> None:
    final = stages(image)[1]
    assert values(final, "COPY") == ["--from=build /opt/venv /opt/venv"]
    (removal,) = values(final, "RUN")
    for path in ("*/site-packages/pip*", "*/dist-packages/pip*", "*/bin/pip3*", "*/ensurepip", "/root/.cache"):
        assert path in removal
    assert "python -m venv --without-pip /opt/venv" in " ".join(values(stages(image)[0], "RUN"))


@pytest.mark.parametrize("image", IMAGES)
def test_it_runs_as_a_numeric_user_without_a_shell(image: str) -> None:
    final = stages(image)[1]
    (user,) = values(final, "USER")
    uid, gid = user.split(":")
    assert int(uid) >= 10000
    assert int(gid) >= 10000
    names = [instruction.name for instruction in final]
    assert names.index("USER") > names.index("RUN")
    assert values(final, "ENTRYPOINT") == [f'["embedding-{image}"]']
    assert values(final, "CMD") == [{"operator": '["run"]', "runtime": '["serve"]'}[image]]


@pytest.mark.parametrize("image", IMAGES)
def test_it_suits_any_user_and_a_read_only_root(image: str) -> None:
    final = stages(image)[1]
    environment = dict(word.split("=", 1) for text in values(final, "ENV") for word in shlex.split(text))
    assert environment["HOME"] == "/tmp"
    assert environment["USER"] == f"embedding-{image}"  # getpass finds no passwd entry for an arbitrary UID
    assert environment["PYTHONUNBUFFERED"] == environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PATH"].startswith("/opt/venv/bin:")
    assert "NVIDIA_VISIBLE_DEVICES" not in environment
    assert "compileall" in " ".join(values(stages(image)[0], "RUN"))


@pytest.mark.parametrize("image", IMAGES)
def test_it_says_what_it_is(image: str) -> None:
    labels = dict(word.split("=", 1) for text in values(stages(image)[1], "LABEL") for word in shlex.split(text))
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == f"embedding-{image}"
    assert set(labels) == {prefix + name for name in ("title", "description", "licenses", "version", "revision")}


def test_only_what_is_copied_reaches_a_build() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {"operator", "runtime", "requirements"}
    for image in IMAGES:
        for text in values(stages(image)[0], "COPY"):
            for source in text.split()[:-1]:
                path = source.replace("${REQUIREMENTS}", "requirements/runtime.txt")
                assert path.split("/")[0] in {"operator", "runtime", "requirements"}
                assert (REPOSITORY / path).exists()


@pytest.mark.parametrize("path", ["Dockerfile.operator", "Dockerfile.runtime", "tools/images.sh"])
def test_no_package_index_is_named(path: str) -> None:
    urls = re.findall(r"https?://([^/\s]+)", (REPOSITORY / path).read_text())
    assert all(host.endswith("example.com") for host in urls)
