"""Settings: a flag wins over the environment, that over the YAML file, that over the default.

Each setting is declared once, here, with its default. On the command line it is a flag
(`--batch-size`), in the environment `MLOPSDEPLOY_BATCH_SIZE`, in YAML `batch_size`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mlopsdeploy.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16", "int8"]


class Settings(BaseModel):
    """What all strategies share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "sentiment"
    runtime: str = "auto"
    precision: Precision = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class BatchSettings(Settings):
    """`mlopsdeploy batch`."""

    input: str | None = None
    output: str | None = None
    text_column: str | None = None
    features: tuple[str, ...] = ()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    limit: Annotated[int, Field(ge=1)] | None = None
    all_scores: bool = False
    prefix: str = ""
    delimiter: Annotated[str, Field(pattern=r"^(auto|[\t -!#-~])$")] = "auto"
    encoding: str = "auto"

    @field_validator("features", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`a,b,c`, as on the command line and in the environment."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


S = TypeVar("S", bound=Settings)


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
    known = settings.model_fields
    said = _read(file) if file else {}
    for key in said:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise ConfigError(f"{file}: unknown key {key!r}; {hint}")
    origin = dict.fromkeys(said, str(file))
    for name in known:
        variable = f"MLOPSDEPLOY_{name.upper()}"
        if variable in environment:
            said[name], origin[name] = environment[variable], variable
        if flags.get(name) is not None:
            said[name], origin[name] = flags[name], "--" + name.replace("_", "-")
    try:
        return settings.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        where = origin.get(name, file or "settings")
        what = where if where.startswith("--") else f"{where}: {name}"
        raise ConfigError(f"{what}: {first['input']!r}: {first['msg'].lower()}") from error


def _read(file: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(Path(file).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not YAML ({' '.join(str(error).split())[:160]})") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: expected 'key: value' lines")
    return value
