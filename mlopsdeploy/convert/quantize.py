"""A text classifier to int8 with static scales, once, with a proof on the user's own rows.

The scales of the activations come from a sample of the rows that are to be scored, and stay as
they are: a row's answer does not depend on the rows that share its batch, nor tomorrow's scores on
tomorrow's rows. Other rows of the sample show how many labels that costs. NNCF does the work, in a
process of its own; to run what it made, it is not needed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlopsdeploy.columns import Columns, Task, concat, rows_of, take
from mlopsdeploy.convert import child
from mlopsdeploy.errors import ConfigError, InputError, ModelError
from mlopsdeploy.model_files.cache import cache_folder, cached, use

Rows = npt.NDArray[np.intp]

RECIPE = 2  # counts up when the way of quantising changes
# A label that flips costs one row at most, so this is also the most that accuracy can lose.
MAX_FLIPS = 0.01
# Rows to calibrate on and to prove with, and the work (`Task.cost`: tokens) after which fewer do.
CALIBRATION_ROWS, CALIBRATION_COST = 300, 16_384
PROOF_ROWS, PROOF_COST = 1000, 65_536
SAMPLE_ROWS = CALIBRATION_ROWS + PROOF_ROWS  # different ones; more are of no use
LEAST_ROWS = 100  # of either


class Predictor(Protocol):
    """As much of a `Model` as is needed here."""

    @property
    def task(self) -> Task:
        """Its seam to data."""

    def plan(self, encoded: Columns) -> list[Rows]:
        """The rows to compute together."""

    def predict_columns(self, columns: Columns) -> Columns:
        """Predictions with the columns `label` and `scores`."""


@dataclass(frozen=True)
class Quantized:
    """A model in int8 and how well it does.

    Attributes:
        file: OpenVINO's `model.xml`.
        digest: SHA-256 of the model's files.
        proof: what `compare` found on rows that it was not calibrated on, and how it was made.
    """

    file: Path
    digest: str
    proof: Mapping[str, Any]

    def refusal(self, max_flips: float) -> str:
        """Why it is not to be used, if so; else empty."""
        swayed = self.proof["among_other_rows"]["label_flips"]
        if swayed:
            return f"{swayed} labels depend on the rows beside theirs: use --precision auto"
        if self.proof["flip_share"] > max_flips:
            return f"{self}; {max_flips:.2%} may: use --precision auto, or raise --max-flips"
        return ""

    def __str__(self) -> str:
        proof = self.proof
        return (
            f"{proof['label_flips']} of {proof['rows']} labels differ from float32's "
            f"({proof['flip_share']:.2%}), scores by {proof['mean_change']:.2g} on average and "
            f"{proof['largest_change']:.2g} at most"
        )


def place(digest: str, options: Mapping[str, Any]) -> Path:
    """The folder of a model in int8, by the float model's SHA-256 and what else shapes its labels.

    NNCF's version is no part of it: it makes the file, and what was proven stays so.
    """
    made_for = {"recipe": RECIPE, "openvino": metadata.version("openvino"), **options}
    key = hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "int8" / f"{digest[:32]}-{key[:12]}"


def find(folder: Path) -> Quantized | None:
    """What was quantised before, within the bound or not."""
    if not use(folder):
        return None
    proof = json.loads((folder / "proof.json").read_text("utf-8"))
    return Quantized(folder / "model.xml", proof["digest"], proof)


def int8_model(
    folder: Path,
    graph: Path,
    calibrate: Callable[[], Columns] | None,
    *,
    name: str,
    max_flips: float,
    floating: Callable[[], Predictor],
    quick: Callable[[Path], tuple[Predictor, Predictor]],
    log: Callable[[str], None] = lambda _: None,
) -> Quantized | None:
    """The model in int8, quantised and proven on first use.

    What is beyond the bound stays in the cache, to be refused at once on the next night.

    Args:
        folder: see `place`.
        graph: the float model's `.onnx` or `.xml`.
        calibrate: returns a sample of the rows to be scored, called only where there is no model
            yet; `SAMPLE_ROWS` different ones are best. Without it only what is there, and within
            the bound, will do.
        name: the model's, for messages.
        max_flips: the largest share of labels that may differ from float32's.
        floating: loads the model in float32.
        quick: opens an `.xml` in int8, alone, and as it is served, with close calls rechecked.
        log: called with a line at the start and one with the result.

    Returns:
        The model; None where there is none that will do, and nothing to calibrate on.

    Raises:
        ConfigError: NNCF is not installed.
        InputError: the sample is too small.
        ModelError: the graph can't be quantised, or more labels differ.
    """
    made = find(folder)
    if calibrate is None:
        return made if made and not made.refusal(max_flips) else None
    if made is None:
        if not child.installed("nncf"):
            raise ConfigError(
                f"precision 'int8': calibrating {name} needs the package 'nncf': "
                "pip install 'mlopsdeploy[int8]'  (once; it is not needed to run)"
            )
        cached(folder, lambda place: _make(place, graph, calibrate, floating, quick, log), log)
        made, when = find(folder), ""
        assert made is not None
    else:
        when = f", {made.proof['made'][:10]}"
    if refusal := made.refusal(max_flips):
        raise ModelError(f"{name}: int8 is refused, {refusal}")
    log(f"int8 (calibrated on {made.proof['calibration_rows']} rows{when}): on other rows {made}")
    return made


def _make(
    building: Path,
    graph: Path,
    calibrate: Callable[[], Columns],
    floating: Callable[[], Predictor],
    quick: Callable[[Path], tuple[Predictor, Predictor]],
    log: Callable[[str], None],
) -> None:
    exact = floating()
    calibration, held_out = split(exact.task, calibrate())
    rows = rows_of(calibration)
    log(
        f"calibrating int8 on {rows} rows and comparing {rows_of(held_out)} others with float32, "
        "once"
    )
    started = time.perf_counter()
    _quantize(graph, exact, calibration, building)
    seconds = time.perf_counter() - started
    alone, served = quick(building / "model.xml")
    files = b"".join((building / part).read_bytes() for part in ("model.xml", "model.bin"))
    expected, got, unaided = (model.predict_columns(held_out) for model in (exact, served, alone))
    proof = {
        **compare(expected, got),
        "second_looks": int((got["scores"] != unaided["scores"]).any(axis=1).sum()),
        "without_second_look": compare(expected, unaided),
        "among_other_rows": compare(got, _among_others(served, held_out)),
        "calibration_rows": rows,
        "calibration_seconds": round(seconds, 1),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": hashlib.sha256(files).hexdigest(),
        "nncf": metadata.version("nncf"),
        "openvino": metadata.version("openvino"),
    }
    (building / "proof.json").write_text(json.dumps(proof, indent=1), "utf-8")


def split(task: Task, rows: Columns) -> tuple[Columns, Columns]:
    """Rows to calibrate on and others to prove with; the same for any order of the same rows.

    No row is in both, nor twice in one of them.

    Raises:
        InputError: there are too few.
    """
    texts = ["\x1f".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
    first = {text: place for place, text in reversed(list(enumerate(texts))) if text.strip()}
    if len(first) < 2 * LEAST_ROWS:
        raise InputError(
            f"int8 is calibrated and proven on at least {2 * LEAST_ROWS} different texts, and "
            f"there are {len(first)}: use --precision auto"
        )
    # By their hashes: as good as drawn at random, and no order of the input shows through.
    drawn = sorted(first, key=lambda text: hashlib.sha256(text.encode("utf-8", "replace")).digest())
    chosen = take(rows, np.array([first[text] for text in drawn[: 2 * SAMPLE_ROWS]], np.intp))
    cost = task.cost(task.encode(chosen))
    most = min(CALIBRATION_ROWS, max(LEAST_ROWS, len(drawn) // 4))
    middle = _affordable(cost, most, CALIBRATION_COST)
    end = middle + _affordable(cost[middle:], PROOF_ROWS, PROOF_COST)
    return take(chosen, slice(middle)), take(chosen, slice(middle, end))


def _affordable(cost: npt.NDArray[np.int64], most: int, budget: int) -> int:
    """How many rows from the start, up to `most`, fit the budget; never below `LEAST_ROWS`."""
    return min(most, max(LEAST_ROWS, int((np.cumsum(cost) <= budget).sum())), len(cost))


def _quantize(graph: Path, model: Predictor, rows: Columns, folder: Path) -> None:
    encoded = model.task.encode(rows)
    batches: list[Columns] = []
    for batch in model.plan(encoded):
        whole = model.task.collate(take(encoded, batch))
        step = max(model.task.batch_cost // next(iter(whole.values())).shape[-1], 1)
        starts = range(0, rows_of(whole), step)  # a long text may be many windows
        batches += [take(whole, slice(start, start + step)) for start in starts]
    tensors = {f"{i}.{name}": array for i, one in enumerate(batches) for name, array in one.items()}
    # Apart from the cache, which is not to keep the user's rows.
    with tempfile.TemporaryDirectory() as apart:
        file = Path(apart) / "batches.npz"
        np.savez(file, **tensors)  # type: ignore[arg-type]  # none is called allow_pickle
        code, reason = child.run("quantize_openvino.py", graph, file, folder, env={})
    if code:
        raise ModelError(f"{graph}: can't be quantised to int8 ({reason})")


def _among_others(model: Predictor, rows: Columns) -> Columns:
    """The same predictions, but in batches that hold other rows."""
    thirds = [np.arange(start, rows_of(rows), 3) for start in range(3)]
    parts = [model.predict_columns(take(rows, third)) for third in thirds]
    order = np.argsort(np.concatenate(thirds))
    return take(concat(parts), order)


def compare(expected: Columns, got: Columns) -> dict[str, Any]:
    """How predictions differ: flips of labels, and each row's largest change of a probability."""
    flips = int((expected["label"] != got["label"]).sum())
    change = np.abs(expected["scores"] - got["scores"]).max(axis=1)
    return {
        "rows": len(change),
        "label_flips": flips,
        "flip_share": flips / len(change),
        "largest_change": float(change.max()),
        "mean_change": float(change.mean()),
    }
