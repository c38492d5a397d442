"""As many columns as a row has numbers, as one column of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mlopsdeploy.data.sources.base import Chunk, Source, SourceOver, Wanted, Window


class WithArrays(SourceOver):
    """Rows of another source, with more columns for the model: each the numbers of several.

    These columns are not part of what is written.

    Args:
        rows: the other source.
        parts: what a new column is called -> the columns that it is made of, row by row.
    """

    def __init__(self, rows: Source, parts: Mapping[str, Sequence[str]]) -> None:
        super().__init__(rows)
        self._parts = parts

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        kinds = {name: kind for name, kind in wanted.columns.items() if name not in self._parts}
        apart = {one: wanted.columns[name] for name in self._parts for one in self._parts[name]}
        window = self.rows.parse(chunk, replace(wanted, columns={**apart, **kinds}))
        columns = {name: window.columns[name] for name in kinds}
        for name, parts in self._parts.items():
            row = np.stack([window.columns[one] for one in parts], axis=1)
            columns[name] = row.reshape(-1, *wanted.shapes[name])
        return replace(window, columns=columns)
