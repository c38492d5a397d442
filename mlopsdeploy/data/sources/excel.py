"""Workbooks (.xlsx, .xlsm, .xlsb, .xls, .ods), through calamine: one sheet, its cells as text.

A cell is spelled as its sheet means it: 3 and not 3.0, 2026-01-02 and not 46024; a formula is its
value. A sheet is in memory as a whole, a million rows at most.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetVisibleEnum

from mlopsdeploy.core.inputs import some
from mlopsdeploy.data.packing import ZIP
from mlopsdeploy.data.sources.base import (
    SAMPLE_ROWS,
    Chunk,
    Digest,
    FileSource,
    Origin,
    ReadOptions,
    Wanted,
    Window,
    told_apart,
    with_columns,
)
from mlopsdeploy.data.sources.dialect import has_header
from mlopsdeploy.data.sources.input_file import InputFile, NoRows
from mlopsdeploy.data.sources.spelling import is_plain, respelled
from mlopsdeploy.errors import InputError, one_line

_DIGITS = 15  # that Excel keeps of a number

Row = list[str | None]


class _Number(str):
    """A cell that is no text but a number, spelled as one."""

    __slots__ = ()


@dataclass(frozen=True)
class _Cells:
    """Rows of a sheet, and the same with its numbers spelled as its texts spell theirs."""

    table: pa.Table
    respelled: pa.Table

    @property
    def size(self) -> int:
        return int(self.table.nbytes)

    def add_to(self, digest: Digest) -> None:
        Chunk(0, self.table.num_rows, self.table, None).add_to(digest)


class ExcelSource(FileSource):
    """The rows of a sheet below its header, as text; rows without a value are left out.

    The header is the first row that is not empty; rows of a single value above one of several
    texts are titles, and that one is the header. A column without a name is called by its place,
    "column 3", the second one called `date` is `date.2`.
    """

    format = "excel"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        super().__init__(file, options)
        part = None if options.sheet == file.member else options.sheet
        content = file.seekable().read()
        try:
            book = CalamineWorkbook.from_filelike(io.BytesIO(content))
            self.sheet, sheet = _choose(book, part, file.name)
        except (CalamineError, OSError) as error:
            locked = "" if content.startswith(ZIP) else "; if it has a password, save it without"
            raise InputError(f"{file.name}: can't be read ({one_line(error)}){locked}") from error
        skipped = options.skip_lines or 0
        rows = (row for row in _rows(sheet) if row[0] > skipped)
        first = list(islice(rows, SAMPLE_ROWS))
        if not first:
            raise NoRows(f"{file.name}: sheet {self.sheet!r} has no rows")
        above = _titles(first) if options.skip_lines is None and options.header is not False else 0
        self.header_row, header, _ = first[above]
        told = [[cell or "" for cell in row] for _, row, _ in first[above:]]
        self._has_header = has_header(told, options, file.name)
        self._has_title = above > 0 or skipped > 0
        self._name_columns(
            told_apart([name.strip() for name in told[0]])
            if self._has_header
            else [str(place + 1) for place in range(len(header))]
        )
        self._total = max(sheet.end[0] + 1 - self.header_row, 1)  # type: ignore[index]
        self._rows = (row for _, row, _ in chain(first[above + self._has_header :], rows))
        self._ahead = list(islice(self._rows, SAMPLE_ROWS))
        if not self._ahead:
            raise NoRows(f"{file.name}: sheet {self.sheet!r} has a header but no rows")

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows, without moving on."""
        columns = zip(*self._ahead[:SAMPLE_ROWS], strict=True)
        return dict(zip(self.names, map(list, columns), strict=True))

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        self._ahead += islice(self._rows, max(rows - len(self._ahead), 0))
        taken, self._ahead = self._ahead[:rows], self._ahead[rows:]
        if not taken:
            return None
        table = other = self._table(taken)
        if not is_plain(self.numbers):
            other = self._table([list(map(self._respelled, row)) for row in taken])
        return self._chunk(len(taken), [_Cells(table, other)], len(taken) / self._total)

    def _respelled(self, cell: str | None) -> str | None:
        return respelled(cell, self.numbers) if isinstance(cell, _Number) else cell

    def _table(self, rows: list[Row]) -> pa.Table:
        columns = zip(*rows, strict=True)
        return pa.table(
            [pa.array(column, pa.large_string()) for column in columns], names=self.names
        )

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`; a row has no bytes of its own."""
        (cells,) = chunk.content
        table = cells.table
        numbers = np.arange(chunk.first, chunk.first + table.num_rows)
        window = Window(numbers, {}, chunk.share, (Origin(self.path),), table=table)
        values = {
            name: (table if kind == "str" else cells.respelled).column(name)
            for name, kind in wanted.columns.items()
        }
        return with_columns(window, pa.table(values), wanted, self.numbers)

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        title = {"header": f"row {self.header_row}"} if self._has_title else {}
        header = title if self._has_header else {"header": "none"}
        return {**super().how_read(), "sheet": self.sheet, **header}


def _choose(book: CalamineWorkbook, asked: str | None, name: str) -> tuple[str, CalamineSheet]:
    """The sheet that is asked for, or else the only one in sight that holds something."""
    if asked is not None:
        if asked not in book.sheet_names:
            raise InputError(f"{name}: no sheet {asked!r}; there are: {some(book.sheet_names)}")
        seen = [asked]
    else:
        seen = [one.name for one in book.sheets_metadata if one.visible == SheetVisibleEnum.Visible]
    filled = {}
    for sheet_name in seen:
        if (sheet := book.get_sheet_by_name(sheet_name)).height:
            filled[sheet_name] = sheet
    if not filled:
        raise NoRows(f"{name}: has no rows")
    if len(filled) > 1:
        raise InputError(
            f"{name}: has data in the sheets {some(list(filled))}: which one? say --sheet NAME"
        )
    return next(iter(filled.items()))


def _rows(sheet: CalamineSheet) -> Iterator[tuple[int, Row, bool]]:
    """The rows that hold something: their numbers in the sheet, and whether all of it is text."""
    for number, cells in enumerate(sheet.iter_rows(), 1):
        row = [_spelled(cell) for cell in cells]
        if _filled(row):
            yield number, row, all(isinstance(cell, str) for cell in cells)


def _titles(rows: list[tuple[int, Row, bool]]) -> int:
    """How many rows are above the header: of one text each, before the first one of several."""
    for place, (_, row, is_text) in enumerate(rows):
        if _filled(row) > 1:
            return place if is_text else 0
    return 0


def _filled(row: Row) -> int:
    return sum(cell is not None for cell in row)


def _spelled(cell: Any) -> str | None:
    """A cell as text; None for an empty one."""
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        whole = cell.is_integer() and abs(cell) < 10**_DIGITS
        return _Number(int(cell) if whole else f"{cell:.{_DIGITS}g}")
    if isinstance(cell, dt.datetime):
        return cell.isoformat(" ")
    if isinstance(cell, dt.timedelta):  # of more than a day in hours, as [h]:mm:ss
        seconds = round(cell.total_seconds())
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return cell.isoformat() if isinstance(cell, dt.date | dt.time) else str(cell)
