"""The command line: `embedding-operator run`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from embedding_operator.control.operator import connected
from embedding_operator.settings import Settings
from embedding_operator.telemetry import configure_logging

application = typer.Typer(
    name="embedding-operator",
    help="Turns EmbeddingService resources into running embedding endpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69


def _fail(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def _settings_table() -> str:
    rows = [
        f"EMBEDDING_OPERATOR_{name.upper():28} {field.description} [{field.default!r}]"
        for name, field in Settings.model_fields.items()
    ]
    return "\n\n".join(rows)


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
    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"EMBEDDING_OPERATOR_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        )
        raise _fail(faults, EXIT_USAGE) from error
    if namespace:
        settings = settings.model_copy(update={"watch_namespaces": tuple(namespace)})
    configure_logging(settings.log_format, settings.log_level)
    try:
        asyncio.run(_run(settings))
    except OSError as error:
        raise _fail(f"cannot listen on port {settings.port}: {error}", EXIT_UNAVAILABLE) from error


async def _run(settings: Settings) -> None:
    async with connected(settings) as operator:
        await operator.run()


def main() -> None:
    """Entry point of the console script."""
    sys.exit(application())
