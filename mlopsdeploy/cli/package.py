"""`mlopsdeploy package`: what an operator needs."""

from __future__ import annotations

from typing import Any, Literal

from mlopsdeploy.cli.commands import command, group, print_json
from mlopsdeploy.errors import needs
from mlopsdeploy.settings import Options, setting

package = group("package", "Write what an operator needs, and check it.")


class Package(Options):
    """What all of them take."""

    config: str | None = setting(
        None, "The YAML file that runs here", metavar="FILE", short="-c", offers="config"
    )
    model: str | None = setting(None, "In place of the YAML's", short="-m", offers="model")
    name: str | None = setting(None, "Of the workload", shown="made from the model's")
    image: str | None = setting(None, "Full name of the image: registry/name:tag")
    output: str = setting(
        "deploy", "Folder to write: a new one, or one written before", metavar="FOLDER", short="-o"
    )
    overwrite: bool = setting(False, "Replace an output that exists, whoever wrote it")
    as_json: bool = setting(False, "Print the report as JSON on standard output", flag="--json")


# Each strategy says which.
_TO: Any = setting("", "What for", metavar="TARGET", required=True)


class Measured(Package):
    """What can be run here first."""

    measure: bool = setting(False, "Run it here, briefly, for memory and capacity")


class Serve(Measured):
    """`package serve`."""

    to: Literal["docker", "compose", "kubernetes", "systemd", "kserve"] = _TO


class Batch(Measured):
    """`package batch`."""

    to: Literal["cron", "systemd", "kubernetes", "airflow", "ray"] = _TO


class Edge(Package):
    """`package edge`."""

    to: Literal["systemd", "docker"] = _TO


@command(
    package, "serve", Serve,
    examples="mlopsdeploy package serve --to kubernetes -c serve.yaml -o deploy",
)  # fmt: skip
def package_serve(options: Serve) -> None:
    """A server, from the YAML of 'mlopsdeploy serve'."""
    _package("serve", options, measured=options.measure)


@command(
    package, "batch", Batch,
    examples="mlopsdeploy package batch --to cron -c batch.yaml -o deploy",
)  # fmt: skip
def package_batch(options: Batch) -> None:
    """A nightly job, from the YAML of 'mlopsdeploy batch'."""
    _package("batch", options, measured=options.measure)


@command(
    package, "edge", Edge,
    examples="mlopsdeploy package edge --to systemd -c edge.yaml -o deploy",
)  # fmt: skip
def package_edge(options: Edge) -> None:
    """A device, from the YAML of 'mlopsdeploy edge'."""
    _package("edge", options, measured=False)


def _package(
    strategy: Literal["serve", "batch", "edge"], options: Serve | Batch | Edge, *, measured: bool
) -> None:
    with needs("package", "package"):
        from mlopsdeploy.package import command
    found = command.run_package(
        strategy, options.to, output=options.output, overwrite=options.overwrite,
        config=options.config, model=options.model, name=options.name,
        image=options.image, measured=measured,
    )  # fmt: skip
    if options.as_json:
        print_json(found)
