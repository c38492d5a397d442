"""`mlopsdeploy models`: look at models, and make them ready."""

from __future__ import annotations

from typing import Literal

import typer

from mlopsdeploy.cli.commands import command, group, log, report
from mlopsdeploy.settings import Options, setting
from mlopsdeploy.settings.declaring import Age, Share, Size
from mlopsdeploy.settings.strategies import A_MODEL, Precision

models = group("models", "Look at models, and make them ready.")


class Json(Options):
    """How a report comes."""

    as_json: bool = setting(False, "Print it as JSON on standard output", flag="--json")


class OneModel(Json):
    """What is about one model."""

    model: str = setting("", A_MODEL, positional=True, offers="model", required=True)


class Trusting(OneModel):
    """What may run the model's own code."""

    trust_model: bool = setting(False, "Run code in the model's files, such as Keras Lambda layers")


class OfRows(Options):
    """What reads rows."""

    data: str = setting(
        "", "Rows: CSV, JSON Lines, Parquet; or pictures", metavar="PATH", required=True
    )
    text_column: str | None = setting(
        None, "Column of the text", shown="the only one that reads like text"
    )


class Written(Options):
    """What writes a model."""

    output: str | None = setting(None, "A new folder", short="-o", shown="NAME-FORM")
    overwrite: bool = setting(False, "Replace an output that exists, whoever wrote it")


class List(Json):
    """`models list`."""

    cache: bool = setting(False, "Also what was compiled and downloaded here")


class Prune(Json):
    """`models prune`."""

    keys: tuple[str, ...] = setting(
        (), "As 'models list --cache' shows them", positional=True, shown="all"
    )
    unused_for: Age | None = setting(None, "Only what was not used for so long: 12h, 30d, 2w")
    max_size: Size | None = setting(None, "Keep so much of all, as 2GB: what was used last")
    dry_run: bool = setting(False, "Delete nothing, show what would be")


class Inspect(Trusting):
    """`models inspect`."""

    runtime: str = setting("auto", "What runs it; auto is the fastest", offers="runtime")
    speed: bool = setting(True, "Measure it here, for a few seconds", off="--no-speed")
    all_runtimes: bool = setting(False, "Measure it on each that can run it")


class Init(OneModel):
    """`models init`."""

    output: str | None = setting(
        None, "The YAML", short="-o", shown="beside the model", metavar="FILE"
    )
    overwrite: bool = setting(False, "Replace a YAML that is there")


class Compile(Trusting, Written):
    """`models compile`."""

    to: Literal["onnx", "litert", "openvino"] | None = setting(
        None, "Form", shown="what first use takes", metavar="FORM"
    )


class Quantise(OneModel, OfRows, Written):
    """`models quantise`."""

    max_flips: Share = setting(
        0.01, "Share of labels that may differ from float32's, on your rows", shown="1%"
    )


class Compare(Json, OfRows):
    """`models compare`."""

    first: str = setting("", A_MODEL, positional=True, metavar="A", offers="model", required=True)
    second: str = setting(
        "", "Another one, with its labels", positional=True, metavar="B", offers="model",
        required=True,
    )  # fmt: skip
    label_column: str | None = setting(
        None,
        "What is right: a label, its number, or 1 to 5 stars; several labels joined by |; a "
        "number; of several answers, the one that is called as the column is",
    )
    limit: int = setting(5000, "Rows to read at most", ge=1)
    runtime: str = setting("auto", "For both; auto is the fastest", offers="runtime")
    precision: Precision = setting("auto", "For both; auto is each one's own")


class Verify(Trusting):
    """`models verify`."""

    all_runtimes: bool = setting(False, "Also in PyTorch and TensorFlow")


@command(models, "list", List, examples="mlopsdeploy models list --cache")
def models_list(options: List) -> None:
    """Show the models that are here."""
    from mlopsdeploy.models import catalogue

    report(catalogue.list_models(cache=options.cache), catalogue.show_list, options.as_json)


@command(models, "prune", Prune, examples="mlopsdeploy models prune --unused-for 30d")
def models_prune(options: Prune) -> None:
    """Delete compiled models; they are made again when they are needed."""
    from mlopsdeploy.models import catalogue

    found = catalogue.prune(
        options.keys, unused_for=options.unused_for, max_size=options.max_size,
        pretend=options.dry_run,
    )  # fmt: skip
    report(found, catalogue.show_prune, options.as_json)


@command(models, "inspect", Inspect, examples="mlopsdeploy models inspect fraud")
def models_inspect(options: Inspect) -> None:
    """Show what a model takes and answers, how that was found out, and its speed here."""
    from mlopsdeploy.models import inspect

    found = inspect.inspect_model(
        options.model, runtime=options.runtime, speed=options.speed,
        all_runtimes=options.all_runtimes, trust_model=options.trust_model, log=log,
    )  # fmt: skip
    report(found, inspect.show, options.as_json)


@command(models, "init", Init, examples="mlopsdeploy models init model.onnx")
def models_init(options: Init) -> None:
    """Write a model.yaml to start from: what was read, and what is to be decided."""
    from mlopsdeploy.models import init

    found = init.init_model(
        options.model, output=options.output, overwrite=options.overwrite, log=log
    )
    report(found, init.show_init, options.as_json)


@command(
    models, "compile", Compile,
    examples="mlopsdeploy models compile model.keras --to litert -o model-litert",
)  # fmt: skip
def models_compile(options: Compile) -> None:
    """Compile a model, with a proof, into a folder that needs no training framework."""
    from mlopsdeploy.models import convert

    found = convert.compile_model(
        options.model, to=options.to, output=options.output, overwrite=options.overwrite,
        trust_model=options.trust_model, log=log,
    )  # fmt: skip
    report(found, convert.show_compiled, options.as_json)


@command(
    models, "quantise", Quantise, alias="quantize",
    examples="mlopsdeploy models quantise my-model --data reviews.csv --max-flips 0.5%",
)  # fmt: skip
def models_quantise(options: Quantise) -> None:
    """Make a text classifier int8, with a proof on your rows, into a folder."""
    from mlopsdeploy.models import quantise

    found = quantise.quantise_model(
        options.model, data=options.data, text_column=options.text_column,
        max_flips=options.max_flips, output=options.output, overwrite=options.overwrite, log=log,
    )  # fmt: skip
    report(found, quantise.show_quantised, options.as_json)


@command(
    models, "compare", Compare,
    examples="mlopsdeploy models compare sentiment mine --data r.csv --label-column stars",
)  # fmt: skip
def models_compare(options: Compare) -> None:
    """Run two models on the same rows: where they differ, and who is right."""
    from mlopsdeploy.models import compare

    found = compare.compare_models(
        options.first, options.second, data=options.data, text_column=options.text_column,
        label_column=options.label_column, limit=options.limit, runtime=options.runtime,
        precision=options.precision, log=log,
    )  # fmt: skip
    report(found, compare.show_comparison, options.as_json)


@command(models, "verify", Verify, examples="mlopsdeploy models verify sentiment")
def models_verify(options: Verify) -> None:
    """Check a model's files, and that it answers alike wherever it runs here."""
    from mlopsdeploy.models import verify

    found = verify.verify_model(
        options.model, all_runtimes=options.all_runtimes, trust_model=options.trust_model, log=log
    )
    report(found, verify.show_verified, options.as_json)
    if not found["ok"]:
        raise typer.Exit(1)
