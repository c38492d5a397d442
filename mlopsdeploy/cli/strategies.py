"""`mlopsdeploy batch`, `serve`, `edge` and `choose`."""

from __future__ import annotations

import sys
import time
from functools import partial

import typer

from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.cli import commands
from mlopsdeploy.cli.commands import group, print_json
from mlopsdeploy.errors import ConfigError, needs
from mlopsdeploy.settings import (
    BatchSettings,
    EdgeSettings,
    Options,
    ServeSettings,
    load,
    setting,
)

app = group("", "Put a trained model to work.")


class Summary(Options):
    """How a run ends."""

    as_json: bool = setting(
        False, "Print the summary as JSON on standard output", flag="--json", group="Output"
    )


class Health(Options):
    """What is asked of a device in place of a run."""

    check: bool = setting(
        False, "Say how model, camera, outputs, disk and temperature are, and end", group="Run"
    )


class Answers(Options):
    """How `choose` asks and answers."""

    yes: bool = setting(
        False, "Ask nothing: defaults for what is not given", group="Output", short="-y"
    )
    as_json: bool = setting(
        False, "Print it as JSON on standard output; asks nothing", flag="--json"
    )


# Extra arguments are allowed so that a pattern which the shell has spread out gets its own message.
@commands.command(
    app, "batch", BatchSettings, Summary, allow_extra_args=True, pass_context=True,
    examples="mlopsdeploy batch reviews.csv\n"
    "mlopsdeploy batch transactions.csv --model fraud -o scored.parquet\n"
    "mlopsdeploy batch 'photos/*.jpg' --model detector",
)  # fmt: skip
def batch(ctx: typer.Context, settings: BatchSettings, summary: Summary) -> None:
    """Score every row of a file, or every picture of a folder.

    Writes each row as it is, followed by label and score, or by the objects that a detector found.
    """
    others = ctx.args
    if others:
        several = [str(settings.input), *others]
        shown = ", ".join(several[:2]) + (", …" if len(several) > 2 else "")
        raise ConfigError(
            f"{len(several)} inputs ({shown}), where one is taken; name their folder, or quote the "
            "pattern: 'photos/*.jpg'"
        )
    if settings.input is None:
        raise ConfigError("no input: name a file, as in 'mlopsdeploy batch reviews.csv'")
    if summary.as_json and settings.output == "-":
        raise ConfigError("--json and --output -: both want standard output; use one of them")
    if settings.schedule and settings.input == "-":
        raise ConfigError("--schedule: standard input can be read only once; name a file")
    with needs("batch", "batch"):
        from mlopsdeploy.batch import command
        from mlopsdeploy.core import machine
    try:
        if settings.schedule:
            sys.exit(command.run_again_and_again(settings, sys.argv[1:]))
        with command.told(settings):
            found = command.run_batch(settings, born=time.time() - machine.process_age())
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.exit(141)
    if summary.as_json:
        print_json(found)


@commands.command(
    app, "serve", ServeSettings,
    examples="mlopsdeploy serve\nmlopsdeploy serve --model fraud --model sentiment --port 9000",
)  # fmt: skip
def serve(settings: ServeSettings) -> None:
    """Answer requests over HTTP: a model behind REST.

    With no model named it serves the built-in fraud model at POST /detect_fraud. A page to try it
    is at /, its description at /openapi.json, numbers at /metrics.
    """
    with needs("serve", "serve"):
        from mlopsdeploy.serve import server
    server.run_serve(settings)


@commands.command(
    app, "edge", EdgeSettings, Summary, Health, pass_context=True,
    examples="mlopsdeploy edge --camera 0\n"
    "mlopsdeploy edge --camera street.mp4 --events events.jsonl --no-window\n"
    "mlopsdeploy edge --lines chat.log --follow",
)  # fmt: skip
def edge(ctx: typer.Context, settings: EdgeSettings, summary: Summary, health: Health) -> None:
    """Find objects in a camera's picture, or label lines as they come.

    All of it happens here, with no network. Of a camera it shows a window with boxes and labels;
    q in it, or Ctrl-C, ends. Each line of --lines gets a label and a score, on the terminal or as
    JSON.
    """
    to_output = settings.events == "-" or (settings.lines is not None and settings.events is None)
    if summary.as_json and to_output and not health.check:
        raise ConfigError("--json: answers go to standard output too; name a file with --events")
    from mlopsdeploy.edge import command

    with needs("edge", "edge"):
        command.run_class(settings)
    if health.check:
        from mlopsdeploy.edge.health import check_device

        found, code = check_device(settings)
    else:
        again = partial(load, EdgeSettings, ctx.params.get("config"), dict(ctx.params))
        found, code = command.run_edge(settings, again)
    if summary.as_json:
        print_json(found)
    sys.exit(code)


@commands.command(
    app, "choose", ChooseSettings, Answers,
    examples="mlopsdeploy choose\n"
    "mlopsdeploy choose --model fraud --sample rows.csv --response-time 200ms",
)  # fmt: skip
def choose(settings: ChooseSettings, answers: Answers) -> None:
    """Say which fits: batch, serve or edge.

    From a few answers, and from measuring your model. On a terminal it asks what flags and YAML
    leave open.
    """
    from mlopsdeploy.choose import command

    try:
        found = command.run_choose(
            settings, ask=not (answers.yes or answers.as_json), quiet=answers.as_json
        )
        if answers.as_json:
            print_json(found)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.exit(141)
