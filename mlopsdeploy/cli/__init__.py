"""The command line: thin Typer commands over the strategies, made from their settings.

Nothing heavy is imported here. A command's body imports what it runs, so that `--help` answers
at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer

from mlopsdeploy import __version__
from mlopsdeploy.cli.bench import bench
from mlopsdeploy.cli.commands import missing_extra
from mlopsdeploy.cli.models import models
from mlopsdeploy.cli.package import package
from mlopsdeploy.cli.strategies import app
from mlopsdeploy.errors import MlopsDeployError, Stopped

for one in (package, models, bench):
    app.add_typer(one)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mlopsdeploy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Put a trained model to work."""


def main() -> NoReturn:
    """The entry point: one line and an exit code for what a user can act on."""
    _on_signals(_stop)
    code: int | str | None = 0
    try:
        app(prog_name="mlopsdeploy")
    except (MlopsDeployError, ModuleNotFoundError) as error:
        wrong = error if isinstance(error, MlopsDeployError) else missing_extra(error)
        if wrong is None:
            raise
        print(f"mlopsdeploy: {wrong}", file=sys.stderr)
        code = wrong.exit_code
    except Stopped as stopped:
        word = "interrupted" if stopped.number == signal.SIGINT else "terminated"
        print(f"mlopsdeploy: {word}; {stopped.kept}", file=sys.stderr)
        code = stopped.code
    except SystemExit as leaving:
        code = leaving.code
    _on_signals(signal.SIG_IGN)  # the work is over, and its exit code is known
    if any(thread.daemon for thread in threading.enumerate()):
        # A reader sits in a read that may never return; the interpreter would wait for its lock.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def _on_signals(handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """A signal unwinds like an exception, so that no half-written file stays behind."""
    raise Stopped(number)
