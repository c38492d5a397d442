"""What the rows of a run look like: counts that cost little, add up, and survive a crash.

Every run gathers them, because tomorrow's run is compared with them. All of it is counted in whole
numbers (scores as multiples of 2**-30), so neither the order of the rows, nor how they are cut
into windows, nor a restart from the manifest changes a digit. Memory is bounded whatever the data
are: labels and categories beyond the first few hundred are counted together, and days become
months, then years, when there are too many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mlopsdeploy.batch.breakdowns import NO_DAY, DateColumn, DateReader
from mlopsdeploy.batch.examples import Examples
from mlopsdeploy.batch.scoring import answered, each_label
from mlopsdeploy.columns import Array, Columns
from mlopsdeploy.errors import InputError

FORMAT = 1  # of `as_dict`
SCORE_BINS = 100  # of equal width, from 0 to 1
# Where bins of lengths start: 0, 1, 2, 3, … and then four to each doubling, up to a million.
LENGTH_EDGES = np.unique(np.rint(2 ** (np.arange(-4, 81) / 4)).astype(np.int64))
OTHER = "(other)"
MOST_LABELS = 256
MOST_VALUES = 200  # per column of categories
MOST_PERIODS = 400
PERIODS = ("day", "month", "year")

_UNIT = 2**30  # a score of 1 in the units that its sum is kept in


class Statistics:
    """Counts over the rows of a run.

    Args:
        labels: the model's, in its order; others that turn up are appended.
        by_date: count labels per day of this column.
        by_category: count labels per value of these columns.
        examples: how many of the most and of the least certain rows of each label to keep, with
            their text. 0, the default, keeps nothing of the rows' contents.
        pictures: the rows are pictures, whose names are kept as examples. Where a row has any
            number of objects, labels and scores are theirs, and lengths are objects per row.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        by_date: DateColumn | None = None,
        by_category: Sequence[str] = (),
        examples: int = 0,
        pictures: bool = False,
    ) -> None:
        self.rows = 0
        self._pictures = pictures
        self._truncated = 0
        self._lost_tokens = 0
        self._labels = _Names(MOST_LABELS, labels)
        self._scores = np.zeros((len(labels), SCORE_BINS), np.int64)
        self._sums = np.zeros(len(labels), object)  # Python's integers don't overflow
        self._lengths = _Lengths()
        self._by_date = _ByDate(by_date) if by_date else None
        self._by_category = {name: _ByCategory() for name in by_category}
        self._examples = Examples(examples) if examples else None

    def add(
        self, numbers: Array, columns: Columns, predictions: Columns, text: str | None = None
    ) -> None:
        """Count some rows.

        Args:
            numbers: of the rows in the input, from 1; int of shape (rows,).
            columns: the model's inputs and the columns of the breakdowns (str).
            predictions: `label` and `score`, and for texts `truncated`, `tokens` and
                `lost_tokens`, as far as the model gives them. A row whose score is not a number
                has no prediction; it counts as a row only.
            text: which column holds the text, or the names of pictures, if the model takes one.
        """
        if text is not None and columns[text].dtype != object:
            text = None  # a feature that is called so
        self.rows += len(numbers)
        scored, names, score = each_label(predictions)
        places = self._labels.places(names)
        bins = np.clip((score * SCORE_BINS).astype(np.intp), 0, SCORE_BINS - 1)
        self._scores = _tally(self._scores, places, bins)
        sums = np.bincount(places, np.rint(score * _UNIT), len(self._scores))  # exact below 2**53
        self._sums = _fit(self._sums, len(self._scores)) + sums.astype(np.int64).astype(object)
        if "truncated" in predictions:
            self._truncated += int(np.count_nonzero(predictions["truncated"]))
        if "lost_tokens" in predictions:
            self._lost_tokens += int(predictions["lost_tokens"].sum())
        texts = columns[text] if text is not None and not self._pictures else None
        self._add_lengths(scored, predictions, texts)
        if self._by_date:
            self._by_date.add(columns[self._by_date.column.name][scored].tolist(), places)
        for name, category in self._by_category.items():
            category.add(columns[name][scored].tolist(), places)
        if self._examples:
            breakdowns = set(self._by_category)
            if self._by_date:
                breakdowns.add(self._by_date.column.name)
            shown = [text] if text is not None else [n for n in columns if n not in breakdowns]
            self._examples.add(
                numbers[scored],
                places,
                score,
                {name: columns[name][scored] for name in shown},
                text,
            )

    def _add_lengths(self, scored: Array, predictions: Columns, texts: Array | None) -> None:
        if "tokens" in predictions:
            self._lengths.add("tokens", predictions["tokens"][scored])
        elif predictions["score"].dtype == object:
            counts = np.bincount(scored, minlength=len(predictions["score"]))
            self._lengths.add("objects", counts[answered(predictions)])
        elif texts is not None:
            lengths = [len(value) for value in texts[scored].tolist()]
            self._lengths.add("characters", np.array(lengths, np.int64))

    @property
    def keeps_examples(self) -> bool:
        """Whether rows' contents are kept, as a report wants them."""
        return self._examples is not None

    def merge(self, other: Statistics) -> None:
        """Add what another part of the same run has counted.

        The result is what one run over both would have, except that each part chose which labels
        and values, beyond the first few hundred, it counts as "(other)".
        """
        self.rows += other.rows
        self._truncated += other._truncated
        self._lost_tokens += other._lost_tokens
        places = self._labels.places(other._labels.names)
        self._scores = _fit(self._scores, len(self._labels.names))
        self._sums = _fit(self._sums, len(self._labels.names))
        for place, counts, score_sum in zip(places, other._scores, other._sums, strict=True):
            self._scores[place] += counts
            self._sums[place] += score_sum
        self._lengths.merge(other._lengths)
        if self._by_date and other._by_date:
            self._by_date.merge(other._by_date, places)
        for name, category in self._by_category.items():
            category.merge(other._by_category[name], places)
        if self._examples and other._examples:
            self._examples.merge(other._examples, places)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON; `from_dict` reads it."""
        counts = self._scores.sum(axis=1).tolist()
        names = self._labels.names
        return {
            "format": FORMAT,
            "rows": self.rows,
            "scored": sum(counts),
            "pictures": self._pictures,
            "labels": {
                name: {
                    "rows": rows,
                    "mean_score": score_sum / _UNIT / rows if rows else None,
                    "score_sum": int(score_sum),
                    "scores": scores,
                }
                for name, rows, score_sum, scores in zip(
                    names, counts, self._sums, self._scores.tolist(), strict=True
                )
            },
            "truncated": self._truncated,
            "lost_tokens": self._lost_tokens,
            "lengths": self._lengths.as_dict(),
            "by_date": self._by_date.as_dict(names) if self._by_date else None,
            "by_category": {
                name: category.as_dict(names) for name, category in self._by_category.items()
            },
            "examples": self._examples.as_dict(names) if self._examples else None,
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Self:
        """The object that `as_dict` described.

        Raises:
            InputError: another version of mlopsdeploy wrote it.
        """
        if known.get("format") != FORMAT:
            raise InputError(
                f"statistics of format {known.get('format')!r}, from another version of "
                f"mlopsdeploy; this one reads {FORMAT}"
            )
        names = list(known["labels"])
        made = cls(names, pictures=known.get("pictures", False))
        made.rows = known["rows"]
        made._truncated, made._lost_tokens = known["truncated"], known["lost_tokens"]
        for place, label in enumerate(known["labels"].values()):
            made._scores[place] = label["scores"]
            made._sums[place] = label["score_sum"]
        made._lengths = _Lengths.from_dict(known["lengths"])
        if known["by_date"]:
            made._by_date = _ByDate.from_dict(known["by_date"], names)
        made._by_category = {
            name: _ByCategory.from_dict(values, names)
            for name, values in known["by_category"].items()
        }
        if known["examples"]:
            made._examples = Examples.from_dict(known["examples"], names)
        return made


class _Names:
    """Names -> places in a table: the first `limit` that turn up get one each."""

    def __init__(self, limit: int, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._limit = max(limit, len(self.names))
        self._index = {name: place for place, name in enumerate(self.names)}

    def places(self, values: Sequence[str | None]) -> Array:
        get = self._index.get
        places = np.fromiter((get(value or "", -1) for value in values), np.intp, len(values))
        for row in np.flatnonzero(places < 0).tolist():
            places[row] = self._place((values[row] or "")[:80])
        return places

    def _place(self, name: str) -> int:
        if name not in self._index:
            if len(self._index) >= self._limit:
                name = OTHER
            self._index.setdefault(name, len(self.names))
            if self._index[name] == len(self.names):
                self.names.append(name)
        return self._index[name]


class _Lengths:
    """How long texts are, in tokens or, where the model does not tell, in characters."""

    def __init__(self) -> None:
        self._unit: str | None = None
        self._counts = np.zeros(len(LENGTH_EDGES), np.int64)
        self._sum = 0
        self._longest = 0

    def add(self, unit: str, lengths: Array) -> None:
        if self._unit not in (None, unit) or not len(lengths):
            return
        self._unit = unit
        bins = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._sum += int(lengths.sum())
        self._longest = max(self._longest, int(lengths.max()))

    def merge(self, other: _Lengths) -> None:
        if other._unit is None or self._unit not in (None, other._unit):
            return
        self._unit = other._unit
        self._counts += other._counts
        self._sum += other._sum
        self._longest = max(self._longest, other._longest)

    def as_dict(self) -> dict[str, Any] | None:
        if self._unit is None:
            return None
        rows = int(self._counts.sum())
        return {
            "unit": self._unit,
            "rows": rows,
            "mean": self._sum / rows,
            "sum": self._sum,
            "longest": self._longest,
            "starts": LENGTH_EDGES.tolist(),
            "counts": self._counts.tolist(),
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any] | None) -> Self:
        made = cls()
        if known:
            made._unit, made._sum, made._longest = known["unit"], known["sum"], known["longest"]
            made._counts = np.array(known["counts"], np.int64)
        return made


class _ByDate:
    """Labels per day, per month or per year: the finest of which there are not too many."""

    def __init__(self, column: DateColumn) -> None:
        self.column = column
        self._read = DateReader(column.format)
        self._period = 0  # place in PERIODS
        self._undated = 0
        self._table: dict[int, Array] = {}  # first day of the period -> rows per label

    def add(self, values: Sequence[str | None], places: Array) -> None:
        days = self._read.days(values)
        dated = days != NO_DAY
        self._undated += int(np.count_nonzero(~dated))
        first, inverse = np.unique(self._firsts(days[dated]), return_inverse=True)
        table = _tally(np.zeros((len(first), 0), np.int64), inverse, places[dated])
        self._count(dict(zip(first.tolist(), table, strict=True)))

    def merge(self, other: _ByDate, places: Array) -> None:
        self._undated += other._undated
        while self._period < other._period:
            self._coarsen()
        self._count({day: _moved(counts, places) for day, counts in other._table.items()})

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        days = np.array(sorted(self._table), np.int64)
        written = np.datetime_as_string(days.astype("datetime64[D]")).tolist()
        return {
            "column": self.column.name,
            "format": self.column.format,
            "period": PERIODS[self._period],
            "undated": self._undated,
            "rows": {
                name: _named(self._table[day], labels)
                for name, day in zip(written, days.tolist(), strict=True)
            },
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        made = cls(DateColumn(known["column"], known["format"]))
        made._period = PERIODS.index(known["period"])
        made._undated = known["undated"]
        for name, rows in known["rows"].items():
            day = int(np.datetime64(name, "D").astype(np.int64))
            made._table[day] = _unnamed(rows, labels)
        return made

    def _firsts(self, days: Array) -> Array:
        """The first day of each one's period."""
        if not self._period:
            return days
        unit = "datetime64[M]" if PERIODS[self._period] == "month" else "datetime64[Y]"
        dates = days.astype("datetime64[D]").astype(unit)
        return np.asarray(dates.astype("datetime64[D]").astype(np.int64))

    def _count(self, table: Mapping[int, Array]) -> None:
        firsts = self._firsts(np.array(list(table), np.int64)).tolist()
        for first, counts in zip(firsts, table.values(), strict=True):
            known = self._table.get(first)
            self._table[first] = counts if known is None else _sum(known, counts)
        while len(self._table) > MOST_PERIODS and self._period < len(PERIODS) - 1:
            self._coarsen()

    def _coarsen(self) -> None:
        self._period += 1
        table, self._table = self._table, {}
        self._count(table)


class _ByCategory:
    """Labels per value of a column."""

    def __init__(self) -> None:
        self._values = _Names(MOST_VALUES)
        self._table = np.zeros((0, 0), np.int64)  # (values, labels)

    def add(self, values: Sequence[str | None], places: Array) -> None:
        self._table = _tally(self._table, self._values.places(values), places)

    def merge(self, other: _ByCategory, places: Array) -> None:
        for value, counts in zip(
            self._values.places(other._values.names), other._table, strict=True
        ):
            self._table = _fit(self._table, len(self._values.names))
            moved = _moved(counts, places)
            self._table = _wide(self._table, len(moved))
            self._table[value, : len(moved)] += moved

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        return {
            value: _named(counts, labels)
            for value, counts in zip(self._values.names, self._table, strict=True)
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        made = cls()
        made._values = _Names(MOST_VALUES, list(known))
        made._table = np.zeros((len(known), len(labels)), np.int64)
        for row, rows in enumerate(known.values()):
            made._table[row] = _unnamed(rows, labels)
        return made


def _tally(table: Array, rows: Array, columns: Array) -> Array:
    """The table, made larger where need be, with one more in each of these cells."""
    if not len(rows):
        return table
    height = max(table.shape[0], int(rows.max()) + 1)
    width = max(table.shape[1], int(columns.max()) + 1)
    counts = np.bincount(rows * width + columns, minlength=height * width)
    counts = counts.reshape(height, width)
    counts[: table.shape[0], : table.shape[1]] += table
    return counts


def _fit(table: Array, height: int) -> Array:
    more = np.zeros((height - len(table), *table.shape[1:]), table.dtype)
    return np.concatenate([table, more])


def _wide(table: Array, width: int) -> Array:
    return np.pad(table, ((0, 0), (0, max(0, width - table.shape[1]))))


def _sum(one: Array, other: Array) -> Array:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    longer = longer.copy()
    longer[: len(shorter)] += shorter
    return longer


def _moved(counts: Array, places: Array) -> Array:
    """Counts per label of another run, in the order of this one's labels."""
    return np.bincount(places[: len(counts)], counts, int(places.max(initial=-1)) + 1).astype(
        np.int64
    )


def _named(counts: Array, labels: Sequence[str]) -> dict[str, int]:
    return {labels[place]: int(counts[place]) for place in np.flatnonzero(counts).tolist()}


def _unnamed(rows: Mapping[str, int], labels: Sequence[str]) -> Array:
    return np.array([rows.get(label, 0) for label in labels], np.int64)
