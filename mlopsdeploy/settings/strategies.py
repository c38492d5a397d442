"""The settings of batch, serve and edge, each declared once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, cast

from mlopsdeploy.core.references import several
from mlopsdeploy.settings import units
from mlopsdeploy.settings.declaring import (
    Declared,
    Names,
    Places,
    Scores,
    Seconds,
    Share,
    Size,
    Threads,
    setting,
)

# The largest request by default; a telephone's JPEG has up to 8 MB, and base64 adds a third.
MAX_BODY = 4 << 20
MAX_BODY_OF_PICTURES = 16 << 20
BODIES_HELD = 16
"""Times the largest body: what a worker of a server holds of bodies at most."""
# The most rows of a request by default; more are work for `batch`.
MAX_ROWS = 10_000
MAX_TEXTS = 1_024
MAX_PICTURES = 64

_Places = dict[str, tuple[tuple[float, float], ...]] | None
Precision = Literal["auto", "float32", "bfloat16", "int8"]
_MODEL_SUFFIXES = (".onnx", ".keras", ".h5", ".hdf5", ".tflite", ".xml")
_ADDRESS = re.compile(  # of a web server; as http.client takes it
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?([/?#][!-~]*)?",
    re.IGNORECASE,
)
A_MODEL = "Built-in name, folder, file, or hub id org/name[@revision]; of texts also several: A,B"
DEFAULT_MODEL = "sentiment,sentiment-zh"
"""Of texts, when none is named: each goes to the one that reads its language."""


class Running(Declared):
    """How a model runs."""

    runtime: str = setting(
        "auto", "What runs the model: openvino, onnxruntime, litert …; auto is the fastest",
        group="Model", offers="runtime", bench=True,
    )  # fmt: skip
    precision: Precision = setting("auto", "Numbers to compute with", group="Model", bench=True)
    threads: Threads = setting(
        None, "CPU threads", group="Model", shown="as many as cores", bench=True, ge=1
    )
    task: str | None = setting(
        None, "What the model's data mean; tensors: its own inputs and outputs, as they are",
        group="Model", metavar="NAME", shown="as its files tell", offers="task", bench=True,
    )  # fmt: skip
    threshold: float | None = setting(
        None, "Two labels: the second from this score on. More: no label below it",
        group="Model", metavar="SCORE", shown="the model's",
    )  # fmt: skip
    trust_model: bool = setting(
        False, "Run code in the model's files, such as Keras Lambda layers", bench=True
    )


class Pinned(Declared):
    """A model that is this one or none."""

    digest: str | None = setting(
        None, "Refuse any model but the one of this SHA-256, which 'models inspect' shows",
        group="Model", metavar="SHA256", pattern=r"^[0-9a-f]{64}$",
    )  # fmt: skip


class Settings(Running, Pinned):
    """What the strategies share that run one model."""

    model: str = setting(
        DEFAULT_MODEL, A_MODEL, group="Model", short="-m", offers="model", bench=True
    )


class OfRows(Declared):
    """How rows become what a model takes."""

    features: Names = setting(
        (), "Numbers: their columns in the order of the model", group="Columns",
        shown="as the model names them", bench=True,
    )  # fmt: skip
    long_text: Literal["head", "head-tail", "chunks"] = setting(
        "head", "What is read of a text longer than the model takes"
    )


def _on_or_off(value: str | None, _: object) -> str | None:
    """`off` on the command line overrides what is in the YAML."""
    return None if value == "off" else value


def _example_of_numbers(value: str, _: object) -> str:
    """With a space and an apostrophe of the keyboard, of which there are others."""
    example = re.sub("[\u00a0\u2009\u202f]", " ", value.strip()).replace("’", "'")
    known = r"auto|1234[.,]56|1,234\.56|1\.234,56|1[ ']234[.,]56"
    if not re.fullmatch(known, example):
        raise ValueError("expected auto, 1234.56, 1234,56, 1,234.56, 1.234,56, 1 234,56, 1'234.56")
    return example


def _address_or_off(value: str | None, others: object) -> str | None:
    address = _on_or_off(value, others)
    found = _ADDRESS.fullmatch(address or "")
    if address is not None and (found is None or int(found["port"] or 0) > 65535):
        raise ValueError("expected http:// or https://, a host and its path, and no user or blank")
    return address


class BatchSettings(Settings, OfRows):
    """`mlopsdeploy batch`."""

    input: str | None = setting(
        None, "A table, pictures, a folder, 'a pattern', a database, s3://… or -", group="Input",
        positional=True, bench=True,
    )  # fmt: skip
    query: str | None = setting(None, "What to read of a database: SQL, or the name of a table")
    limit: int | None = setting(None, "Stop after so many rows", bench=True, ge=1)
    delimiter: str = setting(
        "auto", "Between the fields of a CSV file", metavar="CHAR", pattern=r"^(auto|[\t -!#-~])$"
    )
    encoding: str = setting("auto", "Of a CSV file that is neither UTF-8 nor has a BOM")
    quote: str = setting(
        "auto", "Around the fields of a CSV file, or none", metavar="CHAR",
        pattern=r"^(auto|none|[!-/:-@\[-`{-~])$",
    )  # fmt: skip
    escape: str = setting(
        "auto", "Before a quote within a field of a CSV file, or none", metavar="CHAR",
        pattern=r"^(auto|none|[!-/:-@\[-`{-~])$",
    )  # fmt: skip
    header: bool | None = setting(
        None, "Whether the first line or row of a sheet names the columns, else 1, 2, 3",
        shown="asked in doubt", off="--no-header",
    )  # fmt: skip
    skip_lines: int | None = setting(
        None, "Lines above the header, also of a sheet", shown="asked in doubt", ge=0
    )
    sheet: str | None = setting(
        None, "Of a workbook its sheet, of a zip its file, of JSON its list", metavar="NAME"
    )
    numbers: str = setting(
        "auto", "How texts write numbers, by an example: 1.234,56", metavar="EXAMPLE",
        shown="1234.56; asked in doubt", check=_example_of_numbers,
    )  # fmt: skip
    text_column: str | None = setting(
        None, "Column of the text", group="Columns", shown="the only one that reads like text",
        bench=True,
    )  # fmt: skip
    image_column: str | None = setting(
        None, "Column of the paths of pictures", shown="found by its name", bench=True
    )
    batch_size: int = setting(1000, "Rows per unit of reading", group="Run", ge=1, le=1_000_000)
    max_flips: Share = setting(0.01, "Share of labels that int8 may change", shown="1%")
    max_errors: str = setting("1%", "Bad rows allowed: a number, a share, none", metavar="ROWS")
    commit_seconds: Seconds = setting(5.0, "Between commits: what a crash loses at most", ge=0)
    fresh: bool = setting(False, "Start over, also if a run is unfinished")
    unfinished: Literal["refuse", "discard"] | None = setting(
        None, "What becomes of an unfinished run that was made with another model or settings",
        shown="refuse; on a schedule discard",
    )  # fmt: skip
    incremental: bool = setting(False, "Compute only rows that no earlier run has scored")
    dry_run: bool = setting(False, "Score a sample, and forecast time, memory and cost of it all")
    price_per_hour: float | None = setting(
        None, "Of this machine, for the forecast of --dry-run", metavar="PRICE", gt=0
    )
    schedule: str | None = setting(
        None, "Run again and again, as cron would: '0 2 * * *'; off: once", metavar="CRON",
        check=_on_or_off,
    )  # fmt: skip
    retries: int = setting(
        3, "Of a scheduled run that fails: after 1, 2, 4 … minutes, before its next time",
        ge=0, le=100,
    )  # fmt: skip
    notify_success: str | None = setting(
        None, "POST to it when a run is done: http(s)://…; off: nowhere", metavar="URL",
        check=_address_or_off, secret=True,
    )  # fmt: skip
    notify_failure: str | None = setting(
        None, "POST to it when a run has failed, and so have its retries", metavar="URL",
        check=_address_or_off, secret=True,
    )  # fmt: skip
    engine: Literal["local", "ray"] = setting("local", "Where to compute", group="Ray")
    ray_address: str | None = setting(
        None, "The cluster: auto or host:port", shown="a Ray of its own, on this machine"
    )
    ray_actors: str | None = setting(
        None, "Copies of the model: 4, or 2-8", metavar="N", shown="as many as fit",
        pattern=r"^[1-9]\d*(-[1-9]\d*)?$",
    )  # fmt: skip
    ray_cpus: int = setting(1, "Cores of each copy", ge=1)
    ray_gpus: float = setting(0, "GPUs of each copy", shown="0", metavar="N", ge=0)
    output: str | None = setting(
        None, "A file, a folder/ of Parquet, a database's table, s3://… or -", group="Output",
        short="-o", shown="INPUT.predictions.SUFFIX",
    )  # fmt: skip
    overwrite: bool = setting(False, "Replace an output that exists, whoever wrote it")
    if_exists: Literal["replace", "append", "upsert", "fail"] = setting(
        "replace", "What becomes of a database's table that exists"
    )
    key: Names = setting((), "Columns that tell a table's rows apart, for --if-exists upsert")
    partition_by: str | None = setting(
        None, "Folders of Parquet: a folder for each value of this column", metavar="COLUMN"
    )
    all_scores: bool = setting(False, "Also write every label's score")
    prefix: str = setting("", "Put before the names of the new columns")
    columns: Names | None = setting(
        None, "Of the input's columns write only these; '' for the predictions alone",
        shown="all of them",
    )  # fmt: skip
    report: str | None = setting(
        None, "Write a page about the result, and drift, to this .html", metavar="FILE"
    )


class Route(Declared):
    """How a model's callers know it; the rest stands in its `model.yaml` under `serve:`."""

    route: str | None = setting(
        None, "Path that callers post to", pattern=r"^(/[A-Za-z0-9._~:-]+)+$"
    )
    input: str | None = setting(
        None, "Field of their JSON that holds one row, or a list of rows", min_length=1
    )
    answer: dict[str, str] | None = setting(
        None,
        "What each key of the answer holds: any output, such as label, score, scores or value; "
        "scores.LABEL, label == LABEL, threshold, model, version; of a detector detections, of "
        "pictures width and height, of texts unread",
    )


class ServedModel(Route, Running, Pinned):
    """One model of a server: an entry of `models:`."""

    model: str = setting("", A_MODEL, required=True)
    name: str | None = setting(
        None, "What callers know it by", shown="made from the model",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    )  # fmt: skip
    features: Names = setting((), "Numbers: their names in the order of the model")
    slo: Seconds | None = setting(None, "Time that a request may take", shown="the server's", gt=0)

    @property
    def called(self) -> str:
        """What callers know the model by: its name, else one made from the reference."""
        if self.name:
            return self.name
        if parts := several(self.model):
            return "-".join(ServedModel(model=one).called for one in parts)
        last = self.model.rstrip("/").rpartition("/")[2].partition("@")[0]
        if self.model.startswith("models:/"):  # of MLflow's registry; what is last is a version
            last = self.model.removeprefix("models:/").partition("/")[0].partition("@")[0]
        is_file = last.endswith(_MODEL_SUFFIXES) or Path(self.model).is_file()
        stem = last.rpartition(".")[0] if is_file and "." in last else last
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "model"

    @classmethod
    def before(cls, value: Any) -> Any:
        """`fraud` stands for {model: fraud}, and `name=path` for {name: name, model: path}."""
        if not isinstance(value, str):
            return value
        name, equals, reference = value.partition("=")
        return {"name": name, "model": reference} if equals else {"model": value}


class ServeSettings(Running):
    """`mlopsdeploy serve`; how models run is set for all of them or for each."""

    models: tuple[ServedModel, ...] = setting(
        cast("Any", ("fraud",)), "Built-in name, file or folder, or NAME=it; again for several",
        group="Model", metavar="MODEL", flag="--model", short="-m", shown="fraud",
        variables=("MODELS", "MODEL"), offers="model", bench=True, min_length=1,
    )  # fmt: skip
    threads: Threads = setting(
        None, "CPU threads of each worker", shown="its share of the cores", bench=True, ge=1
    )
    host: str = setting(
        "127.0.0.1", "Address to listen at; 0.0.0.0 lets everybody in", group="Server"
    )
    port: int = setting(8080, "Port to listen at; 0 is any", metavar="PORT", ge=0, le=65535)
    workers: int | None = setting(
        None, "Processes", shown="as many as cores", bench=True, ge=1, le=1024
    )
    slo: Seconds | None = setting(
        None, "Time that a request may take; what can only be late is refused", shown="1 s", gt=0
    )
    server: Literal["asyncio", "gunicorn"] = setting("asyncio", "HTTP server", bench=True)
    access_log: bool = setting(False, "Log every request")
    log_format: Literal["auto", "text", "json"] = setting("auto", "Form of the log")
    max_body: Size | None = setting(
        None, "Largest request", shown="4 MiB; 16 MiB for pictures", flag=None, gt=0
    )
    max_rows: int | None = setting(
        None, "Most rows of a request", shown="10,000; of texts 1,024, of pictures 64", flag=None,
        ge=1,
    )  # fmt: skip
    header_timeout: Seconds = setting(
        10.0, "Time that a caller may take to send its headers", flag=None, gt=0
    )
    body_timeout: Seconds = setting(
        30.0, "Time that a caller may take to send a body", flag=None, gt=0
    )
    body_rate: Size = setting(
        1000, "Bytes a second that a body must come with, after its first 5 s", flag=None, ge=0
    )
    keep_alive: Seconds = setting(
        120.0, "Time that a connection may be idle; load balancers hold them for 60", flag=None,
        gt=0,
    )  # fmt: skip
    max_connections: int | None = setting(
        None, "Connections of a worker", shown="as many as it may have open files", flag=None, ge=1
    )
    allowed_hosts: Names = setting(
        (), "Names besides localhost that callers may ask for where it listens on this machine",
        flag=None,
    )  # fmt: skip
    drain_timeout: Seconds = setting(
        30.0, "Time that requests in work have to end at a shutdown", flag=None, gt=0
    )

    @classmethod
    def before(cls, value: Any) -> Any:
        """`models: fraud,sentiment`, as in the environment."""
        if isinstance(value, dict) and "models" in value:
            return {**value, "models": units.names(value["models"])}
        return value

    def rows(self, data: str) -> int:
        """The most rows of a request to a model of such data."""
        return self.max_rows or {"text": MAX_TEXTS, "image": MAX_PICTURES}.get(data, MAX_ROWS)

    def running(self, served: ServedModel) -> Running:
        """How one of the models runs: as is set for it, else as for all."""
        values = {name: getattr(self, name) for name in Running.declared()}
        own = {name: getattr(served, name) for name in served.given & values.keys()}
        return Running(**{**values, **own})


def _shares(values: dict[str, float] | None, _: object) -> dict[str, float] | None:
    for label, value in (values or {}).items():
        if not 0 <= value <= 1:
            raise ValueError(f"{label!r}: expected a score from 0 to 1")
    return values


def _gates(value: _Places, _: object) -> _Places:
    for name, points in (value or {}).items():
        if len(points) != 2 or points[0] == points[1]:
            raise ValueError(f"{name!r}: a gate has two points, each [x, y]")
    return _in_picture(value)


def _zones(value: _Places, _: object) -> _Places:
    for name, points in (value or {}).items():
        if len(set(points)) < 3:
            raise ValueError(f"{name!r}: a zone has three points or more, each [x, y]")
    return _in_picture(value)


def _in_picture(value: _Places) -> _Places:
    for name, points in (value or {}).items():
        if not all(0 <= one <= 1 for point in points for one in point):
            raise ValueError(f"{name!r}: points are shares of the picture, from 0 to 1")
    return value


def _broker(value: str | None, _: object) -> str | None:
    """Only what a message may show is parsed: a password may be anything."""
    scheme, mark, rest = (value or "").partition("://")
    host = re.fullmatch(
        r"(?:.*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?(?P<path>/[^@]*)?",
        rest,
    )
    if value is not None and (
        scheme.lower() not in ("mqtt", "mqtts") or not mark or host is None
        or int(host["port"] or 1) > 65535
    ):  # fmt: skip
        raise ValueError("expected mqtt:// or mqtts://, a host, perhaps :port and /topic prefix")
    if host is not None:
        _topic((host["path"] or "").strip("/"), None)
    return value


def _topic(value: str | None, _: object) -> str | None:
    if value and not re.fullmatch(r"[^#+$\x00-\x20][^#+\x00-\x1f]{0,199}", value):
        raise ValueError("expected the beginning of a topic, without # and +")
    return value


def _receiver(value: str | None, _: object) -> str | None:
    """As `_ADDRESS`, with a user and a password or without."""
    scheme, mark, rest = (value or "").partition("://")
    account, _, host = rest.rpartition("@") if "@" in rest.partition("?")[0] else ("", "", rest)
    _address_or_off(None if value is None else f"{scheme}{mark}{host}", None)
    if re.search(r"[\x00-\x20]", account):
        raise ValueError("expected no blank in user and password; %20 stands for one")
    return value


def _named(values: tuple[str, ...], _: object) -> tuple[str, ...]:
    for value in values:
        if not re.match(r"[\w-]+=", value):
            raise ValueError("expected NAME=VALUE, such as influx=http://host:8086/mydb")
    return values


class EdgeSettings(Settings, OfRows):
    """`mlopsdeploy edge`."""

    camera: str = setting(
        "0", "0, /dev/video0, rtsp://…, a video, a picture or a folder", group="Input", bench=True
    )
    lines: str | None = setting(
        None, "In place of a camera, lines of text or numbers: a file, FIFO, /dev/ttyUSB0 or -",
        bench=True,
    )  # fmt: skip
    limit: int | None = setting(None, "Stop after so many frames or lines", ge=1)
    realtime: bool = setting(
        False, "A video at its own speed, as if live; of lines, drop what is late", bench=True
    )
    model: str = setting(
        "detector", A_MODEL, group="Model", short="-m", shown=f"detector; of lines {DEFAULT_MODEL}",
        offers="model", bench=True,
    )  # fmt: skip
    threshold: float | None = setting(
        None, "Least score of what is shown; of two labels, the second from it on",
        metavar="SCORE", shown="the model's", ge=0, le=1,
    )  # fmt: skip
    threads: Threads = setting(
        None, "CPU threads; auto measures and picks", shown="auto", bench=True, ge=1
    )
    watchdog: Seconds | None = setting(
        None, "End, so that a supervisor starts it anew, when a call of the model hangs so long",
        ge=1,
    )  # fmt: skip
    labels: Names = setting((), "Only what has one of these labels", group="Filters")
    thresholds: Scores = setting(
        None, "Least score of some labels, in place of the threshold", check=_shares
    )
    min_area: Share = setting(0.0, "Least size of an object, as a share of the picture")
    track: bool = setting(False, "Follow each object: it has a number, and one label")
    gates: Places = setting(
        None, "Lines to count at, both ways: NAME=X,Y X,Y in shares of the picture; several with ;",
        check=_gates,
    )  # fmt: skip
    zones: Places = setting(
        None, "Areas to count and time in: NAME=X,Y X,Y X,Y …; several with ;", check=_zones
    )
    width: int | None = setting(
        None, "Pixels, asked of the camera", group="Camera", ge=1, le=100_000
    )
    height: int | None = setting(None, "Pixels, asked of the camera", ge=1, le=100_000)
    fps: int | None = setting(None, "Frames per second, asked of the camera", ge=1, le=1000)
    stall_seconds: Seconds = setting(
        3.0,
        "A camera without a frame for so long is stalled; of lines, where it is given",
        gt=0,
        le=86_400,
    )
    follow: bool = setting(
        False, "Wait for more at the end of a file, as tail -F does", group="Lines"
    )
    baud: int | None = setting(None, "Speed of a serial device", shown="as it is set", ge=50)
    echo: bool = setting(False, "Events also have the line itself")
    window: bool | None = setting(
        None, "Show a window", group="Output", shown="where there is a display", off="--no-window"
    )
    save: str | None = setting(
        None, "Write a video with the boxes: .mp4, .mkv, .avi", metavar="FILE"
    )
    segment: Seconds | None = setting(
        None, "Begin another video after so long, named after the time; of .mkv all can be read, "
        "whatever ends it", ge=1,
    )  # fmt: skip
    save_limit: Size | None = setting(
        None, "Disk space that the videos of --segment may take; the oldest are deleted", ge=1
    )
    events: str | None = setting(
        None, "Write JSON Lines of what was found, and of trouble; to standard output with -",
        metavar="FILE",
    )  # fmt: skip
    snapshots: str | None = setting(
        None, "Write JPEGs of frames with something on them into this folder", metavar="FOLDER"
    )
    snapshot_seconds: Seconds = setting(1.0, "Least time between two snapshots", ge=0)
    preview: str | None = setting(
        None, "Show the picture on a page at this port, or host:port", metavar="PORT"
    )
    preview_host: Names = setting((), "Names, beside this machine's own, that the page answers to")
    sinks: tuple[str, ...] = setting(
        (), "An output of an outside package, and where it writes to; again for several",
        metavar="NAME=VALUE", flag="--sink", secret=True, check=_named,
    )  # fmt: skip
    overwrite: bool = setting(False, "Replace outputs that exist, whoever wrote them")
    mqtt: str | None = setting(
        None, "Send events to a broker: mqtt(s)://[USER:PASSWORD@]HOST[:PORT][/TOPIC-PREFIX]",
        group="Messages", metavar="URL", check=_broker, secret=True,
    )  # fmt: skip
    home_assistant: str | None = setting(
        None, "Tell Home Assistant what there is, under its discovery prefix (homeassistant)",
        metavar="PREFIX", check=_topic,
    )  # fmt: skip
    webhook: str | None = setting(
        None, "POST each event to http(s)://…", metavar="URL", check=_receiver, secret=True
    )
    webhook_token: str | None = setting(
        None, "Sent as 'Authorization: Bearer …'", metavar="TOKEN", pattern=r"^[!-~]+$",
        secret=True,
    )  # fmt: skip
    send: Literal["changes", "all"] | None = setting(
        None, "Results to send: when what is there changes, once a second at most; or all",
        shown="changes; of texts, all",
    )  # fmt: skip
    device: str | None = setting(
        None, "What receivers know this device by", metavar="NAME", shown="host and source",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
    )  # fmt: skip
    outbox: str = setting(
        "outbox.db", "Events wait here until they are delivered; a file of this process alone",
        metavar="FILE",
    )  # fmt: skip
    outbox_limit: Size = setting(
        100_000_000, "Bytes of events that wait; of more the oldest are discarded",
        shown="100 MB", ge=1000,
    )  # fmt: skip
    outbox_age: Seconds = setting(
        604_800.0, "Time that events wait, before they are discarded", shown="7 days", gt=0
    )

    @classmethod
    def before(cls, value: Any) -> Any:
        """The model for lines, unless another is named, is one of text; `sinks: a=b,c=d`."""
        if not isinstance(value, dict):
            return value
        if value.get("lines") is not None:
            value = {"model": DEFAULT_MODEL, **value}
        return {**value, "sinks": units.names(value["sinks"])} if "sinks" in value else value
