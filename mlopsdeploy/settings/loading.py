"""Settings from their four places: a flag wins over the environment, that over the YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from mlopsdeploy.errors import ConfigError, did_you_mean
from mlopsdeploy.settings.declaring import PREFIX, Options, SettingError, place

# Variables that are no settings.
_OTHERS = {"MLOPSDEPLOY_CACHE"}
# What Kubernetes puts into each container about a Service called mlopsdeploy.
_OF_KUBERNETES = re.compile(r"MLOPSDEPLOY(_\w+)?_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))\w*")
S = TypeVar("S", bound=Options)


def load(
    settings: type[S],
    file: str | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> S:
    """Settings from all four places.

    Args:
        settings: their class.
        file: a YAML file, or None.
        flags: by setting name; None means not given.
        environment: where `MLOPSDEPLOY_<SETTING>` is looked up.

    Raises:
        ConfigError: the file can't be read, a key is unknown, or a value is wrong; the message
            says in which of the places.
    """
    known = settings.declared()
    values: dict[str, Any] = {}
    if file:
        from mlopsdeploy.core.yaml_files import read_yaml  # flags alone need no YAML

        values = read_yaml(file, ConfigError)
    for key in values:
        if key not in known:
            raise ConfigError(f"{file}: unknown key {key!r}; {did_you_mean(str(key), known)}")
    origin = dict.fromkeys(values, str(file))
    for name, one in known.items():
        variable = next((variable for variable in one.environment if variable in environment), None)
        if variable is not None:
            values[name], origin[name] = environment[variable], variable
        flag = flags.get(name)
        if flag is not None and not (one.several and not flag):
            values[name], origin[name] = flag, one.spelled
    try:
        return settings(**values)
    except SettingError as error:
        path = place(error.path)
        name = str(error.path[0]) if error.path else ""
        where = origin.get(name, file or "settings")
        what = path.replace(name, where, 1) if where.startswith("--") else f"{where}: {path}"
        if error.unknown:
            raise ConfigError(f"{what}: unknown key {error.value!r}; {error.problem}") from error
        is_secret = name in known and known[name].secret
        value = "" if is_secret else f"{_quoted(error.value)}: "
        raise ConfigError(f"{what}: {value}{error.problem}") from error


def unknown_variables(known: set[str]) -> Iterator[str]:
    """A line on each variable that looks like a setting and is none of the `known`."""
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in known | _OTHERS or _OF_KUBERNETES.match(name):
            continue
        from difflib import get_close_matches

        near = get_close_matches(name, known | _OTHERS, n=1)
        yield f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _quoted(value: object) -> str:
    """Numbers as they are, whether text or not."""
    is_number = isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value)
    return str(value) if is_number else repr(value)
