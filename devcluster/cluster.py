"""The Python API: a cluster as an object, for tests and the demo."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devcluster import launch
from devcluster.build.binaries import locate
from devcluster.control.certificates import KeyPair
from devcluster.errors import ApiError, CommandError, DevclusterError, NotRunningError
from devcluster.node import failures
from devcluster.reader import Reader
from devcluster.settings import ClusterSettings, default_images
from devcluster.state import State, is_up, read_state

Object = dict[str, Any]


@contextlib.contextmanager
def _as_command_error(what: str) -> Iterator[None]:
    try:
        yield
    except (ApiError, OSError, http.client.HTTPException) as problem:
        raise CommandError(f"{what}: {problem or type(problem).__name__}") from problem


class Cluster:
    """A cluster on this machine, up between `start` and `stop`, or for the time of a `with` statement.

    It ends with this process, even when this process is killed. To use one that `python -m devcluster up` started,
    see `Cluster.attach`.
    """

    def __init__(self, settings: ClusterSettings | None = None, *, directory: Path | None = None) -> None:
        """Describe a cluster; nothing is started yet.

        Args:
            settings: nodes, GPUs, images, speeds. The product's images and `python` are added to its images.
            directory: where its state goes; by default a temporary directory that is removed at the end.
        """
        chosen = settings or ClusterSettings(name=f"devcluster-{uuid.uuid4().hex[:6]}")
        self.settings = chosen.model_copy(update={"images": {**default_images(), **chosen.images}})
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="devcluster-"))
        self._handle: launch.Handle | None = None
        self._attached = False
        self._kubeconfig: Path | None = None
        self._reader: Reader | None = None
        self._binaries: dict[str, Path] = {}

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The cluster that is up in a state directory; it is left up by `stop`.

        Raises:
            NotRunningError: none is up there.
        """
        if not is_up(directory):
            raise NotRunningError(f"no cluster is up in {directory}; `python -m devcluster up` starts one")
        chosen = json.loads((directory / "settings.json").read_text())
        cluster = cls(ClusterSettings.model_validate(chosen["settings"]), directory=directory)
        cluster._attached = True
        cluster._binaries = {name: Path(path) for name, path in chosen["binaries"].items()}
        return cluster

    @classmethod
    def of_kubeconfig(cls, kubeconfig: Path) -> Self:
        """Any cluster that a kubeconfig leads to, with kubectl and helm from PATH.

        Only commands work: a devcluster's own facts and failures raise NotRunningError.
        """
        cluster = cls(directory=kubeconfig.parent)
        cluster._attached, cluster._kubeconfig = True, kubeconfig.resolve()
        return cluster

    # Up and down

    def start(self, progress: Callable[[str], None] = lambda _: None, *, detached: bool = False) -> Self:
        """Build what is missing, start everything, return when the nodes are Ready.

        Args:
            progress: told what is being waited for, when that changes.
            detached: the cluster does not end with this process but by `stop`, or by `python -m devcluster down` when
                its directory is `devcluster.paths.state_directory(NAME)`.

        Raises:
            BuildError: a program of the control plane cannot be built.
            ClusterStartError: the cluster does not come up.
        """
        self._binaries = locate(progress=progress)
        self._handle = launch.start(
            self.settings,
            self.directory,
            self._binaries,
            owned=not detached,
            temporary=self._own_directory,
            progress=progress,
        )
        if detached:
            self._handle.leave()
        return self

    def stop(self) -> None:
        """Stop everything; a cluster that was attached to stays up."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._attached:
            return
        with contextlib.suppress(NotRunningError):
            launch.stop(self.directory)
        if self._handle is not None:
            self._handle.release()
            self._handle = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Facts

    @property
    def state(self) -> State:
        """What the supervisor says: phase, nodes, the control plane's processes.

        Raises:
            NotRunningError: the cluster is not up.
        """
        state = None if self._kubeconfig is not None else read_state(self.directory)
        if state is None:
            raise NotRunningError(f"no cluster is up in {self.directory}")
        return state

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of an administrator."""
        return self._kubeconfig or self.directory / "kubeconfig"

    @property
    def audit_log_path(self) -> Path:
        """The API server's audit log: one JSON object per request, at level Metadata.

        Raises:
            NotRunningError: this is no devcluster.
        """
        if self._kubeconfig is not None:
            raise NotRunningError("this cluster is no devcluster: its audit log is not known")
        return self.directory / "logs" / "audit.log"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process with KUBECONFIG and PATH set for the cluster."""
        given = os.environ.get("PATH", os.defpath).split(os.pathsep)
        ours = dict.fromkeys(str(binary.parent) for binary in self._binaries.values())
        path = os.pathsep.join([*(directory for directory in ours if directory not in given), *given])
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    # Commands

    def run(
        self, *command: str, input: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the cluster's environment.

        Raises:
            CommandError: it left with another exit code than 0 (only with `check`), or took longer than `timeout`
                seconds; the message has its output.
        """
        program = str(self._binaries.get(command[0], command[0]))
        try:
            done = subprocess.run(
                [program, *command[1:]],
                input=input,
                text=True,
                capture_output=True,
                env=self.environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as problem:
            raise CommandError(f"{' '.join(command)} took longer than {timeout:g} s") from problem
        if check and done.returncode != 0:
            output = "\n".join(part.rstrip() for part in (done.stdout, done.stderr) if part.strip())
            raise CommandError(f"{' '.join(command)} left with exit code {done.returncode}:\n{output}")
        return done

    def kubectl(
        self, *arguments: str, input: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; see `run`."""
        return self.run("kubectl", *arguments, input=input, timeout=timeout, check=check)

    def helm(
        self, *arguments: str, input: str | None = None, timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run helm; see `run`."""
        return self.run("helm", *arguments, input=input, timeout=timeout, check=check)

    def apply(self, *manifests: Mapping[str, Any] | str, namespace: str | None = None) -> None:
        """Apply manifests given as dictionaries or YAML.

        Raises:
            CommandError: the API server refused one.
        """
        texts = [manifest if isinstance(manifest, str) else json.dumps(manifest) for manifest in manifests]
        scope = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", *scope, "--filename", "-", input="\n---\n".join(texts))

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """An object as a dictionary; None when there is none of that name."""
        if (reader := self._reader_of_devcluster()) is not None:
            with _as_command_error(f"get {kind} {name}"):
                return reader.get(kind, name, namespace or "default")
        scope = ["--namespace", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *scope, "--ignore-not-found", "--output", "json").stdout
        return json.loads(text) if text.strip() else None

    def objects(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Objects as dictionaries; of all namespaces when none is given. `kind` may be several, separated by commas."""
        if (reader := self._reader_of_devcluster()) is not None:
            with _as_command_error(f"get {kind}"):
                return list(reader.objects(kind, namespace, selector))
        scope = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        text = self.kubectl("get", kind, *scope, "--selector", selector, "--output", "json").stdout
        items: list[Object] = json.loads(text)["items"]
        return items

    def _reader_of_devcluster(self) -> Reader | None:
        """What reads without kubectl; None where only a kubeconfig is known."""
        if self._kubeconfig is not None:
            return None
        if self._reader is None:
            pki = self.directory / "pki"
            client = KeyPair(pki / "devcluster-admin.crt", pki / "devcluster-admin.key")
            self._reader = Reader(self.state.server, pki / "cluster-ca.crt", client)
        return self._reader

    def pod_logs(
        self, pod: str, namespace: str = "default", container: str | None = None, *, previous: bool = False
    ) -> str:
        """What a container of a Pod has written so far."""
        options = ["--container", container] if container else ["--all-containers"]
        return self.kubectl(
            "logs", pod, "--namespace", namespace, *options, f"--previous={str(previous).lower()}"
        ).stdout

    def audit_events(self, user: str = "") -> list[Object]:
        """The audit log's entries, of one user when given (such as `system:serviceaccount:NAMESPACE:NAME`)."""
        with self.audit_log_path.open() as file:
            events = [json.loads(line) for line in file if line.endswith("\n")]
        return [event for event in events if not user or event["user"].get("username") == user]

    def service_url(self, name: str, namespace: str, port: int | str | None = None, scheme: str = "http") -> str:
        """A URL at which this machine reaches a Service: its ClusterIP and port (by number or name; the first).

        Raises:
            DevclusterError: there is no such Service or port.
        """
        service = self.get("service", name, namespace)
        if service is None:
            raise DevclusterError(f"there is no Service {namespace}/{name}")
        for candidate in service["spec"]["ports"]:
            if port in (None, candidate["port"], candidate.get("name")):
                return f"{scheme}://{service['spec']['clusterIP']}:{candidate['port']}"
        raise DevclusterError(f"Service {namespace}/{name} has no port {port}")

    # Failures

    def _annotate(self, what: str, name: str, namespace: str | None, annotation: str, value: str | None) -> None:
        scope = ["--namespace", namespace] if namespace else []
        change = f"{annotation}-" if value is None else f"{annotation}={value}"
        self.kubectl("annotate", what, name, *scope, "--overwrite", change)

    def kill_container(
        self, pod: str, container: str, namespace: str = "default", *, out_of_memory: bool = False
    ) -> None:
        """Kill a container's processes, as a crash or, on request, as the kernel's out-of-memory killer does."""
        annotation = failures.OOM_KILL if out_of_memory else failures.KILL
        self._annotate("pod", pod, namespace, annotation, f"{container}/{uuid.uuid4().hex[:8]}")

    def signal_container(self, pod: str, container: str, namespace: str, number: int) -> None:
        """Send a signal to a container's first process, such as `signal.SIGSTOP` to make it hang."""
        order = f"{container}/{int(number)}/{uuid.uuid4().hex[:8]}"
        self._annotate("pod", pod, namespace, failures.SIGNAL, order)

    def break_devices(self, *resources: str) -> None:
        """From now on nodes refuse Pods that ask for these extended resources; without any, none is refused."""
        for node in self.state.nodes:
            self._annotate("node", node, None, failures.BROKEN_DEVICES, ",".join(resources) or None)

    def break_images(self, *repositories: str) -> None:
        """From now on pulls of these repositories fail on every node; without any, none fails."""
        for node in self.state.nodes:
            self._annotate("node", node, None, failures.BROKEN_IMAGES, ",".join(repositories) or None)

    def slow_images(self, seconds: Mapping[str, float]) -> None:
        """From now on each Pod's first pull of these repositories takes that many seconds; of others, none."""
        value = ",".join(f"{repository}={duration:g}" for repository, duration in seconds.items())
        for node in self.state.nodes:
            self._annotate("node", node, None, failures.SLOW_IMAGES, value or None)

    def lose_node(self, name: str) -> None:
        """Make a node fall silent: no heartbeats, no Pod status. Its containers go on, as in a network partition."""
        self._annotate("node", name, None, failures.LOST, "true")

    def restore_node(self, name: str) -> None:
        """End what `lose_node` began."""
        self._annotate("node", name, None, failures.LOST, None)

    def signal_component(self, name: str, number: int) -> None:
        """Send a signal to a program of the control plane; one that ends is started again by the supervisor.

        Args:
            name: etcd, kube-apiserver, kube-controller-manager or kube-scheduler.
            number: such as `signal.SIGSTOP`, `SIGCONT` or `SIGKILL`.

        Raises:
            NotRunningError: it does not run now.
        """
        pid = self.state.components[name].pid
        if pid is None:
            raise NotRunningError(f"{name} does not run at the moment")
        os.kill(pid, number)

    # Waiting

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout: float = 60, period: float = 0.1) -> None:
        """Wait for a condition.

        Raises:
            DevclusterError: it is not met within `timeout` seconds; the message shows Pods and latest events.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise DevclusterError(f"not within {timeout:g} s: {what}\n{self.overview()}")
            time.sleep(period)

    def overview(self) -> str:
        """Nodes, Pods and the latest events, for a message."""
        parts = [
            self.kubectl("get", "nodes,pods", "--all-namespaces", "--output", "wide", check=False).stdout,
            "\n".join(
                self.kubectl("events", "--all-namespaces", check=False).stdout.splitlines()[-20:],
            ),
        ]
        return "\n".join(part for part in parts if part)
