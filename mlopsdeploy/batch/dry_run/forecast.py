"""From a sample and its times to what all rows would take."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from mlopsdeploy.batch.dry_run.measure import (
    Load,
    Measured,
    measure,
    run_whole,
    write_nowhere,
)
from mlopsdeploy.batch.dry_run.sample import (
    IN_FLIGHT,
    Clock,
    Sample,
    Survey,
    take_sample,
    take_survey,
)
from mlopsdeploy.batch.job import Job
from mlopsdeploy.convert.quantize import MAX_FLIPS
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model, Predicted
from mlopsdeploy.settings import BatchSettings

# How far two runs of the same thing are apart on an idle machine, as a share of their time.
NOISE = 0.04
# Runs were seen to take 1.1 to 1.4 times what the sample takes: they parse and write in the same
# process, and meet more shapes of batches, for each of which a runtime keeps buffers.
MOST_MEMORY = 1.4
WORTHWHILE = 1.1  # times as fast as float32


def loader(settings: BatchSettings) -> Load:
    """Loads the model of some settings in any precision; can be sent to another process."""
    return partial(_load, settings)


def _load(settings: BatchSettings, precision: str | None) -> Model:
    return load_model(
        settings.model,
        runtime=settings.runtime,
        precision=precision or settings.precision,
        threads=settings.threads,
        threshold=settings.threshold,
        features=settings.features,
        long_text=settings.long_text,
        digest=settings.digest,
        trust_model=settings.trust_model,
        max_flips=settings.max_flips,
    )


def estimate(work: Job, load: Load, *, price_per_hour: float | None = None) -> dict[str, Any]:
    """What running a job would take. Reads the input once, writes nothing.

    Args:
        work: the job; its model is loaded, which says what is chosen.
        load: loads the same model, see `loader`.
        price_per_hour: of the machine, in any currency.

    Returns:
        `rows` of the input and whether they were counted (`counted`) or follow from the `share`
        that was read; `sample`: what was found in how many rows; `precisions`: for each, chosen
        first, `seconds` with `least_seconds` and `most_seconds`, `rows_per_second`, `memory`
        (bytes), `cost`, and how many of the `labels_compared` differ from float32's, or why it
        was `skipped`; a `verdict`; `notes`.

    Raises:
        InputError: the input is broken.
        MlopsDeployError: the model can't be loaded or run as chosen.
    """
    work.log("dry run: counting rows")
    load_before = os.getloadavg()[0]
    source = work.open_source()
    try:
        survey = take_survey(work, source)
        sample = take_sample(work, source, survey)
        measured: dict[str, Measured | str] = {}
        for name in _names(work.model):
            work.log(f"dry run: measuring {name}")
            measured[name] = measure(work, load, name, sample)
        chosen = measured[work.model.runtime.precision]
        assert isinstance(chosen, Measured)
        for part in chosen.computed.values():  # what only the model, or a decoder, can't take
            sample.failed += len(part.failed)
            sample.reasons.update(part.failed.values())
        writing = write_nowhere(work, source, sample, chosen)
        if len(chosen.computed) == len(sample.costs) and work.store is None:
            chosen.whole = run_whole(work, source, survey)
    finally:
        source.close()
    rows = [
        _row(work, name, measured, survey, sample, writing, price_per_hour) for name in measured
    ]
    return {
        "dry_run": True,
        "input": source.path,
        "model": work.model.name,
        "runtime": type(work.model.runtime).__name__.lower(),
        "rows": survey.total,
        "counted": survey.counted,
        "share": survey.share,
        "sample": sample.as_dict(),
        "precisions": rows,
        "price_per_hour": price_per_hour,
        "verdict": _verdict(rows),
        "notes": _notes(work, survey, sample, load_before),
    }


def _names(model: Model) -> list[str]:
    """The precisions to measure: the chosen one first, then float32, which others differ from."""
    chosen = model.runtime.precision
    others = model.runtime.precisions
    return list(dict.fromkeys([chosen, *sorted(others, key=lambda name: name != "float32")]))


def _row(
    work: Job,
    name: str,
    measured: Mapping[str, Measured | str],
    survey: Survey,
    sample: Sample,
    writing: Clock,
    price: float | None,
) -> dict[str, Any]:
    """What a run in one precision would take."""
    model = measured[name]
    row: dict[str, Any] = {"precision": name, "chosen": name == work.model.runtime.precision}
    if isinstance(model, str):
        return {**row, "skipped": model}
    seconds = _seconds(model, survey, sample, writing)
    # Two of each, for 19 in 20; the share of an input that was not counted is no better known.
    known = 0.0 if survey.counted else NOISE
    error = 2 * math.hypot(model.error, sample.spread * _unseen(survey, sample), NOISE, known)
    windows = survey.windows if survey.counted else IN_FLIGHT
    row |= {
        "seconds": round(seconds, 1),
        "least_seconds": round(seconds * max(1 - error, 0), 1),
        "most_seconds": round(seconds * (1 + error), 1),
        "done_by": _after(seconds * (1 + error)).isoformat(timespec="minutes"),
        "rows_per_second": round(survey.total / seconds, 1),
        "cpu_seconds": round(_cpu(model, survey, sample, writing), 1),
        "memory": _peak(model, held=len(sample.planned), needed=min(windows, IN_FLIGHT)),
        "most_memory": 0,
        "cost": None if price is None else round(seconds / 3600 * price, 4),
        "scored": model.rows,
        "failed": sum(len(part.failed) for part in model.computed.values()),
    }
    row["most_memory"] = round(row["memory"] * MOST_MEMORY)
    exact = measured.get("float32")
    if name != "float32" and isinstance(exact, Measured):
        compared = differ = 0
        for place in model.computed.keys() & exact.computed.keys():
            ours, theirs = labels_of(model.computed[place]), labels_of(exact.computed[place])
            both = ours.keys() & theirs.keys()
            compared += len(both)
            differ += sum(ours[row] != theirs[row] for row in both)
        row |= {"labels_compared": compared, "labels_differ": differ}
    return row


def _seconds(model: Measured, survey: Survey, sample: Sample, writing: Clock) -> float:
    """How long a run takes, from the command to its end.

    Reader, model and writer work at the same time: the slowest of them counts, and the others
    where they take cores from the model.
    """
    cores = core_count()
    total = survey.total
    times = total / max(sample.rows, 1)
    read = total / max(survey.rows, 1)
    if model.whole is not None:
        rows = sum(chunk.rows for chunk in survey.chunks)
        return model.start + survey.seconds * read + model.whole * total / rows
    reader = survey.seconds * read + sample.seconds * times
    writer = writing.seconds * times
    others = survey.cpu * read + (sample.cpu + writing.both[1]) * times
    compute = float(sample.costs.sum()) * times / model.rate if model.rate else 0.0
    busy = min(model.cpu / model.seconds, cores) if model.seconds else 0.0
    taken = max(others - (cores - busy) * compute, 0) / cores
    first_and_last = (reader + writer) / max(survey.windows * read, 1)
    return model.start + max(compute + taken, reader, writer) + first_and_last


def _cpu(model: Measured, survey: Survey, sample: Sample, writing: Clock) -> float:
    """Seconds of all cores that a run takes, its start excepted; others' work adds none."""
    times = survey.total / max(sample.rows, 1)
    compute = float(sample.costs.sum()) * model.cpu / model.cost if model.cost else 0.0
    read = survey.cpu * survey.total / max(survey.rows, 1)
    return read + times * (sample.cpu + writing.both[1] + compute)


def _peak(model: Measured, *, held: int, needed: int) -> int:
    """Bytes that a run takes at most, with as many windows as it holds, and all shapes."""
    return round(model.memory + (needed - held) * model.window + model.shapes * model.shape)


def _unseen(survey: Survey, sample: Sample) -> float:
    """By how much less a sample errs that is a good part of all rows."""
    return math.sqrt(max(1 - sample.rows / max(survey.total, 1), 0))


def labels_of(computed: Predicted) -> dict[int, Any]:
    """The label of each computed row; of a detector, those of its objects in order."""
    if not len(computed.rows):
        return {}
    labels = computed.predictions["label"].tolist()
    if "boxes" in computed.predictions:
        labels = [sorted(row.tolist()) for row in labels]
    return dict(zip(computed.rows.tolist(), labels, strict=True))


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which precision to take, and why."""
    by_name = {row["precision"]: row for row in rows if "skipped" not in row}
    chosen = next(row for row in rows if row["chosen"])
    name = chosen["precision"]
    exact = by_name.get("float32")
    if exact is None or len(by_name) == 1:
        return f"{name}: the only one that can be measured here"
    # By the work of the cores: what else runs on the machine changes from one to the next.
    good = {
        other: exact["cpu_seconds"] / max(row["cpu_seconds"], 1e-9)
        for other, row in by_name.items()
        if row is exact or row["labels_differ"] <= MAX_FLIPS * row["labels_compared"]
    }
    best = max(good, key=good.__getitem__)
    if good[best] < WORTHWHILE:
        best = "float32"
    elif name in good and good[best] < WORTHWHILE * good[name]:
        best = name  # about as good
    why = "nothing that keeps the labels is clearly faster"
    if best != "float32":
        why = f"{good[best]:.1f} times as fast as float32, {difference(by_name[best])}"
    told = "as chosen" if best == name else f"--precision {best} instead of {name}"
    return f"{best}, {told}: {why}"


def difference(row: Mapping[str, Any]) -> str:
    """`3 of 1,400 labels differ (0.2 %)`; of none, what it can be at most."""
    differ, compared = row["labels_differ"], row["labels_compared"]
    if not compared:
        return "no labels compared"
    if not differ:
        # None among n leaves a share of up to 3/n, 19 times in 20 ("rule of three").
        return f"0 of {compared:,} labels differ (<{percent(min(3 / compared, 1))})"
    return f"{differ:,} of {compared:,} labels differ ({percent(differ / compared)})"


def _notes(work: Job, survey: Survey, sample: Sample, load_before: float) -> list[str]:
    """What to know before starting."""
    notes = []
    if load_before > core_count() / 2:
        notes.append(
            f"the machine is busy: load {load_before:.1f} on {core_count()} cores; "
            "a run that has it alone is faster"
        )
    if not survey.counted:
        read = "an unknown share" if survey.share is None else f"the first {survey.share:.0%}"
        notes.append(f"read {read} of the input; what comes later may differ")
    bad = round(sample.failed * survey.total / max(sample.rows, 1))
    if work.max_errors.exceeded(bad, survey.total, 1.0):
        notes.append(f"about {bad:,} rows are bad, more than --max-errors allows: it would stop")
    return notes


def _after(seconds: float) -> datetime:
    return datetime.now().astimezone() + timedelta(seconds=seconds)


def percent(share: float) -> str:
    """A share, as people read it."""
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.0%}"
