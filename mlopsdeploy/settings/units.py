"""Amounts as people write them, each read the same wherever it is asked for.

Each function returns what is no text as it is, and raises ValueError for text that it can't read.
"""

from __future__ import annotations

import re
from typing import Any

_SECONDS = {
    "ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0, "w": 604800.0,
}  # fmt: skip
_POWERS = {letter: power for power, letter in enumerate(["", "K", "M", "G", "T"])}


def share(value: Any) -> Any:
    """`1%` is 0.01."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


def size(value: Any) -> Any:
    """`512`, `4MB`, `16 MiB` in bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", value.strip().upper())
    if not found:
        raise ValueError("expected a size, such as 500MB, 2 GB or 4 MiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2]])


def seconds(value: Any, bare: str = "s") -> Any:
    """`100ms`, `2 s`, `15 min`, `1h`, `3 days`, `2w`; a bare number is in the unit `bare`."""
    if not isinstance(value, str):
        return value
    units = "|".join(_SECONDS)
    found = re.fullmatch(rf"([0-9.]+(?:e[+-]?[0-9]+)?)\s*({units})?", value.strip().lower())
    if not found:
        raise ValueError("expected a time: a number and ms, s, min, h, d or w, such as 200ms")
    return float(found[1]) * _SECONDS[found[2] or bare]


def days(value: Any) -> Any:
    """As `seconds`, but a bare number is days."""
    return seconds(value, "d")


def amount(value: Any) -> Any:
    """`1,000,000` and `1_000_000` too; and `2M`, `10k`."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace(",", "").replace("_", "")
    for letter, factor in (("k", 1e3), ("m", 1e6)):
        if text.lower().endswith(letter):
            return float(text[:-1]) * factor
    return text


def names(value: Any) -> Any:
    """`a,b,c`, as on the command line and in the environment; nothing is none of them."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",")) if value.strip() else ()


def auto(value: Any) -> Any:
    """`auto` is the default."""
    return None if value == "auto" else value


def scores(value: Any) -> Any:
    """`Person=0.6,Car=40%`, as on the command line; of a mapping its shares."""
    if isinstance(value, str):
        pairs = [part.rpartition("=") for part in names(value)]
        if not all(label.strip() and score for label, _, score in pairs):
            raise ValueError("expected LABEL=SCORE, and a comma between two, such as Person=0.6")
        value = {label.strip(): score.strip() for label, _, score in pairs}
    if not isinstance(value, dict):
        return value
    return {str(label): share(score) for label, score in value.items()}


def places(value: Any) -> Any:
    """`door=0.1,0.9 0.4,0.9; gate=…`, as on the command line, as lists of points by name."""
    if not isinstance(value, str):
        return {str(key): one for key, one in value.items()} if isinstance(value, dict) else value
    found = {}
    for part in filter(str.strip, value.split(";")):
        name, _, points = part.partition("=")
        pairs = [point.split(",") for point in points.split()]
        if not name.strip() or not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError("expected NAME=X,Y X,Y, and a semicolon between two")
        found[name.strip()] = pairs
    return found
