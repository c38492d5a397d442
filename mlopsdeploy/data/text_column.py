"""Which column holds the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlopsdeploy.errors import InputError

DEFAULT = "review_text"
_MARKUP = re.compile(
    r"^(https?://\S+|[\d\s.,:/+-]+([ap]m)?|\d{1,2}[-\s]\w{3}[-\s]\d{2,4})$", re.IGNORECASE
)


def choose(sample: Mapping[str, Sequence[Any]], asked: str | None, path: str) -> str:
    """The name of the column to score.

    The one asked for; else `review_text` (in any spelling: "Review Text"); else the only one whose
    values read like text: several words, and not the same few values over and over.

    Raises:
        InputError: there is no such column, or several could be meant; the message names them.
    """
    names = list(sample)
    if asked is not None:
        if asked not in names:
            raise InputError(f"{path}: no column {asked!r}; there are: {listed(names)}")
        return asked
    for name in names:
        if re.sub(r"[\s_-]+", "_", name.strip().lower()) == DEFAULT:
            return name
    text_like = [name for name in names if _is_text(sample[name])]
    if len(text_like) == 1:
        return text_like[0]
    if text_like:
        raise InputError(
            f"{path}: which column is the text, {listed(text_like, 'or')}? say --text-column NAME"
        )
    if len(names) == 1 and any(
        isinstance(value, str) and value.strip() for value in sample[names[0]]
    ):
        return names[0]
    raise InputError(
        f"{path}: no column reads like text; there are: {listed(names)}; say --text-column NAME"
    )


def _is_text(values: Sequence[Any]) -> bool:
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    prose = [text for text in texts if not _MARKUP.match(text)]
    if not prose or len(prose) < len(texts) / 2:
        return False
    words = sum(_words(text) for text in prose) / len(prose)
    distinct = len(set(prose)) / len(prose)
    return words >= 3 and (distinct > 0.3 or words >= 8)


def _words(text: str) -> float:
    """Words between spaces; two characters of a script written without spaces count as one."""
    dense = sum("\u3040" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7a3" for char in text)
    return len(text.split()) + dense / 2


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names of columns, in words."""
    quoted = [repr(name) for name in names[:12]] + (["more"] if len(names) > 12 else [])
    return f" {last} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
