"""A model: a task, which knows what data mean, on a runtime, which knows how to run a file."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlopsdeploy.columns import Columns, Runtime, Task, concat, objects, rows_of, take
from mlopsdeploy.core import answers
from mlopsdeploy.core.inputs import missing, picture, read_rows
from mlopsdeploy.core.languages import UNKNOWN, languages_of, not_read
from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.core.planner import Rows, plan
from mlopsdeploy.errors import ConfigError, InputError, RowError, needs

if TYPE_CHECKING:
    import pandas as pd

# Scores move a little with the rows that share a batch: by 2e-6 in float32, by up to 0.005 in
# bfloat16 and, on the checkpoints measured, 0.005 to 0.03 in int8, where rounding turns that noise
# into steps. A label decided by less than this is rechecked in float32, so that none depends on
# its row's neighbours.
RECHECK_MARGIN = {"bfloat16": 0.02, "int8": 0.08}


class LanguageWarning(UserWarning):
    """A model was given texts that it doesn't read; their labels mean little."""


def unread_in(predictions: Columns) -> Counter[str]:
    """Why the model doesn't read rows, and how many: by their language, or "unknown" tokens."""
    return Counter(reason for reason in predictions.get("unread", ()) if reason)


def counted(found: Mapping[str, int]) -> str:
    """The languages of texts, the commonest first, for people: `12 de, 3 ar`."""
    common = Counter(found).most_common(4)
    more = sum(found.values()) - sum(count for _, count in common)
    parts = [f"{count:,} {name}" for name, count in common]
    return ", ".join(parts + ([f"{more:,} others"] if more else []))


@dataclass(frozen=True)
class Predicted:
    """What became of some rows: predictions of `rows`, and why each of the others has none."""

    rows: Rows
    predictions: Columns
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model, ready to be called. Made by `load_model`.

    Attributes:
        name: as in the model's files, or the reference it was loaded by.
        version: as in `model.yaml`; empty where there is none.
        digest: SHA-256 of everything that shapes its answers.
        task: its seam to data.
        runtime: its seam to hardware.
        float32: makes the same model in float32, to recheck close calls of a lower precision.
        yaml: the keys of its `model.yaml`, such as an `example` row.
        proof: of a model that was quantised here, what that costs; see `compile.quantize`.
        chosen: whether somebody named it; else it is only the default, and says no to texts that
            it doesn't read (see `check_languages`).
        task_from: what tells which task it is.
        parts: what loads each of the models that stand side by side in it; empty of a single one.
    """

    name: str
    version: str
    digest: str
    task: Task
    runtime: Runtime
    float32: Callable[[], Runtime] | None = None
    yaml: ModelYaml = field(default_factory=ModelYaml)
    proof: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = True
    parts: tuple[Callable[[], Model], ...] = ()
    task_from: str = ""

    def __repr__(self) -> str:
        version = f" {self.version}" if self.version else ""
        runs = f"{self.runtime.name} {self.runtime.precision}"
        task = type(self.task).__name__
        return f"<Model {self.name}{version}: {task}, {runs}, digest {self.digest[:12]}>"

    @property
    def precision(self) -> str:
        """What it computes in; of several models what each does, which loads them."""
        each = [part() for part in self.parts] or [self]
        return ", ".join(dict.fromkeys(one.runtime.precision for one in each))

    @property
    def task_name(self) -> str:
        """What `model.yaml` calls it."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self.task).__name__).lower()

    def predict(self, rows: Any) -> Columns:
        """Predictions for rows as you have them: as many, in the same order.

        Args:
            rows: by name, a dict of lists or arrays, a pandas or polars DataFrame, a pyarrow Table
                or a list of dicts: columns in any order, those that the model does not take are
                ignored. Or, without names: a list, array or Series of texts; a matrix, as an
                array or a list of lists, with the model's features in its order; a list of
                pictures, each its pixels (uint8 of shape (height, width, 3), BGR), its path or
                its file's bytes, or one array of shape (rows, height, width, 3). An input of
                several numbers a row is a column of lists or arrays, or columns `NAME_0` to
                `NAME_n`.

        Returns:
            An array for each of `task.outputs`: of a classifier `label` and `score`, `scores` of
            shape (rows, labels), of a text model `truncated`, of a detector `boxes` (then each
            row's values are arrays), of a regression `value`. A row with nothing to score, such as
            None or a blank text, has the label "" and NaN; of a detector None. No rows are arrays
            of length 0.

        Raises:
            InputError: columns are missing or of different length, or a row has another width than
                the model.
            RowError: a row holds what the model can't take; rows are counted from 0.
            InputError: nobody named a model, and the default one doesn't read most of the texts.

        Warns:
            LanguageWarning: the model doesn't read some of the texts; once a call.

        Example:
            >>> from mlopsdeploy import load_model
            >>> model = load_model("sentiment")
            >>> model.predict(["Works like a charm.", None])["label"]
            array(['POSITIVE', ''], dtype=object)
        """
        return self._predict(rows)

    def _predict(self, rows: Any) -> Columns:
        """As `predict`; a warning is about the line that calls who calls this."""
        columns, present = read_rows(self.task, rows, self.name)
        places = np.flatnonzero(present)
        # Pictures are decoded a few at a time, as they are large.
        step = self._budget if self.task.data == "image" else max(len(places), 1)
        parts = [
            self._predict_some(columns, places[start : start + step])
            for start in range(0, len(places), step)
        ]
        predictions = self._missing(len(present))
        found = concat(parts) if parts else {}
        if self.task.data == "text" and (unread := unread_in(found)):
            warnings.warn(
                f"{self.name}: doesn't read {unread.total():,} of {len(places):,} texts "
                f"({counted(unread)}), so their labels mean little",
                LanguageWarning,
                stacklevel=3,
            )
        if not self.task.answers and len(places) < len(present):
            row = int(np.flatnonzero(~present)[0])
            raise RowError(
                f"{self.name}: row {row} lacks a value, without which it can't be", [row]
            )
        for name in predictions.keys() & found.keys():
            values = found[name]
            kept = predictions[name]
            if values.shape[1:] != kept.shape[1:] or values.dtype != kept.dtype:
                fill: Any = {"f": np.nan, "O": None}.get(values.dtype.kind, 0)
                predictions[name] = np.full((len(present), *values.shape[1:]), fill, values.dtype)
            predictions[name][places] = values
        answers.blank(self.task, predictions)
        return predictions

    def check_languages(self, texts: Sequence[str], where: str) -> None:
        """Refuse texts most of which the model doesn't read, unless somebody chose it.

        Args:
            texts: some of those to be scored.
            where: what they are called in a message.

        Raises:
            InputError: see `check_unread`.
        """
        if self.chosen or not self.task.languages:
            return
        unread = filter(None, not_read(self.task.languages, languages_of(texts).tolist()))
        self.check_unread(Counter(unread), len(texts), where)

    def check_unread(
        self, unread: Mapping[str, int], texts: int, where: str, how: str = "--model {}"
    ) -> None:
        """Refuse texts most of which the model didn't read, unless somebody chose it.

        Args:
            unread: how many, by why, as `unread_in` has it; those of unknown tokens, such as
                emoji alone, are in no other language.
            texts: how many there are in all.
            where: what they are called in a message.
            how: to name a model there.

        Raises:
            InputError: these are more than half, and the model is only the default.
        """
        unread = {language: count for language, count in unread.items() if language != UNKNOWN}
        count = sum(unread.values())
        if not self.chosen and count * 2 > texts:
            flag = how.rstrip("{}'() ")
            raise InputError(
                f"{where}: {count:,} of {texts:,} texts ({count / texts:.0%}) are in languages "
                f"that the default model doesn't read: {counted(unread)}; it reads "
                f"{', '.join(self.task.languages)}; name one that does with {flag}, or "
                f"{how.format(self.name)} to score them all the same"
            )

    def predict_frame(self, rows: Any, *, all_scores: bool = False) -> pd.DataFrame:
        """Predictions as a pandas DataFrame, with the index of the rows.

        The rows themselves are not in it: `frame.join(model.predict_frame(frame))` has both.

        Args:
            rows: a DataFrame or a Series of pandas, or else what `predict` takes.
            all_scores: add a column `score_LABEL` for each label.

        Returns:
            What the model outputs, such as `label` and `score`; arrays, and all of a detector, as
            lists.

        Raises:
            ConfigError: pandas is not installed, or all scores of a model without named labels.
            InputError: as `predict` does.

        Example:
            >>> import pandas as pd
            >>> from mlopsdeploy import load_model
            >>> model = load_model("sentiment")
            >>> reviews = pd.DataFrame({"text": ["Works like a charm."]}, index=[7])
            >>> model.predict_frame(reviews)["label"].to_dict()
            {7: 'POSITIVE'}
        """
        with needs("predict_frame", "pandas"):
            import pandas as pd  # only who calls this needs it
        places = answers.score_columns(self.task)
        if all_scores and (self.task.finds_objects or not places):
            raise ConfigError(f"all_scores: {self.name} does not have one score for each label")
        predictions = self._predict(rows)
        hidden = {answer.scores for answer in self.task.answers}
        columns = {
            name: list(array) if array.dtype == object or array.ndim > 1 else array
            for name, array in predictions.items()
            if name not in hidden
        }
        if all_scores:
            columns |= {name: predictions[scores][:, place] for name, scores, place in places}
        index = rows.index if isinstance(rows, (pd.DataFrame, pd.Series)) else None
        return pd.DataFrame(columns, index=index)

    def _predict_some(self, columns: Columns, places: Rows) -> Columns:
        if self.task.data == "image":
            ((name, values),) = columns.items()
            columns = {name: objects([picture(values[place], place) for place in places.tolist()])}
        elif len(places) < rows_of(columns):
            columns = take(columns, places)
        try:
            encoded = self.task.encode(columns)
            if self.task.data == "text":
                how = "load_model('{}')"
                self.check_unread(unread_in(encoded), rows_of(encoded), "predict", how)
            return self.predict_encoded(encoded)
        except RowError as error:
            rows = places[list(error.rows)].tolist()
            where = f"row {rows[0]}: " if rows else ""
            raise RowError(f"{self.name}: {where}{error}", rows) from error

    def predict_columns(self, columns: Columns) -> Columns:
        """Predictions for columns as the task takes them, unchecked: the hot path of strategies.

        Args:
            columns: what `task.inputs` names, or its `matrix`; each of shape (rows, ...).

        Returns:
            All that `task.decode` makes of them.

        Raises:
            RowError: rows that it can't take; its `rows` are their places.
        """
        return self.predict_encoded(self.task.encode(columns))

    def predict_encoded(self, encoded: Columns) -> Columns:
        """As `predict_columns`, of what `task.encode` made of them."""
        if rows_of(encoded) == 1:
            try:
                return self._call(encoded)
            except RowError as error:
                raise RowError(str(error), [0]) from error
        batches = self.plan(encoded)
        if not batches:
            return self._missing(0)
        results = []
        for batch in batches:
            part = self.predict_rows(encoded, batch)
            if part.failed:
                raise RowError(part.failed[min(part.failed)], sorted(part.failed))
            results.append(part.predictions)
        return take(concat(results), np.argsort(np.concatenate(batches)))

    def plan(self, encoded: Columns) -> list[Rows]:
        """The rows to compute together, as `planner.plan` cuts them for this task and device."""
        return plan(self.task.cost(encoded), self._budget) if rows_of(encoded) else []

    def predict_batch(self, encoded: Columns, rows: Rows) -> Columns:
        """Predictions for some rows of what `task.encode` made, computed together."""
        return self._call(take(encoded, rows))

    def predict_rows(self, encoded: Columns, rows: Rows) -> Predicted:
        """As `predict_batch`, without the rows that the model can't take.

        Where it doesn't say which these are, the rows are halved until each is alone.
        """
        done: list[tuple[Rows, Columns]] = []
        failed: dict[int, str] = {}
        waiting = [rows]
        while waiting:
            some = waiting.pop()
            if not len(some):
                continue
            try:
                done.append((some, self.predict_batch(encoded, some)))
            except RowError as error:
                places = error.rows if len(some) > 1 else (0,)
                if not places:
                    waiting += reversed(np.array_split(some, 2))
                    continue
                failed |= {int(some[place]): str(error) for place in places}
                waiting.append(np.delete(some, places))
        if not done:
            return Predicted(rows[:0], {}, failed)
        kept = np.concatenate([some for some, _ in done])
        return Predicted(kept, concat([predictions for _, predictions in done]), failed)

    def _call(self, batch: Columns) -> Columns:
        predictions = self._run(self.runtime, batch)
        if self.float32 is None or "margin" not in predictions:
            return predictions
        limit = RECHECK_MARGIN.get(self.runtime.precision, 0.0)
        close = np.flatnonzero(predictions["margin"] < limit)
        if len(close):
            for name, values in self._run(self.float32(), take(batch, close)).items():
                predictions[name][close] = values
        return predictions

    def _run(self, runtime: Runtime, batch: Columns) -> Columns:
        tensors = self.task.collate(batch)
        rows = rows_of(tensors)
        if rows <= rows_of(batch):
            return self.task.decode(runtime.run(tensors), batch)
        # A row that became many, a long text its windows, would take gigabytes in one call.
        step = max(self._budget * rows // int(self.task.cost(batch).sum()), 1)
        try:
            parts = [
                runtime.run(take(tensors, slice(start, start + step)))
                for start in range(0, rows, step)
            ]
        except RowError as error:  # its places are those of windows
            raise RowError(str(error)) from error
        return self.task.decode(concat(parts), batch)

    @property
    def _budget(self) -> int:
        """The work of one call, in units of `task.cost`."""
        return self.task.batch_cost * self.runtime.batch_scale

    def _missing(self, rows: int) -> Columns:
        return missing(self.task.outputs, rows, finds_objects=self.task.finds_objects)
