"""Settings: a flag wins over the environment, that over the YAML file, that over the default.

Each setting is declared once, here, with its default. On the command line it is a flag
(`--batch-size`), in the environment `MLOPSDEPLOY_BATCH_SIZE`, in YAML `batch_size`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from mlopsdeploy.errors import ConfigError

_MODEL_SUFFIXES = (".onnx", ".keras", ".h5", ".hdf5", ".tflite", ".xml")
Precision = Literal["auto", "float32", "bfloat16", "int8"]


def _share(value: object) -> object:
    """`1%` is 0.01."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


def _names(value: object) -> object:
    """`a,b,c`, as on the command line and in the environment."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


# Bytes of a request, unless said: 16 MiB because a telephone's JPEG has up to 8 MB, and base64 adds
# a third.
MAX_BODY = 4 << 20
MAX_BODY_OF_PICTURES = 16 << 20

Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Features = Annotated[tuple[str, ...], BeforeValidator(_names)]
LongText = Literal["head", "head-tail", "chunks"]


class Strict(BaseModel):
    """No unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Running(Strict):
    """How a model runs."""

    runtime: str = "auto"
    precision: Precision = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    trust_model: bool = False


class Pinned(Strict):
    """A model that is this one or none: the SHA-256 of its files, as `models inspect` shows it."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Settings(Running, Pinned):
    """What the strategies share that run one model."""

    model: str = "sentiment"


class BatchSettings(Settings):
    """`mlopsdeploy batch`."""

    input: str | None = None
    query: str | None = None
    output: str | None = None
    overwrite: bool = False
    if_exists: Literal["replace", "append", "fail"] = "replace"
    text_column: str | None = None
    image_column: str | None = None
    features: Features = ()
    long_text: LongText = "head"
    max_flips: Share = 0.01
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    limit: Annotated[int, Field(ge=1)] | None = None
    max_errors: str = "1%"
    commit_seconds: Annotated[float, Field(ge=0)] = 5.0
    fresh: bool = False
    incremental: bool = False
    report: str | None = None
    dry_run: bool = False
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    schedule: str | None = None
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_actors: Annotated[str, Field(pattern=r"^[1-9]\d*(-[1-9]\d*)?$")] | None = None
    ray_cpus: Annotated[int, Field(ge=1)] = 1
    ray_gpus: Annotated[float, Field(ge=0)] = 0
    partition_by: str | None = None
    all_scores: bool = False
    prefix: str = ""
    delimiter: Annotated[str, Field(pattern=r"^(auto|[\t -!#-~])$")] = "auto"
    encoding: str = "auto"

    @field_validator("max_errors", "ray_actors", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """In YAML `max_errors: 100` is a number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("schedule")
    @classmethod
    def _off(cls, value: str | None) -> str | None:
        """`off` on the command line overrides a schedule in the YAML."""
        return None if value == "off" else value


class Route(Strict):
    """How a model's callers know it; what is not said here, its `model.yaml` says under `serve:`.

    `answer` maps each key of the answer to where its value comes from: `label`, `score`, `scores`,
    `scores.LABEL`, `label == LABEL`, `threshold`, `model`, `version`; of a detector `detections`,
    of pictures `width` and `height`.
    """

    route: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~:-]+)+$")] | None = None
    input: Annotated[str, Field(min_length=1)] | None = None
    answer: dict[str, str] | None = None


class ServedModel(Route, Running, Pinned):
    """One model of a server."""

    model: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    features: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """What callers know the model by: its name, else one made from the reference."""
        if self.name:
            return self.name
        last = self.model.rstrip("/").rpartition("/")[2].partition("@")[0]
        if self.model.startswith("models:/"):  # of MLflow's registry; what is last is a version
            last = self.model.removeprefix("models:/").partition("/")[0].partition("@")[0]
        is_file = last.endswith(_MODEL_SUFFIXES) or Path(self.model).is_file()
        stem = last.rpartition(".")[0] if is_file and "." in last else last
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "model"

    @model_validator(mode="before")
    @classmethod
    def _from_reference(cls, value: object) -> object:
        """`fraud` stands for {model: fraud}, and `name=path` for {name: name, model: path}."""
        if not isinstance(value, str):
            return value
        name, equals, reference = value.partition("=")
        return {"name": name, "model": reference} if equals else {"model": value}


class ServeSettings(Running):
    """`mlopsdeploy serve`; how models run is said for all of them or for each."""

    models: Annotated[tuple[ServedModel, ...], Field(min_length=1)] = (ServedModel(model="fraud"),)
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    request_threads: Annotated[int, Field(ge=1, le=1024)] = 16
    server: Literal["granian", "gunicorn"] = "granian"
    max_body: Annotated[ByteSize, Field(gt=0)] | None = None
    header_timeout: Annotated[float, Field(gt=0)] = 10.0
    drain_timeout: Annotated[float, Field(gt=0)] = 30.0
    access_log: bool = False
    log_format: Literal["auto", "text", "json"] = "auto"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`fraud,sentiment`, as in the environment."""
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    def running(self, served: ServedModel) -> Running:
        """How one of the models runs: what is said for it, else what is said for all."""
        for_all = {name: getattr(self, name) for name in Running.model_fields}
        for_this = {name: getattr(served, name) for name in served.model_fields_set & set(for_all)}
        return Running(**{**for_all, **for_this})


class EdgeSettings(Settings):
    """`mlopsdeploy edge`."""

    model: str = "detector"
    camera: str = "0"
    lines: str | None = None
    follow: bool = False
    baud: Annotated[int, Field(ge=50)] | None = None
    echo: bool = False
    features: Features = ()
    long_text: LongText = "head"
    limit: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1, le=100_000)] | None = None
    height: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fps: Annotated[int, Field(ge=1, le=1000)] | None = None
    realtime: bool = False
    stall_seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    window: bool | None = None
    save: str | None = None
    events: str | None = None
    snapshots: str | None = None
    overwrite: bool = False
    snapshot_seconds: Annotated[float, Field(ge=0)] = 1.0
    preview: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        """The model for lines, unless another is named, is one of text."""
        if isinstance(value, dict) and value.get("lines") is not None:
            return {"model": "sentiment", **value}
        return value

    @field_validator("camera", "preview", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """In YAML `camera: 0` and `preview: 8081` are numbers."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("threads", mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        """`auto` is the default: measure."""
        return None if value == "auto" else value


S = TypeVar("S", bound=Strict)


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
        path = _path(first["loc"])
        what = path.replace(name, where, 1) if where.startswith("--") else f"{where}: {path}"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{what}: there is no such key") from error
        raise ConfigError(f"{what}: {first['input']!r}: {first['msg'].lower()}") from error


def _path(places: tuple[int | str, ...]) -> str:
    """`('models', 0, 'route')` -> `models[0].route`."""
    parts = (f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
    return "".join(parts).lstrip(".")


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
