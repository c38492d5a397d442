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
