"""How a container's process is started: its file system, its namespaces, its signals and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster.node.mounts import Mount
from devcluster.node.process import ContainerProcess, ProcessSpec, isolation_works
from devcluster.paths import REPOSITORY
from devcluster.sandboxed import StartError
from tests.devcluster.helpers import eventually, processes_with

SPEC = ProcessSpec(
    command=["true"],
    environment={"PATH": "/usr/bin:/bin", "GREETING": "hello"},
    directory="/",
    user=65532,
    group=65532,
    hostname="my-pod",
    mounts=[],
    keep=[],
    read_only_root=False,
    isolate=True,
)


def _isolation() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    done = subprocess.run(["unshare", "--user", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True)
    return done.returncode == 0


isolated = pytest.mark.skipif(not _isolation(), reason="this machine refuses user namespaces")


def _run(tmp_path: Path, spec: ProcessSpec) -> tuple[int, str]:
    async def run() -> int:
        process = await ContainerProcess.start(spec, tmp_path / "work", tmp_path / "log")
        return await process.wait()

    return asyncio.run(run()), (tmp_path / "log").read_text()


def _shell(script: str, **changes: object) -> ProcessSpec:
    return replace(SPEC, command=["sh", "-c", script], **changes)  # type: ignore[arg-type]


@isolated
def test_a_container_is_alone_with_its_own_view(tmp_path: Path) -> None:
    code, output = _run(tmp_path, _shell("id -u; hostname; echo $$; echo $GREETING $HOME; ls /tmp | wc -l; exit 7"))
    assert code == 7
    assert output.split() == ["65532", "my-pod", "1", "hello", "0"]


@isolated
def test_volumes_appear_where_nothing_is_on_the_host_and_behind_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    single = tmp_path / "single"
    single.write_text("hosts")
    mounts = [
        Mount(str(source), "/made/up/path", False),
        Mount(str(source), "/var/run/secrets/kubernetes.io/serviceaccount", True),
        Mount(str(single), "/etc/hosts", False),
        Mount(str(single), "/dev/termination-log", False),
    ]
    script = (
        "cat /made/up/path/file /var/run/secrets/kubernetes.io/serviceaccount/file /etc/hosts; echo; "
        "touch /made/up/path/new; touch /var/run/secrets/kubernetes.io/serviceaccount/no; "
        "touch /made/no; touch /etc/no; "
        "test -e /etc/passwd && echo passwd; echo end > /dev/termination-log; echo x > /dev/null"
    )
    code, output = _run(tmp_path, _shell(script, mounts=mounts))
    assert code == 0
    assert "contentcontenthosts\n" in output
    assert output.count("Read-only file system") == 3
    assert output.endswith("passwd\n")
    assert (source / "new").exists()
    assert single.read_text() == "end\n"


@isolated
def test_a_volume_at_tmp_does_not_hide_the_program(tmp_path: Path) -> None:
    # tmp_path is usually below /tmp, as a fresh clone may be
    program, volume = tmp_path / "clone" / "program", tmp_path / "volume"
    volume.mkdir()
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nls /tmp/mine && echo found\n")
    program.chmod(0o755)
    (volume / "mine").touch()
    spec = replace(
        SPEC, command=[str(program)], mounts=[Mount(str(volume), "/tmp", False)], keep=[str(tmp_path / "clone")]
    )
    code, output = _run(tmp_path, spec)
    assert (code, output) == (0, "/tmp/mine\nfound\n")


@isolated
def test_a_read_only_root_includes_tmp(tmp_path: Path) -> None:
    code, output = _run(tmp_path, _shell("touch /tmp/x", read_only_root=True))
    assert code == 1
    assert "Read-only file system" in output


@pytest.mark.parametrize("isolate", [pytest.param(True, marks=isolated), False])
@pytest.mark.parametrize(
    ("command", "directory", "message"),
    [
        (["no-such-program"], "/", 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], "/", 'exec: "/no/such/program": no such file or directory'),
        (["/etc"], "/", 'exec: "/etc": permission denied'),
        (["true"], "/no/such/directory", 'chdir to cwd ("/no/such/directory"): No such file or directory'),
    ],
)
def test_what_cannot_be_started_says_why(
    tmp_path: Path, isolate: bool, command: list[str], directory: str, message: str
) -> None:
    with pytest.raises(StartError) as problem:
        _run(tmp_path, replace(SPEC, command=command, directory=directory, isolate=isolate))
    assert str(problem.value) == message


@pytest.mark.parametrize("isolate", [pytest.param(True, marks=isolated), False])
def test_signals_reach_the_container_and_its_end_is_told_as_a_shell_does(tmp_path: Path, isolate: bool) -> None:
    async def run() -> tuple[int, int]:
        script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
        process = await ContainerProcess.start(_shell(script, isolate=isolate), tmp_path / "work", tmp_path / "log")
        await asyncio.to_thread(eventually, lambda: "up" in (tmp_path / "log").read_text(), "the trap is set")
        process.signal(signal.SIGTERM)
        termed = await process.wait()
        process = await ContainerProcess.start(_shell(script, isolate=isolate), tmp_path / "work", tmp_path / "log")
        process.kill()
        return termed, await process.wait()

    assert asyncio.run(run()) == (5, 137)


@pytest.mark.parametrize("isolate", [pytest.param(True, marks=isolated), False])
def test_commands_can_be_run_inside(tmp_path: Path, isolate: bool) -> None:
    async def run() -> list[tuple[int, str]]:
        process = await ContainerProcess.start(_shell("sleep 60", isolate=isolate), tmp_path / "work", tmp_path / "log")
        results = [
            await process.execute(["sh", "-c", "echo $GREETING; exit 3"], 10),
            await process.execute(["no-such-program"], 10),
        ]
        with pytest.raises(TimeoutError):
            await process.execute(["sleep", "54321.25"], 0.5)
        process.kill()
        await process.wait()
        return results

    first, second = asyncio.run(run())
    assert first == (3, "hello\n")
    assert second == (127, 'exec: "no-such-program": executable file not found in $PATH\n')
    eventually(lambda: not processes_with("sleep 54321.25"), "the command that took too long is gone", 5)


@pytest.mark.parametrize("isolate", [pytest.param(True, marks=isolated), False])
def test_a_container_dies_with_the_process_that_started_it(tmp_path: Path, isolate: bool) -> None:
    marker = f"5432{os.getpid()}.{int(isolate)}"
    program = f"""
import asyncio
from dataclasses import replace
from pathlib import Path
from tests.devcluster.test_sandbox import SPEC
from devcluster.node.process import ContainerProcess
async def run():
    spec = replace(SPEC, command=["sleep", "{marker}"], isolate={isolate})
    await ContainerProcess.start(spec, Path({str(tmp_path)!r}), Path({str(tmp_path / "log")!r}))
    print("up", flush=True)
    await asyncio.sleep(600)
asyncio.run(run())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        assert processes_with(f"sleep {marker}")
        parent.kill()
    eventually(lambda: not processes_with(marker), "the container is gone", 5)


def test_whether_namespaces_are_allowed_is_found_out(tmp_path: Path) -> None:
    assert asyncio.run(isolation_works(tmp_path)) is _isolation()
