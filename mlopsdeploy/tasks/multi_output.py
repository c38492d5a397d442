"""Rows of a table in, several answers out: whether it is fraud, and of which kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlopsdeploy.columns import Columns, Field, floats, readings_of, rows_of
from mlopsdeploy.core.model_yaml import HeadKeys
from mlopsdeploy.errors import DoubtError, ModelError
from mlopsdeploy.tasks.classes import Classes
from mlopsdeploy.tasks.heads import Given, Head, HeadsTask
from mlopsdeploy.tasks.table import TableTask
from mlopsdeploy.tasks.values import Values

_OF_CLASSES = ("softmax", "sigmoid", "logits", "sigmoid logits", "label")


class SeveralAnswers(HeadsTask):
    """For each output the columns of its own answer, named after it.

    What an output is follows from how the graph makes it, or from `heads:` in the YAML, which may
    also leave outputs out.

    Raises:
        ModelError: `heads:` names what isn't there, or an output can be read in two ways.
    """

    def _heads_for(self, given: Given) -> list[Head]:
        self._places: dict[str, tuple[str, int, int]] = {}
        apart = tuple(self._apart(given))
        outputs = apart or given.outputs
        # Labels beside probabilities say nothing of their own.
        chosen = given.files.yaml.heads or {
            output.name: HeadKeys() for output in floats(outputs) or outputs
        }
        there = {output.name: output for output in (*apart, *given.outputs)}
        for name in chosen:
            if name not in there:
                raise ModelError(
                    f"{given.files.name}: heads names {name!r}, but it gives {', '.join(there)}"
                )
        return [_head(given, there[name], keys) for name, keys in chosen.items()]

    def _apart(self, given: Given) -> Iterator[Field]:
        """The answers that the model has side by side in one output."""
        written = given.files.written
        for output in given.outputs:
            for place, name in enumerate(written.parts.get(output.name, ())):
                width = len(written.classes[name]) if len(output.shape) > 1 else 1
                self._places[name] = output.name, place, width
                yield Field(name, output.dtype, (width,))

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """The columns of every head."""
        rows = rows_of(encoded)
        parts = {  # one with fewer classes than another has zeros behind them
            name: tensors[output][:, place].reshape(rows, -1)[:, :width]
            for name, (output, place, width) in self._places.items()
        }
        return super().decode({**tensors, **parts}, encoded)


class MultiOutput(SeveralAnswers, TableTask):
    """Features by name before, several answers after; see `SeveralAnswers`."""


def _head(given: Given, output: Field, keys: HeadKeys) -> Head:
    files = given.files
    kind = given.made(output).kind
    made = {"activation": keys.activation, "multi_label": keys.multi_label}
    yaml = files.yaml.model_copy(update={"output": None, **made})
    own = replace(
        given,
        files=replace(
            files,
            yaml=yaml,
            labels=keys.labels or (),
            labels_from="heads in the YAML" if keys.labels else "",
            threshold=keys.threshold,
        ),
        outputs=(output,),
        name=output.name,
    )
    task = keys.task
    told = keys.labels or any(value is not None for value in made.values())
    if task is None and (told or kind in _OF_CLASSES):
        task = "classification"
    elif task is None and kind == "values":
        task = "regression"
    elif task is None:
        ways = [("task: regression", "values"), *readings_of(kind, given.width(output))]
        own.options.doubt(
            DoubtError(
                files.name,
                f"its output {output.name!r} has no activation ({given.made(output).source})",
                [(f"heads: {{{output.name}: {{{line}}}}}", what) for line, what in ways],
            )
        )
        task = "regression"
    return Values(own) if task == "regression" else Classes(own)
