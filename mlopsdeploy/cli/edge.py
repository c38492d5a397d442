"""`mlopsdeploy edge`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from mlopsdeploy.cli.options import Overwrite, Precision, TrustModel, import_failed
from mlopsdeploy.errors import ConfigError


def edge(
    camera: Annotated[
        str | None,
        typer.Option(help="0, /dev/video0, rtsp://…, a video, a picture, a folder; 0 by default."),
    ] = None,
    lines: Annotated[
        str | None,
        typer.Option(help="Instead: lines of text or numbers. A file, FIFO, /dev/ttyUSB0, or -."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file with any of these settings.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Built-in name, folder, file; detector by default, sentiment for lines.",
        ),
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
        str | None, typer.Option(help="JSON Lines of what was found, and of trouble; lines: - too.")
    ] = None,
    snapshots: Annotated[
        str | None, typer.Option(help="Folder for JPEGs of frames with something on them.")
    ] = None,
    overwrite: Overwrite = None,
    snapshot_seconds: Annotated[
        float | None, typer.Option(help="Least time between two snapshots; 1 by default.")
    ] = None,
    preview: Annotated[
        str | None, typer.Option(help="Port for a page with the picture: 8081, or host:port.")
    ] = None,
    follow: Annotated[
        bool | None, typer.Option("--follow", help="Lines: wait for more, as tail -F does.")
    ] = None,
    baud: Annotated[
        int | None, typer.Option(help="Lines: speed of a serial device; as it is set by default.")
    ] = None,
    echo: Annotated[
        bool | None, typer.Option("--echo", help="Lines: events also have the line itself.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Lines of numbers: names a,b,c in the model's order.")
    ] = None,
    long_text: Annotated[
        str | None,
        typer.Option(help="Lines: of texts too long for the model read head, head-tail, chunks."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames or lines.")] = None,
    width: Annotated[int | None, typer.Option(help="Asked of the camera, in pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Asked of the camera, in pixels.")] = None,
    fps: Annotated[int | None, typer.Option(help="Asked of the camera.")] = None,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime", help="A video at its own speed, as if live; lines: drop what is late."
        ),
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
    digest: Annotated[
        str | None, typer.Option(help="SHA-256 that the model must have, as 'models inspect' says.")
    ] = None,
    trust_model: TrustModel = None,
    json_summary: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on standard output.")
    ] = False,
) -> None:
    """Find objects in the picture of a camera, or label lines as they come; here, with no network.

    Of a camera it shows a window with boxes and labels; q in it, or Ctrl-C, ends. Each line of
    --lines gets a label and a score, on the terminal or as JSON. All settings can also stand in a
    YAML file (--config) or in the environment (MLOPSDEPLOY_CAMERA=0).
    """
    flags = {key: value for key, value in locals().items() if key not in ("config", "json_summary")}

    from mlopsdeploy.edge import command
    from mlopsdeploy.settings import EdgeSettings, load

    settings = load(EdgeSettings, config, flags)
    if json_summary and settings.lines is not None and settings.events in (None, "-"):
        raise ConfigError("--json: answers go to standard output too; name a file with --events")
    try:
        run = command.chosen(settings)
    except ModuleNotFoundError as error:
        import_failed("edge", error)
    summary, code = run(settings)
    if json_summary:
        print(json.dumps(summary, ensure_ascii=False))
    sys.exit(code)
