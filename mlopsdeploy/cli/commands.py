"""Commands, made from the settings that they take; and what all of them print alike.

A command is a function that is called with its settings; `command` makes flags, `--help` and
completion from their declarations. Its body imports what it runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from mlopsdeploy.cli import completion
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import Declared, Options, Setting, load, unknown_variables

# In this order, where a command has them.
_HEADINGS = (
    "Arguments", "Input", "Columns", "Model", "Requirements", "Data and machines", "Cost", "Server",
    "Filters", "Camera", "Lines", "Pipeline", "Run", "Ray", "Output", "Messages", "Options",
)  # fmt: skip
WIDEST = 26  # of flags; what is wider has a line of its own
# What brings a package that a command imports when its work is to need it.
_EXTRAS = {
    "cv2": "edge",
    "filelock": "batch",
    "flask": "serve",
    "httptools": "serve",
    "jinja2": "report",
    "matplotlib": "report",
    "msgspec": "serve",
    "prometheus_client": "serve",
    "pyarrow": "batch",
    "tokenizers": "text",
}


class Command(TyperCommand):
    """A command whose `--help` has its flags under headings, and examples."""

    settings: tuple[type[Options], ...] = ()
    examples = ""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags, a heading after the other."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            heading = getattr(parameter, "rich_help_panel", None) or _HEADINGS[-1]
            flag, text = parameter.get_help_record(ctx) or ("", "")
            if isinstance(parameter, TyperArgument):
                flag, text = _metavar(parameter), parameter.help or ""
            text = text.removesuffix("  [required]").removesuffix(".")
            found.setdefault(heading, []).append((flag, text))
        flags = [flag for rows in found.values() for flag, _ in rows if len(flag) <= WIDEST]
        width = max(map(len, flags))
        for heading in (one for one in _HEADINGS if one in found):
            with formatter.section(heading):
                rows = [(flag.ljust(width), text) for flag, text in found[heading]]
                formatter.write_dl(rows, col_max=WIDEST)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a second camera, by which the first would be forgotten."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        names = [one.name for one in order]
        for name in ("camera", "lines"):
            if names.count(name) > 1:
                raise ConfigError(f"--{name} is given twice; start a process for each")
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] A B`."""
        arguments = [one for one in self.get_params(ctx) if isinstance(one, TyperArgument)]
        return ["[OPTIONS]", *map(_metavar, arguments)]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write examples, and where settings can stand."""
        with formatter.section("Examples"):
            for line in self.examples.splitlines():
                formatter.write(f"  {line}\n")
        if any(issubclass(one, Declared) for one in self.settings):
            formatter.write_paragraph()
            formatter.write_text(
                "Each setting can also stand in a YAML file (--config; --batch-size is batch_size)"
                " or in the environment (MLOPSDEPLOY_BATCH_SIZE). A flag wins over the"
                " environment, that over the file."
            )


def _metavar(argument: TyperArgument) -> str:
    name = argument.metavar or ""
    return (name if argument.required else f"[{name}]") + "..." * (argument.nargs == -1)


class Group(TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the flags before the command's name."""
        if args and not args[0].startswith("-"):
            # Typer loads pydantic to see that its flags are not given.
            self.params, self.add_help_option = [], False
        return super().parse_args(ctx, args)


def group(name: str, help_: str) -> typer.Typer:
    """A group of commands; `name` is empty for the one at the top."""
    return typer.Typer(
        name=name or "mlopsdeploy", cls=Group, help=help_,
        no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
        add_completion=not name,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )  # fmt: skip


def command(
    app: typer.Typer,
    name: str,
    *settings: type[Options],
    examples: str,
    alias: str = "",
    of_bench: bool = False,
    pass_context: bool = False,
    **context: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command.

    Args:
        app: what it is a command of.
        name: what it is called.
        settings: the function is called with one of each.
        examples: for `--help`, a line each.
        alias: another name for it, which `--help` does not show.
        of_bench: of settings that are in YAML too, it has only the flags for `bench`.
        pass_context: the function is called with Typer's context before all.
        context: settings of that context.
    """

    def make(function: Callable[..., None]) -> Callable[..., None]:
        def run(ctx: typer.Context, **flags: Any) -> None:
            loaded = _loaded(settings, flags, ctx)
            function(*([ctx] if pass_context else []), *loaded)

        parameters = [
            _parameter(one)
            for cls in settings
            for one in cls.declared().values()
            if one.flag is not None and (one.bench or not (of_bench and issubclass(cls, Declared)))
        ]
        if any(issubclass(cls, Declared) for cls in settings):
            parameters.append(_config())
        # What Typer is to see.
        signature = Signature([_CONTEXT, *parameters])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        cls = type("Command", (Command,), {"settings": settings, "examples": examples})
        for one in filter(None, (name, alias)):
            app.command(
                one, cls=cls, help=function.__doc__, hidden=one == alias, context_settings=context
            )(run)
        return function

    return make


def all_commands(app: typer.Typer) -> list[tuple[str, Command]]:
    """All commands below, each with its full name."""
    return _below(typer.main.get_command(app))


def _below(top: object) -> list[tuple[str, Command]]:
    found: list[tuple[str, Command]] = []
    for name, one in top.commands.items() if isinstance(top, TyperGroup) else ():
        if isinstance(one, TyperGroup):
            found += [(f"{name} {below}", made) for below, made in _below(one)]
        elif isinstance(one, Command) and not one.hidden:
            found.append((name, one))
    return found


def _loaded(
    settings: tuple[type[Options], ...], flags: dict[str, Any], ctx: typer.Context
) -> list[Options]:
    declared = [cls for cls in settings if issubclass(cls, Declared)]
    if declared:
        variables = {
            variable
            for _, made in _below(ctx.find_root().command)
            for cls in made.settings
            if issubclass(cls, Declared)
            for one in cls.declared().values()
            for variable in one.environment
        }
        for line in unknown_variables(variables):
            print(f"mlopsdeploy: warning: {line}", file=sys.stderr)
    file = flags.pop("config", None) if declared else None
    return [
        load(cls, file, flags) if cls in declared else load(cls, None, flags, {})
        for cls in settings
    ]


# ---------------------------------------------------------------- parameters for Typer


_CONTEXT = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def _parameter(one: Setting) -> Parameter:
    default = f"  [default: {one.shown_default}]" if one.shown_default else ""
    shared: dict[str, Any] = {
        "help": one.shown_help + default, "show_default": False,
        "autocompletion": completion.of(one),
        "metavar": None if one.type is bool else one.kind.metavar,
    }  # fmt: skip
    if one.positional:
        how = typer.Argument(rich_help_panel="Arguments", **shared)
    else:
        flag = f"{one.spelled}/{one.off}" if one.off else one.spelled
        how = typer.Option(*filter(None, [one.short]), flag, rich_help_panel=one.group, **shared)
    kind: Any = bool if one.type is bool else list[str] if one.several else str
    return _keyword(one.name, kind, how, required=one.required)


def _config() -> Parameter:
    how = typer.Option(
        "-c", "--config", metavar="FILE", show_default=False, rich_help_panel=_HEADINGS[-1],
        help="YAML file with any of these settings", autocompletion=completion.config,
    )  # fmt: skip
    return _keyword("config", str, how, required=False)


def _keyword(name: str, kind: Any, how: Any, *, required: bool) -> Parameter:
    kind, default = (kind, Parameter.empty) if required else (kind | None, None)
    annotation = Annotated[kind, how]
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


# ---------------------------------------------------------------- what commands print alike


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
