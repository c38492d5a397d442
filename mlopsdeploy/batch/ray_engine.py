"""The batch strategy on many machines: Ray Data feeds a pool of actors that have the model.

    a task on the driver's node    actors, anywhere              driver
    ───────────────────────────    ────────────────              ──────
    read, parse ──► windows ─────► encode, compute, assemble ──► restore the order, write, commit

The windows are those of the local engine, and its driver writes them in their order. So all that
`job` promises holds: the same labels, scores and bytes, resume after a crash, bad rows, counts.
Only the driver's node needs to see the input and the output; the model has to be on every node.

A worker that dies is started anew and scores its windows again; each is written once.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlopsdeploy.batch import scoring
from mlopsdeploy.batch.job import Clock, Job, Reading, Run, Running, Summary, rows_to_do
from mlopsdeploy.batch.loading import load_for
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.data.matching import content_column
from mlopsdeploy.data.sinks import Written
from mlopsdeploy.data.sources import Source, Wanted, Window
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError, Stopped
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.settings import BatchSettings

ATTEMPTS = 4  # of a window; a worker that dies so often over it is killed by it
READ_AHEAD = 64 << 20  # bytes of windows per actor that may wait in the object store
LOCAL = "local"
READERS_SECONDS = 10  # that threads of Ray Data may take to end
_READERS = ("iter_threaded", "StreamingExecutor")  # their names
# What a worker on another node has to know of the driver's environment.
_ENVIRONMENT = ("MLOPSDEPLOY_CACHE", "HF_HOME", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Cluster:
    """Where to compute.

    Attributes:
        address: of a running cluster, "auto" or `host:port`; None is `RAY_ADDRESS`, or where that
            is not set a Ray of our own on this machine.
        actors: the least and the most of them; None is as many as there is room for.
        cpus: cores per actor, all of which its model uses.
        gpus: GPUs per actor; below 1, actors share one.
    """

    address: str | None = None
    actors: tuple[int, int] | None = None
    cpus: int = 1
    gpus: float = 0


def run(
    job: Job,
    target: Run,
    *,
    opened: Callable[[], Source],
    load: Callable[[], Model],
    cluster: Cluster,
) -> tuple[Summary, Statistics, str]:
    """As `job.run`, computed by a cluster.

    Args:
        job: what to score and how.
        target: where the rows go.
        opened: opens the input in another process of this machine; can be pickled.
        load: loads the job's model in an actor; can be pickled.
        cluster: where.

    Returns:
        What happened, by counts and by statistics, and the digest of the input.

    Raises:
        ConfigError: the cluster has no room for an actor.
        ModelError: an actor's model is not the driver's.
        MlopsDeployError: as `job.run` does; or there is no such cluster, or workers keep dying.
    """
    if job.store is not None:
        raise ConfigError(
            "--incremental: only the local engine looks rows up; leave it or --engine ray"
        )
    # Ray prints a cluster's warnings to standard output, which is for data. What ends the run is
    # raised as well.
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        rows_to_do(job, target) as reading,
        _connected(cluster, job.log),
    ):
        return _Collecting(job, target, reading, opened, load, cluster).go()


def loader(settings: BatchSettings, model: Model, cluster: Cluster) -> Callable[[], Model]:
    """Loads the driver's model in an actor, by the same reference, for its cores.

    A path has to be there on every node, as has what is made of a model only once: an int8 model
    of one's own in `MLOPSDEPLOY_CACHE`.
    """
    kind = _kind(model)
    parts = several(settings.model)
    paths = list(map(_wherever, parts or [settings.model]))
    if parts and (comma := next((path for path in paths if "," in path), None)):
        raise ConfigError(f"--model {settings.model}: {comma} has a comma; give it a path without")
    reference = ",".join(paths)
    there = settings.replace(
        model=reference,
        runtime=kind["runtime"] if settings.runtime == "auto" else settings.runtime,
        threads=cluster.cpus,
        input=None,  # these may hold a password, which no other node needs
        output=None,
        notify_success=None,
        notify_failure=None,
    )
    # Of several models each has a precision of its own; `_check_same` compares them.
    return partial(load_for, there, None if parts else kind["precision"])


def _wherever(reference: str) -> str:
    """A model's name, or its path so that it means the same in every folder."""
    path = Path(reference).expanduser()
    return str(path.resolve()) if reference not in built_in() and path.exists() else reference


class _Collecting(Running):
    """The driver's part: write what the actors computed."""

    def __init__(
        self,
        job: Job,
        target: Run,
        reading: Reading,
        opened: Callable[[], Source],
        load: Callable[[], Model],
        cluster: Cluster,
    ) -> None:
        super().__init__(job, target, reading)
        folder, done = str(Path.cwd()), self._summary.rows
        reader = _Reader(opened, folder, job.batch_size, job.limit, done, job.wanted)
        actors = cluster.actors or _as_many_as_fit(cluster)
        setup = _Setup(
            load,
            _kind(job.model),
            dict(job.columns),
            job.all_scores,
            job.prefix,
            copy.deepcopy(job.statistics),
            cluster.cpus,
            actors[1],
            ray.remote(_Attempts).options(scheduling_strategy=_here(), num_cpus=0).remote(),
        )
        self._scored = _scored(reader, setup, cluster, actors)

    def _score(self) -> None:
        try:
            for scored in self._scored:
                if isinstance(scored, _HowRead):
                    self._how_read = scored.told
                    continue
                with self._clock.stage("write"):
                    self._write(scored.window, scored.columns)
                self._summary.merge(scored.summary)
                self._statistics.merge(scored.statistics)
                self._clock.seconds.update(scored.summary.stages)
                self._written(scored.digest, scored.window.share, progress=scored.summary.rows)
        finally:
            self._scored.close()


@dataclass(frozen=True)
class _Read:
    """A window on its way to an actor.

    `first` and `last` are the numbers of its rows, `digest` is that of the input up to its end.
    """

    first: int
    last: int
    window: Window
    digest: str
    seconds: Counter[str]


@dataclass(frozen=True)
class _HowRead:
    """How the input was read, known when all of it is; see `Source.how_read`."""

    told: dict[str, Any]


@dataclass(frozen=True)
class _Scored:
    """A window on its way back, and what there is to say about it."""

    window: Window
    columns: Written
    summary: Summary
    statistics: Statistics
    digest: str


@dataclass(frozen=True)
class _Reader:
    """Reads windows, in a task. An error of the input is an item like any other, the last one."""

    opened: Callable[[], Source]
    folder: str  # the driver's, so that paths mean what they mean there
    batch_size: int
    limit: int | None
    done: int
    wanted: Wanted

    def __call__(self) -> Iterator[pa.Table]:
        with contextlib.chdir(self.folder):
            try:
                yield from map(_packed, self._windows())
            except MlopsDeployError as error:
                yield _packed(error)

    def _windows(self) -> Iterator[_Read | _HowRead]:
        with contextlib.closing(self.opened()) as source:
            reading = Reading(source, self.batch_size, self.limit, self.done)
            clock = Clock()
            for chunk, window, digest in reading.windows(self.wanted, clock, self.done):
                last = chunk.first + chunk.rows - 1
                yield _Read(chunk.first, last, window, digest, clock.seconds)
                clock.seconds = Counter()
            yield _HowRead(source.how_read())


@dataclass(frozen=True)
class _Setup:
    """What an actor scores with and how; see `Job`.

    `kind` is what the driver's model is, `actors` the most there will be.
    """

    load: Callable[[], Model]
    kind: Mapping[str, str]
    columns: Mapping[str, str]
    all_scores: bool
    prefix: str
    statistics: Statistics
    cpus: int
    actors: int
    attempts: Any


class _Attempts:
    """Counts beside the driver, where nothing kills it, what workers began and did not end."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def begin(self, what: str) -> int:
        """How often that is by now."""
        self._count[what] += 1
        return self._count[what]

    def end(self, what: str) -> None:
        """It went well."""
        del self._count[what]


class _Scorer:
    """The model in an actor.

    Errors that a user can act on travel as items, because Ray would bury them in a traceback.
    """

    def __init__(self, setup: _Setup) -> None:
        self._setup = setup
        self._error: MlopsDeployError | None = None
        # The tokenizer would take all cores of the node, and so would every other actor's.
        os.environ.setdefault("RAYON_NUM_THREADS", str(setup.cpus))
        try:
            if self._begins("loading the model") > ATTEMPTS * setup.actors:
                raise MlopsDeployError(
                    "workers die while they load the model; out of memory? Fewer actors with "
                    "more cores each need less"
                )
            self._model = setup.load()
            _check_same(setup.kind, self._model)
            self._pool = ThreadPoolExecutor(self._model.runtime.streams)
        except MlopsDeployError as error:
            self._error = type(error)(f"ray: {ray.util.get_node_ip_address()}: {error}")
        setup.attempts.end.remote("loading the model")

    def _begins(self, what: str) -> int:
        times: int = ray.get(self._setup.attempts.begin.remote(what))
        return times

    def __call__(self, batch: pa.Table) -> pa.Table:
        read = _unpacked(batch)
        if read is None or isinstance(read, MlopsDeployError | _HowRead):
            return batch
        try:
            return _packed(self._error or self._score(read))
        except MlopsDeployError as error:
            return _packed(error)

    def _score(self, read: _Read) -> _Scored:
        if self._begins(read.digest) > ATTEMPTS:
            raise MlopsDeployError(
                f"ray: rows {read.first:,} to {read.last:,}: {ATTEMPTS} workers died over them; "
                "out of memory? A smaller --batch-size needs less"
            )
        model, setup, clock = self._model, self._setup, Clock(read.seconds)
        with clock.stage("encode"):
            planned = scoring.prepare(model, read.window, setup.columns)
        predict = partial(scoring.predict, model, planned, stage=clock.stage)
        computed = list(self._pool.map(predict, planned.batches))
        window, predictions = scoring.assemble(model, planned, computed)
        summary = Summary(stages=clock.seconds)
        summary.count(model.task, planned, window, predictions)
        statistics = copy.deepcopy(setup.statistics)
        text = content_column(setup.columns)
        statistics.add(model.task, window.numbers, window.columns, predictions, text=text)
        columns = scoring.written(
            model, predictions, all_scores=setup.all_scores, prefix=setup.prefix
        )
        # The sink needs the rows as they were read, not the columns that the model took.
        window = replace(window, columns={}, pictures=None)
        return _Scored(window, columns, summary, statistics, read.digest)


class _Windows(ray.data.Datasource):  # type: ignore[misc]
    """One task that reads all windows; it keeps up with hundreds of cores that compute."""

    supports_distributed_reads = False  # on the driver's node: the input may be nowhere else

    def __init__(self, reader: _Reader) -> None:
        super().__init__()
        self._reader = reader

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody knows."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
        """One, whatever the parallelism."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ray.data.ReadTask(self._reader, unknown)]


def _scored(
    reader: _Reader, setup: _Setup, cluster: Cluster, actors: tuple[int, int]
) -> Generator[_Scored, None, None]:
    """The windows in their order, computed."""
    # A second window in an actor is encoded while the first is computed. One core gains nothing by
    # it, and the last windows of a run are spread the better the fewer wait anywhere.
    least, most = actors
    calls = 1 if cluster.cpus == 1 and not cluster.gpus else 2
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        object_store_memory=READ_AHEAD * (most + 1)
    )
    context.target_max_block_size = 1  # a window is a row, and each row a block of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context):
        dataset = ray.data.read_datasource(
            _Windows(reader), override_num_blocks=1, num_cpus=0
        ).map_batches(
            _Scorer,
            fn_constructor_args=(setup,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=1,  # an input of one window needs no more
                initial_size=least,
                max_size=most,
                max_tasks_in_flight_per_actor=calls,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
        )
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            item = _unpacked(batch)
            if isinstance(item, MlopsDeployError):
                raise item
            if item is not None:
                yield item


@contextmanager
def _connected(cluster: Cluster, log: Callable[[str], None]) -> Iterator[None]:
    """A connection to the cluster; one that was there before is taken, and left."""
    ours = not ray.is_initialized()
    if ours:
        _connect(cluster.address or os.environ.get("RAY_ADDRESS") or LOCAL)
    try:
        _check_room(cluster, log)
        yield
    finally:
        if ours:
            _join_readers()
            ray.shutdown()


def _join_readers() -> None:
    """Wait for Ray Data's threads, which outlive the iteration that began them.

    What they ask of a Ray that ends would end this process without a word, or begin another Ray.
    """
    end = time.monotonic() + READERS_SECONDS
    for thread in threading.enumerate():
        if thread.name.startswith(_READERS):
            thread.join(max(end - time.monotonic(), 0))


def _check_there(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise MlopsDeployError(
            f"ray: no cluster at {address} ({error.strerror or error})"
        ) from error


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"ray: {address}: Ray Data runs on the cluster, not through its client; start the job "
            "there, for instance: ray job submit -- mlopsdeploy batch …"
        )
    _check_there(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # spares a warning
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    size = {"num_cpus": core_count(), "include_dashboard": False} if address == LOCAL else {}
    passed = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        with _silent():
            ray.init(
                address,
                runtime_env={"env_vars": passed} if passed and address != LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **size,
            )
    except Stopped:
        raise
    except SystemExit as leaving:  # so Ray's own handler ends it, which is there meanwhile
        raise Stopped(signal.SIGTERM) from leaving
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError, another version, …
        reason = " ".join(str(error).split())[:200]
        raise MlopsDeployError(
            f"ray: can't work with the cluster at {address} ({reason})"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _here() -> NodeAffinitySchedulingStrategy:
    """The driver's node."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _as_many_as_fit(cluster: Cluster) -> tuple[int, int]:
    room = ray.cluster_resources()
    count = int(room.get("CPU", 0) // cluster.cpus)
    if cluster.gpus:
        count = min(count, int(room.get("GPU", 0) / cluster.gpus))
    return max(count, 1), max(count, 1)


def _check_room(cluster: Cluster, log: Callable[[str], None]) -> None:
    """Ray would wait for ever for what a cluster does not have."""
    room = ray.cluster_resources()
    least = cluster.actors[0] if cluster.actors else 1
    for name, each in (("CPU", cluster.cpus), ("GPU", cluster.gpus)):
        have = room.get(name, 0)
        if each * least <= have:
            continue
        problem = (
            f"ray: {least} actors of {each:g} {name}s each are asked for, and the cluster has "
            f"{have:g} {name}s in all"
        )
        if not (cluster.address or os.environ.get("RAY_ADDRESS")):
            raise ConfigError(problem)
        log(f"{problem}; waiting for it to grow")


@contextmanager
def _silent() -> Iterator[None]:
    """No standard error, on which Ray's C++ announces its own log level."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _kind(model: Model) -> dict[str, str]:
    """What has to be the same everywhere, or rows get other scores in other places."""
    return {
        "digest": model.digest,
        "runtime": model.runtime.name,
        "precision": model.precision,
    }


def _check_same(kind: Mapping[str, str], model: Model) -> None:
    here = _kind(model)
    for name, there in kind.items():
        if here[name] != there:
            raise ModelError(
                f"the {name} of {model.name} is {here[name][:12]} here and {there[:12]} where the "
                "job was started; every node needs the same files and packages; --runtime and "
                "--precision can be named"
            )


def _packed(item: _Read | _HowRead | _Scored | MlopsDeployError) -> pa.Table:
    """A block of one row; Ray's own columns can't hold what a window is."""
    return pa.table({"item": pa.array([pickle.dumps(item, 5)], pa.large_binary())})


def _unpacked(block: pa.Table) -> Any:
    """What is in a block: one item, or None where no window is left to score."""
    if not block.num_rows:
        return None
    return pickle.loads(block.column("item")[0].as_buffer())  # noqa: S301  # our own
