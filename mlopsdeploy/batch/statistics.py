"""What the rows of a run look like: counts that cost little, add up, and survive a crash.

Every run gathers them, because tomorrow's run is compared with them. All of it is counted in whole
numbers (see `spreads`), so neither the order of the rows, nor how they are cut into windows, nor a
restart from the manifest changes a digit. Memory is bounded whatever the data are: labels and
categories beyond the first few hundred are counted together, and days become months, then years,
when there are too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mlopsdeploy.batch.breakdowns import NO_DAY, DateColumn, DateReader
from mlopsdeploy.batch.examples import Examples
from mlopsdeploy.batch.spreads import (
    QUANTILES,
    exact_sums,
    long,
    mean_of,
    short,
    spread_of,
    tally,
    together,
)
from mlopsdeploy.columns import AnswerColumns, Array, Columns, Task
from mlopsdeploy.core import answers
from mlopsdeploy.errors import InputError

FORMAT = 2  # of `as_dict`
# Where bins of lengths start: 0, 1, 2, 3, … and then four to each doubling, up to a million.
LENGTH_EDGES = np.unique(np.rint(2 ** (np.arange(-4, 81) / 4)).astype(np.int64))
OTHER = "(other)"
MOST_LABELS = 256
MOST_VALUES = 200  # per column of categories
LONGEST_NAME = 80  # characters
MOST_PERIODS = 400
PERIODS = ("day", "month", "year")


class Statistics:
    """Counts over the rows of a run.

    Args:
        found: what makes up the answers to a row, of which each is counted by itself; the labels
            of the model come first, in its order, and others that turn up are appended.
        by_date: count labels per day of this column, or where there are none the numbers' mean.
        by_category: the same per value of these columns.
        examples: how many of the most and of the least certain rows of each label to keep (of
            numbers alone, of the highest and the lowest), with their text. 0, the default, keeps
            nothing of the rows' contents.
        pictures: the rows are pictures, whose names are kept as examples. Where a row has any
            number of objects, labels and scores are theirs, and lengths are objects per row.
    """

    def __init__(
        self,
        found: Sequence[AnswerColumns],
        *,
        by_date: DateColumn | None = None,
        by_category: Sequence[str] = (),
        examples: int = 0,
        pictures: bool = False,
    ) -> None:
        self.rows = 0
        self._pictures = pictures
        self._answered = 0
        self._truncated = 0
        self._lost_tokens = 0
        self._lengths = _Lengths()
        self._answers = [_OfAnswer(one, by_date, by_category, examples) for one in found]

    def add(
        self,
        task: Task,
        numbers: Array,
        columns: Columns,
        predictions: Columns,
        text: str | None = None,
    ) -> None:
        """Count some rows.

        Args:
            task: whose answers these are.
            numbers: of the rows in the input, from 1; int of shape (rows,).
            columns: the model's inputs and the columns of the breakdowns (str).
            predictions: the task's outputs, and for texts `truncated`, `tokens` and `lost_tokens`,
                as far as the model gives them. A row without an answer counts as a row only.
            text: which column holds the text, or the names of pictures, if the model takes one.
        """
        if text is not None and (columns[text].dtype != object or columns[text].ndim > 1):
            text = None  # a feature that is called so
        self.rows += len(numbers)
        is_answered = answers.answered(task, predictions)
        scored = np.flatnonzero(is_answered)
        self._answered += len(scored)
        found = [
            answers.counted_each(task, one.columns, predictions, scored) for one in self._answers
        ]
        of_texts = predictions if task.data == "text" else {}  # else outputs that are called so
        if "truncated" in of_texts:
            self._truncated += int(np.count_nonzero(predictions["truncated"]))
        if "lost_tokens" in of_texts:
            self._lost_tokens += int(predictions["lost_tokens"].sum())
        if "tokens" in of_texts:
            self._lengths.add("tokens", predictions["tokens"][scored])
        elif task.finds_objects:
            counts = np.bincount(found[0].rows, minlength=len(numbers))
            self._lengths.add("objects", counts[is_answered])
        elif text is not None and not self._pictures:
            lengths = [len(value or "") for value in columns[text][scored].tolist()]
            self._lengths.add("characters", np.array(lengths, np.int64))
        for one, counted in zip(self._answers, found, strict=True):
            one.add(numbers, columns, counted, text)

    @property
    def keeps_examples(self) -> bool:
        """Whether rows' contents are kept, as a report wants them."""
        return any(one.examples is not None for one in self._answers)

    def merge(self, other: Statistics) -> None:
        """Add what another part of the same run has counted.

        The result is what one run over both would have, except that each part chose which labels
        and values, beyond the first few hundred, it counts as "(other)".
        """
        self.rows += other.rows
        self._answered += other._answered
        self._truncated += other._truncated
        self._lost_tokens += other._lost_tokens
        self._lengths.merge(other._lengths)
        for mine, theirs in zip(self._answers, other._answers, strict=True):
            mine.merge(theirs)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON; `from_dict` reads it."""
        return {
            "format": FORMAT,
            "rows": self.rows,
            "answered": self._answered,
            "pictures": self._pictures,
            "answers": [one.as_dict() for one in self._answers],
            "truncated": self._truncated,
            "lost_tokens": self._lost_tokens,
            "lengths": self._lengths.as_dict(),
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
        made = cls((), pictures=known["pictures"])
        made.rows, made._answered = known["rows"], known["answered"]
        made._truncated, made._lost_tokens = known["truncated"], known["lost_tokens"]
        made._lengths = _Lengths.from_dict(known["lengths"])
        made._answers = [_OfAnswer.from_dict(one) for one in known["answers"]]
        return made


def summarised(known: Mapping[str, Any], *, objects: bool) -> dict[str, Any]:
    """What the answers of a run were, in short; what a task doesn't give isn't there.

    Args:
        known: by `Statistics.as_dict`.
        objects: whether they are those of any number of objects in a picture.

    Returns:
        `answers`: for each its `name`, what it is of (`label`, `number`), how many `rows` have it,
        rows by `labels`, the commonest first, and of its numbers `mean`, and where they have no
        bounds `median`, `p5`, `p95`, `least` and `greatest`. Where there is one answer only, its
        `labels`, and the `mean_score` of probabilities; the number of `objects`.
    """
    found = [_summarised(one) for one in known["answers"]]
    summary: dict[str, Any] = {"answers": found}
    if len(found) == 1:
        (one,), (answer,) = found, known["answers"]
        if answer["label"]:
            summary["labels"] = one["labels"]
        if answer["is_probability"]:
            summary["mean_score"] = one["mean"]
        if objects:
            summary["objects"] = one["rows"]
    return summary


def _summarised(answer: Mapping[str, Any]) -> dict[str, Any]:
    labels = answer["labels"]
    used = sorted(
        (name for name in labels if labels[name]["rows"]), key=lambda name: -labels[name]["rows"]
    )
    summary: dict[str, Any] = {name: answer[name] for name in ("name", "label", "number")}
    summary["rows"] = answer["scored"]
    if answer["label"]:
        summary["labels"] = {name: labels[name]["rows"] for name in used}
    if answer["number"]:
        summary |= overall(answer)
    return summary


def overall(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of all labels' numbers; without bounds also their quantiles, least and greatest."""
    labels = [label for label in answer["labels"].values() if label["rows"]]
    if answer["is_probability"]:
        total = sum(label["mean"] * label["rows"] for label in labels)
        return {"mean": total / answer["scored"] if labels else None}
    whole = together(labels)
    return {name: whole[name] for name in ("mean", *QUANTILES, "least", "greatest")}


class _OfAnswer:
    """What is counted of one answer to a row.

    Attributes:
        columns: what makes it up.
        examples: rows of each label; None where none are kept.
    """

    def __init__(
        self,
        columns: AnswerColumns,
        by_date: DateColumn | None = None,
        by_category: Sequence[str] = (),
        examples: int = 0,
    ) -> None:
        self.columns = columns
        self.examples = Examples(examples) if examples else None
        self._labels = _Names(columns.labels if columns.label else [""])
        self._rows = np.zeros(len(self._labels.names), np.int64)
        self._spread = spread_of(is_probability=columns.is_probability) if columns.number else None
        self._by_date = _ByDate(by_date) if by_date else None
        self._by_category = {name: _ByCategory() for name in by_category}

    def add(
        self, numbers: Array, columns: Columns, found: answers.Counted, text: str | None
    ) -> None:
        """Count the answers of some rows; see `Statistics.add`."""
        scored = found.rows
        if self.columns.label:
            places = self._labels.places(found.labels)
        else:
            places = np.zeros(len(scored), np.intp)
        self._rows = _added(self._rows, np.bincount(places, minlength=len(self._rows)))
        if self._spread and found.numbers is not None:
            self._spread.add(places, found.numbers)
        means = None if self.columns.label else found.numbers
        if self._by_date:
            dates = columns[self._by_date.column.name][scored].tolist()
            self._by_date.add(dates, places, means)
        for name, category in self._by_category.items():
            category.add(columns[name][scored].tolist(), places, means)
        if self.examples and found.numbers is not None:
            by_date = self._by_date.column.name if self._by_date else None
            features = [name for name in columns if name not in {by_date, *self._by_category}]
            shown = {name: columns[name][scored] for name in (features if text is None else [text])}
            self.examples.add(numbers[scored], places, found.numbers, shown, text)

    def merge(self, other: _OfAnswer) -> None:
        """Add what another part of the same run has counted."""
        places = self._labels.places(other._labels.names)
        self._rows = _added(self._rows, np.bincount(places, other._rows).astype(np.int64))
        if self._spread and other._spread:
            self._spread.merge(other._spread, places)
        if self._by_date and other._by_date:
            self._by_date.merge(other._by_date, places)
        for name, category in self._by_category.items():
            category.merge(other._by_category[name], places)
        if self.examples and other.examples:
            self.examples.merge(other.examples, places)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: `AnswerColumns` by name, and `labels` as rows and a spread of each."""
        names, rows = self._labels.names, self._rows.tolist()
        return {
            **{name: getattr(self.columns, name) for name in ("name", "label", "number", "scores")},
            "is_probability": self.columns.is_probability,
            "scored": sum(rows),
            "labels": {
                name: {
                    "rows": rows[place],
                    **(self._spread.as_dict(place, rows[place]) if self._spread else {}),
                }
                for place, name in enumerate(names)
            },
            "by_date": self._by_date.as_dict(names) if self._by_date else None,
            "by_category": {
                name: category.as_dict(names) for name, category in self._by_category.items()
            },
            "examples": self.examples.as_dict(names) if self.examples else None,
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Self:
        names = list(known["labels"])
        columns = {name: known[name] for name in ("name", "label", "number", "scores")}
        made = cls(AnswerColumns(**columns, labels=tuple(names)))
        made._labels = _Names(names)
        made._rows = np.array([label["rows"] for label in known["labels"].values()], np.int64)
        for place, label in enumerate(known["labels"].values()):
            if made._spread:
                made._spread.read(place, label)
        if known["by_date"]:
            made._by_date = _ByDate.from_dict(known["by_date"], names)
        made._by_category = {
            name: _ByCategory().read(values, names) for name, values in known["by_category"].items()
        }
        if known["examples"]:
            made.examples = Examples.from_dict(known["examples"], names)
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
    """Rows per value of a column and place of a label; of numbers alone their sums, too."""

    def __init__(self) -> None:
        self._rows: dict[Any, Counter[int]] = {}
        self._sums: Counter[Any] = Counter()

    def add(self, values: Sequence[Any], places: Array, numbers: Array | None) -> None:
        keys = self._keys(values)
        distinct = list(dict.fromkeys(keys))
        place_of = {key: place for place, key in enumerate(distinct)}
        rows = np.fromiter(map(place_of.__getitem__, keys), np.intp, len(keys))
        table = tally(np.zeros((0, int(places.max(initial=-1)) + 1), np.int64), rows, places)
        counted = np.nonzero(table)
        for row, place, count in zip(*counted, table[counted], strict=True):
            self._count(distinct[row], int(place), int(count))
        sums = exact_sums(numbers, rows, len(distinct)) if numbers is not None else ()
        for key, total in zip(distinct, sums, strict=False):
            self._sums[self._counted_as(key)] += total

    def merge(self, other: _ByCategory, places: Array) -> None:
        """Add another's, whose label at place i is this one's at places[i]."""
        for value, rows in zip(self._keys(list(other._rows)), other._rows.values(), strict=True):
            for place, count in rows.items():
                self._count(value, int(places[place]), count)
        for value, total in zip(self._keys(list(other._sums)), other._sums.values(), strict=True):
            self._sums[self._counted_as(value)] += total

    def _keys(self, values: Sequence[Any]) -> Sequence[Any]:
        return values

    def _counted_as(self, value: Any) -> Any:
        """What a value is called here."""
        value = (value or "")[:LONGEST_NAME]
        return value if value in self._rows or len(self._rows) < MOST_VALUES else OTHER

    def _count(self, value: Any, place: int, count: int) -> None:
        self._rows.setdefault(self._counted_as(value), Counter())[place] += count

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        rows = {self._said(value): self._rows[value] for value in self._in_order()}
        sums = {self._said(value): total for value, total in self._sums.items()}
        return {
            "rows": {
                value: {labels[place]: counts[place] for place in sorted(counts)}
                for value, counts in rows.items()
            },
            "sums": {value: short(total) for value, total in sums.items()},
            "means": {value: mean_of(sums[value], rows[value].total()) for value in sums},
        }

    def read(self, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """Take over what `as_dict` described."""
        place = {name: number for number, name in enumerate(labels)}
        for text, rows in known["rows"].items():
            self._rows[self._parsed(text)] = Counter({place[name]: rows[name] for name in rows})
        self._sums.update({self._parsed(text): long(sum_) for text, sum_ in known["sums"].items()})
        return self

    def _in_order(self) -> Sequence[Any]:
        return list(self._rows)

    def _said(self, value: Any) -> str:
        """A value for JSON; `_parsed` reads it."""
        return str(value)

    def _parsed(self, text: str) -> Any:
        return text


class _ByDate(_ByCategory):
    """Labels per day, per month or per year: the finest of which there are not too many.

    The values are days since 1970-01-01, the first of each period.
    """

    def __init__(self, column: DateColumn) -> None:
        super().__init__()
        self.column = column
        self._days = DateReader(column.format)
        self._period = 0  # place in PERIODS
        self._undated = 0

    def add(self, values: Sequence[str | None], places: Array, numbers: Array | None) -> None:
        days = self._days.days(values)
        dated = days != NO_DAY
        self._undated += int(np.count_nonzero(~dated))
        super().add(days[dated], places[dated], None if numbers is None else numbers[dated])
        self._bound()

    def merge(self, other: _ByCategory, places: Array) -> None:
        assert isinstance(other, _ByDate)
        self._undated += other._undated
        while self._period < other._period:
            self._coarsen()
        super().merge(other, places)
        self._bound()

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        return {
            "column": self.column.name,
            "format": self.column.format,
            "period": PERIODS[self._period],
            "undated": self._undated,
            **super().as_dict(labels),
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        made = cls(DateColumn(known["column"], known["format"]))
        made._period = PERIODS.index(known["period"])
        made._undated = known["undated"]
        return made.read(known, labels)

    def _in_order(self) -> Sequence[Any]:
        return sorted(self._rows)

    def _said(self, value: Any) -> str:
        return str(np.datetime64(value, "D"))

    def _parsed(self, text: str) -> Any:
        return int(np.datetime64(text, "D").astype(np.int64))

    def _keys(self, values: Sequence[int] | Array) -> Sequence[int]:
        """The first day of each one's period."""
        days = np.asarray(values, np.int64)
        if self._period:
            unit = f"datetime64[{PERIODS[self._period][0].upper()}]"
            days = days.astype("datetime64[D]").astype(unit).astype("datetime64[D]")
        firsts: list[int] = days.astype(np.int64).tolist()
        return firsts

    def _counted_as(self, value: int) -> int:
        return value

    def _bound(self) -> None:
        while len(self._rows) > MOST_PERIODS and self._period < len(PERIODS) - 1:
            self._coarsen()

    def _coarsen(self) -> None:
        self._period += 1
        before, self._rows = self._rows, {}
        for first, rows in zip(self._keys(list(before)), before.values(), strict=True):
            self._rows.setdefault(first, Counter()).update(rows)
        sums, self._sums = self._sums, Counter()
        for first, total in zip(self._keys(list(sums)), sums.values(), strict=True):
            self._sums[first] += total


def _added(one: Array, other: Array) -> Array:
    """The sums of two columns of counts, of which one may be longer."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    found = longer.copy()
    found[: len(shorter)] += shorter
    return found
