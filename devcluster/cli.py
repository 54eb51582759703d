"""The command line: `python -m devcluster`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from devcluster import launch
from devcluster.build.binaries import locate
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError, NotRunningError
from devcluster.paths import clusters_directory, state_directory
from devcluster.settings import ClusterSettings, Image, default_images, program_path
from devcluster.state import State, is_up, read_state

_HELP = """A real Kubernetes control plane on this machine, with nodes that run containers as local processes.

\b
  python -m devcluster up                          start it; prints what to type next
  python -m devcluster run -- kubectl get nodes    run anything with KUBECONFIG set
  python -m devcluster logs POD                    what a Pod has written
  python -m devcluster down                        stop everything

etcd, the API server, the controllers and the scheduler are the real ones, built once from their released sources
(about 7 minutes on 2 cores) and cached. Nothing needs root or a container runtime. A cluster keeps nothing: `down`
removes its state, and so does the next `up` after a crash. Several run side by side under different names.

An image stands for a program of this machine: `up --image web='python -m http.server'` gives one more; known already
are embedding-runtime, embedding-operator and python, from the virtual environment that runs this.

\b
Environment:
  KUBEBUILDER_ASSETS   a directory with finished programs; what is missing there is built
  XDG_CACHE_HOME       where builds and clusters go, in embedding-operator/ (default: ~/.cache)
  DEVCLUSTER_NAME      the cluster's name, as --name
  DEVCLUSTER_STATE     where clusters keep their state, instead of the cache
"""

app = typer.Typer(
    name="python -m devcluster",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Option("--name", "-n", help="The cluster's name.", envvar="DEVCLUSTER_NAME")]


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _image(text: str) -> tuple[str, Image]:
    repository, separator, command = text.partition("=")
    words = shlex.split(command)
    if not separator or not repository or not words:
        raise DevclusterError(f"--image {text!r}: write REPOSITORY=COMMAND, such as echo='/bin/sh -c \"echo hello\"'")
    return repository, Image(command=tuple(words), environment=program_path())


def _volume(text: str) -> tuple[str, str]:
    reference, separator, directory = text.rpartition("=")
    if not separator or not Path(directory).is_dir():
        raise DevclusterError(f"--image-volume {text!r}: write REFERENCE=DIRECTORY with a directory that exists")
    return reference, str(Path(directory).resolve())


@app.command()
def up(
    name: Name = "devcluster",
    nodes: Annotated[int, typer.Option(help="Number of nodes.", min=1, max=100)] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs that each node advertises as nvidia.com/gpu.", min=0)] = 4,
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="REPOSITORY=COMMAND: what an image's entrypoint is here. Known: embedding-runtime, -operator, python."
        ),
    ] = None,
    image_volume: Annotated[
        list[str] | None, typer.Option(help="REFERENCE=DIRECTORY: what an image volume shows.")
    ] = None,
    back_off: Annotated[
        float, typer.Option(help="Seconds before a container that crashed again is restarted (a kubelet: 10); doubles.")
    ] = 1.0,
    isolate: Annotated[
        bool | None,
        typer.Option(
            help="Give containers namespaces of their own, or not. Default: when this machine allows it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start a cluster in the background and return when its nodes are Ready."""
    settings = ClusterSettings(
        name=name,
        nodes=nodes,
        gpus_per_node=gpus,
        images={**default_images(), **dict(map(_image, image or ()))},
        image_volumes=dict(map(_volume, image_volume or ())),
        crash_back_off=back_off,
        isolate=isolate,
    )
    directory = state_directory(name)
    binaries = locate(progress=_say)
    handle = launch.start(settings, directory, binaries, owned=False, progress=_say)
    handle.leave()
    state = handle.state
    _say(f"the cluster {name!r} is up ({state.took:.1f} s, nodes: {', '.join(state.nodes)})")
    if not state.isolated:
        why = "as asked" if isolate is False else "because this machine refuses user namespaces"
        _say(f"containers see this machine's file system, with mount paths rewritten, {why}")
    option = "" if name == "devcluster" else f" --name {name}"
    typer.echo(f"export KUBECONFIG={directory / 'kubeconfig'}")
    typer.echo(f"export PATH={':'.join(dict.fromkeys(str(path.parent) for path in binaries.values()))}:$PATH")
    _say(f"next: eval the two lines above, or: python -m devcluster run{option} -- kubectl get nodes")
    _say(f"stop it with: python -m devcluster down{option}")


@app.command()
def down(name: Name = "devcluster") -> None:
    """Stop a cluster and everything that runs in it, and remove its state."""
    try:
        launch.stop(state_directory(name))
    except NotRunningError:
        _say(f"the cluster {name!r} was not up")
    else:
        _say(f"the cluster {name!r} is down")


def _components(state: State) -> list[str]:
    lines = []
    for component, facts in state.components.items():
        running = f"process {facts.pid}" if facts.pid else "not running"
        restarts = f", restarted {facts.restarts} times" if facts.restarts else ""
        lines.append(f"  {component:<25}{running}{restarts}")
    return lines


@app.command()
def status(name: Name = "devcluster") -> None:
    """Show a cluster's programs, nodes and Pods, and which other clusters are up."""
    directory = state_directory(name)
    others = [entry.name for entry in sorted(clusters_directory().glob("*")) if is_up(entry)]
    state = read_state(directory)
    if not is_up(directory) and state is not None and state.phase == "failed":
        raise NotRunningError(
            f"the cluster {name!r} has failed: {state.message}\nThe logs are in {directory / 'logs'}."
        )
    if not is_up(directory) or state is None:
        beside = f" (up: {', '.join(others)})" if others else ""
        raise NotRunningError(f"the cluster {name!r} is not up{beside}; `python -m devcluster up` starts one")
    typer.echo(f"{name}: {state.phase}{f' ({state.message})' if state.message else ''}")
    typer.echo(f"  API server               {state.server}\n  logs                     {directory / 'logs'}")
    typer.echo("\n".join(_components(state)))
    if state.phase == "ready":
        typer.echo(
            Cluster.attach(directory).kubectl("get", "nodes,pods", "--all-namespaces", "--output", "wide").stdout
        )
    rest = [other for other in others if other != name]
    if rest:
        typer.echo(f"also up: {', '.join(rest)}")


@app.command()
def build() -> None:
    """Build the programs of the control plane that are missing, and show where each one is."""
    for program, path in locate(progress=_say).items():
        typer.echo(f"{program:<25}{path}")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    name: Name = "devcluster",
) -> None:
    """Run a command with KUBECONFIG and PATH (kubectl, helm) set for a cluster.

    When no cluster of that name is up, one with default settings is started for the command and stopped after it.
    The exit code is the command's.
    """
    directory = state_directory(name)
    if is_up(directory):
        raise SystemExit(_execute(Cluster.attach(directory), command))
    _say(f"the cluster {name!r} is not up: starting one for this command")
    with Cluster(ClusterSettings(name=name), directory=directory) as cluster:
        code = _execute(cluster, command)
    raise SystemExit(code)


def _execute(cluster: Cluster, command: list[str]) -> int:
    try:
        return subprocess.run(command, env=cluster.environment, check=False).returncode
    except FileNotFoundError:
        raise DevclusterError(f"there is no program {command[0]!r}") from None


@app.command()
def logs(
    pod: Annotated[str, typer.Argument(help="The Pod's name, or TYPE/NAME as kubectl takes it.")],
    name: Name = "devcluster",
    namespace: Annotated[str, typer.Option(help="The Pod's namespace; by default the one it is found in.")] = "",
    container: Annotated[str, typer.Option("--container", "-c", help="One container; by default all.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Those of the run before the last restart.")
    ] = False,
) -> None:
    """Print what a Pod's containers have written."""
    cluster = Cluster.attach(state_directory(name))
    where = namespace or _namespace_of(cluster, pod)
    options = ["--container", container] if container else ["--all-containers"]
    options += ["--follow"] if follow else []
    options += ["--previous"] if previous else []
    raise SystemExit(_execute(cluster, ["kubectl", "logs", pod, "--namespace", where, *options]))


def _namespace_of(cluster: Cluster, pod: str) -> str:
    if "/" in pod:
        return "default"
    found = [item["metadata"]["namespace"] for item in cluster.objects("pods") if item["metadata"]["name"] == pod]
    if not found:
        raise DevclusterError(f"there is no Pod {pod!r}; `python -m devcluster status` lists them")
    if len(found) > 1:
        raise DevclusterError(f"Pod {pod!r} exists in the namespaces {', '.join(found)}: choose one with --namespace")
    return str(found[0])


def main() -> None:
    """Run the command line; errors are one message and exit code 1."""
    try:
        if sys.platform != "linux":
            raise DevclusterError(
                "devcluster needs Linux: its Pods have addresses of 127.0.0.0/8; use a virtual machine"
            )
        app()
    except DevclusterError as problem:
        _say(f"error: {problem}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _say("interrupted")
        raise SystemExit(130) from None
