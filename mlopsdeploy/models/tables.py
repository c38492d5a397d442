"""Amounts and proofs in reports of models, and amounts in flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mlopsdeploy.errors import ConfigError

Amount = TypeVar("Amount")


def size(count: float) -> str:
    """Bytes as people say them: `23.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def ago(seconds: float) -> str:
    """`3 days ago`, in the largest unit that fits."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


def seconds_in(text: str) -> float:
    """`12h`, `30d`, `2w` in seconds; a bare number is days.

    Raises:
        ValueError: it is no such time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mhdw]?)", text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is no time; expected 12h, 30d or 2w")
    return float(found[1]) * _SECONDS[found[2] or "d"]


def bytes_in(text: str) -> int:
    """`500MB`, `2 GB` in bytes.

    Raises:
        ValueError: it is no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip().upper())
    if not found:
        raise ValueError(f"{text!r} is no size; expected 500MB or 2GB")
    return int(float(found[1]) * _BYTES[found[2]])


def understood(flag: str, read: Callable[[str], Amount], text: str | None) -> Amount | None:
    """A flag's value, read; None where it is not given.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {error}") from error


def proof_line(proof: Mapping[str, Any]) -> str:
    """What a proof comes to, whichever compiler wrote it."""
    if not proof:
        return ""
    if "flip_share" in proof:
        return (
            f"{proof['label_flips']} of {proof['rows']} labels differ from float32's, "
            f"scores by {proof['largest_change']:.2g} at most"
        )
    if proof.get("largest_difference") is None:
        return str(proof.get("unproven", ""))
    return (
        f"on {proof['rows']} rows: largest difference {proof['largest_difference']:.1e}, "
        f"labels changed {proof['label_flips']}"
    )
