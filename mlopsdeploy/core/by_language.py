"""Several models of texts as one, which gives each text to the one that reads its language.

`--model sentiment,sentiment-zh` is such a model. A text that none of them reads, or whose language
can't be told, goes to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np

from mlopsdeploy.columns import (
    Array,
    Columns,
    DataKind,
    Field,
    ModelFiles,
    Runtime,
    Task,
    TaskOptions,
    concat,
    objects,
    rows_of,
    take,
)
from mlopsdeploy.core.languages import languages_of, reads
from mlopsdeploy.core.model import RECHECK_MARGIN, Model
from mlopsdeploy.core.once import once
from mlopsdeploy.errors import RowError

Rows = Array | slice

READER = "reader"
"""Among encoded rows and tensors: the place of the model that each is for."""


@dataclass(frozen=True)
class Member:
    """One of the models: what its files say of it, and what loads it, once."""

    files: ModelFiles
    load: Callable[[], Model]

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that it reads."""
        return self.files.yaml.languages or ()


def by_language(files: ModelFiles, load: Sequence[Callable[[], Model]]) -> Model:
    """One model of several.

    Args:
        files: what their files say; its `parts` are those of each.
        load: what loads each, once.
    """
    members = [Member(*pair) for pair in zip(files.parts, load, strict=True)]
    exact = once(partial(RuntimesByLanguage, members, exact=True))
    task, runtime = ByLanguage(members), RuntimesByLanguage(members)
    return Model(
        files.name, files.version, files.digest, task, runtime, exact, files.yaml, parts=tuple(load)
    )  # fmt: skip


class ByLanguage(Task):
    """The tasks of several models, each with its own tokenizer.

    What a decoded row has besides: `model`, the name of the one that read it.
    """

    data: DataKind = "text"
    finds_objects = False
    inputs = (Field("text", "str"),)

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        self._names = objects([member.files.name for member in members])
        task = members[0].load().task
        self.languages = tuple(one for member in members for one in member.languages)
        self.outputs = task.outputs
        self.labels = task.labels
        self.multi_label = task.multi_label
        self.threshold = task.threshold
        self.batch_cost = task.batch_cost

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """Not from the files of one model: see `by_language`."""
        raise NotImplementedError

    def encode(self, columns: Columns) -> Columns:
        """What each text's own task makes of it, its `READER`, and the name of that `model`."""
        languages = languages_of(columns["text"].tolist())
        reader = self._places(languages)
        columns = {**columns, "language": languages}
        encoded = _each(reader, lambda place, rows: self._task(place).encode(take(columns, rows)))
        return {**encoded, READER: reader, "model": self._names[reader]}

    def _task(self, place: int) -> Task:
        return self._members[place].load().task

    def _places(self, languages: Array) -> Array:
        """The place of the first that reads each language; 0 where none does."""
        found = languages.tolist()
        places = {
            language: int(np.argmax([reads(one.languages, language) for one in self._members]))
            for language in set(found)
        }
        return np.fromiter(map(places.__getitem__, found), np.int64, len(found))

    def cost(self, encoded: Columns) -> Array:
        """Tokens per text; of a model that takes more of them in a call, each counts for less."""

        def cost(place: int, rows: Rows) -> Columns:
            task = self._task(place)
            return {"cost": -(-task.cost(take(encoded, rows)) * self.batch_cost // task.batch_cost)}

        return _each(encoded[READER], cost)["cost"]

    def collate(self, encoded: Columns) -> Columns:
        """The tensors of all, filled up with 0 to the longest, and whom each row is for."""
        places = np.unique(encoded[READER]).tolist() or [0]
        rows = [np.flatnonzero(encoded[READER] == place) for place in places]
        parts = []
        for place, some in zip(places, rows, strict=True):
            own = encoded if len(places) == 1 else take(encoded, some)
            tensors = self._task(place).collate(own)
            parts.append({**tensors, READER: np.full(rows_of(tensors), place)})
        if len(parts) == 1:
            return parts[0]
        longest = max(part["input_ids"].shape[1] for part in parts)
        together = concat(
            [{name: _widened(array, longest) for name, array in part.items()} for part in parts]
        )
        windows = [np.repeat(some, encoded["windows"][some]) for some in rows]
        return take(together, np.argsort(np.concatenate(windows), kind="stable"))

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Each row as its own task decodes it, and the name of its `model`."""
        reader, windows = encoded[READER], np.repeat(encoded[READER], encoded["windows"])

        def decoded(place: int, rows: Rows) -> Columns:
            own = tensors if isinstance(rows, slice) else take(tensors, windows == place)
            predictions = self._task(place).decode(own, take(encoded, rows))
            return self._with_close_calls(place, predictions)

        return {**_each(reader, decoded), "model": encoded["model"]}

    def _with_close_calls(self, place: int, predictions: Columns) -> Columns:
        """The margin as below all limits or above: what is close depends on who computed it."""
        model = self._members[place].load()
        limit = RECHECK_MARGIN[model.runtime.precision] if model.float32 else 0.0
        margin = np.where(predictions["margin"] < limit, -1.0, np.inf)
        return {**predictions, "margin": margin}


class RuntimesByLanguage(Runtime):
    """The runtimes of several models, each for the rows that are its `READER`'s.

    Args:
        members: the models.
        exact: in float32, where a model computes in a lower precision.
    """

    formats: ClassVar = ()

    def __init__(self, members: Sequence[Member], *, exact: bool = False) -> None:
        self._members = tuple(members)
        self._exact = exact
        first = self._runtime(0)
        self.name = first.name
        self.precisions = first.precisions  # type: ignore[misc]  # of the models, not of the class
        self.precision = first.precision
        self.inputs = (*first.inputs, Field(READER, "int64"))
        self.outputs = first.outputs
        self.streams = first.streams
        self.batch_scale = first.batch_scale

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`; the output is `logits`, whatever each model calls it."""

        def own(place: int, rows: Rows) -> Columns:
            part = take({name: tensors[name] for name in tensors if name != READER}, rows)
            if isinstance(rows, slice):
                return self._logits(place, part)
            used = np.flatnonzero(part["attention_mask"].any(axis=0)).tolist() or [0]
            width = slice(used[0], used[-1] + 1)  # as wide as they are alone
            try:
                return self._logits(
                    place,
                    {name: np.ascontiguousarray(array[:, width]) for name, array in part.items()},
                )
            except RowError as error:
                raise RowError(str(error), rows[list(error.rows)].tolist()) from error

        return _each(tensors[READER], own)

    def _logits(self, place: int, tensors: Columns) -> Columns:
        outputs = self._runtime(place).run(tensors)
        first = next(iter(outputs.values()))
        return {"logits": outputs.get("logits", first)}

    def _runtime(self, place: int) -> Runtime:
        model = self._members[place].load()
        return model.float32() if self._exact and model.float32 is not None else model.runtime


def _each(reader: Array, make: Callable[[int, Rows], Columns]) -> Columns:
    """What `make` gives for the rows of each reader, in the order of all rows."""
    places = np.unique(reader).tolist() or [0]
    if len(places) == 1:  # as it is: a copy of nothing
        return make(places[0], slice(None))
    rows = [np.flatnonzero(reader == place) for place in places]
    parts = [make(place, some) for place, some in zip(places, rows, strict=True)]
    return take(concat(parts), np.argsort(np.concatenate(rows)))


def _widened(array: Array, longest: int) -> Array:
    if array.ndim == 1:
        return array
    return np.pad(array, [(0, 0), (0, longest - array.shape[1])])
