"""Write the pages of docs/reference from the declarations that they describe.

python docs/reference.py          # rewrite them
python docs/reference.py --check  # fail where one is not as it would be written
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlopsdeploy
from mlopsdeploy.cli import app
from mlopsdeploy.cli.commands import Command, all_commands
from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.settings import Declared, Options, ServedModel, Setting

FOLDER = Path(__file__).parent / "reference"
KINDS = {bool: "yes or no", int: "whole number", str: "text", tuple: "list", dict: "mapping"}
SIGNS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "not empty"}


def settings() -> str:
    """A table for each command, made from what it declares."""
    parts = [
        "# Settings",
        "What each command can be told, and where: a flag wins over the environment, that over the "
        "YAML file (`--config`), that over the default.",
        "Times are numbers with ms, s, min, h, d or w (seconds if without), sizes have "
        "kB, MB, GB or KiB, MiB, GiB, shares are `1%` or `0.01`, and yes or no are `true`, `yes`, "
        "`false` or `no`. A variable `MLOPSDEPLOY_` that no command knows is reported; "
        "`MLOPSDEPLOY_CACHE` is the folder of compiled models.",
    ]
    for name, command in all_commands(app):
        parts += [f"## mlopsdeploy {name}", " ".join((command.help or "").split())]
        parts.append("```text\n" + command.examples + "\n```")
        parts += _tables(name, command)
    parts += [
        "## Entries of models",
        "Each of `models:` in the YAML of `serve` is a model, `NAME=MODEL`, or a mapping of these "
        "keys; how a model runs is what the server's settings say, unless its own say otherwise. "
        "What callers see may also stand in its `model.yaml` under `serve:`.",
        _table([_yaml(one) for one in ServedModel.declared().values()], "key", *DESCRIPTION),
    ]
    return "\n\n".join(parts) + "\n"


DESCRIPTION = ("value", "default", "what it is")


def _tables(name: str, command: Command) -> Iterator[str]:
    bench = name.startswith("bench ")
    everywhere = [one for one in _declared(command, Declared) if one.bench or not bench]
    own = _declared(command, Options)
    if bench:
        yield (
            "Flags of this command; what `mlopsdeploy "
            + name.removeprefix("bench ")
            + ("` can be told otherwise comes from YAML and the environment:")
        )
    if everywhere:
        rows = [(_flag(one), _code(*one.environment), *_yaml(one)) for one in everywhere]
        yield _table(rows, "flag", "variable", "YAML key", *DESCRIPTION)
    if own:
        rows = [(_flag(one), *_yaml(one)[1:]) for one in own]
        yield _table(rows, "flag", *DESCRIPTION)


def _declared(command: Command, kind: type[Options]) -> list[Setting]:
    """Settings that are in YAML too, or those that are not."""
    return [
        one
        for cls in command.settings
        if issubclass(cls, Declared) == (kind is Declared)
        for one in cls.declared().values()
    ]


def _flag(one: Setting) -> str:
    if one.flag is None:
        return "–"
    if one.positional:
        return _code(one.kind.metavar)
    return _code(*filter(None, (one.spelled, one.off, one.short)))


def _yaml(one: Setting) -> tuple[str, ...]:
    default = one.shown_default or ("no" if one.default is False else "–")
    return _code(one.name), _value(one), default, one.help


def _value(one: Setting) -> str:
    if one.choices:
        return ", ".join(f"`{word}`" for word in one.choices)
    kind = KINDS.get(one.type, one.kind.metavar.lower())
    if one.type is int and one.kind.metavar == "SIZE":
        kind = "size"
    bounds = {**dict(one.kind.bounds), **one.bounds}
    limits = [SIGNS[name].format(f"{value:,}") for name, value in bounds.items() if name in SIGNS]
    return ", ".join([kind, *limits])


def _code(*words: str) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(rows: list[tuple[str, ...]], *headings: str) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


API = {
    "Functions": ("load_model", "score_file"),
    "Models": (
        "Model", "Model.predict", "Model.predict_frame", "Model.predict_columns", "ScoredFile",
    ),
    "Errors": (
        "MlopsDeployError", "ConfigError", "InputError", "RowError", "ModelError",
        "LanguageWarning",
    ),
    "For a runtime or a task of your own": (
        "Runtime", "Runtime.run", "Task", "Task.build", "Task.encode", "Task.cost", "Task.collate",
        "Task.decode", "Field", "ModelFiles", "TaskOptions", "rows_of", "take", "objects",
    ),
}  # fmt: skip
DOCSTRING = ("Args", "Returns", "Raises", "Warns", "Attributes", "Example")


def api() -> str:
    """Every public name: how it is called, what it takes and raises, an example."""
    parts = [
        "# From Python",
        "All names are imported from `mlopsdeploy`. What is wrong is an `MlopsDeployError` with a "
        "message of one line. `Columns` is `dict[str, numpy.ndarray]`, all with the same first "
        "axis; rows are counted from 0.",
    ]
    for title, names in API.items():
        parts.append(f"## {title}")
        for name in names:
            value: Any = mlopsdeploy
            for word in name.split("."):
                value = getattr(value, word)
            parts.append(f"### {name}")
            if inspect.isroutine(value):
                parts.append(f"```text\n{name}{_signature(value)}\n```")
            parts.append(_docstring(inspect.getdoc(value) or ""))
    return "\n\n".join(parts) + "\n"


def _signature(function: Callable[..., Any]) -> str:
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    signature = re.sub(r"<function [^>]*> at [^>]*>|<function [^ ]* at [^>]*>", "...", signature)
    return signature.replace("(self, ", "(").replace("(self)", "()")


def _docstring(text: str) -> str:
    """Its sections as lists, its example as code."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if line.removesuffix(":") in DOCSTRING and line.endswith(":"):
            section = line[:-1]
            lines += [f"**{section}**", "", *(["```pycon"] if section == "Example" else [])]
        elif section and line.startswith("     ") and section != "Example":
            lines.append("  " + line.strip())
        elif section in ("Args", "Raises", "Warns", "Attributes") and line.startswith("    "):
            names, _, rest = line.strip().partition(": ")
            lines.append(f"- `{names}`: {rest}")
        else:
            lines.append(line.removeprefix("    "))
    return "\n".join([*lines, *(["```"] if section == "Example" else [])])


def model_yaml() -> str:
    """A table for each part of the schema."""
    schema = ModelYaml.model_json_schema()
    parts = [
        "# model.yaml",
        "What a model's files don't tell by themselves stands in `model.yaml` in its folder, or "
        "for a single file in a YAML of the same name. All keys may be left out; any other is an "
        "error. It is YAML 1.2: `no` is text, `false` is not. "
        "[model.yaml.schema.json](model.yaml.schema.json) is the same for editors.",
    ]
    for heading, keys in (("Keys", schema), *schema["$defs"].items()):
        rows = [
            (_code(name), _kind(key), _example(key), " ".join(key.get("description", "").split()))
            for name, key in keys["properties"].items()
        ]
        title = heading if heading == "Keys" else f"Keys of {heading.removesuffix('Keys').lower()}"
        parts += [f"## {title}", keys.get("description", "")]
        parts.append(_table(rows, "key", "value", "example", "what it is"))
    return "\n\n".join(parts) + "\n"


def _kind(key: Mapping[str, Any]) -> str:
    if "$ref" in key:
        return "mapping, see below"
    if "enum" in key:
        return ", ".join(f"`{word}`" for word in key["enum"])
    if "anyOf" in key:
        kinds = [_kind(one) for one in key["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    words = {
        "array": "list",
        "object": "mapping",
        "integer": "whole number",
        "boolean": "yes or no",
    }
    signs = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}"}
    kind = key.get("type", "anything")
    limits = [sign.format(key[name]) for name, sign in signs.items() if name in key]
    return ", ".join([words.get(kind, kind.replace("string", "text")), *limits])


def _example(key: Mapping[str, Any]) -> str:
    values = key.get("examples") or ([key["default"]] if key.get("default") is not None else [])
    return _code(json.dumps(values[0], ensure_ascii=False)) if values else "–"


def model_yaml_schema() -> str:
    """For editors and validators."""
    return json.dumps(ModelYaml.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api,
    "settings.md": settings,
    "model-yaml.md": model_yaml,
    "model.yaml.schema.json": model_yaml_schema,
}


def main() -> None:
    """Write the pages, or check them."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        elif not path.is_file() or path.read_text("utf-8") != text:
            sys.exit(f"{path}: not as it would be written; run python docs/reference.py")


if __name__ == "__main__":
    main()
