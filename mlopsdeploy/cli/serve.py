"""`mlopsdeploy serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from mlopsdeploy.cli.options import Precision, TrustModel, import_failed


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
        import_failed("serve", error)
    from mlopsdeploy.settings import ServeSettings, load

    command.run_serve(load(ServeSettings, config, flags))
