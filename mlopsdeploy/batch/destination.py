"""Where a run's rows end up, once all of them are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlopsdeploy.batch.sinks import output_format, tables, write_parquet
from mlopsdeploy.batch.sources import Source
from mlopsdeploy.batch.unfinished import appearing, copy_whole


@dataclass(frozen=True)
class Destination:
    """An output.

    Attributes:
        shown: what messages call it.
        base: the local file that the run's other files stand beside.
        format: what the sink writes.
        publish: puts a file of finished rows where the output belongs, whole or not at all.
    """

    shown: str
    base: Path
    format: str
    publish: Callable[[Path], None]


def destination(output: str, source: Source) -> Destination:
    """Where `--output` says."""
    target = Path(output)
    format_ = output_format(output, source)
    if format_ == "parquet":
        return Destination(output, target, format_, lambda rows: _parquet(rows, target))
    return Destination(output, target, format_, lambda rows: copy_whole(rows, target))


def _parquet(rows: Path, target: Path) -> None:
    with rows.open("rb") as streams, appearing(target) as file:
        write_parquet(tables(streams), file)
