"""Whether an input's numbers are written with a decimal comma or the like: a question, then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.data.sources.spelling import PLAIN, SPELLINGS
from mlopsdeploy.data.sources.values import numbers_in

_MOST = 0.9  # of a column's values: the others may be mistakes
_FEW = 3  # among others that are read


class _Column:
    """The texts of a column, and what they are in each spelling."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self.texts = _texts(values)
        column = _column(self.texts)
        read = {how: numbers_in(column, how) for how in SPELLINGS}
        self.numbers = {how: numbers for how, (numbers, _) in read.items()}
        self.reads = {how: ~bad for how, (_, bad) in read.items()}
        # What every spelling reads, as it reads 12 and what is missing, says nothing.
        self._telling = ~np.all([*self.reads.values()], axis=0)

    def share(self, how: str) -> float:
        """How much a spelling reads of what tells them apart."""
        telling = self.reads[how][self._telling]
        return float(telling.mean()) if len(telling) else 0.0

    def unread(self, hows: Sequence[str]) -> Iterator[int]:
        """Places that others read, and the plain spelling doesn't."""
        others = np.all([self.reads[how] for how in hows], axis=0)
        yield from np.flatnonzero(others & ~self.reads[PLAIN]).tolist()

    def changed(self, how: str) -> Iterator[int]:
        """Places that the plain spelling reads as another number."""
        both = self.reads[how] & self.reads[PLAIN]
        other = ~np.isclose(self.numbers[how], self.numbers[PLAIN], rtol=1e-9, equal_nan=True)
        yield from np.flatnonzero(both & other).tolist()


def question_of_numbers(sample: Mapping[str, Sequence[Any]]) -> str | None:
    """What to ask about columns of numbers; None where one spelling, the plain one, fits.

    Nor is it asked where no spelling reads nearly all of them: what can't be read is a bad row.

    Args:
        sample: the first values of the columns that a model takes as numbers.
    """
    if not any(numbers_in(_column(_texts(values)))[1].any() for values in sample.values()):
        return None
    columns = [_Column(name, values) for name, values in sample.items()]
    columns = [one for one in columns if any(one.share(how) > _MOST for how in SPELLINGS)]
    fitting = [how for how in SPELLINGS if all(one.share(how) > _MOST for one in columns)]
    if PLAIN in fitting or not fitting:
        return None
    count = {how: sum(one.reads[how].sum() for one in columns) for how in fitting}
    meant: dict[tuple[bytes, ...], str] = {}  # of those that read the same, the strictest
    for how in fitting:
        if count[how] == max(count.values()):
            meant.setdefault(tuple(one.numbers[how].tobytes() for one in columns), how)
    hows = [*meant.values()]
    unread = [(one, place) for one in columns for place in one.unread(hows)]
    if not unread or (len(unread) < _FEW and any(one.reads[PLAIN].any() for one in columns)):
        return None
    one, place = max(unread, key=lambda at: len({at[0].numbers[how][at[1]] for how in hows}))
    answers = [
        f"{_flag(how)} if that is {one.numbers[how][place]:.15g}{_changed(columns, how)}"
        for how in hows
    ]
    return (
        f"holds numbers such as {one.texts[place]!r} in column {one.name!r}; say "
        f"{', '.join(answers)}, or {_flag(PLAIN)} to set such rows aside"
    )


def _texts(values: Sequence[Any]) -> list[str]:
    """Those that are no numbers of a workbook or of JSON, which need no spelling."""
    return [value for value in values if type(value) is str]


def _column(texts: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([texts], pa.large_string())


def _flag(how: str) -> str:
    return f'--numbers "{how}"' if " " in how or "'" in how else f"--numbers {how}"


def _changed(columns: Sequence[_Column], how: str) -> str:
    """What else a spelling would change."""
    changed = ((one, place) for one in columns for place in one.changed(how))
    for one, place in changed:
        return f" and {one.texts[place]!r} in {one.name!r} is {one.numbers[how][place]:.15g}"
    return ""
