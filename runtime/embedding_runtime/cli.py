"""The command line: `embedding-runtime serve` and `embedding-runtime settings`."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Annotated, Any

import typer

from embedding_runtime import __version__
from embedding_runtime.errors import EXIT_STATUSES, FatalError, SettingsError
from embedding_runtime.openmp import wait_policy
from embedding_runtime.settings import LogFormat, Settings, flag, load, origin, variable

_STATUSES = "\n\n".join(f"{status}  {meaning}" for status, meaning in EXIT_STATUSES.items())
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Serve an embedding model over HTTP with the OpenAI and NIM embedding API.",
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"embedding-runtime {__version__}")
        raise typer.Exit


def _serve(alias: list[str] | None = None, **flags: Any) -> None:
    from embedding_runtime.logs import set_up_logging
    from embedding_runtime.service import leave, report, serve

    if alias:
        flags["model_aliases"] = tuple(alias)
    try:
        settings = load(flags)
        if _is_show_config():
            typer.echo(_table(settings, flags))
            return
        set_up_logging(as_json=settings.log_format is LogFormat.JSON, level=settings.log_level)
        serve(settings)
    except FatalError as error:
        report(error)
        leave(error.exit_status)
    except Exception as error:
        logging.getLogger(__name__).critical("a defect of the server", exc_info=error)
        report(FatalError(f"a defect of the server: {type(error).__name__}: {error}"))
        leave(FatalError.exit_status)
    leave(0)


def _is_show_config() -> bool:
    """Whether NIM's SHOW_CONFIG asks to print the settings. Raises SettingsError for a value that says neither."""
    value = os.environ.get("SHOW_CONFIG", "").lower()
    if value not in ("", "0", "false", "1", "true"):
        raise SettingsError(f"SHOW_CONFIG must be 1, true, 0 or false, not {value!r}")
    return value in ("1", "true")


def _settings(alias: list[str] | None = None, **flags: Any) -> None:
    from embedding_runtime.service import report

    if alias:
        flags["model_aliases"] = tuple(alias)
    try:
        _is_show_config()
        typer.echo(_table(load(flags), flags))
    except FatalError as error:
        report(error)
        raise typer.Exit(error.exit_status) from None


def _table(settings: Settings, flags: dict[str, Any]) -> str:
    """Every setting with its value and where that comes from."""
    rows = [("SETTING", "VALUE", "FROM")]
    for name in Settings.model_fields:
        value = getattr(settings, name)
        shown = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        rows.append((name, shown or "-", origin(name, flags)))
    rows.append(wait_policy(os.environ))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def _signature() -> inspect.Signature:
    """One option per setting, so that flags, variables and `--help` can never disagree."""
    alias = inspect.Parameter(
        "alias",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None, typer.Option("--alias", help="A further id of the model; may be repeated.")
        ],
    )
    parameters = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) or field.default_factory else f" Default: {field.default}."
        text = f"{field.description}{default} [{variable(name)}]"
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, typer.Option(flag(name), help=text, show_default=False)],
            )
        )
    return inspect.Signature([*parameters, alias])


for _function in (_serve, _settings):
    _function.__signature__ = _signature()  # type: ignore[attr-defined]
    _function.__annotations__ = {name: parameter.annotation for name, parameter in _signature().parameters.items()}
app.command(
    "serve",
    help="Load a model and serve it. Every flag is also an environment variable, named in brackets.\n\n"
    "The port opens at once; /v1/health/ready is 503 with what is being done until the model passed a self-test.\n\n"
    "Example: embedding-runtime serve --model sentence-transformers/all-MiniLM-L6-v2 --port 8000\n\n"
    f"Exit statuses:\n\n{_STATUSES}",
)(_serve)
app.command(
    "settings",
    help="Print every setting, its value and where it comes from: a flag, a variable, or the default.\n\n"
    "NIM's variables are accepted too (NIM_SERVER_BIND_ADDR, NIM_MAX_WAIT_MS, ...); ours win over them. Like NIM, "
    "`serve` with SHOW_CONFIG=1 prints this and ends.",
)(_settings)


def main() -> None:
    """The console script."""
    app()
