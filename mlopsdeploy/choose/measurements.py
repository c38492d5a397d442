"""A model measured on this machine under each strategy, by the commands that a user would run."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.bench import processes
from mlopsdeploy.bench.load_client import load
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy
from mlopsdeploy.choose.units import number
from mlopsdeploy.columns import DataKind
from mlopsdeploy.core import machine
from mlopsdeploy.core.images import decode
from mlopsdeploy.errors import ConfigError, MlopsDeployError

SAMPLE = 2000  # rows of it that are taken
GROWTH = 25  # times as many rows in the next run, at most
MOST_ROWS = 1_000_000
RUNS = 5
CONNECTIONS = 16
OPEN = 64  # connections at most, of the open loop
SHARES = (0.1, 0.5)  # of the capacity, at which latency is taken
REQUESTS = 200  # at least, so that a 99th percentile means something
LONGEST = 7  # times `seconds` for them
READY = 120.0  # seconds that a server may take to start
FRAMES = 8
SAMPLE_PICTURES = 64  # of the sample that batch gets, again and again
MOST_PICTURES = 20_000
JSON, JPEG = "application/json", "image/jpeg"
WHAT = {JSON: "one row", JPEG: "one picture as JPEG"}
BUSY = 0.3  # of the cores, by others: worth a word

Rows = list[dict[str, Any]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class BatchSpeed:
    """A batch run: rows per second while it runs, and the seconds before its first row."""

    rows_per_second: float
    start: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class Load:
    """Latency of a server at a steady rate, in seconds; requests arrive at random moments."""

    rate: float
    p50: float
    p99: float
    requests: int


@dataclass(frozen=True)
class ServeSpeed:
    """A server on one machine: `capacity` is requests per second, one row each, at most."""

    capacity: float
    loads: tuple[Load, ...]
    start: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class EdgeSpeed:
    """A model on a device, one row or frame after another; times in seconds."""

    per_second: float
    p50: float
    p99: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class Measurements:
    """Of one model on one machine.

    Attributes:
        data: what a row is.
        missing: of a strategy that could not be measured, why.
        row_bytes: what one request brings, in bytes.
        machine: where this was measured, in words.
        assumed: why these are not measurements of the user's model; empty if they are.
        notes: what else one should know about the figures.
    """

    model: str
    data: DataKind
    machine: str
    cores: int
    row_bytes: float
    batch: BatchSpeed | None = None
    serve: ServeSpeed | None = None
    edge: EdgeSpeed | None = None
    missing: dict[Strategy, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: str = ""

    @property
    def measured(self) -> list[tuple[Strategy, str]]:
        """How each strategy was measured, if it was."""
        speeds = [(name, getattr(self, name)) for name in STRATEGIES if not self.assumed]
        return [(name, speed.how) for name, speed in speeds if speed is not None]


def measure(settings: ChooseSettings, log: Log = lambda _: None) -> Measurements:
    """Measure a model under each strategy, about `settings.seconds` for each figure.

    Args:
        settings: the model and a sample: a file of rows, or a video or folder of pictures.
        log: called with a line about each measurement.

    Raises:
        MlopsDeployError: the model can't be loaded, or the sample read. What goes wrong in one
            strategy only is noted under `missing`.
    """
    assert settings.model is not None
    if settings.sample is None:
        raise ConfigError(
            "--model needs --sample: a file of rows as the model gets them (CSV, JSON Lines, "
            "Parquet), or a video or folder of pictures"
        )
    with tempfile.TemporaryDirectory() as folder:
        return _Measuring(settings, settings.model, settings.sample, Path(folder), log).all()


@dataclass(frozen=True)
class _Measuring:
    settings: ChooseSettings
    model: str
    sample: str
    folder: Path
    log: Log
    missing: dict[Strategy, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def all(self) -> Measurements:
        """Every strategy."""
        self._look_around()
        self.log(f"looking at {self.model}")
        about = self._run("models", "inspect", self.model)
        batch: BatchSpeed | None
        if about["data"] == "image":
            edge = self._watch()
            files = self._pictures()
            bodies, kind = self._as_jpeg(files), JPEG
            batch = self._attempt("batch", lambda: self._batch_of_pictures(files))
        else:
            columns, table, rate = self._rows()
            batch = self._batch(columns, table, rate)
            inputs = about.get("parts", [about])[0]["inputs"]  # models side by side have the same
            rows = _typed(inputs, columns, table)
            bodies, kind = [_as_json({"instances": [row]}).encode() for row in rows], JSON
            edge = self._attempt("edge", lambda: self._lines(rows))
        serve = self._attempt("serve", lambda: self._serve(bodies, kind))
        size = sum(map(len, bodies)) / len(bodies)
        return Measurements(
            about["name"], about["data"], machine.name(), machine.core_count(), size,
            batch, serve, edge, self.missing, tuple(self.notes),
        )  # fmt: skip

    def _look_around(self) -> None:
        """What else runs here makes all figures too small."""
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        cores = machine.core_count()
        if busy > BUSY * cores:
            self.notes.append(
                f"other programs kept this machine busy (load {busy:.1f} on {cores} cores): "
                "speeds are too low and latencies too high; measure again when it is idle"
            )

    def _run(self, *arguments: str) -> dict[str, Any]:
        """What a command of ours reports, and `wall` and `peak_memory` of its process."""
        done = processes.run([*processes.OURS, *arguments, "--json"], self.folder)
        report: dict[str, Any] = json.loads(done.stdout)
        return {**report, "wall": done.wall, "peak_memory": done.peak_memory}

    def _flags(self, *, features: bool = True) -> list[str]:
        """Those of the user's settings that every command has."""
        named = self.settings.features if features else ()
        columns = ["--features", ",".join(named)] if named else []
        trust = ["--trust-model"] if self.settings.trust_model else []
        return ["--model", self.model, *columns, *trust]

    def _attempt(self, strategy: Strategy, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MlopsDeployError as error:
            self.missing[strategy] = str(error)
            return None

    # -- batch

    def _rows(self) -> tuple[dict[str, str], Rows, float]:
        """The column of each input, the rows as `batch` reads them, and about how many a second."""
        self.log(f"reading {self.sample}")
        sample = Path(self.sample).absolute()
        summary = self._run_batch(sample, "sample.jsonl", "--limit", str(SAMPLE))
        columns: dict[str, str] = summary["columns"]
        lines = (self.folder / "sample.jsonl").read_text("utf-8").splitlines()
        found = [*map(json.loads, lines)]
        if found and not set(columns.values()) <= found[0].keys():
            raise ConfigError(
                f"{self.sample}: fills an input of several numbers from several columns, which "
                "can't be measured; put the numbers of a row into one column, as a list"
            )
        rows = [{column: row[column] for column in columns.values()} for row in found]
        rows = [row for row in rows if all(value not in (None, "") for value in row.values())]
        if not rows:
            raise ConfigError(f"{self.sample}: no row of it can be scored")
        return columns, rows, summary["rows_per_second"]

    def _batch(self, columns: dict[str, str], rows: Rows, rate: float) -> BatchSpeed:
        """A run over the sample's rows, again and again and no two alike."""
        text = [columns["text"]] if set(columns) == {"text"} else []
        arrays = any(isinstance(value, list) for value in rows[0].values())  # no cell of a CSV
        path = self.folder / ("rows.jsonl" if arrays else "rows.csv")

        def make(count: int) -> Path:
            turns = (divmod(place, len(rows)) for place in range(count))
            made = (
                {**rows[place], **{name: _turned(rows[place][name], turn) for name in text}}
                for turn, place in turns
            )
            with path.open("w", encoding="utf-8", newline="") as file:
                if arrays:
                    file.writelines(f"{_as_json(row)}\n" for row in made)
                else:
                    writer = csv.DictWriter(file, list(columns.values()))
                    writer.writeheader()
                    writer.writerows(made)
            return path

        first = min(max(int(rate * self.settings.seconds), len(rows)), len(rows) * GROWTH)
        output = "rows.out.jsonl" if arrays else "rows.out.csv"
        return self._grown("rows", len(rows), first, MOST_ROWS, make, output)

    def _grown(
        self,
        what: str,
        sample: int,
        count: int,
        most: int,
        make: Callable[[int], Path],
        output: str,
    ) -> BatchSpeed:
        """A run over `count` rows or pictures, made from `sample`; longer ones until one lasts."""
        for _ in range(RUNS):
            self.log(f"batch: {count:,} {what}")
            summary = self._run_batch(make(count), output)
            seconds = max(summary["seconds"], 1e-3)
            if seconds >= self.settings.seconds / 2 or count >= most:
                break
            growth = min(self.settings.seconds / seconds, GROWTH)
            count = min(int(count * growth) + 1, most)
        scored = count - summary["duplicates"] - summary["empty"] - summary["failed"]
        different = " different ones" if what == "rows" else ""
        how = (
            f"a run over {count:,} {what} made from {sample:,} of {self.sample}: {scored:,}"
            f"{different} in {seconds:.1f} s on {summary['runtime']} {summary['precision']}"
        )
        start = max(summary["wall"] - seconds, 0.0)
        return BatchSpeed(scored / seconds, start, summary["peak_memory"] / 1e6 or None, how)

    def _run_batch(self, path: Path, output: str, *more: str) -> dict[str, Any]:
        column = ["--text-column", self.settings.text_column] if self.settings.text_column else []
        return self._run(
            "batch", str(path), "-o", str(self.folder / output), "--fresh",
            "--max-errors", "100%", *self._flags(), *column, *more,
        )  # fmt: skip

    def _batch_of_pictures(self, files: Sequence[tuple[str, bytes]]) -> BatchSpeed:
        """A run over the sample's pictures, as files and each a little different."""
        folder = self.folder / "pictures"
        folder.mkdir()

        def make(count: int) -> Path:
            for place in range(len(list(folder.iterdir())), count):
                suffix, content = files[place % len(files)]
                # What follows the end of a picture is not looked at, but no two are equal.
                (folder / f"{place:06}{suffix}").write_bytes(content + str(place).encode())
            return folder

        output = "pictures.out.jsonl"
        return self._grown("pictures", len(files), len(files), MOST_PICTURES, make, output)

    def _pictures(self) -> list[tuple[str, bytes]]:
        """Suffix and content of the sample's pictures; frames of a video as JPEG."""
        # Brings PyArrow, which who has nothing to measure need not have.
        from mlopsdeploy.data.sources import PictureFiles, Wanted, WithPictures, chunks, pictures_of

        found: list[tuple[str, bytes]] = []
        if names := pictures_of(self.sample, among_tables=True):
            source = WithPictures(PictureFiles(self.sample, names), "file")
            for chunk in chunks(source, SAMPLE_PICTURES, limit=SAMPLE_PICTURES):
                window = source.parse(chunk, Wanted({"file": "str"}, raw=True))
                assert window.pictures is not None
                suffixes = [Path(name).suffix for name in window.columns["file"]]
                found += zip(suffixes, window.pictures, strict=True)
            return found
        import cv2

        video = cv2.VideoCapture(self.sample)
        while len(found) < SAMPLE_PICTURES and (read := video.read())[0]:
            found.append((".jpg", cv2.imencode(".jpg", read[1])[1].tobytes()))
        video.release()
        return found

    def _as_jpeg(self, files: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """The first pictures as JPEG, as large as they are."""
        import cv2

        frames = []
        for _, content in files[:FRAMES]:
            with suppress(ValueError):  # damaged
                frames.append(decode(content))
        if not frames:
            raise ConfigError(f"{self.sample}: no picture in it can be read")
        height, width = frames[0].shape[:2]
        self.notes.append(f"bytes of a picture: as JPEG of {width}×{height} pixels")
        return [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]

    # -- serve

    def _serve(self, bodies: Sequence[bytes], kind: str) -> ServeSpeed:
        port = machine.free_port()
        model = {
            "model": self.model, "name": "measured", "route": "/predict", "input": "instances",
            "features": list(self.settings.features),
        }  # fmt: skip
        trust = self.settings.trust_model
        settings = {"models": [model], "port": port, "max_body": "64 MiB", "trust_model": trust}
        config = self.folder / "serve.yaml"
        config.write_text(yaml.safe_dump(settings), "utf-8")
        url, seconds = f"http://127.0.0.1:{port}", self.settings.seconds
        self.log("serve: starting")
        command = [*processes.OURS, "serve", "--config", str(config)]
        with processes.start(command, self.folder) as server:
            start = server.wait_until(
                lambda: processes.answers(f"{url}/readyz"), READY, "the server"
            )
            url += "/predict"
            self.log("serve: as much as it takes")
            most = load(
                url, bodies, kind, connections=CONNECTIONS, seconds=seconds,
                warm_up=min(seconds, 1.0),
            )  # fmt: skip
            capacity = most.requests_per_second
            loads = []
            for share in SHARES:
                rate = capacity * share
                lasting = min(max(seconds, REQUESTS / rate), LONGEST * seconds)
                self.log(f"serve: {number(rate)} requests/s for {lasting:.0f} s")
                found = load(url, bodies, kind, connections=OPEN, rate=rate, seconds=lasting)
                if found.unanswered:
                    raise MlopsDeployError(
                        f"the server left {found.unanswered} of {found.sent} requests unanswered"
                    )
                loads.append(Load(rate, found.p50_ms / 1e3, found.p99_ms / 1e3, found.requests))
            held = sum(map(machine.proportional_memory, machine.process_tree(server.pid)))
            memory = held / 1e6 or None
        how = (
            f"the real server, {WHAT[kind]} a request. Capacity: closed loop, {CONNECTIONS} "
            f"connections, {most.requests:,} answers in {most.requests / capacity:.1f} s. Latency: "
            "open loop, Poisson arrivals, from when a request was due. The client ran on the same "
            "cores, so this is rather too little"
        )
        return ServeSpeed(capacity, tuple(loads), start, memory, how)

    # -- edge

    def _edge(self, flag: str, source: str) -> dict[str, Any]:
        """What `bench edge` measures."""
        flags = self._flags(features=flag == "--lines")
        seconds = str(self.settings.seconds)
        return self._run("bench", "edge", flag, source, "--seconds", seconds, *flags)

    def _watch(self) -> EdgeSpeed:
        """The pipeline of pictures."""
        self.log("edge: watching the sample")
        report = self._edge("--camera", self.sample)
        stages = [report["stages_ms"][name] for name in ("encode", "infer", "decode")]
        how = (
            f"the pipeline over {report['width']}×{report['height']} pictures, "
            f"{report['pipeline']['frames']} frames, {report['precision']}; latency: encode, infer "
            "and decode, each alone, added"
        )
        p50, p99 = (sum(stage[p] for stage in stages) / 1000 for p in ("p50", "p99"))
        return EdgeSpeed(report["pipeline"]["fps"], p50, p99, report["memory_mb"], how)

    def _lines(self, rows: Rows) -> EdgeSpeed:
        """The pipeline of lines."""
        self.log("edge: reading lines of the sample")
        path = self.folder / "lines.txt"
        path.write_text("".join(_line(row) + "\n" for row in rows), "utf-8")
        report = self._edge("--lines", str(path))
        alone, together = report["one_at_a_time"], report["all_at_once"]
        how = (
            f"'mlopsdeploy edge' over {together['lines']:,} lines that come all at once, on "
            f"{report['runtime']} {report['precision']}; latency: lines that come one at a time"
        )
        p50, p99 = (alone[p] / 1000 for p in ("p50", "p99"))
        return EdgeSpeed(together["lines_per_second"], p50, p99, report["memory_mb"], how)


def _typed(fields: Sequence[dict[str, Any]], columns: dict[str, str], rows: Rows) -> Rows:
    """Rows by the model's names, numbers as numbers: a CSV has only text."""
    numbers = {field["name"] for field in fields if field["dtype"] != "str"}
    typed = []
    for row in rows:
        values = {name: row[column] for name, column in columns.items()}
        for name in numbers & set(values):
            if isinstance(values[name], list):
                continue
            value = float(values[name])
            values[name] = int(value) if value.is_integer() else value
        typed.append(values)
    return typed


def _line(row: dict[str, Any]) -> str:
    """A row as `mlopsdeploy edge` reads it: a text on one line, or values by name."""
    return " ".join(row["text"].split()) if set(row) == {"text"} else _as_json(row)


def _as_json(value: Any) -> str:
    """As most clients write it: an ideograph is three bytes, not the six of its escape."""
    return json.dumps(value, ensure_ascii=False)


def _turned(text: str, turn: int) -> str:
    """The same words from another one on, so that no two texts are equal and all as long."""
    words = text.split()
    if not turn or not words:
        return text
    at = turn % len(words)
    # A whole turn would be the same text: a number tells them apart.
    lap = f" {turn // len(words)}" if turn >= len(words) else ""
    return " ".join(words[at:] + words[:at]) + lap
