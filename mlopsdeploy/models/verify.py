"""`mlopsdeploy models verify`: does what was proven of a model still hold, on this machine?"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from mlopsdeploy.columns import Columns, ModelFiles, objects, rows_of, take
from mlopsdeploy.core import images, plugins
from mlopsdeploy.core.answers import answered
from mlopsdeploy.core.console import plain_table
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.loading import OtherFormatError, load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError, RowError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.digest import ChecksumError
from mlopsdeploy.models.agreement import agreement, answers, rows_for
from mlopsdeploy.models.tables import proof_line

# Where a model comes from one of these, running it there again is the proof.
_FRAMEWORKS = {"torch": {"checkpoint"}, "tensorflow": {"keras", "saved_model"}}
ALONE = 40  # rows that are asked one by one
OK, FAILED, SKIPPED = "ok", "failed", "skipped"
Note = Callable[[str, str, str], None]  # what, its result, the detail


def verify_model(
    reference: str,
    *,
    all_runtimes: bool = False,
    trust_model: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Check a model's files, then run it wherever it runs and compare the answers.

    Args:
        reference: see `find_model`; of models side by side each is checked.
        all_runtimes: also in frameworks that the model does not come from.
        trust_model: see `load_model`.
        log: called with a line about each slow step.

    Returns:
        `model`, `digest`, `checks`: what, result ("ok", "failed", "skipped"), detail; `ok`: whether
        none failed.

    Raises:
        ModelError: there is no such model.
    """
    if parts := several(reference):
        how = {"all_runtimes": all_runtimes, "trust_model": trust_model}
        return _each(reference, {part: verify_model(part, log=log, **how) for part in parts})
    checks: list[dict[str, str]] = []

    def note(what: str, result: str, detail: str) -> None:
        checks.append({"what": what, "result": result, "detail": detail})

    try:
        files = find_model(reference)
    except ModelError as error:
        if not (isinstance(error, ChecksumError) or Path(reference).exists()):
            raise
        note("files", FAILED, str(error))
        return {"model": reference, "digest": "", "checks": checks, "ok": False}
    if sums := files.yaml.sha256:  # `find_model` refuses a wrong one
        note("sha256", OK, f"{len(sums)} files are as model.yaml says")
    else:
        note("sha256", SKIPPED, "no model.yaml names the sums its files should have")
    load = partial(load_model, reference, threads=1, trust_model=trust_model, log=log)
    try:
        chosen = load()
    except MlopsDeployError as error:
        note("loads", FAILED, str(error))
    else:
        note("loads", OK, f"on {chosen.runtime.name}, {chosen.runtime.precision}")
        rows = rows_for(chosen)
        _check_example(chosen, note)
        _check_close_calls(chosen, files, rows, note)
        _check_runtimes(chosen, _runtimes(files, chosen, all_runtimes), rows, load, note)
        _check_proof(files, chosen, note)
    return _verified(files, checks)


def _each(reference: str, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was found of each of several models, as one."""
    checks = [
        {**check, "what": f"{part}: {check['what']}"}
        for part, one in found.items()
        for check in one["checks"]
    ]
    if not all(one["digest"] for one in found.values()):  # a file is not what it should be
        return {"model": reference, "digest": "", "checks": checks, "ok": False}
    return _verified(find_model(reference), checks)


def _verified(files: ModelFiles, checks: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "model": files.name,
        "version": files.version,
        "digest": files.digest,
        "checks": checks,
        "ok": all(check["result"] != FAILED for check in checks),
    }


def _check_runtimes(
    chosen: Model, runtimes: Sequence[str], rows: Columns, load: Callable[..., Model], note: Note
) -> None:
    """The first of the runtimes answers as all others do, in float32 where there is a choice."""
    first, precision = chosen.runtime.name, chosen.runtime.precision
    baseline: tuple[str, Columns] | None = None
    for runtime in runtimes:
        try:
            # Other precisions have other bounds.
            choices = plugins.load("runtimes", runtime).precisions
            model = load(runtime=runtime, precision="float32" if "float32" in choices else "auto")
            got = answers(model, rows)
        except OtherFormatError:
            continue
        except (ConfigError, ModelError, RowError) as error:
            # That it can't run elsewhere breaks no promise; where it runs by default is above.
            note(runtime, FAILED if runtime == first else SKIPPED, str(error))
            continue
        where = f"{runtime} {model.runtime.precision}"
        if baseline:
            _note_agreement(note, where, baseline, got, model.runtime.precision)
            continue
        baseline = (where, got)
        note(where, OK, f"answers {rows_of(rows)} made-up rows; others are compared with it")
        if model.runtime.precision != precision:
            try:
                theirs = answers(chosen, rows)
            except (ModelError, RowError) as error:
                note(f"{first} {precision}", FAILED, str(error))
                continue
            _note_agreement(note, f"{first} {precision}", baseline, theirs, precision)


def _note_agreement(
    note: Note, where: str, baseline: tuple[str, Columns], got: Columns, precision: str
) -> None:
    found = agreement(baseline[1], got, precision)
    note(
        where,
        OK if found["agrees"] else FAILED,
        f"like {baseline[0]} on {found['rows']} rows: largest change {found['largest_change']:.1e} "
        f"({found['bound']:g} may be), labels changed {found['label_flips']}",
    )


def _check_example(model: Model, note: Note) -> None:
    """The row that travels with the model has an answer."""
    example = model.yaml.example
    if example is None:
        note("example", SKIPPED, "model.yaml holds no row to try")
        return
    names = [field.name for field in model.task.inputs]
    given = example if isinstance(example, dict) else dict(zip(names, [example], strict=False))
    if set(names) - set(given):
        note("example", FAILED, "the example in model.yaml lacks inputs of the model")
        return
    if names == ["image"]:  # a data URL, see `models.files`
        columns = {"image": objects([images.decode(b64decode(given["image"].partition(",")[2]))])}
    else:
        columns = {
            field.name: np.array(
                [given[field.name]], object if field.dtype == "str" else field.dtype
            )
            for field in model.task.inputs
        }
    predictions = model.predict_columns(columns)
    result = OK if answered(model.task, predictions).all() else FAILED
    detail = "; ".join(one.words for one in detections_of(model.task, predictions))
    note("example", result, detail or "nothing found")


def _check_close_calls(model: Model, files: ModelFiles, rows: Columns, note: Note) -> None:
    """In a low precision, no label depends on the rows beside its own."""
    if model.float32 is None:
        return
    few = take(rows, slice(ALONE))
    together = model.predict_columns(few)
    if "label" not in together:
        return
    alone = [model.predict_columns(take(few, slice(row, row + 1))) for row in range(rows_of(few))]
    labels = [one["label"][0] for one in alone]
    swayed = sum(one != label for one, label in zip(labels, together["label"], strict=True))
    by = f"by {files.float32.name}" if files.float32 else "by the same graph"
    note(
        "close calls",
        FAILED if swayed else OK,
        f"are decided in float32 {by}: {swayed} of {rows_of(few)} labels change among other rows",
    )


def _check_proof(files: ModelFiles, chosen: Model, note: Note) -> None:
    """What a proof beside the model says; its rows did not travel with it."""
    proof = files.yaml.proof or dict(chosen.proof)
    if proof:
        note("proof, as written", OK, proof_line(proof))
    for name, forms in _FRAMEWORKS.items():
        if forms & set(files.graphs) and not plugins.installed(name):
            note("proof, again", SKIPPED, f"{name}, which the model comes from, is not installed")
    note("accuracy", SKIPPED, "no labelled rows travel with models; compare has --label-column")


def _runtimes(files: ModelFiles, chosen: Model, everything: bool) -> list[str]:
    """Installed ones, the chosen one first; frameworks only if the model comes from them."""
    first, formats = chosen.runtime.name, set(files.graphs)
    found = [
        name
        for name in plugins.names("runtimes")
        if everything or name == first or _FRAMEWORKS.get(name, formats) & formats
    ]
    return sorted(filter(plugins.installed, found), key=lambda name: name != first)


def show_verified(found: dict[str, Any], console: Console) -> None:
    """What `verify_model` found, as people read it."""
    table = plain_table("check", "", "")
    styles = {OK: "green", FAILED: "red", SKIPPED: "dim"}
    for check in found["checks"]:
        result = check["result"]
        table.add_row(Text(check["what"]), Text(result, styles[result]), Text(check["detail"]))
    console.print(table)
    failed = sum(check["result"] == FAILED for check in found["checks"])
    result = f"{failed} failed" if failed else "all that was checked holds"
    console.print(f"{found['model']}: {result}", style="red" if failed else "", markup=False)
