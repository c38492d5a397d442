"""The nearest of several centres: the head of k-means and its kind."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Columns, Fact, Field, floats, objects, rows_of
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.heads import Given, Head, flat


class Clusters(Head):
    """`label`, the cluster's number or name, and `distance` from its centre.

    Raises:
        ModelError: there is neither a cluster's number nor a distance from each centre.
    """

    multi_label = False
    threshold = None

    def __init__(self, given: Given) -> None:
        files = given.files
        numbers = [field for field in given.outputs if field.dtype.startswith(("int", "uint"))]
        self._number = numbers[0] if numbers else None
        distances = floats(given.outputs)
        self._distances = given.chosen(distances, "the distances") if distances else None
        if self._distances is None and self._number is None:
            raise ModelError(f"{files.name}: gives neither clusters nor distances")
        count = given.width(self._distances) if self._distances else 0
        if files.labels and count and len(files.labels) != count:
            raise ModelError(
                f"{files.name}: has {count} clusters, but {files.labels_from} names "
                f"{len(files.labels)}"
            )
        self.labels = files.labels or tuple(map(str, range(count)))
        label, distance = given.column("label"), given.column("distance")
        both = Field(label, "str"), Field(distance, "float32")
        self.outputs = both if self._distances is not None else both[:1]
        self._columns = label, distance
        number = distance if self._distances else ""
        self.answers = (AnswerColumns(label, number, labels=self.labels, name=given.name),)
        why = "the YAML" if files.task else files.written.task_source
        self.facts = (Fact("clusters", str(count) if count else "by number", why),)

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """See `Head.decode`."""
        rows = rows_of(encoded)
        label, distance = self._columns
        found: Columns = {}
        distances = None if self._distances is None else flat(tensors, self._distances, rows)
        if self._number is not None:
            places = tensors[self._number.name].reshape(rows, -1)[:, 0].astype(np.intp)
        else:
            assert distances is not None
            places = distances.argmin(axis=1)
        names = self.labels
        found[label] = objects(
            [names[n] if 0 <= n < len(names) else str(n) for n in places.tolist()]
        )
        if distances is not None:
            found[distance] = distances.min(axis=1).astype(np.float32)
        return found
