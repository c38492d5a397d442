"""Options that mean the same in every command, and what every command says alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from mlopsdeploy.errors import ConfigError

Precision = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or int8.")]
TrustModel = Annotated[
    bool | None, typer.Option("--trust-model", help="Run code that the model's files carry.")
]
Overwrite = Annotated[
    bool | None,
    typer.Option("--overwrite", help="Replace an output that exists, whoever wrote it."),
]
JsonReport = Annotated[bool, typer.Option("--json", help="Print it as JSON on standard output.")]
Reference = Annotated[
    str, typer.Argument(help="Built-in name, folder, file, hub id org/name.", metavar="MODEL")
]


def import_failed(command: str, error: ModuleNotFoundError) -> NoReturn:
    """A package of the command's extra is missing; or, if the name is ours, we made a mistake."""
    if (error.name or "mlopsdeploy").startswith("mlopsdeploy"):
        raise error
    raise ConfigError(
        f"{command} needs the package {error.name!r}: pip install 'mlopsdeploy[{command}]'"
    ) from error


# What brings a package that a command imports later, when its work is to need it.
_EXTRAS = {
    "cv2": "edge",
    "filelock": "batch",
    "flask": "serve",
    "granian": "serve",
    "jinja2": "report",
    "matplotlib": "report",
    "msgspec": "serve",
    "prometheus_client": "serve",
    "pyarrow": "batch",
    "tokenizers": "text",
}


def missing_extra(error: ModuleNotFoundError) -> ConfigError | None:
    """What to install, if that is all that is wrong."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    return ConfigError(
        f"this needs the package {package!r}: pip install 'mlopsdeploy[{_EXTRAS[package]}]'"
    )


def log(line: str) -> None:
    """What takes long, in one line, on standard error."""
    print(line, file=sys.stderr)


def report(found: dict[str, Any], show: Callable[..., None], as_json: bool) -> None:
    """A report as JSON, or as people read it."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    from rich.console import Console

    # A pipe gets whole lines, for grep.
    show(found, Console(width=None if sys.stdout.isatty() else 200, highlight=False))
