"""What the shell offers when Tab is pressed, other than the commands and flags that click knows.

It must answer while somebody waits with a finger on Tab: it looks at names and folders and imports
nothing heavy. Where it has nothing to offer, the shell completes file names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

import mlopsdeploy
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import Setting

_MODELS = (".h5", ".hdf5", ".keras", ".onnx", ".tflite", ".xml")
_CONFIGS = (".yaml", ".yml")
# What no shell wants quoted. A name with anything else in it is left to the shell, which quotes.
_PLAIN = re.compile(r"[\w./+@%,-]*")
Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def of(setting: Setting) -> Offer:
    """What is offered for a setting: its words, models, runtimes; else the shell's files."""
    offers: dict[str | None, Callable[[str], list[str]]] = {"model": _model, "runtime": _runtime,
                                                           "config": _config}  # fmt: skip
    if setting.choices:
        return _offer(lambda start: _beginning(start, setting.choices))
    return _offer(offers.get(setting.offers, lambda _: []))


def _offer(words: Callable[[str], list[str]]) -> Offer:
    def offer(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
        found = [CompletionItem(word) for word in words(start)]
        return found or [CompletionItem(start, type="file")]

    return offer


def _model(start: str) -> list[str]:
    """Built-in names, folders, and files of a kind that holds a model."""
    folder = Path(mlopsdeploy.__file__).parent / "builtin"
    names = sorted(path.parent.name for path in folder.glob("*/model.yaml"))
    return [*_beginning(start, names), *_paths(start, _MODELS)]


def _config(start: str) -> list[str]:
    """YAML files, and folders on the way to them."""
    return _paths(start, _CONFIGS)


def _runtime(start: str) -> list[str]:
    """Runtimes, those of other packages too."""
    from mlopsdeploy.core import plugins

    return _beginning(start, ["auto", *plugins.names("runtimes")])


config = _offer(_config)


def _beginning(start: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(start)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files that end so, and folders.

    A folder that is alone comes with what is in it: shells put a space behind the only answer.
    """
    found = _entries(incomplete, suffixes)
    if len(found) == 1 and found[0].endswith("/"):
        found += _entries(found[0], suffixes)
    return found


def _entries(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    head, start = os.path.split(incomplete)
    before = incomplete[: len(incomplete) - len(start)]
    found = []
    try:
        with os.scandir(head or ".") as entries:
            for entry in entries:
                name = before + entry.name
                hidden = entry.name.startswith(".") and not start.startswith(".")
                if hidden or not entry.name.startswith(start) or not _PLAIN.fullmatch(name):
                    continue
                if entry.is_dir():
                    found.append(f"{name}/")
                elif name.endswith(suffixes):
                    found.append(name)
    except OSError:  # no such folder, or not ours to read
        return []
    return sorted(found)


# ---------------------------------------------------------------- the script of a shell

# Where each shell's script goes, and what its start-up file needs for it.
_INSTALLED: Final = {
    "bash": (".bash_completions/mlopsdeploy.sh", ".bashrc",
             "source '{}'"),
    "zsh": (".zfunc/_mlopsdeploy", ".zshrc",
            "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "fish": (".config/fish/completions/mlopsdeploy.fish", "", ""),
}  # fmt: skip
# A flag that may name a shell, and else means the one that is running.
SHELLS: Final[dict[str, Any]] = {
    "is_flag": False, "flag_value": "auto", "default": None, "metavar": "[SHELL]",
    "expose_value": False, "is_eager": True, "type": click.Choice(["auto", *_INSTALLED]),
}  # fmt: skip


def show(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    """Print the script, where it is asked for."""
    if shell is not None:
        print(_script(ctx.find_root().command, _known(shell)))
        ctx.exit()


def install(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    """Put the script where the shell finds it, where it is asked for."""
    if shell is None:
        return
    shell = _known(shell)
    place, start_up, line = _INSTALLED[shell]
    script = Path.home() / place
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_script(ctx.find_root().command, shell), "utf-8")
    if start_up:
        path, line = Path.home() / start_up, line.format(script)
        before = path.read_text("utf-8") if path.exists() else ""
        if line not in before.splitlines():
            path.write_text(f"{before}\n{line}\n", "utf-8")
    print(f"{script}: the completion of {shell}, in each new shell")
    ctx.exit()


def _known(shell: str) -> str:
    found = Path(os.environ.get("SHELL", "")).name if shell == "auto" else shell
    if found not in _INSTALLED:
        raise ConfigError(f"which shell? name one of {', '.join(_INSTALLED)}")
    return found


def _script(app: click.Command, shell: str) -> str:
    made = get_completion_class(shell)
    assert made is not None
    return made(app, {}, "mlopsdeploy", "_MLOPSDEPLOY_COMPLETE").source()
