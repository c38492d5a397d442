"""`mlopsdeploy package`: what an operator needs."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from mlopsdeploy.cli.options import import_failed

package = typer.Typer(
    help="Write what an operator needs, and check it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[
    str,
    typer.Option("--output", "-o", help="Folder to write: a new one, or one written before."),
]
Config = Annotated[str | None, typer.Option("--config", "-c", help="The YAML file that runs here.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="In place of the YAML's.")]
Name = Annotated[
    str | None, typer.Option(help="Of the workload; made from the model's by default.")
]
Image = Annotated[str | None, typer.Option(help="Full name of the image: registry/name:tag.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="Run it here, briefly, for memory and capacity.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]


@package.command("serve")
def package_serve(
    to: Annotated[str, typer.Option(help="docker, compose, kubernetes, systemd or kserve.")],
    output: Output = "deploy",
    config: Config = None,
    model: Model = None,
    name: Name = None,
    image: Image = None,
    measured: Measure = False,
    json_report: Json = False,
) -> None:
    """A server, from the YAML of 'mlopsdeploy serve'."""
    _package("serve", **locals())


@package.command("batch")
def package_batch(
    to: Annotated[str, typer.Option(help="cron, systemd, kubernetes, airflow or ray.")],
    output: Output = "deploy",
    config: Config = None,
    model: Model = None,
    name: Name = None,
    image: Image = None,
    measured: Measure = False,
    json_report: Json = False,
) -> None:
    """A nightly job, from the YAML of 'mlopsdeploy batch'."""
    _package("batch", **locals())


@package.command("edge")
def package_edge(
    to: Annotated[str, typer.Option(help="systemd or docker.")],
    output: Output = "deploy",
    config: Config = None,
    model: Model = None,
    name: Name = None,
    image: Image = None,
    json_report: Json = False,
) -> None:
    """A device, from the YAML of 'mlopsdeploy edge'."""
    _package("edge", **locals())


def _package(
    strategy: Literal["serve", "batch", "edge"], *, to: str, json_report: bool, **options: Any
) -> None:
    try:
        from mlopsdeploy.package import command
    except ModuleNotFoundError as error:
        import_failed("package", error)
    report = command.run_package(strategy, to, **options)
    if json_report:
        print(json.dumps(report, ensure_ascii=False))
