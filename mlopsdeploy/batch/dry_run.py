"""`--dry-run`: what a run would take, measured on a sample of its rows. Nothing is written.

The windows of the sample lie spread over the input, since files are often sorted. They are
parsed, encoded and planned as the run would do it; of the planned batches some, from the shortest
rows to the longest, are computed on all streams at once, with the model as it is loaded.

Where the run takes longer than that, precisions are compared: each computes the same batches in a
process of its own, for the same time, so that memory is that of a run, and they don't mix. Nothing
is measured that would make a dry run longer than the run.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from rich.console import Console

from mlopsdeploy.batch import sampling
from mlopsdeploy.batch.job import Job
from mlopsdeploy.batch.languages import language_facts
from mlopsdeploy.batch.sampling import (
    IN_FLIGHT,
    Clock,
    Load,
    Measured,
    Sample,
    Survey,
    measure,
    run_whole,
    take_sample,
    take_survey,
    timed,
    write_nowhere,
)
from mlopsdeploy.columns import Array, Columns, Task, rows_of, take
from mlopsdeploy.convert.quantize import MAX_FLIPS
from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.core.machine import core_count, peak_memory, resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.matching import scored

# How far two runs of the same thing are apart on an idle machine, as a share of their time.
NOISE = 0.04
# Runs were seen to take 1.1 to 1.4 times what the sample takes: they parse and write in the same
# process, and meet more shapes of batches, for each of which a runtime keeps buffers.
MOST_MEMORY = 1.4
WORTHWHILE = 1.1  # times as fast as float32
MOVED = 0.01  # of the standard deviation of numbers, from which on one counts as changed


def estimate(
    work: Job,
    load: Load,
    *,
    price_per_hour: float | None = None,
    born: float | None = None,
    thorough: bool = False,
) -> dict[str, Any]:
    """What running a job would take. Reads the input once, writes nothing.

    Args:
        work: the job; its model is loaded, which says what is chosen.
        load: loads the same model in any precision; can be sent to another process.
        price_per_hour: of the machine, in any currency.
        born: when the command was started, as `time.time` has it; now if None.
        thorough: compare all precisions, though that may take longer than the run.

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
    clock = Clock()
    start = time.time() - born if born else None
    work.log("dry run: counting rows")
    load_before = os.getloadavg()[0]
    source = work.open_source()
    try:
        before = resident_memory()
        survey = take_survey(work, source)
        sample = take_sample(work, source, survey)
        held = max(resident_memory() - before, 0) // max(len(sample.planned), 1)
        name, *others = _names(work.model)
        work.log(f"dry run: measuring {name}")
        probing = sampling.PROBE_SECONDS if others else sampling.MODEL_SECONDS
        chosen = timed(work.model, sample.planned, probing)
        chosen.start, chosen.window, chosen.memory = start or 0.0, held, peak_memory()
        writing = write_nowhere(work, source, sample, chosen)

        def left() -> tuple[float, float]:
            """Until this has taken as much as the run would: seconds, and those of all cores."""
            run, cpu = _seconds(chosen, survey, sample, writing)
            return run - chosen.start - clock.both[0], cpu - clock.both[1]

        measured: dict[str, Measured | str] = {name: chosen}
        each = _for_each(chosen, *left(), processes=1 + len(others))
        comparing = bool(others) and (thorough or each >= sampling.LEAST_SECONDS)
        if comparing:
            seconds = sampling.MODEL_SECONDS if thorough else min(each, sampling.MODEL_SECONDS)
            for other in (name, *others):
                work.log(f"dry run: comparing {other}")
                measured[other] = measure(work, load, other, sample, seconds)
            found = measured[name]
            assert isinstance(found, Measured)
            chosen = found
        else:
            run, _ = _seconds(chosen, survey, sample, writing)
            why = f"not compared: that would take longer than the run, about {_range(run, run)}"
            measured |= dict.fromkeys(others, why)
        compared = [model for model in measured.values() if isinstance(model, Measured)]
        for model in compared:  # the first load of another one may have compiled it
            model.start = chosen.start if start is None else start
        everything = len(chosen.computed) == len(sample.costs)
        whole = sample.seconds + chosen.seconds + writing[0]
        if everything and work.store is None and (thorough or left()[0] >= whole):
            chosen.whole = run_whole(work, source, survey)
            cost = float(sample.costs.sum())
            for model in compared:  # the others' neighbours get in their way as much
                if model is not chosen and model.rate and chosen.rate:
                    compute = cost / model.rate
                    model.whole = max(chosen.whole - cost / chosen.rate, 0.0) + compute
    finally:
        source.close()
    for part in chosen.computed.values():  # what only the model, or a decoder, can't take
        sample.counts.failed += len(part.failed)
        sample.counts.reasons.update(part.failed.values())
    rows = [
        _row(work, name, measured, survey, sample, writing, price_per_hour) for name in measured
    ]
    return {
        "dry_run": True,
        "input": source.path,
        "columns": dict(work.columns),
        "model": work.model.name,
        "languages": list(work.model.task.languages),
        "runtime": work.model.runtime.name,
        "rows": survey.total,
        "counted": survey.counted,
        "share": survey.share,
        "sample": sample.as_dict(),
        "precisions": rows,
        "price_per_hour": price_per_hour,
        "compared": _what_is_compared(work.model.task),
        "verdict": _verdict(rows, too_short=bool(others) and not comparing),
        "notes": _notes(work, survey, sample, load_before),
    }


def _for_each(chosen: Measured, seconds: float, cpu: float, *, processes: int) -> float:
    """How long each of some processes may compute, so that all take no more than is left.

    By the clock, and by the work of the cores: on a busy machine these take long to start.
    """
    busy = chosen.cpu / chosen.seconds if chosen.cpu else 1.0
    by_clock = seconds / processes - chosen.start
    return min(by_clock, (cpu / processes - chosen.start) / busy)


def _names(model: Model) -> list[str]:
    """The precisions to measure: the chosen one first, then float32, which others differ from."""
    others = sorted(model.runtime.precisions, key=lambda name: name != "float32")
    return list(dict.fromkeys([model.runtime.precision, *others]))


def _row(
    work: Job,
    name: str,
    measured: Mapping[str, Measured | str],
    survey: Survey,
    sample: Sample,
    writing: tuple[float, float],
    price: float | None,
) -> dict[str, Any]:
    """What a run in one precision would take."""
    model = measured[name]
    row: dict[str, Any] = {"precision": name, "chosen": name == work.model.runtime.precision}
    if isinstance(model, str):
        return {**row, "skipped": model}
    seconds, cpu = _seconds(model, survey, sample, writing)
    # A sample that is a good part of all rows errs less.
    unseen = math.sqrt(max(1 - sample.counts.rows / max(survey.total, 1), 0))
    # Two of each, for 19 in 20; the share of an input that was not counted is no better known.
    known = 0.0 if survey.counted else NOISE
    error = 2 * math.hypot(model.error, sample.spread * unseen, NOISE, known)
    most = seconds * (1 + error)
    # With as many windows as a run holds, and all shapes of batches.
    needed = min(survey.windows if survey.counted else IN_FLIGHT, IN_FLIGHT)
    windows = needed - len(sample.planned)
    memory = round(model.memory + windows * model.window + model.shapes * model.shape)
    done_by = datetime.now().astimezone() + timedelta(seconds=most)
    row |= {
        "seconds": round(seconds, 1),
        "least_seconds": round(seconds * max(1 - error, 0), 1),
        "most_seconds": round(most, 1),
        "done_by": done_by.isoformat(timespec="minutes"),
        "rows_per_second": round(survey.total / seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "memory": memory,
        "most_memory": round(memory * MOST_MEMORY),
        "cost": None if price is None else round(seconds / 3600 * price, 4),
        "scored": sum(len(part.rows) for part in model.computed.values()),
        "failed": sum(len(part.failed) for part in model.computed.values()),
    }
    exact = measured.get("float32")
    if name != "float32" and isinstance(exact, Measured):
        row |= _compared(work.model.task, model, exact)
    return row


def _seconds(
    model: Measured, survey: Survey, sample: Sample, writing: tuple[float, float]
) -> tuple[float, float]:
    """How long a run takes, from the command to its end, and the work of all cores after its start.

    Reader, model and writer work at the same time: the slowest of them counts, and the others
    where they take cores from the model.
    """
    cores = core_count()
    times = survey.total / max(sample.counts.rows, 1)
    read = survey.total / max(survey.rows, 1)
    cost = float(sample.costs.sum()) * times
    others = survey.cpu * read + (sample.cpu + writing[1]) * times
    cpu = others + (cost * model.cpu / model.cost if model.cost else 0.0)
    if model.whole is not None:
        rows = sum(chunk.rows for chunk in survey.chunks)
        return model.start + survey.seconds * read + model.whole * survey.total / rows, cpu
    reader = survey.seconds * read + sample.seconds * times
    writer = writing[0] * times
    compute = cost / model.rate if model.rate else 0.0
    busy = min(model.cpu / model.seconds, cores) if model.seconds else 0.0
    taken = max(others - (cores - busy) * compute, 0) / cores
    overlapped = max(compute + taken, reader, writer)
    # The first window is read before any is computed, and the last one written after all are.
    alone = min(1 / max(survey.windows * read, 1), 1.0)
    work = overlapped * (1 - alone) + (reader + compute + writer) * alone
    return model.start + work, cpu


def _compared(task: Task, model: Measured, exact: Measured) -> dict[str, int]:
    """How many labels of rows that both have computed differ; without labels, how many numbers.

    A number does that is off by more than `MOVED` of how far such numbers are spread.
    """
    compared = differ = 0
    for place in model.computed.keys() & exact.computed.keys():
        parts = model.computed[place], exact.computed[place]
        if not all(len(part.rows) for part in parts):
            continue
        _, ours, theirs = np.intersect1d(parts[0].rows, parts[1].rows, return_indices=True)
        both = [
            take(part.predictions, rows) for part, rows in zip(parts, (ours, theirs), strict=True)
        ]
        compared += len(ours) if task.answers else 0
        differ += int(_changed(task, *both).sum())
    return {"labels_compared": compared, "labels_differ": differ}


def _changed(task: Task, ours: Columns, theirs: Columns) -> Array:
    """Which rows have another answer, bool (rows,)."""
    changed = np.zeros(rows_of(ours), bool)
    for answer in task.answers:
        if task.finds_objects:  # in any order
            pairs = zip(ours[answer.label], theirs[answer.label], strict=True)
            changed |= np.array([sorted(one) != sorted(other) for one, other in pairs], bool)
        elif answer.label:
            changed |= (ours[answer.label] != theirs[answer.label]).astype(bool)
        else:
            one, other = (part[answer.number].astype(np.float64) for part in (ours, theirs))
            near = np.abs(one - other) <= MOVED * np.nanstd(other)
            changed |= ~(near | (np.isnan(one) & np.isnan(other)))
    return changed


def _what_is_compared(task: Task) -> str:
    if any(answer.label for answer in task.answers):
        return "labels"
    return "values" if task.answers else "answers"


def _verdict(rows: Sequence[Mapping[str, Any]], *, too_short: bool) -> str:
    """Which precision to take, and why; `too_short` is a run that no comparison pays for."""
    by_name = {row["precision"]: row for row in rows if "skipped" not in row}
    name = next(row["precision"] for row in rows if row["chosen"])
    exact = by_name.get("float32")
    if too_short:
        return f"{name}, as chosen: just run it, that is quicker than comparing precisions"
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
    how = "as chosen" if best == name else f"--precision {best} instead of {name}"
    return f"{best}, {how}: {why}"


def difference(row: Mapping[str, Any]) -> str:
    """`3 of 1,400 answers differ (0.2 %)`; of none, what it can be at most."""
    differ, compared = row["labels_differ"], row["labels_compared"]
    if not compared:
        return "no answers compared"
    # None among n leaves a share of up to 3/n, 19 times in 20 ("rule of three").
    share = _percent(differ / compared) if differ else f"<{_percent(min(3 / compared, 1))}"
    return f"{differ:,} of {compared:,} answers differ ({share})"


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
    bad = round(sample.counts.failed * survey.total / max(sample.counts.rows, 1))
    if work.max_errors.exceeded(bad, survey.total, 1.0):
        notes.append(f"about {bad:,} rows are bad, more than --max-errors allows: it would stop")
    return notes


# ---------------------------------------------------------------- for people


def show(found: Mapping[str, Any], console: Console) -> None:
    """What `estimate` found, on a terminal."""
    console.print(facts(_input_facts(found)))
    console.print()
    price = found["price_per_hour"]
    numbers = ("rows/s", "memory", *(["cost"] if price else []))
    headings = ("precision", "time", "done by", *numbers, f"{found['compared']} changed")
    table = plain_table(*headings, right=numbers)
    rows = [row for row in found["precisions"] if "skipped" not in row]
    for row in rows:
        table.add_row(
            row["precision"],
            _range(row["least_seconds"], row["most_seconds"]),
            _clock_time(row["done_by"]),
            f"{row['rows_per_second']:,.0f}",
            _bytes(row["memory"], row["most_memory"]),
            *([f"{row['cost']:.2f}"] if price else []),
            difference(row).replace(" answers differ", "") if "labels_differ" in row else "",
        )
    console.print(table)
    console.print()
    if price:
        hours, cost = rows[0]["seconds"] / 3600, rows[0]["cost"]
        console.print(f"cost: {hours:.3g} h × {price:g} an hour = {cost:.2f}", style="dim")
    for row in found["precisions"]:
        if "skipped" in row:
            console.print(f"{row['precision']}: {row['skipped']}", style="dim", markup=False)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)
    console.print(f"take {found['verdict']}", markup=False)


def _input_facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    sample = found["sample"]
    rows, windows = max(sample["rows"], 1), sample["windows"]
    place = f"{windows} windows" if windows != 1 else "one window"
    lines = [
        ("rows", f"{'' if found['counted'] else 'about '}{found['rows']:,}"),
        ("looked at", f"{sample['rows']:,} in {place}, and of these:"),
    ]
    if texts := sample["texts"]:
        cut = f"{sample['truncated']:,} ({_percent(sample['truncated'] / texts)})"
        if sample["truncated"]:
            lost = sample["lost_tokens"] / max(sample["tokens"], 1)
            cut += f", {_percent(lost)} of the tokens not read"
        lines += [("truncated", cut), ("tokens", f"{sample['tokens'] / texts:.0f} a row")]
    lines += language_facts(sample, found["languages"])
    for name in ("duplicates", "known", "empty", "failed"):
        if sample[name] or name != "known":
            share = f"{sample[name]:,} ({_percent(sample[name] / rows)})"
            lines.append(("bad rows" if name == "failed" else name, share))
    if sample["failed"]:
        lines.append(("", f"the first: {sample['first_failed']}"))
    lines.append(("scored", scored(found["columns"])))
    return [*lines, ("model", f"{found['model']}, {found['runtime']}")]


def _percent(share: float) -> str:
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.0%}"


def _range(least: float, most: float) -> str:
    """`11 to 13 min`, in the unit that suits the longer one."""
    if most < 120:
        size, unit, digits = 1, "s", 0 if most >= 10 else 1
    elif most < 120 * 60:
        size, unit, digits = 60, "min", 0 if most >= 600 else 1
    else:
        size, unit, digits = 3600, "h", 1
    low, high = (f"{seconds / size:.{digits}f}" for seconds in (least, most))
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _bytes(least: int, most: int) -> str:
    """`640 to 900 MB`."""
    size, unit, digits = (1e9, "GB", 1) if most >= 2e9 else (1e6, "MB", -1)
    low, high = (round(count / size, digits) for count in (least, most))
    return f"{low:g} to {high:g} {unit}"


def _clock_time(when: str) -> str:
    """The time, and the day if it is another one than today."""
    then = datetime.fromisoformat(when)
    days = (then.date() - datetime.now(then.tzinfo).date()).days
    return f"{then:%H:%M}" if not days else f"{then:%a %H:%M}" if days < 7 else f"{then:%b %d}"
