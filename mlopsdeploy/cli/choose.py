"""`mlopsdeploy choose`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from mlopsdeploy.cli.options import Overwrite, TrustModel


def choose(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Measured here; a built-in name, folder, file, hub id."),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(help="What it gets: a file of rows, or a video or folder of pictures."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="YAML file with any of these settings.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Without a model: table (the default), text or pictures.")
    ] = None,
    response_time: Annotated[
        str | None, typer.Option(help="From data to answer at most: 200ms, 5min, 1d; 1s.")
    ] = None,
    requests_per_day: Annotated[
        str | None, typer.Option(help="Predictions a day; 10,000 by default.")
    ] = None,
    peak: Annotated[
        str | None, typer.Option(help="Of them a second, at most; ten times the mean by default.")
    ] = None,
    user_facing: Annotated[
        bool | None,
        typer.Option("--user-facing/--no-user-facing", help="Does a person wait? Yes by default."),
    ] = None,
    data_at: Annotated[
        str | None, typer.Option(help="Where data arise: server (the default) or device.")
    ] = None,
    may_leave: Annotated[
        bool | None, typer.Option("--may-leave/--may-not-leave", help="May they go elsewhere?")
    ] = None,
    offline: Annotated[
        bool | None, typer.Option("--offline", help="It must work without a network.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="cloud (the default), own or none.")] = None,
    devices: Annotated[int | None, typer.Option(help="That could run the model.")] = None,
    device_factor: Annotated[
        float | None, typer.Option(help="A device's speed as a share of this machine's; 1.")
    ] = None,
    device_memory: Annotated[float | None, typer.Option(help="In MB.")] = None,
    machine_memory: Annotated[float | None, typer.Option(help="In MB.")] = None,
    network: Annotated[
        str | None, typer.Option(help="Round trip of callers to a server; 50ms by default.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of a machine like this one; 0.0416 by default.")
    ] = None,
    device_price: Annotated[float | None, typer.Option(help="Of a device; 100.")] = None,
    device_years: Annotated[float | None, typer.Option(help="That a device lasts; 3.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of all prices, a word; USD.")] = None,
    hourly_rate: Annotated[float | None, typer.Option(help="Of who keeps it up; 60.")] = None,
    upkeep_hours: Annotated[
        float | None, typer.Option(help="A month that somebody has for it; any by default.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Of the sample.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Tabular models: columns a,b,c in the model's order.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="For each measurement; 3.")] = None,
    report: Annotated[
        str | None, typer.Option(help="Write it as a page, with a picture, to this .html.")
    ] = None,
    write_config: Annotated[str | None, typer.Option(help="Write the matching YAML here.")] = None,
    overwrite: Overwrite = None,
    trust_model: TrustModel = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: defaults for what is not said.")
    ] = False,
    json_report: Annotated[
        bool, typer.Option("--json", help="Print it as JSON on standard output; asks nothing.")
    ] = False,
) -> None:
    """Say which fits, batch, serve or edge, from a few answers and from measuring your model.

    On a terminal it asks what flags and YAML leave open. All settings can also stand in a YAML
    file (--config) or in the environment (MLOPSDEPLOY_RESPONSE_TIME=1h).
    """
    own = ("config", "yes", "json_report")
    flags = {key: value for key, value in locals().items() if key not in own}
    from mlopsdeploy.choose import command
    from mlopsdeploy.choose.settings import ChooseSettings
    from mlopsdeploy.settings import load

    settings = load(ChooseSettings, config, flags)
    try:
        found = command.run_choose(settings, ask=not (yes or json_report), quiet=json_report)
        if json_report:
            print(json.dumps(found, ensure_ascii=False), flush=True)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.exit(141)
