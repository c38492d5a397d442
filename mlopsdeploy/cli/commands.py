"""Commands, made from the settings that they take; and what all of them print alike.

A command is a function that is called with its settings; `command` makes flags, `--help` and
completion from their declarations. Its body imports what it runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from copy import copy
from typing import Any, NoReturn

import click

from mlopsdeploy.cli import completion
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import Declared, Options, Setting, load, unknown_variables

# In this order, where a command has them.
_HEADINGS = (
    "Arguments", "Input", "Columns", "Model", "Requirements", "Data and machines", "Cost", "Server",
    "Camera", "Lines", "Pipeline", "Run", "Ray", "Output", "Options",
)  # fmt: skip
WIDEST = 26  # of flags; what is wider has a line of its own
# What brings a package that a command imports when its work is to need it.
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


class Group(click.Group):
    """Commands in the order they are made."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


class Command(click.Command):
    """A command whose `--help` has its flags under headings, and examples."""

    def __init__(
        self, name: str, settings: tuple[type[Options], ...], examples: str, **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.settings = settings
        self.examples = examples

    @property
    def takes_a_file(self) -> bool:
        """Whether settings are in YAML and in the environment, too."""
        return any(issubclass(one, Declared) for one in self.settings)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, a heading after the other."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            heading = getattr(parameter, "heading", _HEADINGS[-1])
            record = parameter.get_help_record(ctx)
            if record is not None:
                found.setdefault(heading, []).append(record)
        flags = [flag for rows in found.values() for flag, _ in rows if len(flag) <= WIDEST]
        width = max(map(len, flags))
        for heading in _HEADINGS:
            if heading in found:
                with formatter.section(heading):
                    rows = [
                        (flag.ljust(width), text.removesuffix(".")) for flag, text in found[heading]
                    ]
                    formatter.write_dl(rows, col_max=WIDEST)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, and where settings can stand."""
        with formatter.section("Examples"):
            for line in self.examples.splitlines():
                formatter.write(f"  {line}\n")
        if self.takes_a_file:
            formatter.write_paragraph()
            formatter.write_text(
                "Each setting can also stand in a YAML file (--config; --batch-size is batch_size)"
                " or in the environment (MLOPSDEPLOY_BATCH_SIZE). A flag wins over the"
                " environment, that over the file."
            )


def command(
    name: str,
    *settings: type[Options],
    examples: str,
    group: click.Group | None = None,
    alias: str = "",
    of_bench: bool = False,
    **context: Any,
) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command.

    Args:
        name: what it is called.
        settings: the function is called with one of each.
        examples: for `--help`, a line each.
        group: what it is a command of, if that is here already.
        alias: another name for it, which `--help` does not show.
        of_bench: of settings that are in YAML too, it has only the flags for `bench`.
        context: settings of click's context.
    """

    def make(function: Callable[..., None]) -> Command:
        def run(**flags: Any) -> None:
            function(*_loaded(settings, flags))

        parameters: list[click.Parameter] = [
            _parameter(one)
            for cls in settings
            for one in cls.declared().values()
            if one.flag is not None and (one.bench or not (of_bench and issubclass(cls, Declared)))
        ]
        if any(issubclass(cls, Declared) for cls in settings):
            parameters.append(_config())
        made = Command(
            name, settings, examples, callback=run, params=parameters, help=function.__doc__,
            context_settings=context,
        )  # fmt: skip
        if group is not None:
            group.add_command(made)
        if group is not None and alias:
            hidden = copy(made)
            hidden.hidden = True
            group.add_command(hidden, alias)
        return made

    return make


def all_commands(top: click.Group) -> list[tuple[str, Command]]:
    """All commands below, each with its full name."""
    found: list[tuple[str, Command]] = []
    for name, one in top.commands.items():
        if isinstance(one, click.Group):
            found += [(f"{name} {below}", made) for below, made in all_commands(one)]
        elif isinstance(one, Command) and not one.hidden:
            found.append((name, one))
    return found


def _loaded(settings: tuple[type[Options], ...], flags: dict[str, Any]) -> list[Options]:
    top = click.get_current_context().find_root().command
    declared = [cls for cls in settings if issubclass(cls, Declared)]
    if declared and isinstance(top, click.Group):
        for line in unknown_variables(_variables(top)):
            print(f"mlopsdeploy: warning: {line}", file=sys.stderr)
    file = flags.pop("config", None) if declared else None
    return [
        load(cls, file, flags) if cls in declared else load(cls, None, flags, {})
        for cls in settings
    ]


def _variables(top: click.Group) -> set[str]:
    """The variables of all commands."""
    return {
        variable
        for _, made in all_commands(top)
        for cls in made.settings
        if issubclass(cls, Declared)
        for one in cls.declared().values()
        for variable in one.environment
    }


def _parameter(one: Setting) -> click.Parameter:
    help_ = one.shown_help
    if one.shown_default:
        help_ += f"  [default: {one.shown_default}]"
    if one.positional:
        metavar = one.kind.metavar if one.required else f"[{one.kind.metavar}]"
        return _Argument(
            [one.name], required=one.required, nargs=-1 if one.several else 1, default=None,
            metavar=metavar + "..." * one.several, shell_complete=completion.of(one),
            described=help_,
        )  # fmt: skip
    flag = f"{one.spelled}/{one.off}" if one.off else one.spelled
    names = [one.name, *filter(None, [one.short]), flag]
    if one.type is bool:
        return _Option(names, is_flag=True, default=None, help=help_, heading=one.group)
    return _Option(
        names, type=str, multiple=one.several, default=None, required=one.required,
        metavar=one.kind.metavar, help=help_, heading=one.group,
        shell_complete=completion.of(one),
    )  # fmt: skip


def _config() -> click.Parameter:
    return _Option(
        ["config", "-c", "--config"], type=str, default=None, metavar="FILE", heading=_HEADINGS[-1],
        help="YAML file with any of these settings", shell_complete=completion.config,
    )  # fmt: skip


class _Option(click.Option):
    def __init__(self, names: list[str], *, heading: str, **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self.heading = heading


class _Argument(click.Argument):
    heading = "Arguments"

    def __init__(self, names: list[str], *, described: str, **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self.described = described

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.metavar or "", self.described


# ---------------------------------------------------------------- what commands print alike


def import_failed(strategy: str, error: ModuleNotFoundError) -> NoReturn:
    """A package of the strategy's extra is missing; or, if the name is ours, we made a mistake."""
    if (error.name or "mlopsdeploy").startswith("mlopsdeploy"):
        raise error
    raise ConfigError(
        f"{strategy} needs the package {error.name!r}: pip install 'mlopsdeploy[{strategy}]'"
    ) from error


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


def print_json(found: object) -> None:
    """On standard output, at once."""
    print(json.dumps(found, ensure_ascii=False), flush=True)


def report(found: dict[str, Any], show: Callable[..., None], as_json: bool) -> None:
    """A report as JSON, or as people read it."""
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    # A pipe gets whole lines, for grep.
    show(found, Console(width=None if sys.stdout.isatty() else 200, highlight=False))
