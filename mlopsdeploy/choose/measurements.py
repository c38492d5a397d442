"""What was measured of a model on one machine, or is assumed where nobody named one."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlopsdeploy.choose.settings import Strategy

PICTURES = ("object_detection", "image_classification")  # tasks that look at them


@dataclass(frozen=True)
class BatchSpeed:
    """A batch run: rows per second while it runs, and the seconds before its first row."""

    rows_per_second: float
    start: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class Load:
    """Latency of a server at a steady rate, in seconds; requests arrive at random moments."""

    rate: float
    p50: float
    p99: float
    requests: int


@dataclass(frozen=True)
class ServeSpeed:
    """A server on one machine: `capacity` is requests per second, one row each, at most."""

    capacity: float
    loads: tuple[Load, ...]
    start: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class EdgeSpeed:
    """A model on a device, one row or frame after another; times in seconds."""

    per_second: float
    p50: float
    p99: float
    memory_mb: float | None
    how: str


@dataclass(frozen=True)
class Measurements:
    """Of one model on one machine.

    Attributes:
        missing: of a strategy that could not be measured, why.
        row_bytes: what one request brings, in bytes.
        machine: where this was measured, in words.
        assumed: why these are not measurements of the user's model; empty if they are.
        notes: what else one should know about the figures.
    """

    model: str
    task: str
    machine: str
    cores: int
    row_bytes: float
    batch: BatchSpeed | None = None
    serve: ServeSpeed | None = None
    edge: EdgeSpeed | None = None
    missing: dict[Strategy, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: str = ""
