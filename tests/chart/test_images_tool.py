"""tools/images.sh: what it asks of docker and buildah. Stand-ins for the two write down how they were called."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.chart.helpers import REPOSITORY

RECORDER = '#!/bin/sh\n[ "$1" = info ] && exit {info}\necho "${{0##*/}} $*" >> "{log}"\n'


@pytest.fixture
def builders(tmp_path: Path) -> Path:
    """A directory with a docker whose daemon does not answer and a buildah; calls go to `log` in it."""
    for name, info in (("docker", 1), ("buildah", 0)):
        program = tmp_path / name
        program.write_text(RECORDER.format(info=info, log=tmp_path / "log"))
        program.chmod(0o755)
    return tmp_path


def images(builders: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "tools" / "images.sh"), *arguments],
        env={"PATH": f"{builders}:{os.environ['PATH']}", "HOME": str(builders)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(builders: Path) -> list[str]:
    return (builders / "log").read_text().splitlines()


def test_both_images_with_buildah_when_docker_does_not_answer(builders: Path) -> None:
    result = images(builders)
    assert result.returncode == 0, result.stderr
    operator, runtime = calls(builders)
    version = re.search('^version = "(.*)"', (REPOSITORY / "operator/pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert operator.startswith(f"buildah bud --build-arg VERSION={version.group(1)} --build-arg REVISION=")
    assert operator.endswith(f"-f Dockerfile.operator -t embedding-operator:{version.group(1)} .")
    assert runtime.endswith(f"-f Dockerfile.runtime -t embedding-runtime:{version.group(1)} .")


def test_docker_when_its_daemon_answers(builders: Path) -> None:
    (builders / "docker").write_text(RECORDER.format(info=0, log=builders / "log"))
    assert images(builders, "operator").returncode == 0
    assert calls(builders)[0].startswith("docker build --build-arg VERSION=")


def test_options_reach_the_build(builders: Path) -> None:
    result = images(
        builders,
        *("--repository", "registry.example.com/team", "--tag", "9", "--base", "python@sha256:0", "--push", "operator"),
        *("--index", "https://index.example.com/simple"),
        BUILD_FLAGS="--isolation chroot",
        BUILDAH_FLAGS="--storage-driver vfs",
    )
    assert result.returncode == 0, result.stderr
    build, push = calls(builders)
    assert build.startswith("buildah --storage-driver vfs bud --isolation chroot --build-arg")
    assert "--build-arg BASE=python@sha256:0 --build-arg PIP_INDEX_URL=https://index.example.com/simple " in build
    assert build.endswith("-t registry.example.com/team/embedding-operator:9 .")
    assert push == "buildah --storage-driver vfs push registry.example.com/team/embedding-operator:9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tool", "podman"], "--tool is podman; it can be docker or buildah"),
        (["--tag"], "--tag needs a value; see tools/images.sh --help"),
        (["--base", ""], "--base needs a value"),
        (["gateway"], "unknown argument gateway; see tools/images.sh --help"),
        (["lock-torch"], "lock-torch needs the index"),
    ],
)
def test_wrong_arguments_say_what_to_do(builders: Path, arguments: list[str], message: str) -> None:
    result = images(builders, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert not (builders / "log").exists()


def test_help_explains_every_option(builders: Path) -> None:
    text = images(builders, "--help").stdout
    source = (REPOSITORY / "tools" / "images.sh").read_text()
    for option in set(re.findall(r"(?<=[ |(])--[a-z-]+(?=[|)])", source)):
        assert option in text, option
    assert "examples" in text
