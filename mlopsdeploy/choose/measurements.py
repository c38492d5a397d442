"""A model measured on this machine under each strategy, by the commands that a user would run."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.bench import processes
from mlopsdeploy.bench.load_client import load
from mlopsdeploy.choose.settings import ChooseSettings, Strategy
from mlopsdeploy.choose.units import number
from mlopsdeploy.core import machine
from mlopsdeploy.core.images import SUFFIXES
from mlopsdeploy.errors import ConfigError, MlopsDeployError

PICTURES = ("object_detection", "image_classification")  # tasks that look at them
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
        missing: of a strategy that could not be measured, why.
        row_bytes: what one request brings, in bytes.
        machine: where this was measured, in words.
        assumed: why these are not measurements of the user's model; empty if they are.
        notes: what else one should know about the figures.
    """

    model: str
    task: str
    machine: str
    cores: int
    row_bytes: float
    batch: BatchSpeed | None = None
    serve: ServeSpeed | None = None
    edge: EdgeSpeed | None = None
    missing: dict[Strategy, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: str = ""


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
        return _Measuring(settings, Path(folder), log).all()


class _Measuring:
    def __init__(self, settings: ChooseSettings, folder: Path, log: Log) -> None:
        self._settings = settings
        self._model = str(settings.model)
        self._sample = str(settings.sample)
        self._folder = folder
        self._log = log
        self._missing: dict[Strategy, str] = {}
        self._notes: list[str] = []
        self._trust = ["--trust-model"] if settings.trust_model else []

    def all(self) -> Measurements:
        """Every strategy."""
        self._look_around()
        self._log(f"looking at {self._model}")
        about = json.loads(self._run(["models", "inspect", self._model, "--json"]).stdout)
        batch: BatchSpeed | None
        if about["task"] in PICTURES:
            edge = self._watch()
            bodies, kind = self._pictures(), JPEG
            batch = self._attempt("batch", self._batch_of_pictures)
        else:
            columns, table, rate = self._rows()
            batch = self._batch(columns, table, rate)
            rows = _typed(about["inputs"], columns, table)
            bodies, kind = [json.dumps({"instances": [row]}).encode() for row in rows], JSON
            edge = self._attempt("edge", lambda: self._lines(rows))
        serve = self._attempt("serve", lambda: self._serve(bodies, kind))
        return Measurements(
            model=about["name"],
            task=about["task"],
            machine=machine.name(),
            cores=machine.core_count(),
            row_bytes=sum(map(len, bodies)) / len(bodies),
            batch=batch,
            serve=serve,
            edge=edge,
            missing=self._missing,
            notes=tuple(self._notes),
        )

    def _look_around(self) -> None:
        """What else runs here makes all figures too small."""
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        cores = machine.core_count()
        if busy > BUSY * cores:
            self._notes.append(
                f"other programs kept this machine busy (load {busy:.1f} on {cores} cores): "
                "speeds are too low and latencies too high; measure again when it is idle"
            )

    def _run(self, arguments: list[str]) -> processes.Finished:
        return processes.run([*processes.OURS, *arguments], self._folder)

    def _attempt(self, strategy: Strategy, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MlopsDeployError as error:
            self._missing[strategy] = str(error)
            return None

    # -- batch

    def _rows(self) -> tuple[dict[str, str], Rows, float]:
        """The sample as `batch` reads it.

        Returns:
            The column of each of the model's inputs, the rows, and roughly how many a second.
        """
        self._log(f"reading {self._sample}")
        summary = self._run_batch(Path(self._sample).absolute(), "sample.jsonl", limit=SAMPLE)
        columns: dict[str, str] = summary["columns"]
        lines = (self._folder / "sample.jsonl").read_text("utf-8").splitlines()
        rows = [
            {column: row[column] for column in columns.values()} for row in map(json.loads, lines)
        ]
        rows = [row for row in rows if all(value not in (None, "") for value in row.values())]
        if not rows:
            raise ConfigError(f"{self._sample}: no row of it can be scored")
        return columns, rows, summary["rows_per_second"]

    def _batch(self, columns: dict[str, str], rows: Rows, rate: float) -> BatchSpeed:
        """A run over the sample's rows, again and again and no two alike."""
        text = [columns["text"]] if set(columns) == {"text"} else []
        path = self._folder / "rows.csv"

        def make(count: int) -> Path:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(columns.values()))
                writer.writeheader()
                for place in range(count):
                    row = rows[place % len(rows)]
                    turn = place // len(rows)
                    writer.writerow({**row, **{name: _turned(row[name], turn) for name in text}})
            return path

        first = min(max(int(rate * self._settings.seconds), len(rows)), len(rows) * GROWTH)
        return self._grown("rows", len(rows), first, MOST_ROWS, make)

    def _grown(
        self, what: str, sample: int, count: int, most: int, make: Callable[[int], Path]
    ) -> BatchSpeed:
        """A run over input that is made longer until it takes long enough.

        Args:
            what: rows or pictures.
            sample: how many of them the user's sample has.
            count: how many the first run gets.
            most: how many any run gets.
            make: returns input of so many.
        """
        output = "rows.out.csv" if what == "rows" else "pictures.out.jsonl"
        for _ in range(RUNS):
            self._log(f"batch: {count:,} {what}")
            summary = self._run_batch(make(count), output)
            seconds = max(summary["seconds"], 1e-3)
            if seconds >= self._settings.seconds / 2 or count >= most:
                break
            growth = min(self._settings.seconds / seconds, GROWTH)
            count = min(int(count * growth) + 1, most)
        scored = count - summary["duplicates"] - summary["empty"] - summary["failed"]
        different = " different ones" if what == "rows" else ""
        how = (
            f"a run over {count:,} {what} made from {sample:,} of {self._sample}: {scored:,}"
            f"{different} in {seconds:.1f} s on {summary['runtime']} {summary['precision']}"
        )
        start = max(summary["wall"] - seconds, 0.0)
        return BatchSpeed(scored / seconds, start, summary["memory_mb"], how)

    def _run_batch(self, path: Path, output: str, limit: int | None = None) -> dict[str, Any]:
        arguments = ["batch", str(path), "-o", str(self._folder / output), "--model", self._model]
        arguments += ["--json", "--fresh", "--max-errors", "100%", *self._trust]
        if limit:
            arguments += ["--limit", str(limit)]
        if self._settings.text_column:
            arguments += ["--text-column", self._settings.text_column]
        if self._settings.features:
            arguments += ["--features", ",".join(self._settings.features)]
        done = self._run(arguments)
        summary: dict[str, Any] = json.loads(done.stdout)
        return {**summary, "wall": done.wall, "memory_mb": done.peak_memory / 1e6 or None}

    def _batch_of_pictures(self) -> BatchSpeed:
        """A run over the sample's pictures, as files and each a little different."""
        files = self._files_of_pictures()
        folder = self._folder / "pictures"
        folder.mkdir()

        def make(count: int) -> Path:
            for place in range(len(list(folder.iterdir())), count):
                suffix, content = files[place % len(files)]
                # What follows the end of a picture is not looked at, but no two are equal.
                (folder / f"{place:06}{suffix}").write_bytes(content + str(place).encode())
            return folder

        return self._grown("pictures", len(files), len(files), MOST_PICTURES, make)

    def _files_of_pictures(self) -> list[tuple[str, bytes]]:
        """Suffix and content of the sample's pictures; frames of a video as JPEG."""
        path = Path(self._sample)
        names = [str(path)] if path.is_file() else []
        if path.is_dir():
            names = sorted(str(file) for file in path.iterdir())
        names = [name for name in names if name.lower().endswith(SUFFIXES)]
        if names:
            paths = map(Path, names[:SAMPLE_PICTURES])
            return [(file.suffix, file.read_bytes()) for file in paths]
        import cv2

        video = cv2.VideoCapture(str(path))
        found: list[tuple[str, bytes]] = []
        while len(found) < SAMPLE_PICTURES and (read := video.read())[0]:
            found.append((".jpg", cv2.imencode(".jpg", read[1])[1].tobytes()))
        video.release()
        return found

    # -- serve

    def _serve(self, bodies: Sequence[bytes], kind: str) -> ServeSpeed:
        port = machine.free_port()
        settings: dict[str, Any] = {
            "models": [
                {
                    "model": self._model,
                    "name": "measured",
                    "route": "/predict",
                    "input": "instances",
                    "features": list(self._settings.features),
                }
            ],
            "port": port,
            "max_body": "64 MiB",
            "trust_model": self._settings.trust_model,
        }
        config = self._folder / "serve.yaml"
        config.write_text(yaml.safe_dump(settings), "utf-8")
        url, seconds = f"http://127.0.0.1:{port}", self._settings.seconds
        self._log("serve: starting")
        command = [*processes.OURS, "serve", "--config", str(config)]
        with processes.start(command, self._folder) as server:
            start = server.wait_until(
                lambda: processes.answers(f"{url}/readyz"), READY, "the server"
            )
            url += "/predict"
            self._log("serve: as much as it takes")
            most = load(
                url, bodies, kind, connections=CONNECTIONS, seconds=seconds,
                warm_up=min(seconds, 1.0),
            )  # fmt: skip
            capacity = most.requests_per_second
            loads = []
            for share in SHARES:
                rate = capacity * share
                lasting = min(max(seconds, REQUESTS / rate), LONGEST * seconds)
                self._log(f"serve: {number(rate)} requests/s for {lasting:.0f} s")
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

    def _pictures(self) -> list[bytes]:
        """Pictures of the sample as JPEG, as large as they are there."""
        import cv2

        path = Path(self._sample)
        names = sorted(map(str, path.iterdir())) if path.is_dir() else []
        frames = [picture for name in names[:FRAMES] if (picture := cv2.imread(name)) is not None]
        if not names:
            video = cv2.VideoCapture(str(path))
            while len(frames) < FRAMES and (read := video.read())[0]:
                frames.append(read[1])
            video.release()
        if not frames:
            raise ConfigError(f"{self._sample}: no picture in it can be read")
        height, width = frames[0].shape[:2]
        self._notes.append(f"bytes of a picture: as JPEG of {width}×{height} pixels")
        return [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]

    # -- edge

    def _watch(self) -> EdgeSpeed:
        """The pipeline of pictures, as `bench edge` measures it."""
        self._log("edge: watching the sample")
        arguments = ["bench", "edge", "--model", self._model, "--camera", self._sample, "--json"]
        arguments += ["--seconds", str(self._settings.seconds), *self._trust]
        report = json.loads(self._run(arguments).stdout)
        stages = [report["stages_ms"][name] for name in ("encode", "infer", "decode")]
        how = (
            f"the pipeline over {report['width']}×{report['height']} pictures, "
            f"{report['pipeline']['frames']} frames, {report['precision']}; latency: encode, infer "
            "and decode, each alone, added"
        )
        return EdgeSpeed(
            per_second=report["pipeline"]["fps"],
            p50=sum(stage["p50"] for stage in stages) / 1000,
            p99=sum(stage["p99"] for stage in stages) / 1000,
            memory_mb=report["memory_mb"],
            how=how,
        )

    def _lines(self, rows: Rows) -> EdgeSpeed:
        """The pipeline of lines, as `bench edge` measures it."""
        self._log("edge: reading lines of the sample")
        path = self._folder / "lines.txt"
        path.write_text("".join(_line(row) + "\n" for row in rows), "utf-8")
        arguments = ["bench", "edge", "--model", self._model, "--lines", str(path), "--json"]
        arguments += ["--seconds", str(self._settings.seconds), *self._trust]
        if self._settings.features:
            arguments += ["--features", ",".join(self._settings.features)]
        report = json.loads(self._run(arguments).stdout)
        alone, together = report["one_at_a_time"], report["all_at_once"]
        how = (
            f"'mlopsdeploy edge' over {together['lines']:,} lines that come all at once, on "
            f"{report['runtime']} {report['precision']}; latency: lines that come one at a time"
        )
        return EdgeSpeed(
            per_second=together["lines_per_second"],
            p50=alone["p50"] / 1000,
            p99=alone["p99"] / 1000,
            memory_mb=report["memory_mb"],
            how=how,
        )


def _typed(fields: Sequence[dict[str, Any]], columns: dict[str, str], rows: Rows) -> Rows:
    """Rows by the model's names, numbers as numbers: a CSV has only text."""
    numbers = {field["name"] for field in fields if field["dtype"] != "str"}
    typed = []
    for row in rows:
        values = {name: row[column] for name, column in columns.items()}
        for name in numbers & set(values):
            value = float(values[name])
            values[name] = int(value) if value.is_integer() else value
        typed.append(values)
    return typed


def _line(row: dict[str, Any]) -> str:
    """A row as `mlopsdeploy edge` reads it: a text on one line, or values by name."""
    return " ".join(row["text"].split()) if set(row) == {"text"} else json.dumps(row)


def _turned(text: str, turn: int) -> str:
    """The same words from another one on, so that no two texts are equal and all as long."""
    words = text.split()
    if not turn or not words:
        return text
    at = turn % len(words)
    # A whole turn would be the same text: a number tells them apart.
    lap = f" {turn // len(words)}" if turn >= len(words) else ""
    return " ".join(words[at:] + words[:at]) + lap
