"""Several columns of text as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mlopsdeploy.columns import Array, objects
from mlopsdeploy.data.sources.base import Chunk, Source, SourceOver, Wanted, Window


def parts_of(column: str, names: Collection[str]) -> list[str]:
    """The columns that one is made of: itself, or those that `title,body` names."""
    return [column] if column in names else [name.strip() for name in column.split(",")]


class WithText(SourceOver):
    """Rows of another source, with one more column for the model: the texts of several.

    They stand below each other, a line's end between two; what is empty is left out. A row where
    all of them are missing has none. The column is not part of what is written.

    Args:
        rows: the other source.
        column: what the new column is called.
        parts: the columns that it is made of, in their order.
    """

    def __init__(self, rows: Source, column: str, parts: Sequence[str]) -> None:
        super().__init__(rows)
        self._column = column
        self._parts = parts

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        kinds = dict(wanted.columns)
        del kinds[self._column]
        parts = dict.fromkeys(self._parts, "str")
        window = self.rows.parse(chunk, replace(wanted, columns={**kinds, **parts}))
        columns = {name: window.columns[name] for name in kinds}
        texts = together([window.columns[name] for name in self._parts])
        return replace(window, columns={self._column: texts, **columns})


def together(columns: Sequence[Sequence[str | None] | Array]) -> Array:
    """The texts of several columns as one, str or None of shape (rows,): see `WithText`."""
    rows = zip(*columns, strict=True)
    filled = ([text for text in row if text is not None and text.strip()] for row in rows)
    return objects(["\n".join(texts) if texts else None for texts in filled])
