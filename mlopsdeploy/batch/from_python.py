"""`mlopsdeploy batch` as a function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mlopsdeploy.batch.command import run_batch
from mlopsdeploy.errors import ConfigError, did_you_mean
from mlopsdeploy.settings import BatchSettings, load

_NOT_HERE = {
    "dry_run": "is for the command line",
    "schedule": "is for the command line; call score_file from your scheduler",
    "notify_success": "is for the command line; it returns when the run is done",
    "notify_failure": "is for the command line; it raises when the run fails",
    "retries": "is for a schedule of the command line; call score_file again",
}


@dataclass(frozen=True)
class ScoredFile:
    """What became of a file.

    Attributes:
        output: where the predictions are: a path, or the address of a database or object store.
        rows: of the input, bad ones included.
        bad_rows: set aside; why is in `OUTPUT.errors.jsonl`.
        empty: rows with nothing to score, which have no answer.
        seconds: of all attempts together.
        labels: how many rows, or objects on pictures, have each label; empty where the model gives
            none, or several answers: `summary["answers"]` has all of them.
        mean_score: of the rows that have a score; None where none has.
        summary: all of it, as `mlopsdeploy batch --json` prints it.
    """

    output: str
    rows: int
    bad_rows: int
    empty: int
    seconds: float
    labels: Mapping[str, int]
    mean_score: float | None
    summary: Mapping[str, Any]


def score_file(
    input: str | os.PathLike[str],  # the setting's name
    output: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> ScoredFile:
    """Score a file as `mlopsdeploy batch` does: in a steady amount of memory, able to resume.

    Nothing is printed, and neither the environment nor a YAML file is read for settings.

    Args:
        input: a CSV, JSON, Parquet or Excel file, a folder, or an address: as the command's.
        output: where predictions go; by default next to the input, `INPUT.predictions.csv`.
        model: as `load_model`'s reference, with its default.
        settings: the command's flags by name, such as `text_column="review"` or `limit=100`.

    Raises:
        ConfigError: a setting is unknown or wrong.
        InputError: the input can't be read, or lacks what the model needs.
        ModelError: the model can't be found or loaded.
        MlopsDeployError: too many rows are bad, or the output can't be written.

    Example:
        >>> from mlopsdeploy import score_file
        >>> done = score_file("reviews.csv", "scored.csv", model="sentiment", limit=100)
        >>> done.output, done.rows, done.bad_rows
        ('scored.csv', 100, 0)
    """
    known = BatchSettings.declared()
    for name in settings:
        if name not in known:
            raise ConfigError(f"score_file: no setting {name!r}; {did_you_mean(name, known)}")
        if name in _NOT_HERE:
            raise ConfigError(f"score_file: {name} {_NOT_HERE[name]}")
    named = {"input": input, "output": output, "model": model}
    paths = {name: os.fspath(path) for name, path in named.items() if path is not None}
    if "-" in (paths["input"], paths.get("output")):
        raise ConfigError("score_file: reads and writes files, not '-'; name one")
    chosen = load(BatchSettings, None, {**settings, **paths}, environment={})
    summary = run_batch(chosen, Console(quiet=True))
    return ScoredFile(
        output=summary["output"],
        rows=summary["rows"],
        bad_rows=summary["failed"],
        empty=summary["empty"],
        seconds=summary["seconds"],
        labels=summary.get("labels", {}),
        mean_score=summary.get("mean_score"),
        summary=summary,
    )
