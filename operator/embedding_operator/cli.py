"""The command line: `run` in a cluster; `render`, `diff`, `status` and `support-bundle` at a desk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from embedding_operator.cluster import ClusterClient, ClusterError, load_configuration, user_agent
from embedding_operator.commands.bundle import collect, default_path, write
from embedding_operator.commands.difference import differences_in_cluster
from embedding_operator.commands.installed import installed
from embedding_operator.commands.manifests import UnusableFile, as_yaml, children_of, in_namespace, read_services
from embedding_operator.commands.status import status_page
from embedding_operator.control.operator import connected, identity_of_operator
from embedding_operator.errors import CannotListen
from embedding_operator.settings import Settings
from embedding_operator.telemetry import configure_logging

application = typer.Typer(
    name="embedding-operator",
    help="Turns EmbeddingService resources into running embedding endpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EXIT_DIFFERENT = 1
EXIT_USAGE = 64
EXIT_BAD_FILE = 65
EXIT_UNAVAILABLE = 69

T = TypeVar("T")
Files = Annotated[list[Path], typer.Argument(help="YAML files with EmbeddingServices; - is standard input.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of resources that name none.")]

OperatorNamespace = Annotated[str, typer.Option(help="Namespace of the operator's own Pods.")]
DEFAULT_OPERATOR_NAMESPACE = "embedding-operator-system"


def _fail(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def _settings(**given: object) -> Settings:
    """The environment's settings, and those `given` on the command line in place of them."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"EMBEDDING_OPERATOR_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        )
        raise _fail(faults, EXIT_USAGE) from error


def _settings_table() -> str:
    rows = [
        f"EMBEDDING_OPERATOR_{name.upper():28} {field.description} [{field.default!r}]"
        for name, field in Settings.model_fields.items()
    ]
    return "\n\n".join(rows)


@asynccontextmanager
async def _cluster() -> AsyncIterator[ClusterClient]:
    api = ApiClient(await load_configuration())
    api.user_agent = user_agent("command line")
    try:
        yield ClusterClient(api)
    finally:
        await api.close()


def _in_cluster(question: Callable[[ClusterClient], Awaitable[T]]) -> T:
    """Ask the cluster of KUBECONFIG one thing; a failure ends the program with one line."""

    async def ask() -> T:
        async with _cluster() as cluster:
            return await question(cluster)

    try:
        return asyncio.run(ask())
    except ConfigException as error:
        raise _fail(f"no cluster: {error}; set KUBECONFIG", EXIT_UNAVAILABLE) from error
    except ClusterError as error:
        hint = "; is the operator's CustomResourceDefinition installed in this cluster?" if error.lacks_api else ""
        raise _fail(f"{error.message}{hint}", EXIT_UNAVAILABLE) from error


@application.callback()
def _root() -> None:
    """Turns EmbeddingService resources into running embedding endpoints."""


@application.command(epilog="Environment variables:\n\n" + _settings_table())
def run(
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", help="Serve only this namespace; may be repeated. Default: all."),
    ] = None,
) -> None:
    """Watch EmbeddingServices and keep their children as they should be, until SIGTERM.

    In a cluster the Pod's ServiceAccount is used, elsewhere KUBECONFIG. Further settings are environment variables.
    """
    settings = _settings(watch_namespaces=tuple(namespace)) if namespace else _settings()
    configure_logging(settings.log_format, settings.log_level)

    async def operate() -> None:
        async with connected(settings) as operator:
            await operator.run()

    try:
        asyncio.run(operate())
    except ConfigException as error:
        raise _fail(f"no cluster: {error}; run in a Pod, or set KUBECONFIG", EXIT_UNAVAILABLE) from error
    except CannotListen as error:
        raise _fail(str(error), EXIT_UNAVAILABLE) from error


@application.command()
def render(files: Files, namespace: Namespace = "default") -> None:
    """Print the objects that would be created, as YAML. Asks no cluster.

    Example: embedding-operator render examples/minilm.yaml | kubectl apply --dry-run=server -f -
    """
    identity = identity_of_operator(_settings())
    try:
        for file in files:
            for resource in read_services(file):
                typer.echo(as_yaml(children_of(in_namespace(resource, namespace), identity)), nl=False)
    except UnusableFile as error:
        raise _fail(str(error), EXIT_BAD_FILE) from error


@application.command()
def diff(
    files: Files,
    namespace: Namespace = "default",
    operator_namespace: OperatorNamespace = DEFAULT_OPERATOR_NAMESPACE,
) -> None:
    """Print how the objects in the cluster would change. Nothing is written; the API server is asked for a dry run.

    Leaves with 0 when nothing would change and with 1 when something would. What the installed operator brings along
    for services that name no runtime image is read from its Deployment; EMBEDDING_OPERATOR_RUNTIME_IMAGE overrides it.
    """
    own = identity_of_operator(_settings())

    async def compare(cluster: ClusterClient) -> list[str]:
        resources = [in_namespace(resource, namespace) for file in files for resource in read_services(file)]
        operator = await installed(cluster, operator_namespace, own)
        if operator.doubt is not None:
            typer.echo(f"warning: {operator.doubt}", err=True)
        found = [await differences_in_cluster(cluster, resource, operator.identity) for resource in resources]
        return [text for texts in found for text in texts]

    try:
        found = _in_cluster(compare)
    except UnusableFile as error:
        raise _fail(str(error), EXIT_BAD_FILE) from error
    typer.echo("\n".join(found), nl=bool(found))
    if found:
        raise typer.Exit(EXIT_DIFFERENT)


@application.command()
def status(
    name: Annotated[str, typer.Argument(help="Name of an EmbeddingService.")], namespace: Namespace = "default"
) -> None:
    """Print one service's conditions, Pods, model identity and load."""
    page = _in_cluster(lambda cluster: status_page(cluster, namespace, name))
    if page is None:
        raise _fail(f"there is no EmbeddingService {namespace}/{name}", EXIT_BAD_FILE)
    typer.echo(page)


@application.command("support-bundle")
def support_bundle(
    name: Annotated[
        str | None, typer.Argument(help="Name of an EmbeddingService; all of the namespace without.")
    ] = None,
    namespace: Namespace = "default",
    operator_namespace: OperatorNamespace = DEFAULT_OPERATOR_NAMESPACE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; must not exist.")] = None,
) -> None:
    """Write what somebody else needs to find a fault into one tar.gz: objects, Events, logs, what the Pods answer.

    Secrets are never read, and values that look like secrets are taken out; its README says what is in it and what
    could not be read. Look through it before you give it away.

    Example: embedding-operator support-bundle minilm --namespace search
    """
    path = output or default_path(namespace, [name])

    def say(text: str) -> None:
        typer.echo(text, err=True)

    try:
        bundle = _in_cluster(lambda cluster: collect(cluster, namespace, name, operator_namespace, say))
        write(bundle, path)
    except OSError as error:
        raise _fail(f"cannot write {path}: {error.strerror}", EXIT_BAD_FILE) from error
    for text in bundle.missing:
        say(f"not in the bundle: {text}")
    typer.echo(str(path))


def main() -> None:
    """Entry point of the console script."""
    sys.exit(application())
