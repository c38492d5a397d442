"""The rows of each label that a model is most and least certain of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mlopsdeploy.columns import Array, Columns

EXCERPT = 300  # characters
MOST_FEATURES = 40
SHOWN = 6  # numbers of a row's array

_KINDS = {"most": 1.0, "least": -1.0}  # kind -> the sign that makes the larger score the better


class _Example(NamedTuple):
    """The larger comes first: its score, or minus that, and then the earlier row."""

    rank: float
    before: int  # minus the row's number
    content: Any  # an excerpt of the text, or the features as (name, value)


class Examples:
    """The best few rows of each label, no two with the same content.

    Args:
        count: how many to keep of each label and kind.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[tuple[str, int], list[_Example]] = {}  # best first

    def add(
        self, numbers: Array, places: Array, scores: Array, columns: Columns, text: str | None
    ) -> None:
        """Look at some rows.

        Args:
            numbers: of the rows in the input; with all that follow of shape (rows,).
            places: of their labels.
            scores: float64.
            columns: what to keep of a row.
            text: the only column to keep, if that is a text.
        """
        names = list(columns)[:MOST_FEATURES]

        def content(row: int) -> Any:
            if text is not None:
                return _excerpt(columns[text][row])
            return tuple((_short(name), _plain(columns[name][row])) for name in names)

        labels = np.unique(places).tolist()
        for kind, sign in _KINDS.items():
            rank = sign * scores
            for place in labels:
                kept = self._kept.get((kind, place), [])
                candidates = places == place
                if len(kept) == self._count:  # few rows are better than what is there
                    last = kept[-1]
                    tie = (rank == last.rank) & (-numbers > last.before)
                    candidates &= (rank > last.rank) | tie
                rows = np.flatnonzero(candidates)
                for row in rows[np.lexsort((numbers[rows], -rank[rows]))].tolist():
                    order = float(rank[row]), -int(numbers[row])
                    kept = self._kept.get((kind, place), [])
                    if len(kept) == self._count and order <= kept[-1][:2]:
                        break
                    self._offer(kind, place, _Example(*order, content(row)))

    def merge(self, other: Examples, places: Array) -> None:
        """Add another's, whose label at place i is this one's at places[i]."""
        for (kind, place), examples in other._kept.items():
            for example in examples:
                self._offer(kind, int(places[place]), example)

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """By label: `most` and `least`, lists of row, score and `text` or `features`."""
        rows: dict[str, Any] = {}
        for (kind, place), examples in sorted(self._kept.items(), key=lambda item: item[0][1]):
            rows.setdefault(labels[place], {})[kind] = [
                {"row": -before, "score": rank * _KINDS[kind]}
                | ({"text": kept} if isinstance(kept, str) else {"features": dict(kept)})
                for rank, before, kept in examples
            ]
        return {"count": self._count, "rows": rows}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """What `as_dict` described."""
        made = cls(known["count"])
        for label, kinds in known["rows"].items():
            for kind, examples in kinds.items():
                made._kept[kind, labels.index(label)] = [
                    _Example(
                        each["score"] * _KINDS[kind],
                        -each["row"],
                        each["text"] if "text" in each else tuple(each["features"].items()),
                    )
                    for each in examples
                ]
        return made

    def _offer(self, kind: str, place: int, example: _Example) -> None:
        kept = self._kept.setdefault((kind, place), [])
        twin = next((each for each in kept if each.content == example.content), None)
        if twin:
            if twin[:2] >= example[:2]:
                return
            kept.remove(twin)
        kept.append(example)
        kept.sort(key=lambda each: each[:2], reverse=True)
        del kept[self._count :]


def _excerpt(text: str | None) -> str:
    text = " ".join((text or "")[: 2 * EXCERPT].split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1].rstrip() + "…"


def _short(name: str) -> str:
    """A column's name; of one that is made of many, the first and the last."""
    first, _, rest = name.partition(",")
    return f"{first} to {rest.rpartition(',')[2]}" if rest.count(",") >= SHOWN else name


def _plain(value: Any) -> Any:
    """For JSON, which knows no NumPy and no NaN."""
    if isinstance(value, np.ndarray):
        shown = ", ".join(f"{number}" for number in value.reshape(-1)[:SHOWN].tolist())
        return f"{shown}, …" if value.size > SHOWN else shown
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
