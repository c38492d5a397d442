"""Rows of a file for a model, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Columns, joined, rows_of, take
from mlopsdeploy.core.images import decode
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.matching import match_columns
from mlopsdeploy.data.sources import Wanted, chunks, open_source, with_content
from mlopsdeploy.errors import InputError

STARS = range(1, 6)
Fields = Mapping[str, tuple[str, str, tuple[int, ...]]]
_GOOD, _BAD = ("positive", "pos", "good"), ("negative", "neg", "bad")


@dataclass(frozen=True)
class Rows:
    """Rows that can be scored.

    Attributes:
        columns: by the model's names, each of shape (rows,); pictures as the bytes of their files.
        truth: what a column of the file says is right, as it stands there; None without one.
        left_out: rows that lack a value or can't be read.
        names: of pictures, what the file or the folder calls them; None of other rows.
        numbers: of the rows in the whole file, ascending.
        fields: by the model's names: the column, the type and the shape.
    """

    columns: Columns
    truth: Array | None
    left_out: int
    names: Array | None = None
    numbers: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    fields: Fields = field(default_factory=dict)

    def among(self, numbers: Array) -> Rows:
        """Those of these numbers; the others are left out."""
        kept = np.flatnonzero(np.isin(self.numbers, numbers))
        return replace(
            self,
            columns=take(self.columns, kept),
            truth=None if self.truth is None else self.truth[kept],
            names=None if self.names is None else self.names[kept],
            numbers=self.numbers[kept],
            left_out=self.left_out + len(self.numbers) - len(kept),
        )


def read_rows(
    path: str,
    model: Model,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
) -> Rows:
    """The rows of a file, such as CSV, JSON or Parquet; pictures that one names, or of a folder.

    Raises:
        InputError: the file can't be read, lacks a column, or has no row to score.
        ModelError: the model takes arrays, which no column holds.
    """
    source = open_source(path)
    try:
        names = match_columns(model, source, text_column=text_column)
        kinds = {names[field.name]: field.dtype for field in model.task.inputs}
        if label_column is not None:
            if label_column not in source.names:
                known = ", ".join(map(repr, source.names[:12]))
                raise InputError(f"{path}: no column {label_column!r}; there are: {known}")
            kinds = {**kinds, label_column: "str"}
        pictures = model.task.data == "image"
        source = with_content(source, names, pictures=pictures)
        if pictures:
            kinds[names["image"]] = "str"
        raw = source.format != "parquet"
        shapes = {
            names[field.name]: field.shape
            for field in model.task.inputs
            if field.shape and not pictures
        }
        wanted = Wanted(kinds, raw, shapes=shapes)
        windows = [source.parse(chunk, wanted) for chunk in chunks(source, 8000, limit=limit)]
    finally:
        source.close()
    filled = [window for window in windows if window.rows]
    if not filled:
        raise InputError(f"{path}: has no row that can be scored")
    found = {name: joined([window.columns[name] for window in filled]) for name in kinds}
    numbers = np.concatenate([window.numbers for window in filled])
    bad = sum(len(window.bad) for window in windows)
    columns = {name: found[column] for name, column in names.items()}
    called = None
    if pictures:
        called = columns["image"]
        columns = {"image": np.concatenate([window.pictures for window in filled])}
    kept = _present(columns)
    if not kept.any():
        raise InputError(f"{path}: has no row that can be scored")
    truth = None if label_column is None else found[label_column][kept]
    called = None if called is None else called[kept]
    scored = take(columns, np.flatnonzero(kept))
    left_out = bad + int((~kept).sum())
    return Rows(scored, truth, left_out, called, numbers[kept], _fields_of(model, names))


def _fields_of(model: Model, names: Mapping[str, str]) -> Fields:
    """Where each input comes from, its type and its shape: what decides on what is read."""
    return {
        field.name: (names[field.name], field.dtype, field.shape) for field in model.task.inputs
    }


def _present(columns: Columns) -> Array:
    kept = np.ones(rows_of(columns), bool)
    for values in columns.values():
        if values.dtype == object:
            kept &= np.fromiter(map(_can_be_scored, values), bool, len(values))
        elif values.dtype.kind == "f":
            kept &= ~np.isnan(values).reshape(len(values), -1).any(axis=1)
    return kept


def _can_be_scored(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or not np.isnan(value).any()
    if not isinstance(value, bytes):
        return value is not None and bool(str(value).strip())
    try:
        decode(value)
    except ValueError:
        return False
    return True


def as_labels(truth: Array, labels: tuple[str, ...], column: str) -> tuple[Array, str]:
    """What a column says is right, as labels of a model.

    A label may stand there by its name, in any case, or by its place, from 0 on. One to five
    stars are understood by models that tell positive from negative: up to two are negative, from
    four on positive, and three are neither.

    Returns:
        For each row the label's place, -1 where it is none; and what was done, in words.

    Raises:
        InputError: nothing in the column is a label.
    """
    written = ["" if value is None else str(value).strip().casefold() for value in truth]
    by_name = {label.casefold(): place for place, label in enumerate(labels)}
    places = np.array([by_name.get(value, -1) for value in written])
    if (places >= 0).any():
        return places, f"labels by name in {column!r}"
    numbers = np.array([_number(value) for value in written])
    known = numbers[~np.isnan(numbers)]
    good = next((by_name[name] for name in _GOOD if name in by_name), None)
    bad = next((by_name[name] for name in _BAD if name in by_name), None)
    if len(known) and set(known) <= set(range(len(labels))):
        return np.where(np.isnan(numbers), -1, np.nan_to_num(numbers)).astype(int), (
            f"labels by their place in {column!r}: "
            + ", ".join(f"{place} is {label}" for place, label in enumerate(labels))
        )
    if good is not None and bad is not None and len(known) and set(known) <= set(STARS):
        places = np.full(len(written), -1)
        places[numbers <= 2] = bad
        places[numbers >= 4] = good
        return places, f"stars in {column!r}: 1 and 2 are {labels[bad]}, 4 and 5 {labels[good]}"
    raise InputError(
        f"--label-column {column}: holds none of the labels {', '.join(labels)}, nor their "
        f"numbers from 0 on; it has {', '.join(map(repr, sorted(set(written))[:5]))}"
    )


def as_several(truth: Array, labels: tuple[str, ...], column: str) -> tuple[Array, Array, str]:
    """What a column says is right, where a row may have several labels, joined by "|".

    Returns:
        Which labels each row has, bool (rows, labels); which rows are known, bool (rows,); and
        what was done, in words.

    Raises:
        InputError: nothing in the column is a label.
    """
    place = {label.casefold(): number for number, label in enumerate(labels)}
    has = np.zeros((len(truth), len(labels)), bool)
    known = np.ones(len(truth), bool)
    for row, value in enumerate(truth):
        names = [name.strip().casefold() for name in str(value or "").split("|") if name.strip()]
        known[row] = all(name in place for name in names)
        has[row, [place[name] for name in names if name in place]] = True
    if not has.any():
        raise InputError(
            f"--label-column {column}: holds none of the labels {', '.join(labels)}; several of a "
            'row are joined by "|"'
        )
    return has, known, f'labels in {column!r}, joined by "|"; an empty cell has none'


def as_numbers(truth: Array, column: str) -> tuple[Array, str]:
    """What a column says is right, as numbers, NaN where there is none; and that, in words.

    Raises:
        InputError: nothing in the column is a number.
    """
    numbers = np.array([_number("" if value is None else str(value)) for value in truth], float)
    if not np.isfinite(numbers).any():
        some = sorted({str(value) for value in truth})[:5]
        raise InputError(
            f"--label-column {column}: the models answer with numbers, but it holds "
            f"{', '.join(map(repr, some))}"
        )
    return numbers, f"numbers in {column!r}"


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return np.nan
