"""`mlopsdeploy bench`: how fast, and why not faster."""

from __future__ import annotations

from typing import Annotated

import typer

from mlopsdeploy.cli.options import (
    JsonReport,
    Precision,
    TrustModel,
    import_failed,
    report,
)
from mlopsdeploy.errors import ConfigError

bench = typer.Typer(
    help="Measure how fast, and why not faster.", no_args_is_help=True, rich_markup_mode=None
)


@bench.command("batch")
def bench_batch(
    input: Annotated[str | None, typer.Argument(help="A file, as of 'mlopsdeploy batch'.")] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file, as of 'mlopsdeploy batch'.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Built-in name, folder, .onnx, hub id.")
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
    limit: Annotated[int | None, typer.Option(help="Rows to look at.")] = None,
    runtime: Annotated[str | None, typer.Option(help="The fastest by default.")] = None,
    precision: Precision = None,
    threads: Annotated[int | None, typer.Option(help="One per core by default.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="That the job runs.")] = 5.0,
    precisions: Annotated[
        bool, typer.Option("--precisions/--no-precisions", help="Measure other precisions too.")
    ] = True,
    trust_model: TrustModel = None,
    json_report: JsonReport = False,
) -> None:
    """Measure 'mlopsdeploy batch' here: the job, the bare model, and where time goes."""
    own = ("config", "seconds", "precisions", "json_report")
    flags = {key: value for key, value in locals().items() if key not in own}
    try:
        from mlopsdeploy.bench import batch
    except ModuleNotFoundError as error:
        import_failed("batch", error)
    from mlopsdeploy.settings import BatchSettings, load

    settings = load(BatchSettings, config, flags)
    found = batch.bench_batch(settings, seconds=seconds, precisions=precisions)
    report(found, batch.show, json_report)


@bench.command("serve")
def bench_serve(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Built-in name, file or folder; fraud by default."),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(help="A row as JSON, its file, or a picture; by default the model's example."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file, as of 'mlopsdeploy serve'.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="One per core by default.")] = None,
    server: Annotated[str | None, typer.Option(help="granian (the default) or gunicorn.")] = None,
    runtime: Annotated[str | None, typer.Option(help="The fastest by default.")] = None,
    precision: Precision = None,
    threads: Annotated[int | None, typer.Option(help="Of each worker's model.")] = None,
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="Of each load.")] = 2.0,
    trust_model: TrustModel = None,
    json_report: JsonReport = False,
) -> None:
    """Measure 'mlopsdeploy serve' here: a real server under load, and where time goes."""
    own = ("config", "row", "seconds", "json_report")
    flags = {key: value for key, value in locals().items() if key not in own}
    try:
        from mlopsdeploy.bench import serve
    except ModuleNotFoundError as error:
        import_failed("serve", error)
    from mlopsdeploy.settings import ServeSettings, load

    found = serve.bench_serve(load(ServeSettings, config, flags), row=row, seconds=seconds)
    report(found, serve.show, json_report)


@bench.command("edge")
def bench_edge(
    camera: Annotated[
        str | None, typer.Option(help="0, rtsp://…, a video, a folder; 0 by default.")
    ] = None,
    lines: Annotated[
        str | None, typer.Option(help="Instead: a file of lines, of text or numbers.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file, as of 'mlopsdeploy edge'.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Built-in name, folder, file; detector by default, sentiment for lines.",
        ),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Lines of numbers: names a,b,c in the model's order.")
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
    json_report: JsonReport = False,
) -> None:
    """Measure 'mlopsdeploy edge' here: bare calls of the model, each stage alone, all together."""
    own = ("config", "events", "save", "seconds", "json_report")
    flags = {key: value for key, value in locals().items() if key not in own}
    from mlopsdeploy.settings import EdgeSettings, load

    settings = load(EdgeSettings, config, flags)
    outputs = [name for name, wanted in (("events", events), ("save", save)) if wanted]
    try:
        if settings.lines is None:
            from mlopsdeploy.bench import edge
        else:
            from mlopsdeploy.bench import edge_lines
    except ModuleNotFoundError as error:
        import_failed("edge", error)
    if settings.lines is None:
        found = edge.bench_edge(settings, outputs=outputs, seconds=seconds)
        report(found, edge.show, json_report)
        return
    if outputs:
        raise ConfigError(f"--{outputs[0]} is for a camera; lines are always written")
    found = edge_lines.bench_lines(settings, seconds=seconds)
    report(found, edge_lines.show, json_report)
