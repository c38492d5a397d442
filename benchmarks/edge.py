"""Objects in a video, frame by frame: mlopsdeploy beside the article's loop and beside its rivals.

    python benchmarks/edge.py --setup     once: the rivals' environments
    python benchmarks/edge.py             the figures, in benchmarks/results/

**What is compared.** Every contestant finds objects in the same clip (examples/street.mp4 again and
again) with the same file, the built-in fast detector with TFLite_Detection_PostProcess behind it,
so that none decodes boxes by itself. All but MediaPipe, which brings its own interpreter, make the
same LiteRT call. The rivals draw boxes and labels into each frame; mlopsdeploy does where an output
shows the picture (`--save`). No contestant opens a window. Before the rounds, each must find
as many objects as the article's loop.

**What is timed.**

- `fps`: results from the first to the last one over the time between them; start-up is left out.
- `× invoke`: fps over that of bare `invoke` calls with the same file and as many threads, measured
  just before and just after.
- `CPU per frame`: processor time of the whole process tree, less that of a run of one frame.
- `peak memory`: sum over the process tree of each process's high-water mark.
- `start`: wall clock of a run of one frame, from the start of the process to its end.
- `frame age`: a camera of 30 frames a second (edge_peers/camera.py) writes the time into its
  pictures, and the model takes about 100 ms: the built-in network 30 times over in one file. Age
  counts from the moment a frame was due at the camera until its result is there; nearest rank. Of
  mlopsdeploy it is taken outside of it, when the line of `--events` comes out. Motion JPEG over
  HTTP on this machine: some milliseconds of it are the network's and the decoder's.

**How.** Machines are shared and noisy, so contestants take turns over several rounds, in another
order each round, and each figure is set against the article's loop of the same round. The share of
the cores that other processes took meanwhile is kept with every run: it should be near zero (with
the camera it holds the camera's own, a few percent).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
from batch import check, last_json, log, machine
from report import save, spread
from serve import _figures as figures
from serve import versions

from mlopsdeploy.bench import processes
from mlopsdeploy.bench.load_client import nearest

sys.path.append(str(Path(__file__).resolve().parent / "edge_peers"))
import clock

HERE = Path(__file__).resolve().parent
PEERS = HERE / "edge_peers"
STREET = HERE.parent / "examples" / "street.mp4"
BUILTIN = HERE.parent / "mlopsdeploy" / "builtin" / "detector-fast"

ARTICLE = "article"
TIMEOUT = 600.0
LIMIT_SECONDS = 2.0  # of bare calls, before and after each contestant
THRESHOLD = 0.5
SIZES = {"street": (640, 360), "street_hd": (1280, 720)}
OURS = ("mlopsdeploy", "ai-edge-litert", "opencv-python", "numpy")

LITERT = ("ai-edge-litert==2.3.0", "numpy==2.4.6", "opencv-python==5.0.0.93")
# Each rival's environment, as pip's arguments. Later versions of inference (0.64 was looked at)
# need torch and torchvision, which take gigabytes of CUDA packages.
PINS: dict[str, tuple[str, ...]] = {
    "litert": (*LITERT, "pillow==12.3.0"),
    "supervision": (*LITERT, "supervision==0.31.2"),
    "inference": ("ai-edge-litert==2.3.0", "inference==0.51.10"),
    "mediapipe": ("mediapipe==1.2.2",),
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A clip, a model and a number of threads; `live`: the clip comes from a camera."""

    name: str
    title: str
    clip: str = "street"
    model: str = "detect.tflite"
    threads: int = 1
    live: bool = False


SCENARIOS = (
    Scenario("file", "A video of 640×360, one thread"),
    Scenario("threads", "The same, two threads", threads=2),
    Scenario("hd", "A video of 1280×720, one thread", clip="street_hd"),
    Scenario(
        "camera",
        "A camera of 30 frames a second, a model of about 100 ms, one thread",
        model="slow.tflite",
        live=True,
    ),
)
FILES = frozenset({"file", "hd"})
ALL = frozenset(scenario.name for scenario in SCENARIOS)


@dataclass(frozen=True)
class Contestant:
    """One way to watch. `venv` None is the product itself: then `command` is its options."""

    name: str
    title: str
    venv: str | None
    command: tuple[str, ...]
    scenarios: frozenset[str] = ALL
    builtin: bool = False


CONTESTANTS = (
    Contestant(ARTICLE, "the article's loop", "litert", ("article_loop.py",)),
    Contestant("coral", "a loop as Coral's examples have it", "litert", ("coral_loop.py",)),
    Contestant("supervision", "supervision", "supervision", ("supervision_app.py",)),
    Contestant(
        "supervision_save",
        "supervision, `process_video`",
        "supervision",
        ("supervision_app.py", "--save", "out.mp4"),
        FILES,
    ),
    Contestant("inference", "inference, InferencePipeline", "inference", ("inference_app.py",)),
    Contestant(  # it has no option for threads
        "mediapipe",
        "MediaPipe, ObjectDetector",
        "mediapipe",
        ("mediapipe_app.py",),
        FILES | {"camera"},
    ),
    Contestant("ours", "**mlopsdeploy edge**", None, (), ALL - {"camera"}),
    Contestant("ours_events", "**mlopsdeploy edge** --events", None, ("--events", "events.jsonl")),
    Contestant("ours_save", "**mlopsdeploy edge** --save", None, ("--save", "out.mp4"), FILES),
    Contestant(
        "ours_builtin",
        "**mlopsdeploy edge**, the built-in model as it is",
        None,
        (),
        frozenset({"file", "threads"}),
        builtin=True,
    ),
)


@dataclass
class Run:
    """One contestant in one scenario of one round. Times in the units their names say."""

    frames: int
    fps: float
    found: int
    cpu_ms: float
    peak_mb: float
    start: float
    others: float
    limit_fps: float
    to_limit: float
    to_article: float | None = None
    age_p50_ms: float | None = None
    age_p99_ms: float | None = None
    age_p99_calls: float | None = None  # in times of one call of the model


@dataclass
class Round:
    load_average: float
    scenarios: dict[str, dict[str, Run]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    rounds: int
    frames: int
    results_live: int
    only: frozenset[str]
    scenarios: frozenset[str]
    peers: Path
    work: Path
    results: Path
    python: Path


def loop_clip(path: Path, frames: int, size: tuple[int, int]) -> None:
    """The street again and again, in a size."""
    capture = cv2.VideoCapture(str(STREET))
    part = path.with_suffix(".part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), clock.FPS, size)
    for _ in range(frames):
        good, picture = capture.read()
        if not good:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            _, picture = capture.read()
        writer.write(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
    writer.release()
    part.replace(path)


# --- the time at which lines come out ---


class Listener:
    """A named pipe in place of a file, read by a thread that notes when each line comes."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self.lines: list[tuple[float, str]] = []
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while not self._stop.is_set():
            select.select((self._pipe,), (), (), 0.2)
            try:
                data = os.read(self._pipe, 1 << 20)
            except BlockingIOError:
                continue
            if not data:  # nobody writes yet, or any more
                self._stop.wait(0.005)
                continue
            now = time.monotonic()
            *whole, rest = (rest + data).split(b"\n")
            self.lines += [(now, line.decode()) for line in whole]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._pipe)

    def frames(self) -> list[tuple[float, int]]:
        """When each frame's line came, and the frame's number."""
        told = [(moment, json.loads(line)) for moment, line in self.lines]
        return [(moment, line["frame"]) for moment, line in told if line["event"] == "frame"]


# --- the benchmark ---


class Bench:
    """Everything that one run of the benchmark makes and knows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = settings.work / "models"
        self.records = settings.work / "records"
        self.port = 0
        self.rounds: list[Round] = []
        self.failures: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.machine = machine()

    # --- what is made once ---

    def peer_python(self, name: str) -> Path:
        return self.settings.peers / name / "bin" / "python"

    def clip(self, name: str) -> Path:
        path = self.settings.work / f"{name}_{self.settings.frames}.mp4"
        if not path.exists():
            log(f"making {path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            loop_clip(path, self.settings.frames, SIZES[name])
        return path

    def make_models(self) -> None:
        if not (self.models / "labels.txt").exists():
            command = (self.settings.python, PEERS / "make_models.py", self.models)
            check(command, self.settings.work / "make", TIMEOUT)

    @contextlib.contextmanager
    def camera(self) -> Iterator[None]:
        """The camera, for as long as the body runs."""
        self.records.mkdir(parents=True, exist_ok=True)
        python = self.peer_python("litert")
        command = [str(part) for part in (python, PEERS / "camera.py", STREET, self.records)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            try:
                assert running.stdout is not None
                self.port = int(running.stdout.readline())
                yield
            finally:
                running.terminate()

    # --- one command ---

    def command(self, contestant: Contestant, scenario: Scenario, frames: int) -> list[str]:
        camera = str(self.clip(scenario.clip))
        if scenario.live:
            camera = f"http://127.0.0.1:{self.port}/{contestant.name}.mjpg"
        model = self.models / scenario.model
        common = ["--camera", camera, "--threads", str(scenario.threads)]
        if contestant.venv is None:
            product = [str(self.settings.python), "-m", "mlopsdeploy", "edge", "--no-window"]
            known = "detector-fast" if contestant.builtin else str(model)
            # From a camera only frames with something on them get a line; so nearly all have.
            least = 0.05 if scenario.live else THRESHOLD
            wanted = ["--model", known, "--threshold", str(least), "--limit", str(frames)]
            return [*product, *wanted, *common, *contestant.command, "--json"]
        script, *options = contestant.command
        python = str(self.peer_python(contestant.venv))
        wanted = ["--model", str(model), "--labels", str(self.models / "labels.txt")]
        wanted += ["--threshold", str(THRESHOLD), "--frames", str(frames)]
        return [python, str(PEERS / script), *wanted, *common, *options]

    def watch(
        self, contestant: Contestant, scenario: Scenario, frames: int
    ) -> tuple[processes.Finished, Json]:
        """Run one contestant: what it took, and frames, seconds, found, ages."""
        folder = self.settings.work / "run" / contestant.name
        folder.mkdir(parents=True, exist_ok=True)
        record = self.records / f"{contestant.name}.json"
        record.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            listener = None
            if contestant.venv is None and scenario.live:
                listener = Listener(folder / "events.jsonl")
                stack.callback(listener.close)
            elif contestant.venv is None:
                (folder / "events.jsonl").unlink(missing_ok=True)
            command = self.command(contestant, scenario, frames)
            finished = check(command, folder, TIMEOUT, self.environment())
        said = last_json(finished.stdout)
        if contestant.venv is None:
            said["found"] = sum(said["labels"].values())
            said["seconds"] = (said["frames"] - 1) / said["fps"] if said["fps"] else 0.0
            said["ages"] = self.ages(listener, record) if listener else []
        if said["frames"] != frames:
            raise processes.CommandError(f"{said['frames']} frames of {frames}")
        return finished, said

    @staticmethod
    def ages(listener: Listener, record: Path) -> list[float]:
        """Seconds from when each frame was due at the camera to its line."""
        for _ in range(100):  # the camera writes it when it has seen that the reader is gone
            if record.exists():
                break
            time.sleep(0.05)
        sent = json.loads(record.read_text(encoding="utf-8"))
        return [clock.age(sent[number], moment) for moment, number in listener.frames()]

    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(PEERS),
            "MODEL_CACHE_DIR": str(self.settings.work / "inference"),
            # No reports to the tools' makers: a benchmark should not call out.
            "TELEMETRY_OPT_OUT": "true",
            "DISABLE_VERSION_CHECK": "true",
            "YOLO_OFFLINE": "true",
        }

    def limit(self, contestant: Contestant, scenario: Scenario) -> float:
        """Bare `invoke` calls per second."""
        model = BUILTIN / "model.tflite" if contestant.builtin else self.models / scenario.model
        options = ("--model", model, "--camera", self.clip(scenario.clip))
        more = ("--threads", scenario.threads, "--seconds", LIMIT_SECONDS)
        command = (self.peer_python("litert"), PEERS / "raw_invoke.py", *options, *more)
        folder = self.settings.work / "run" / "limit"
        done = check([str(part) for part in command], folder, TIMEOUT)
        return float(last_json(done.stdout)["fps"])

    # --- all of it ---

    def prepare(self) -> list[Contestant]:
        """The contestants that work: each sees the street once, and finds what is there."""
        chosen: list[Contestant] = []
        expected = 0
        frames = min(175, self.settings.frames)
        for contestant in CONTESTANTS:
            wanted = not self.settings.only or contestant.name in self.settings.only
            if not wanted and contestant.name != ARTICLE:
                continue
            if contestant.venv and not self.peer_python(contestant.venv).exists():
                self.failures[contestant.name] = "no environment: run with --setup"
                continue
            try:
                _, said = self.watch(contestant, SCENARIOS[0], frames)
                expected = expected or said["found"]
                if abs(said["found"] - expected) > 0.05 * expected:
                    raise processes.CommandError(
                        f"finds {said['found']} objects, the article's loop {expected}"
                    )
            except (processes.CommandError, OSError, KeyError, ValueError) as error:
                self.failures[contestant.name] = str(error) or type(error).__name__
                log(f"{contestant.name} left out: {self.failures[contestant.name]}")
                continue
            log(f"{contestant.name}: {said['found']} objects in {frames} frames")
            if wanted:
                chosen.append(contestant)
            if contestant.venv is None:
                self.versions["mlopsdeploy"] = versions(self.settings.python, OURS)
            else:
                names = [pin.partition("==")[0] for pin in PINS[contestant.venv]]
                python = self.peer_python(contestant.venv)
                self.versions[contestant.venv] = versions(python, names)
        return chosen

    def measure(self, contestant: Contestant, scenario: Scenario) -> Run:
        frames = self.settings.results_live if scenario.live else self.settings.frames
        one, _ = self.watch(contestant, scenario, 1)
        before = self.limit(contestant, scenario)
        finished, said = self.watch(contestant, scenario, frames)
        limit = mean((before, self.limit(contestant, scenario)))
        fps = (frames - 1) / said["seconds"]
        run = Run(
            frames=frames,
            fps=fps,
            found=said["found"],
            cpu_ms=1000 * (finished.cpu - one.cpu) / (frames - 1),
            peak_mb=finished.peak_memory / 2**20,
            start=one.wall,
            others=finished.others,
            limit_fps=limit,
            to_limit=fps / limit,
        )
        if said["ages"]:
            ages = sorted(said["ages"])
            run.age_p50_ms = 1000 * nearest(ages, 0.50)
            run.age_p99_ms = 1000 * nearest(ages, 0.99)
            run.age_p99_calls = nearest(ages, 0.99) * limit
        return run

    def run_round(self, number: int, chosen: Sequence[Contestant]) -> None:
        this = Round(os.getloadavg()[0])
        self.rounds.append(this)
        for scenario in SCENARIOS:
            if scenario.name not in self.settings.scenarios:
                continue
            runs = this.scenarios[scenario.name] = {}
            order = [one for one in chosen if scenario.name in one.scenarios]
            random.Random(number).shuffle(order)
            for contestant in order:
                try:
                    run = runs[contestant.name] = self.measure(contestant, scenario)
                except (processes.CommandError, OSError, KeyError, ValueError) as error:
                    self.failures[f"{contestant.name}, {scenario.name}"] = str(error)
                    log(f"{contestant.name}, {scenario.name}: {error}")
                    continue
                age = f", age p99 {run.age_p99_ms:,.0f} ms" if run.age_p99_ms else ""
                log(
                    f"round {number}, {scenario.name}, {contestant.name}: {run.fps:,.1f} fps, "
                    f"{run.to_limit:.3f} of invoke{age} "
                    f"({run.others:.0%} of the cores went to other processes)"
                )
            for run in runs.values():
                if ARTICLE in runs:
                    run.to_article = run.fps / runs[ARTICLE].fps

    def results(self) -> Json:
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": self.machine,
            "versions": self.versions,
            "scenarios": {scenario.name: scenario.title for scenario in SCENARIOS},
            "contestants": {one.name: {"title": one.title} for one in CONTESTANTS},
            "rounds": [asdict(this) for this in self.rounds],
            "failures": self.failures,
        }

    def save(self) -> None:
        results = self.results()
        save(self.settings.results, "edge", results, markdown(results))

    def run(self) -> None:
        self.make_models()
        with self.camera():
            chosen = self.prepare()
            for number in range(1, self.settings.rounds + 1):
                self.run_round(number, chosen)
                self.save()


# --- the report ---


def markdown(results: Json) -> str:
    """The result file as Markdown."""
    info, rounds = results["machine"], results["rounds"]
    runs = [
        run for this in rounds for found in this["scenarios"].values() for run in found.values()
    ]
    others = [100 * run["others"] for run in runs]
    lines = [
        "# Edge benchmark",
        "",
        f"{results['date']}, {len(rounds)} round{'s' * (len(rounds) != 1)}. {info['cpu']}, "
        f"{info['cores']} cores, {info['memory_gb']:.0f} GB, {info['system']}, "
        f"Python {info['python']}. "
        f"Other processes took {spread(others, 0)} % of the cores during the runs.",
        "",
        "The built-in `detector-fast`, SSD MobileNet v2 of 300×300, int8. Median [min–max] of "
        "the rounds; "
        "ratios within a round.",
    ]
    for name, title in results["scenarios"].items():
        lines += _table(results, name, title)
    if results["failures"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in results["failures"].items()]
    lines += ["", "## Versions", ""]
    lines += [
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
        for name, found in results["versions"].items()
    ]
    return "\n".join(lines) + "\n"


COLUMNS = {
    "fps": "fps",
    "to_limit": "× invoke",
    "to_article": "× the article's loop",
    "age_p50_ms": "frame age p50, ms",
    "age_p99_ms": "p99, ms",
    "age_p99_calls": "p99, calls of the model",
    "cpu_ms": "CPU per frame, ms",
    "peak_mb": "peak memory, MB",
    "start": "start, s",
}


def _table(results: Json, scenario: str, title: str) -> list[str]:
    rounds = [this["scenarios"].get(scenario, {}) for this in results["rounds"]]
    runs = [run for this in rounds for run in this.values()]
    if not runs:
        return []
    shown = [key for key in COLUMNS if any(run[key] is not None for run in runs)]
    calls = [1000 / run["limit_fps"] for name, run in _named(rounds) if name != "ours_builtin"]
    lines = [
        "",
        f"## {title}",
        "",
        f"One `invoke` takes {figures(calls)} ms.",
        "",
        f"| contestant | {' | '.join(COLUMNS[key] for key in shown)} |",
        f"| --- |{' ---: |' * len(shown)}",
    ]
    for name, row in results["contestants"].items():
        found = [this[name] for this in rounds if name in this]
        if found:
            values = [[run[key] for run in found if run[key] is not None] for key in shown]
            lines.append(f"| {row['title']} | {' | '.join(map(figures, values))} |")
    return lines


def _named(rounds: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    for this in rounds:
        yield from this.items()


# --- the command ---


def setup(peers: Path, only: frozenset[str]) -> None:
    """Create the environments that are missing; a complete one carries a mark."""
    wanted = {c.venv for c in CONTESTANTS if c.venv and (not only or c.name in only)}
    for name in sorted(wanted | {"litert"}):
        mark, pins = peers / name / "complete", PINS[name]
        if mark.exists() and mark.read_text(encoding="utf-8") == repr(pins):
            continue
        log(f"environment {name}")
        venv.create(peers / name, with_pip=True, clear=True)
        pip = (str(peers / name / "bin" / "python"), "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, *pins], check=True)
        mark.write_text(repr(pins), encoding="utf-8")


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, bool]:
    first = (__doc__ or "").splitlines()[0]
    command = argparse.ArgumentParser(description=first)
    names = frozenset(c.name for c in CONTESTANTS)
    command.add_argument("--rounds", type=int, default=3, help="default 3")
    command.add_argument("--frames", type=int, default=1750, help="of a video; default 1750")
    command.add_argument("--live", type=int, default=120, help="of the camera; default 120")
    command.add_argument("--only", metavar="NAME,NAME", help=", ".join(sorted(names)))
    command.add_argument("--scenarios", metavar="NAME,NAME", help=", ".join(sorted(ALL)))
    command.add_argument("--setup", action="store_true", help="create the environments")
    command.add_argument("--peers", type=Path, default=HERE / ".venvs" / "edge")
    command.add_argument("--work", type=Path, default=HERE / ".work" / "edge")
    command.add_argument("--results", type=Path, default=HERE / "results")
    command.add_argument("--python", type=Path, default=Path(sys.executable), help="the product's")
    given = command.parse_args(arguments)
    chosen: dict[str, frozenset[str]] = {}
    for option, known in (("only", names), ("scenarios", ALL)):
        text = getattr(given, option)
        chosen[option] = frozenset(text.split(",") if text else ())
        if unknown := chosen[option] - known:
            choices = ", ".join(sorted(known))
            command.error(f"--{option} {', '.join(sorted(unknown))}: choose from {choices}")
    settings = Settings(
        rounds=given.rounds,
        frames=max(given.frames, 2),
        results_live=max(given.live, 2),
        only=chosen["only"],
        scenarios=chosen["scenarios"] or ALL,
        peers=given.peers.resolve(),
        work=given.work.resolve(),
        results=given.results.resolve(),
        python=given.python.absolute(),
    )
    return settings, given.setup


if __name__ == "__main__":
    chosen_settings, only_setup = parse()
    if only_setup:
        setup(chosen_settings.peers, chosen_settings.only)
    else:
        Bench(chosen_settings).run()
