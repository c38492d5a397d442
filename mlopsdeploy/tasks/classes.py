"""Labels and their probabilities: the head of a classifier."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mlopsdeploy.columns import (
    AnswerColumns,
    Array,
    Columns,
    Fact,
    Field,
    floats,
    objects,
    readings_of,
    rows_of,
)
from mlopsdeploy.errors import DoubtError, ModelError
from mlopsdeploy.tasks.heads import Given, Head, flat
from mlopsdeploy.tasks.scores import choose, sigmoid, softmax, starts_with_background

_ROUNDING = 1e-5  # a forest sums its trees' votes in float32, and may come to 1.0000001
_MEANING = {
    "none": "probabilities",
    "sigmoid": "logits: a sigmoid follows",
    "softmax": "logits: a softmax follows",
}


class Classes(Head):
    """Label, its probability, and those of all classes.

    Two classes: the second is given from the threshold on (0.5 when None). More: a label is given
    from the threshold on, else none. Where each class has a probability of its own, every label
    from the threshold on (0.5), joined by "|". A model that gives a label without probabilities
    has no score.

    Raises:
        ModelError: it can't be known what the outputs are, or how many classes there are.
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        self._name = given.files.name
        names = [field for field in given.outputs if not field.dtype.startswith("float")]
        self._own = names[0] if len(names) == 1 else None
        self._columns = _column_each(given)
        scores = None if self._columns else _scores_output(given, labels=bool(names))
        self._scores_output = scores
        first = self._columns[0] if self._columns else scores
        if first is None or (self._own and self._is_no_probability(first)):
            self._only_label(first)
            return
        kind = given.made(first).kind
        self._width = len(self._columns) or given.width(first)
        self._activation, why = self._read_activation(first)
        alone = self._own is None or given.width(self._own) > 1
        several = self._width > 1 and alone and (kind == "sigmoid" or self._activation == "sigmoid")
        asked = given.files.yaml.multi_label
        self.multi_label = (given.files.multi_label or several) if asked is None else asked
        classes = max(self._width, 2) if not self.multi_label else self._width
        if first.has_steps and not self.multi_label and len(given.files.labels) != classes:
            raise ModelError(
                f"{self._name}: its output {first.name!r} has classes for each step of a row, not "
                "for the row; say 'task: tensors' to have its outputs as they are"
            )
        self.labels, self._own_classes, named = self._read_labels(classes)
        self.threshold = given.threshold
        self._names = np.array([*self.labels, ""], dtype=object)
        self._outcome = (
            given.column("label"), given.column("score"), given.column("scores"),
        )  # fmt: skip
        label, score, all_scores = self._outcome
        shape = (len(self.labels) or -1,)
        made = Field(label, "str"), Field(score, "float32"), Field(all_scores, "float32", shape)
        self.outputs: tuple[Field, ...] = made
        self.answers = (AnswerColumns(label, score, all_scores, self.labels, given.name),)
        where = scores.name if scores else ", ".join(field.name for field in self._columns)
        each = "each its own probability" if self.multi_label else _MEANING[self._activation]
        self.facts = (
            Fact("scores", f"{where} ({self._width or '?'})", "the file"),
            Fact("scores are", each, why),
            *named,
        )
        # One probability in float32 with nothing beside it: every microsecond of it counts.
        self._fast = (
            scores.name
            if scores is not None
            and self._own is None
            and not self.multi_label
            and self._width == 1
            and scores.dtype == "float32"
            and self._activation == "none"
            else ""
        )

    # ---------------------------------------------------------------- what the outputs are

    def _is_no_probability(self, output: Field) -> bool:
        yaml = self._given.files.yaml
        asked = yaml.activation is not None or yaml.multi_label is not None
        return not asked and self._given.made(output).kind in ("decision", "values", "linear")

    def _only_label(self, decision: Field | None) -> None:
        given = self._given
        if self._own is None:
            raise ModelError(f"{self._name}: gives no probabilities; is it a classifier?")
        classes = given.files.written.classes.get(self._own.name, ())
        self.labels = given.files.labels or classes
        self._own_classes = classes
        self.multi_label = False
        self.threshold = None
        label = given.column("label")
        self.outputs = (Field(label, "str"),)
        self.answers = (AnswerColumns(label, labels=self.labels, name=given.name),)
        why = "its decision values are no probabilities" if decision else "it gives no probability"
        self.facts = (Fact("answer", "a label alone", why),)
        self._outcome = (label, "", "")
        self._fast = ""
        self._names = np.array([*self.labels, ""], dtype=object)

    def _read_activation(self, scores: Field) -> tuple[str, str]:
        given = self._given
        kind, source = given.made(scores)
        asked, several = given.files.yaml.activation, given.files.yaml.multi_label
        alone = self._own is None and not self._columns
        softmax_last = asked == "softmax" or (asked is None and kind == "softmax")
        if softmax_last and given.width(scores) == 1 and alone:
            raise ModelError(
                f"{self._name}: its output {scores.name!r} is a softmax of one number, which is "
                "always 1; a sigmoid was meant, with which it has to be trained again (or say "
                "'activation: none' in a YAML beside it)"
            )
        if asked is not None:
            return asked, "the YAML"
        if kind == "sigmoid logits":
            return "sigmoid", source
        if kind in ("softmax", "sigmoid"):
            return "none", source
        if kind == "logits" or (kind == "linear" and self._own is None):
            return ("softmax" if given.width(scores) != 1 and not several else "sigmoid"), source
        if kind in ("linear", "values"):
            raise ModelError(
                f"{self._name}: its output {scores.name!r} is no probability ({source}); name one "
                "that is with 'output:', or say 'task: tensors' to have its outputs as they are"
            )
        if several:
            return "none", "the YAML"
        given.options.doubt(
            DoubtError(
                self._name,
                f"nothing tells what its output {scores.name!r} holds",
                readings_of(kind, given.width(scores)),
            )
        )
        return "none", "nothing (a guess)"

    def _read_labels(self, classes: int) -> tuple[tuple[str, ...], tuple[str, ...], list[Fact]]:
        """Names of the classes; those that the file itself has for them; what was understood."""
        given, files = self._given, self._given.files
        written = files.written.classes
        both = self._scores_output, self._own
        by_score, by_label = (written.get(field.name, ()) if field else () for field in both)
        own = by_score or by_label or tuple(written[field.name][0] for field in self._columns)
        if by_label and {*by_label} != {*by_score} and len(by_label) == len(own):
            own = by_label  # scores of a model within, by whose own classes nobody goes
        labels = files.labels
        if not labels:
            if own:
                return own, own, [Fact("labels", _some(own), "the file")]
            known = tuple(str(number) for number in range(classes)) if self._width else ()
            facts = [Fact("labels", f"{classes} classes by number", "nothing names them")]
            return known, own, facts if self._width else []
        if own and {*own} == {*labels} and own != labels:
            raise ModelError(
                f"{files.name}: {files.labels_from or 'the YAML'} names {', '.join(labels)}, but "
                f"the model's own order is {', '.join(own)}; list them in this order, or leave "
                "them out"
            )
        facts = [Fact("labels", f"{len(labels)}: {_some(labels)}", files.labels_from)]
        if not self._width:
            return labels, own, facts
        named, offset = self._placed(labels, classes)
        return named, own, [*facts, *([offset] if given.data == "image" else [])]

    def _placed(self, labels: tuple[str, ...], classes: int) -> tuple[tuple[str, ...], Fact]:
        """A label for each class; lists of pictures' labels with and without a background fit."""
        files = self._given.files
        offset, why = files.yaml.label_offset, "the YAML"
        if offset is None:
            pictures = self._given.data == "image"
            if len(labels) == classes:
                offset, why = 0, f"as many classes as labels, {classes}"
            elif pictures and len(labels) == classes + 1 and starts_with_background(labels):
                offset, why = 1, f"the first label, {labels[0]!r}, has no class"
            elif pictures and len(labels) == classes - 1 and not starts_with_background(labels):
                offset, why = (
                    -1,
                    f"{classes} classes for {len(labels)} labels: class 0 is the background",
                )
            else:
                raise ModelError(
                    f"{files.name}: gives {classes} classes, but {files.labels_from or 'the YAML'} "
                    f"names {len(labels)}; name as many, or say which label is the first class's "
                    "with 'label_offset:'"
                )
        known = dict(enumerate(labels))
        names = tuple(
            known.get(number, "background" if number < 0 else str(number))
            for number in range(offset, offset + classes)
        )
        return names, Fact("label of class 0", repr(names[0]), why)

    # ---------------------------------------------------------------- reading them

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """See `Head.decode`: `label`, `score`, `scores` (rows, classes)."""
        rows = rows_of(encoded)
        if self._fast and rows == 1:
            return self._decode_one(tensors[self._fast])
        label_column, score_column, scores_column = self._outcome
        if not score_column:
            label = self._own_labels(tensors, rows)
            if self._scores_output is not None:  # of a row that has no answer, it means nothing
                known = np.isfinite(flat(tensors, self._scores_output, rows)).all(axis=1)
                label = np.where(known, label, "")
            return {label_column: label}
        scores = self._probabilities(tensors, rows)
        label, score = self._several(scores) if self.multi_label else self._one(tensors, scores)
        return {label_column: label, score_column: score, scores_column: scores}

    def _several(self, scores: Array) -> tuple[Array, Array]:
        """Every label from the threshold on, and the highest score."""
        chosen = scores >= (0.5 if self.threshold is None else self.threshold)
        names = self._names_for(scores)[:-1]
        score = scores.max(axis=1, initial=0)
        score[~np.isfinite(scores).all(axis=1)] = np.nan
        return objects(["|".join(names[row]) for row in chosen]), score

    def _one(self, tensors: Columns, scores: Array) -> tuple[Array, Array]:
        """The model's own label, else that of the highest score, and the score of it."""
        names, threshold = self._names_for(scores), self.threshold
        by_own = self._own is not None and threshold is None
        if by_own and self._own_classes:
            own = self._own_places(self._one_each(tensors, len(scores)))
            if own.min(initial=0) >= 0:  # which the highest score need not be
                return names[own], scores[np.arange(len(own)), own]
        if threshold is None and scores.shape[1] == 2:
            threshold = 0.5
        label, score = choose(scores, names, threshold)
        if by_own and not self._own_classes and not self._given.files.labels:
            # Nobody names its classes: the model's own label as it stands.
            own = self._one_each(tensors, len(scores)).astype(str)
            label = np.where(np.isfinite(score), own, "").astype(object)
        return label, score

    def _names_for(self, scores: Array) -> Array:
        """Those of the classes, and "" behind them; numbers where it wasn't known how many."""
        names, count = self._names, scores.shape[1]
        if count == len(names) - 1:
            return names
        if self._given.files.labels:
            raise ModelError(
                f"{self._name}: gives {count} probabilities, but has {len(names) - 1} labels"
            )
        return np.array([*map(str, range(count)), ""], dtype=object)

    def _probabilities(self, tensors: Columns, rows: int) -> Array:
        if self._columns:
            scores = np.column_stack([tensors[field.name].reshape(rows) for field in self._columns])
        else:
            assert self._scores_output is not None
            scores = tensors[self._scores_output.name]
            if sum(size > 1 for size in scores.shape[1:]) > 1:
                raise ModelError(
                    f"{self._name}: its output {self._scores_output.name!r} has a shape of "
                    f"{scores.shape[1:]} for a row, and not a number for each class"
                )
            scores = scores.reshape(rows, -1)
        scores = scores.astype(np.float32, copy=False)
        if self._activation == "sigmoid":
            scores = sigmoid(scores)
        elif self._activation == "softmax":
            return softmax(scores)
        else:
            self._check(scores)
            scores = np.clip(scores, 0, 1)
        if scores.shape[1] == 1 and not self.multi_label:  # of the second class
            return np.hstack([1 - scores, scores])
        return scores

    def _decode_one(self, output: Array) -> Columns:
        """The same for one row of one sigmoid: a request, where every microsecond counts."""
        second = output[(0,) * output.ndim]
        if not 0 <= second <= 1:
            self._check(output)
            second = second.clip(0, 1)
        both = np.empty((1, 2), output.dtype)
        both[0, 0], both[0, 1] = 1 - second, second
        chosen = int(second >= (0.5 if self.threshold is None else self.threshold))
        label, score, scores = self._outcome
        return {label: objects([self._names[chosen]]), score: both[:, chosen], scores: both}

    def _check(self, scores: Array) -> None:
        lowest, highest = -_ROUNDING, 1 + _ROUNDING
        if len(scores) == 1:  # a request, of which NumPy would take longer
            listed = scores.ravel().tolist()
            if lowest <= min(listed) and max(listed) <= highest:
                return
        if scores.size and (
            np.fmin.reduce(scores, axis=None) < lowest
            or np.fmax.reduce(scores, axis=None) > highest
        ):
            far = float(scores.flat[np.nanargmax(np.abs(scores - 0.5))])
            kinds = f"task: {self._given.data}_regression, or activation: sigmoid or softmax"
            raise ModelError(
                f"{self._name}: answers with {far:.4g} where a probability from 0 to 1 is expected;"
                f" say what it is in a YAML beside the file ({kinds})"
            )

    def _one_each(self, tensors: Columns, rows: int) -> Array:
        """The model's own labels, one a row."""
        assert self._own is not None
        own = tensors[self._own.name].reshape(rows, -1)
        if own.shape[1] != 1:
            raise ModelError(
                f"{self._name}: its output {self._own.name!r} has {own.shape[1]} labels for a row;"
                " say 'task: tensors' to have its outputs as they are"
            )
        return own[:, 0]

    def _own_places(self, own: Array) -> Array:
        """The class of each label; -1 where it is none of them."""
        if len(own) == 1 or own.dtype.kind not in "iu" or self._whole is None:
            places = (self._place.get(str(label), -1) for label in own.tolist())
            return np.fromiter(places, np.intp, len(own))
        order, values = self._whole
        found = np.searchsorted(values, own).clip(0, len(values) - 1)
        return np.where(values[found] == own, order[found], -1)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._own_classes)}

    @cached_property
    def _whole(self) -> tuple[Array, Array] | None:
        """The model's own classes where all are whole numbers: their places, and they, in order."""
        try:
            values = np.array([int(name) for name in self._own_classes], np.int64)
        except ValueError:
            return None
        order = np.argsort(values)
        return order, values[order]

    def _own_labels(self, tensors: Columns, rows: int) -> Array:
        own = self._one_each(tensors, rows)
        names = own.astype(str).astype(object)
        if not self.labels or self.labels == self._own_classes:
            return names
        if not self._own_classes:
            raise ModelError(
                f"{self._name}: {self._given.files.labels_from or 'the YAML'} names its labels, but"
                " nothing tells which of the model's own each is; leave 'labels:' out"
            )
        places = self._own_places(own)
        return np.where(places >= 0, self._names[places], names)


def _scores_output(given: Given, *, labels: bool) -> Field | None:
    """The output that holds a number for each class; None where there are labels alone."""
    found = floats(given.outputs)
    if not found and labels:
        return None
    if given.files.yaml.output is None and len(found) > 1:
        likely = [field for field in found if given.made(field).kind in ("softmax", "sigmoid")]
        found = likely if len(likely) == 1 else found
    return given.chosen(found, "the probabilities")


def _column_each(given: Given) -> tuple[Field, ...]:
    """Outputs that hold one class's probability each, as a ZipMap with columns has them."""
    classes = given.files.written.classes
    found = floats(given.outputs)
    if len(found) > 1 and all(len(classes.get(field.name, ())) == 1 for field in found):
        return tuple(found)
    return ()


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
