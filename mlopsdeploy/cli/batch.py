"""`mlopsdeploy batch`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from mlopsdeploy.cli.options import Overwrite, Precision, TrustModel, import_failed
from mlopsdeploy.errors import ConfigError


def batch(
    context: typer.Context,
    input: Annotated[
        str | None,
        typer.Argument(
            help="File (.csv, .jsonl, .parquet), pictures, folder, 'pattern', -, database, s3://."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File, folder/ of Parquet, table, s3://, -."),
    ] = None,
    overwrite: Overwrite = None,
    query: Annotated[
        str | None, typer.Option(help="What to read of a database: SQL, or the name of a table.")
    ] = None,
    if_exists: Annotated[
        str | None, typer.Option(help="A table that is there: replace (default), append or fail.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file with any of these settings.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Built-in name, folder, .onnx file, hub id org/name."),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column to score; found by itself if only one is text.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of paths of pictures; found by its name, too.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Tabular models: columns a,b,c in the model's order.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per unit of reading; 1000 by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many rows.")] = None,
    long_text: Annotated[
        str | None,
        typer.Option(help="Texts longer than the model takes: head, head-tail or chunks."),
    ] = None,
    max_errors: Annotated[
        str | None,
        typer.Option(help="Bad rows allowed: a number, a share (1% by default), none."),
    ] = None,
    commit_seconds: Annotated[
        float | None, typer.Option(help="Between commits, which a crash loses at most; 5.")
    ] = None,
    fresh: Annotated[
        bool | None,
        typer.Option("--fresh", help="Start over, also if a run is unfinished."),
    ] = None,
    incremental: Annotated[
        bool | None,
        typer.Option("--incremental", help="Compute only rows that no earlier run has scored."),
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Write a page about the result, and drift, to this .html.")
    ] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="Score a sample and say what all would take.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of this machine; --dry-run says what the run would cost.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Run again and again, as cron would: '0 2 * * *'.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="local (this machine, the default) or ray (a cluster).")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="auto or host:port; a Ray of its own by default.")
    ] = None,
    ray_actors: Annotated[
        str | None, typer.Option(help="Copies of the model: 4, or 2-8; by default what fits.")
    ] = None,
    ray_cpus: Annotated[int | None, typer.Option(help="Cores per actor; 1 by default.")] = None,
    ray_gpus: Annotated[float | None, typer.Option(help="GPUs per actor; 0 by default.")] = None,
    partition_by: Annotated[
        str | None, typer.Option(help="Output folders: one folder per value of this column.")
    ] = None,
    all_scores: Annotated[
        bool | None, typer.Option("--all-scores", help="Also write every label's score.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Two labels: the second from this score on. More: no label below it."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="openvino, onnxruntime or torch; the fastest by default.")
    ] = None,
    precision: Precision = None,
    max_flips: Annotated[
        str | None,
        typer.Option(help="Labels that int8 may change, a share; 1% by default."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU cores to use; all by default.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Goes before the names of the new columns.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between CSV fields; found by itself.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a CSV file that is neither UTF-8 nor has a BOM.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="SHA-256 that the model must have, as 'models inspect' says.")
    ] = None,
    trust_model: TrustModel = None,
    json_summary: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.")
    ] = False,
) -> None:
    """Score every row of a file, or every picture of a folder.

    Writes each row as it is, with label and score behind it, or the objects that a detector found.
    All settings can also stand in a YAML file (--config) or in the environment
    (MLOPSDEPLOY_BATCH_SIZE=500).
    """
    not_settings = ("config", "json_summary", "context")
    flags = {key: value for key, value in locals().items() if key not in not_settings}
    if context.args:
        several = [str(input), *context.args]
        shown = ", ".join(several[:2]) + (", …" if len(several) > 2 else "")
        raise ConfigError(
            f"{len(several)} inputs ({shown}), where one is taken; name their folder, or quote the "
            "pattern: 'photos/*.jpg'"
        )

    try:
        from mlopsdeploy.batch import command
    except ModuleNotFoundError as error:
        import_failed("batch", error)
    from mlopsdeploy.settings import BatchSettings, load

    settings = load(BatchSettings, config, flags)
    if settings.input is None:
        raise ConfigError("no input: name a file, as in 'mlopsdeploy batch reviews.csv'")
    if json_summary and settings.output == "-":
        raise ConfigError("--json and --output -: both want standard output; use one of them")
    if settings.schedule and settings.input == "-":
        raise ConfigError("--schedule: standard input can be read only once; name a file")
    try:
        if settings.schedule:
            sys.exit(command.run_again_and_again(settings.schedule, sys.argv[1:]))
        summary = command.run_batch(settings)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.exit(141)
    if json_summary:
        print(json.dumps(summary, ensure_ascii=False))
