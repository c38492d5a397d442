"""`mlopsdeploy models`: look at models, and make them ready."""

from __future__ import annotations

from typing import Annotated

import typer

from mlopsdeploy.cli.options import (
    JsonReport,
    Reference,
    TrustModel,
    log,
    report,
)

models = typer.Typer(
    help="Look at models, and make them ready.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list")
def models_list(
    cache: Annotated[
        bool, typer.Option("--cache", help="Also what was compiled and downloaded here.")
    ] = False,
    json_report: JsonReport = False,
) -> None:
    """Show the models that are here."""
    from mlopsdeploy.models import catalogue

    report(catalogue.list_models(cache=cache), catalogue.show_list, json_report)


@models.command("prune")
def models_prune(
    keys: Annotated[
        list[str] | None, typer.Argument(help="As 'models list --cache' shows them; or all.")
    ] = None,
    unused_for: Annotated[
        str | None, typer.Option(help="Only what was not used for so long: 12h, 30d, 2w.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Keep so much of all, as 2GB: what was used last.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing, say what would be.")
    ] = False,
    json_report: JsonReport = False,
) -> None:
    """Delete compiled models; they are made again when they are needed."""
    from mlopsdeploy.models import catalogue
    from mlopsdeploy.models.tables import bytes_in, seconds_in, understood

    found = catalogue.prune(
        keys or (),
        unused_for=understood("--unused-for", seconds_in, unused_for),
        max_size=understood("--max-size", bytes_in, max_size),
        pretend=dry_run,
    )
    report(found, catalogue.show_prune, json_report)


@models.command("inspect")
def models_inspect(
    model: Reference,
    runtime: Annotated[str, typer.Option(help="What to run it on; the fastest by default.")] = (
        "auto"
    ),
    speed: Annotated[
        bool, typer.Option("--speed/--no-speed", help="Measure it here, for a few seconds.")
    ] = True,
    all_runtimes: Annotated[
        bool, typer.Option("--all-runtimes", help="Measure it on each that can run it.")
    ] = False,
    json_report: JsonReport = False,
) -> None:
    """Show what a model takes and gives, as it was understood, and why; and its speed here."""
    from mlopsdeploy.models import inspect

    found = inspect.inspect_model(
        model, runtime=runtime, speed=speed, all_runtimes=all_runtimes, log=log
    )
    report(found, inspect.show, json_report)


@models.command("compile")
def models_compile(
    model: Reference,
    to: Annotated[
        str | None, typer.Option(help="onnx, litert or openvino; what first use takes by default.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A new folder; NAME-TO by default.")
    ] = None,
    trust_model: TrustModel = None,
    json_report: JsonReport = False,
) -> None:
    """Compile a model, with a proof, into a folder that needs no training framework."""
    from mlopsdeploy.models import convert as compiling

    found = compiling.compile_model(
        model, to=to, output=output, trust_model=bool(trust_model), log=log
    )
    report(found, compiling.show_compiled, json_report)


@models.command("quantise")
@models.command("quantize", hidden=True)
def models_quantise(
    model: Reference,
    data: Annotated[str, typer.Option(help="Rows to calibrate on and to prove with.")],
    text_column: Annotated[
        str | None, typer.Option(help="Column of the text; found if only one is.")
    ] = None,
    max_flips: Annotated[
        str, typer.Option(help="Share of labels that may differ from float32's.")
    ] = "1%",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A new folder; NAME-int8 by default.")
    ] = None,
    json_report: JsonReport = False,
) -> None:
    """Make a text classifier int8, with a proof on your rows, into a folder."""
    from mlopsdeploy.models import quantise
    from mlopsdeploy.settings import BatchSettings, load

    flips = load(BatchSettings, None, {"max_flips": max_flips}).max_flips
    found = quantise.quantise_model(
        model, data=data, text_column=text_column, max_flips=flips, output=output,
        log=log,
    )  # fmt: skip
    report(found, quantise.show_quantised, json_report)


@models.command("compare")
def models_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A model, as of --model.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one, with its labels.")],
    data: Annotated[
        str, typer.Option(help="Rows that both take: CSV, JSON Lines, Parquet; or pictures.")
    ],
    text_column: Annotated[
        str | None, typer.Option(help="Column of the text; found if only one is.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="What is right: a label, its number, or 1 to 5 stars.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to read at most.")] = 5000,
    runtime: Annotated[str, typer.Option(help="For both; the fastest by default.")] = "auto",
    precision: Annotated[str, typer.Option(help="For both; auto is each one's own.")] = "auto",
    json_report: JsonReport = False,
) -> None:
    """Run two models on the same rows: where they differ, and who is right."""
    from mlopsdeploy.models import compare, comparison

    found = compare.compare_models(
        first, second, data=data, text_column=text_column, label_column=label_column,
        limit=limit, runtime=runtime, precision=precision, log=log,
    )  # fmt: skip
    report(found, comparison.show_comparison, json_report)


@models.command("verify")
def models_verify(
    model: Reference,
    all_runtimes: Annotated[
        bool, typer.Option("--all-runtimes", help="Also in PyTorch and TensorFlow.")
    ] = False,
    trust_model: TrustModel = None,
    json_report: JsonReport = False,
) -> None:
    """Check a model's files, and that it answers alike wherever it runs here."""
    from mlopsdeploy.models import verify

    found = verify.verify_model(
        model, all_runtimes=all_runtimes, trust_model=bool(trust_model), log=log
    )
    report(found, verify.show_verified, json_report)
    if not found["ok"]:
        raise typer.Exit(1)
