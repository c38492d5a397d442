"""The command line: thin Typer commands over the strategies.

Nothing heavy is imported here. A command's body imports what it runs, so that `--help` answers
at once; rich help is off for the same reason (it doubles the time).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, NoReturn

import typer

from mlopsdeploy import __version__
from mlopsdeploy.errors import ConfigError, MlopsDeployError, Stopped

app = typer.Typer(
    name="mlopsdeploy",
    help="Put a trained model to work.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Look at models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")
bench = typer.Typer(help="Measure how fast.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")

# Options that mean the same in every command.
Precision = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or int8.")]
TrustModel = Annotated[
    bool | None, typer.Option("--trust-model", help="Run code that the model's files carry.")
]


def main() -> NoReturn:
    """The entry point: one line and an exit code for what a user can act on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    code: int | str | None = 0
    try:
        app()
    except MlopsDeployError as error:
        print(f"mlopsdeploy: {error}", file=sys.stderr)
        code = error.exit_code
    except Stopped as stopped:
        word = "interrupted" if stopped.number == signal.SIGINT else "terminated"
        print(f"mlopsdeploy: {word}; {stopped.kept}", file=sys.stderr)
        code = stopped.code
    except SystemExit as leaving:
        code = leaving.code
    if any(thread.daemon for thread in threading.enumerate()):
        # A reader sits in a read that may never return; the interpreter would wait for its lock.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """A signal unwinds like an exception, so that no half-written file stays behind."""
    raise Stopped(number)


def _import_failed(command: str, error: ModuleNotFoundError) -> NoReturn:
    """A package of the command's extra is missing; or, if the name is ours, we made a mistake."""
    if (error.name or "mlopsdeploy").startswith("mlopsdeploy"):
        raise error
    raise ConfigError(
        f"{command} needs the package {error.name!r}: pip install 'mlopsdeploy[{command}]'"
    ) from error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mlopsdeploy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Put a trained model to work."""


@app.command()
def batch(
    input: Annotated[
        str | None,
        typer.Argument(
            help="File (.csv, .jsonl, .parquet), folder, 'pattern', -, database, s3://."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File, folder/ of Parquet, table, s3://, -."),
    ] = None,
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
    trust_model: TrustModel = None,
    json_summary: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.")
    ] = False,
) -> None:
    """Score every row of a file with a text or tabular classifier.

    Writes each row as it is, with label and score behind it. All settings can also stand in a
    YAML file (--config) or in the environment (MLOPSDEPLOY_BATCH_SIZE=500).
    """
    flags = {key: value for key, value in locals().items() if key not in ("config", "json_summary")}

    try:
        from mlopsdeploy.batch import command
    except ModuleNotFoundError as error:
        _import_failed("batch", error)
    from mlopsdeploy.config import BatchSettings, load

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


@app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Built-in name, file or folder, or NAME=it; several are served."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="YAML file with routes and any of these settings."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; 127.0.0.1 by default: this machine.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8080 by default, 0: any.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; as many as cores by default.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="granian (the default) or gunicorn.")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Log every request.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The second of two labels is given from this score on.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="litert, onnxruntime, openvino, tensorflow or torch.")
    ] = None,
    precision: Precision = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per worker; its share of the cores by default.")
    ] = None,
    trust_model: TrustModel = None,
) -> None:
    """Answer requests over HTTP: a model behind REST.

    With no model named it serves the built-in fraud model at POST /detect_fraud. A page to try it
    is at /, its description at /openapi.json, numbers at /metrics.
    """
    flags = {key: value for key, value in locals().items() if key != "config"}
    try:
        from mlopsdeploy.serve import command
    except ModuleNotFoundError as error:
        _import_failed("serve", error)
    from mlopsdeploy.config import ServeSettings, load

    command.run_serve(load(ServeSettings, config, flags))


@app.command()
def edge(
    camera: Annotated[
        str | None,
        typer.Option(help="0, /dev/video0, rtsp://…, a video, a picture, a folder; 0 by default."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file with any of these settings.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Built-in name, folder, .tflite; detector by default."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least score of what is shown; the model's by default.")
    ] = None,
    window: Annotated[
        bool | None, typer.Option("--window/--no-window", help="On where there is a display.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(help="Video with the boxes: .mp4, .mkv, .avi.")
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="JSON Lines of what was found, and of camera trouble.")
    ] = None,
    snapshots: Annotated[
        str | None, typer.Option(help="Folder for JPEGs of frames with something on them.")
    ] = None,
    snapshot_seconds: Annotated[
        float | None, typer.Option(help="Least time between two snapshots; 1 by default.")
    ] = None,
    preview: Annotated[
        str | None, typer.Option(help="Port for a page with the picture: 8081, or host:port.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    width: Annotated[int | None, typer.Option(help="Asked of the camera, in pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Asked of the camera, in pixels.")] = None,
    fps: Annotated[int | None, typer.Option(help="Asked of the camera.")] = None,
    realtime: Annotated[
        bool | None, typer.Option("--realtime", help="Play a video at its own speed, as if live.")
    ] = None,
    stall_seconds: Annotated[
        float | None, typer.Option(help="A camera without a frame for so long is stalled; 3.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="litert, tflite or openvino; the fastest by default.")
    ] = None,
    precision: Precision = None,
    threads: Annotated[
        str | None, typer.Option(help="Of the model; auto, the default, measures and picks.")
    ] = None,
    trust_model: TrustModel = None,
    json_summary: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.")
    ] = False,
) -> None:
    """Find objects in the picture of a camera, here, with no network.

    Shows a window with boxes and labels; q in it, or Ctrl-C, ends. All settings can also stand in
    a YAML file (--config) or in the environment (MLOPSDEPLOY_CAMERA=0).
    """
    flags = {key: value for key, value in locals().items() if key not in ("config", "json_summary")}

    try:
        from mlopsdeploy.edge import command
    except ModuleNotFoundError as error:
        _import_failed("edge", error)
    from mlopsdeploy.config import EdgeSettings, load

    summary, code = command.run_edge(load(EdgeSettings, config, flags))
    if json_summary:
        print(json.dumps(summary, ensure_ascii=False))
    sys.exit(code)


@models.command("inspect")
def models_inspect(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, file, hub id org/name.")],
    runtime: Annotated[str, typer.Option(help="What to run it on; the fastest by default.")] = (
        "auto"
    ),
    json_report: Annotated[
        bool, typer.Option("--json", help="Print it as JSON on standard output.")
    ] = False,
) -> None:
    """Show what a model takes and gives, as it was understood, and why."""
    from mlopsdeploy import models_command

    report = models_command.inspect_model(model, runtime=runtime)
    if json_report:
        print(json.dumps(report, ensure_ascii=False))
        return
    from rich.console import Console

    # A pipe gets whole lines, for grep.
    models_command.show(report, Console(width=None if sys.stdout.isatty() else 200))


@bench.command("edge")
def bench_edge(
    camera: Annotated[
        str | None, typer.Option(help="0, rtsp://…, a video, a folder; 0 by default.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file, as of 'mlopsdeploy edge'.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Built-in name, folder, .tflite; detector by default."),
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Lines of what is found are part of the pipeline.")
    ] = False,
    save: Annotated[bool, typer.Option("--save", help="So is a video with the boxes.")] = False,
    realtime: Annotated[
        bool | None, typer.Option("--realtime", help="Play a video at its own speed, as if live.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="litert, tflite or openvino; the fastest by default.")
    ] = None,
    precision: Precision = None,
    threads: Annotated[
        str | None, typer.Option(help="Of the model; auto, the default, measures and picks.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="That the pipeline runs.")
    ] = 3.0,
    trust_model: TrustModel = None,
    json_report: Annotated[
        bool, typer.Option("--json", help="Print it as JSON on standard output.")
    ] = False,
) -> None:
    """Measure 'mlopsdeploy edge' here: bare calls of the model, each stage alone, all together."""
    own = ("config", "events", "save", "seconds", "json_report")
    flags = {key: value for key, value in locals().items() if key not in own}
    try:
        from mlopsdeploy.edge import bench as measuring
    except ModuleNotFoundError as error:
        _import_failed("edge", error)
    from mlopsdeploy.config import EdgeSettings, load

    outputs = [name for name, wanted in (("events", events), ("save", save)) if wanted]
    settings = load(EdgeSettings, config, flags)
    report = measuring.bench_edge(settings, outputs=outputs, seconds=seconds)
    if json_report:
        print(json.dumps(report, ensure_ascii=False))
        return
    from rich.console import Console

    measuring.show(report, Console(highlight=False))
