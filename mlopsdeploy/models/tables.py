"""What reports of models share: amounts, proofs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def bytes_of(files: Iterable[Path]) -> int:
    """How large files are, together."""
    return sum(path.stat().st_size for path in files)


def size(count: float) -> str:
    """Bytes as people say them: `23.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def ago(seconds: float) -> str:
    """`3 days ago`, in the largest unit that fits."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


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
        f"on {proof['rows']} rows{_covered(proof)}: largest difference "
        f"{proof['largest_difference']:.1e}, labels changed {proof['label_flips']}"
    )


def _covered(proof: Mapping[str, Any]) -> str:
    """Of texts, which rows these were."""
    lengths = proof.get("lengths")
    if not lengths:
        return ""
    how = "padded and not" if proof.get("padded") else "of one length at a time"
    sizes = ", ".join(map(str, proof.get("batches", ())))
    return f" of {lengths[0]} to {lengths[-1]} tokens, {how}, in batches of {sizes}"
