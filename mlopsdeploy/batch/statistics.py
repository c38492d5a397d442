"""What the rows of a run look like: counts that cost little, add up, and survive a crash.

Every run gathers them, because tomorrow's run is compared with them. All of it is counted in whole
numbers (scores as multiples of 2**-30), so neither the order of the rows, nor how they are cut
into windows, nor a restart from the manifest changes a digit. Memory is bounded whatever the data
are: labels and categories beyond the first few hundred are counted together, and days become
months, then years, when there are too many.
"""

from __future__ import annotations

from collections import Counter
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
LONGEST_NAME = 80  # characters
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
        self._labels = _Names(labels)
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
        if "tokens" in predictions:
            self._lengths.add("tokens", predictions["tokens"][scored])
        elif predictions["score"].dtype == object:
            counts = np.bincount(scored, minlength=len(predictions["score"]))
            self._lengths.add("objects", counts[answered(predictions)])
        elif texts is not None:
            lengths = [len(value) for value in texts[scored].tolist()]
            self._lengths.add("characters", np.array(lengths, np.int64))
        if self._by_date:
            self._by_date.add(columns[self._by_date.column.name][scored].tolist(), places)
        for name, category in self._by_category.items():
            category.add(columns[name][scored].tolist(), places)
        if self._examples:
            by_date = self._by_date.column.name if self._by_date else None
            features = [name for name in columns if name not in {by_date, *self._by_category}]
            shown = {name: columns[name][scored] for name in (features if text is None else [text])}
            self._examples.add(numbers[scored], places, score, shown, text)

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
        np.add.at(self._scores, places, other._scores)
        np.add.at(self._sums, places, other._sums)
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
            name: _ByCategory().read(values, names) for name, values in known["by_category"].items()
        }
        if known["examples"]:
            made._examples = Examples.from_dict(known["examples"], names)
        return made


class _Names:
    """Names -> places in a table: the first `MOST_LABELS` that turn up get one each."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._most = max(MOST_LABELS, len(self.names))
        self._index = {name: place for place, name in enumerate(self.names)}

    def places(self, values: Sequence[str | None]) -> Array:
        get = self._index.get
        places = np.fromiter((get(value or "", -1) for value in values), np.intp, len(values))
        for row in np.flatnonzero(places < 0).tolist():
            name = (values[row] or "")[:LONGEST_NAME]
            if name not in self._index and len(self.names) >= self._most:
                name = OTHER
            if name not in self._index:
                self._index[name] = len(self.names)
                self.names.append(name)
            places[row] = self._index[name]
        return places


class _Lengths:
    """How long texts are, in tokens or, where the model does not tell, in characters."""

    def __init__(self) -> None:
        self._unit: str | None = None
        self._counts = np.zeros(len(LENGTH_EDGES), np.int64)
        self._sum = 0
        self._longest = 0

    def add(self, unit: str, lengths: Array) -> None:
        if len(lengths):
            bins = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
            counts = np.bincount(bins, minlength=len(self._counts))
            self._add(unit, counts, int(lengths.sum()), int(lengths.max()))

    def merge(self, other: _Lengths) -> None:
        if other._unit is not None:
            self._add(other._unit, other._counts, other._sum, other._longest)

    def _add(self, unit: str, counts: Array, total: int, longest: int) -> None:
        if self._unit in (None, unit):
            self._unit = unit
            self._counts += counts
            self._sum += total
            self._longest = max(self._longest, longest)

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
            counts = np.array(known["counts"], np.int64)
            made._add(known["unit"], counts, known["sum"], known["longest"])
        return made


class _ByCategory:
    """Rows per value of a column and place of a label."""

    def __init__(self) -> None:
        self._rows: dict[Any, Counter[int]] = {}

    def add(self, values: Sequence[Any], places: Array) -> None:
        keys = self._keys(values)
        distinct = list(dict.fromkeys(keys))
        place_of = {key: place for place, key in enumerate(distinct)}
        rows = np.fromiter(map(place_of.__getitem__, keys), np.intp, len(keys))
        table = _tally(np.zeros((0, int(places.max(initial=-1)) + 1), np.int64), rows, places)
        counted = np.nonzero(table)
        for row, place, count in zip(*counted, table[counted], strict=True):
            self._count(distinct[row], int(place), int(count))

    def merge(self, other: _ByCategory, places: Array) -> None:
        """Add another's, whose label at place i is this one's at places[i]."""
        for value, rows in zip(self._keys(list(other._rows)), other._rows.values(), strict=True):
            for place, count in rows.items():
                self._count(value, int(places[place]), count)

    def _keys(self, values: Sequence[Any]) -> Sequence[Any]:
        return values

    def _count(self, value: Any, place: int, count: int) -> None:
        value = (value or "")[:LONGEST_NAME]
        if value not in self._rows and len(self._rows) >= MOST_VALUES:
            value = OTHER
        self._rows.setdefault(value, Counter())[place] += count

    def as_dict(self, labels: Sequence[str]) -> dict[Any, Any]:
        return {
            value: {labels[place]: rows[place] for place in sorted(rows)}
            for value, rows in self._rows.items()
        }

    def read(self, known: Mapping[Any, Mapping[str, int]], labels: Sequence[str]) -> Self:
        """Take over what `as_dict` described."""
        place = {name: number for number, name in enumerate(labels)}
        for value, rows in known.items():
            self._rows[value] = Counter({place[name]: rows[name] for name in rows})
        return self


class _ByDate(_ByCategory):
    """Labels per day, per month or per year: the finest of which there are not too many.

    The values are days since 1970-01-01, the first of each period.
    """

    def __init__(self, column: DateColumn) -> None:
        super().__init__()
        self.column = column
        self._read = DateReader(column.format)
        self._period = 0  # place in PERIODS
        self._undated = 0

    def add(self, values: Sequence[str | None], places: Array) -> None:
        days = self._read.days(values)
        dated = days != NO_DAY
        self._undated += int(np.count_nonzero(~dated))
        super().add(days[dated], places[dated])
        self._bound()

    def merge(self, other: _ByCategory, places: Array) -> None:
        assert isinstance(other, _ByDate)
        self._undated += other._undated
        while self._period < other._period:
            self._coarsen()
        super().merge(other, places)
        self._bound()

    def as_dict(self, labels: Sequence[str]) -> dict[Any, Any]:
        rows = super().as_dict(labels)
        return {
            "column": self.column.name,
            "format": self.column.format,
            "period": PERIODS[self._period],
            "undated": self._undated,
            "rows": {str(np.datetime64(day, "D")): rows[day] for day in sorted(rows)},
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        made = cls(DateColumn(known["column"], known["format"]))
        made._period = PERIODS.index(known["period"])
        made._undated = known["undated"]
        days = {int(np.datetime64(day, "D").astype(np.int64)): day for day in known["rows"]}
        return made.read({day: known["rows"][name] for day, name in days.items()}, labels)

    def _keys(self, values: Sequence[int] | Array) -> Sequence[int]:
        """The first day of each one's period."""
        days = np.asarray(values, np.int64)
        if self._period:
            unit = f"datetime64[{PERIODS[self._period][0].upper()}]"
            days = days.astype("datetime64[D]").astype(unit).astype("datetime64[D]")
        firsts: list[int] = days.astype(np.int64).tolist()
        return firsts

    def _count(self, value: int, place: int, count: int) -> None:
        self._rows.setdefault(value, Counter())[place] += count

    def _bound(self) -> None:
        while len(self._rows) > MOST_PERIODS and self._period < len(PERIODS) - 1:
            self._coarsen()

    def _coarsen(self) -> None:
        self._period += 1
        before, self._rows = self._rows, {}
        for first, rows in zip(self._keys(list(before)), before.values(), strict=True):
            self._rows.setdefault(first, Counter()).update(rows)


def _tally(table: Array, rows: Array, columns: Array) -> Array:
    """The table, made higher where need be, with one more in each of these cells."""
    height, width = max(table.shape[0], int(rows.max(initial=-1)) + 1), table.shape[1]
    counts = np.bincount(rows * width + columns, minlength=height * width)
    return counts.reshape(height, width) + _fit(table, height)


def _fit(table: Array, height: int) -> Array:
    more = np.zeros((height - len(table), *table.shape[1:]), table.dtype)
    return np.concatenate([table, more])
