"""How long a model takes here: measured once at warm-up, fitted, and used to plan calls.

A call takes `fixed + per_cost * cost` seconds, where its cost is that of `core.planner`: rows times
the longest of them, as they are padded. So one line predicts calls of any size and length.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter

import numpy as np

from mlopsdeploy.columns import Columns, rows_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import RowError

# Rows of a call, and words of each where they are texts: a common one first, and then what says
# most about all others.
SIZES = (
    (1, 32), (8, 32), (1, 8), (2, 32), (1, 128), (4, 32), (16, 32), (8, 8), (4, 128),
)  # fmt: skip
QUICKEST, SLOWEST = 0.1, 0.4  # seconds that a model is measured, or else as long as four calls
REPEATS = 3
QUICK = 200e-6  # a call that takes less costs less than handing it to another thread
GAIN = 0.85  # joined calls that don't take less than this share of what they take alone don't pay
SENTENCE = "warmed up by a text that is long enough to tell its language and is read like others "


@dataclass(frozen=True)
class Speed:
    """What calls of a model take.

    Attributes:
        fixed: seconds of a call whatever is in it.
        per_cost: seconds per unit of cost.
        row: the cost of a common row.
        steady: see `Runtime.steady`.
        one: seconds of a common row alone, where that was measured. Less than the line has it, as
            tasks have a shorter way for one row.
    """

    fixed: float
    per_cost: float
    row: int = 1
    steady: bool = True
    one: float | None = None

    def seconds(self, cost: float) -> float:
        """Of a call with so much in it."""
        return self.fixed + self.per_cost * cost

    @property
    def alone(self) -> float:
        """Seconds of a common row alone."""
        return self.seconds(self.row) if self.one is None else self.one

    @cached_property
    def quick(self) -> bool:
        """Whether one row is computed sooner than another thread is woken."""
        return self.steady and self.alone < QUICK

    @cached_property
    def joins(self) -> bool:
        """Whether requests that are computed together take less time than one by one."""
        together = self.seconds(8 * self.row)
        return not self.quick and together < GAIN * 8 * self.seconds(self.row)


UNKNOWN = Speed(1e-3, 0.0, steady=False)
"""Of a model that takes no row that can be made up; the first requests tell."""


def measure(model: Model) -> Speed:
    """Call a model with rows of several numbers and lengths; this warms it up, too.

    Of models side by side each is called, as none of their texts is in the languages of all.
    """
    for one in (model, *(load() for load in model.parts)):
        for _ in range(one.runtime.streams):
            with suppress(RowError):  # it may know no such category, or take no such size
                one.predict_columns(made_up(one, 1))
    started = perf_counter()
    common = SIZES[0][1]
    costs: list[float] = []
    times: list[float] = []
    for rows, words in SIZES:
        if words != common and model.task.data != "text":
            continue
        if times:
            takes = times[0] * rows * words / common  # at most
            left = min(max(QUICKEST, 4 * times[0]), SLOWEST) - (perf_counter() - started)
            if takes > left:
                continue
        try:
            cost, seconds = _timed(model, made_up(model, rows, words))
        except RowError:
            return UNKNOWN
        costs.append(cost)
        times.append(seconds)
    found = _fitted(np.array(costs), np.array(times), int(costs[0]))
    return replace(found, steady=model.runtime.steady, one=times[0])


def _timed(model: Model, columns: Columns) -> tuple[int, float]:
    """The cost of some rows, and the seconds that they take at best."""
    encoded = model.task.encode(columns)
    cost = padded_cost(model, encoded)
    best = np.inf
    for _ in range(REPEATS):
        began = perf_counter()
        model.predict_columns(columns)
        best = min(best, perf_counter() - began)
        if best > SLOWEST / 10:
            break
    return cost, best


def _fitted(costs: np.ndarray, times: np.ndarray, row: int) -> Speed:
    """The line through them that is off by the least share."""
    if len(times) < 2:
        return Speed(0.0, float(times[0] / costs[0]), row)
    matrix = np.stack([1 / times, costs / times], axis=1)
    fixed, per_cost = np.linalg.lstsq(matrix, np.ones(len(times)), rcond=None)[0]
    if fixed < 0:
        fixed, per_cost = 0.0, float(np.median(times / costs))
    return Speed(float(fixed), max(float(per_cost), 0.0), row)


def padded_cost(model: Model, encoded: Columns) -> int:
    """The cost of rows that are computed in one call."""
    costs = model.task.cost(encoded)
    return max(int(costs.max(initial=0)) * rows_of(encoded), 1)


def made_up(model: Model, rows: int, words: int = 8) -> Columns:
    """Rows of zeros; of texts so many words."""
    text = " ".join((SENTENCE * (words // 16 + 1)).split()[:words])
    columns: Columns = {}
    for field in model.task.inputs:
        shape = (rows, *(max(size, 1) for size in field.shape))
        if field.dtype == "str":
            columns[field.name] = np.full(shape, text, object)
        else:
            columns[field.name] = np.zeros(shape, field.dtype)
    return columns
