"""`mlopsdeploy bench`: how fast, and why not faster."""

from __future__ import annotations

from mlopsdeploy.cli.commands import command, group, report
from mlopsdeploy.errors import ConfigError, needs
from mlopsdeploy.settings import BatchSettings, EdgeSettings, Options, ServeSettings, setting
from mlopsdeploy.settings.declaring import Seconds

bench = group("bench", "Measure how fast, and why not faster.")


class Json(Options):
    """How a report comes."""

    as_json: bool = setting(
        False, "Print it as JSON on standard output", flag="--json", group="Output"
    )


class Batch(Json):
    """`bench batch`."""

    seconds: Seconds = setting(5.0, "That the job runs", group="Run", ge=0.1, le=3600)
    precisions: bool = setting(True, "Measure other precisions too", off="--no-precisions")


class Serve(Json):
    """`bench serve`."""

    row: str | None = setting(
        None, "A row as JSON, its file, or a picture", group="Input", shown="the model's example"
    )
    seconds: Seconds = setting(2.0, "Of each load", group="Run", ge=0.2, le=600)


class Edge(Json):
    """`bench edge`."""

    with_events: bool = setting(
        False, "Lines of what is found are part of it", group="Pipeline", flag="--events"
    )
    with_save: bool = setting(False, "So is a video with the boxes", flag="--save")
    seconds: Seconds = setting(3.0, "That the pipeline runs", group="Run", ge=0.1, le=3600)


@command(
    bench, "batch", BatchSettings, Batch, of_bench=True,
    examples="mlopsdeploy bench batch reviews.csv",
)  # fmt: skip
def bench_batch(settings: BatchSettings, options: Batch) -> None:
    """Measure 'mlopsdeploy batch' here: the job, the bare model, and where time goes."""
    with needs("batch", "batch"):
        from mlopsdeploy.bench import batch
    found = batch.bench_batch(settings, seconds=options.seconds, precisions=options.precisions)
    report(found, batch.show, options.as_json)


@command(
    bench, "serve", ServeSettings, Serve, of_bench=True,
    examples="mlopsdeploy bench serve --model fraud",
)  # fmt: skip
def bench_serve(settings: ServeSettings, options: Serve) -> None:
    """Measure 'mlopsdeploy serve' here: a real server under load, and where time goes."""
    with needs("serve", "serve"):
        from mlopsdeploy.bench import serve
    found = serve.bench_serve(settings, row=options.row, seconds=options.seconds)
    report(found, serve.show, options.as_json)


@command(
    bench, "edge", EdgeSettings, Edge, of_bench=True,
    examples="mlopsdeploy bench edge --camera street.mp4 --save",
)  # fmt: skip
def bench_edge(settings: EdgeSettings, options: Edge) -> None:
    """Measure 'mlopsdeploy edge' here: bare calls of the model, each stage alone, all together."""
    outputs = ["events"] * options.with_events + ["save"] * options.with_save
    if settings.lines is None:
        with needs("edge", "edge"):
            from mlopsdeploy.bench import edge
        found = edge.bench_edge(settings, outputs=outputs, seconds=options.seconds)
        report(found, edge.show, options.as_json)
        return
    with needs("edge", "edge"):
        from mlopsdeploy.bench import edge_lines
    if outputs:
        raise ConfigError(f"--{outputs[0]} is for a camera; lines are always written")
    found = edge_lines.bench_lines(settings, seconds=options.seconds)
    report(found, edge_lines.show, options.as_json)
