"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Three digits that count, or all of a whole number's."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(value: float, currency: str) -> str:
    """`0.011 EUR`, `1,240 EUR`."""
    return f"{number(value)} {currency}"


_TIMES = ((0.9995, 0.001, "ms"), (120, 1.0, "s"), (7200, 60.0, "min"), (172800, 3600.0, "h"))


def duration(seconds: float) -> str:
    """`3.1 ms`, `50 ms`, `2 s`, `8 h`, `3 d`."""
    unit = unit_of(seconds)
    name = next((name for _, size, name in _TIMES if size == unit), "d")
    return f"{number(seconds / unit)} {name}"


def unit_of(seconds: float) -> float:
    """The unit that a duration is shown in, in seconds."""
    if seconds == 3600:
        return 3600.0
    return next((unit for most, unit, _ in _TIMES if seconds < most), 86400.0)


def size(amount: float) -> str:
    """Bytes: `1.2 kB`, `340 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{number(amount)} {unit}"


def plural(count: float, word: str) -> str:
    """`1 machine`, `2 machines`."""
    return f"{number(count)} {word}{'' if count == 1 else 's'}"
