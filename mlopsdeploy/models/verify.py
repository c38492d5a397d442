"""`mlopsdeploy models verify`: does what was proven of a model still hold, on this machine?"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from mlopsdeploy.columns import Columns, ModelFiles, objects, rows_of, take
from mlopsdeploy.core import images, plugins
from mlopsdeploy.core.console import plain_table
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.models.agreement import agreement, answers, rows_for
from mlopsdeploy.models.tables import proof_line

# Where a model comes from one of these, running it there again is the proof.
_FRAMEWORKS = {"torch": {"checkpoint"}, "tensorflow": {"keras", "saved_model"}}
ALONE = 40  # rows that are asked one by one
OK, FAILED, SKIPPED = "ok", "failed", "skipped"


def verify_model(
    reference: str,
    *,
    all_runtimes: bool = False,
    trust_model: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Check a model's files, then run it wherever it runs and compare the answers.

    Args:
        reference: see `find_model`.
        all_runtimes: also in frameworks that the model does not come from.
        trust_model: see `load_model`.
        log: called with a line about each slow step.

    Returns:
        `model`, `digest`, `checks`: what, result ("ok", "failed", "skipped"), said; `ok`: whether
        none failed.

    Raises:
        ModelError: there is no such model.
    """
    checks: list[dict[str, str]] = []

    def note(what: str, result: str, said: str) -> None:
        checks.append({"what": what, "result": result, "said": said})

    try:
        files = find_model(reference)
    except ModelError as error:
        if not Path(reference).exists() and "SHA-256" not in str(error):
            raise
        note("files", FAILED, str(error))
        return {"model": reference, "digest": "", "checks": checks, "ok": False}
    _check_sums(files, note)
    _check_runtimes(reference, files, note, all_runtimes, trust_model, log)
    return {
        "model": files.name,
        "version": files.version,
        "digest": files.digest,
        "checks": checks,
        "ok": all(check["result"] != FAILED for check in checks),
    }


def _check_sums(files: ModelFiles, note: Callable[[str, str, str], None]) -> None:
    """`find_model` refuses a wrong sum; what is left is what no sum covers."""
    sums = files.yaml.sha256
    if sums:
        note("sha256", OK, f"{len(sums)} files are as model.yaml says")
    else:
        note("sha256", SKIPPED, "no model.yaml names the sums its files should have")


def _check_runtimes(
    reference: str,
    files: ModelFiles,
    note: Callable[[str, str, str], None],
    all_runtimes: bool,
    trust_model: bool,
    log: Callable[[str], None],
) -> None:
    try:
        chosen = load_model(reference, threads=1, trust_model=trust_model, log=log)
    except MlopsDeployError as error:
        note("loads", FAILED, str(error))
        return
    rows = rows_for(chosen)
    first = _name(chosen)
    note("loads", OK, f"on {first}, {chosen.runtime.precision}")
    got = answers(chosen, rows)
    _check_example(chosen, note)
    _check_close_calls(chosen, files, rows, note)
    baseline: tuple[str, Columns] | None = None
    for runtime in sorted(_runtimes(files, first, all_runtimes), key=lambda name: name != first):
        try:
            model = _load(reference, runtime, trust_model, log)
        except (ConfigError, ModelError) as error:
            if _does_not_apply(error):
                continue
            # That it can't run elsewhere breaks no promise; where it runs by default is told above.
            note(runtime, FAILED if runtime == first else SKIPPED, str(error))
            continue
        precision = model.runtime.precision
        where = f"{runtime} {precision}"
        theirs = answers(model, rows)
        if baseline is None:
            baseline = (where, theirs)
            note(where, OK, f"answers {rows_of(rows)} made-up rows; others are compared with it")
            if precision != chosen.runtime.precision:
                _note_agreement(
                    note,
                    f"{first} {chosen.runtime.precision}",
                    baseline,
                    got,
                    chosen.runtime.precision,
                )
            continue
        _note_agreement(note, where, baseline, theirs, precision)
    _check_proof(files, chosen, note)


def _note_agreement(
    note: Callable[[str, str, str], None],
    where: str,
    baseline: tuple[str, Columns],
    got: Columns,
    precision: str,
) -> None:
    found = agreement(baseline[1], got, precision)
    note(
        where,
        OK if found["agrees"] else FAILED,
        f"like {baseline[0]} on {found['rows']} rows: largest change {found['largest_change']:.1e} "
        f"({found['bound']:g} may be), labels changed {found['label_flips']}",
    )


def _check_example(model: Model, note: Callable[[str, str, str], None]) -> None:
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
    found = detections_of(model.predict_columns(columns))
    result = OK if all(np.isfinite(one.score) for one in found) else FAILED
    said = "; ".join(f"{one.label}, {one.score:.3f}" for one in found)
    note("example", result, said or "nothing found")


def _check_close_calls(
    model: Model, files: ModelFiles, rows: Columns, note: Callable[[str, str, str], None]
) -> None:
    """In a low precision, no label depends on the rows beside its own."""
    if model.float32 is None:
        return
    few = take(rows, slice(ALONE))
    together = model.predict_columns(few)
    alone = [model.predict_columns(take(few, slice(row, row + 1))) for row in range(rows_of(few))]
    if "label" not in together:
        return
    swayed = sum(
        one["label"][0] != label for one, label in zip(alone, together["label"], strict=True)
    )
    by = f"by {files.float32.name}" if files.float32 else "by the same graph"
    note(
        "close calls",
        FAILED if swayed else OK,
        f"are decided in float32 {by}: {swayed} of {rows_of(few)} labels change among other rows",
    )


def _check_proof(files: ModelFiles, chosen: Model, note: Callable[[str, str, str], None]) -> None:
    """What a proof beside the model says; its rows did not travel with it."""
    proof = files.yaml.proof or dict(chosen.proof)
    if proof:
        note("proof, as written", OK, proof_line(proof))
    missing = [
        name
        for name, forms in _FRAMEWORKS.items()
        if forms & set(files.graphs) and not plugins.installed(name)
    ]
    for name in missing:
        note("proof, again", SKIPPED, f"{name}, which the model comes from, is not installed")
    note("accuracy", SKIPPED, "no labelled rows travel with models; compare has --label-column")


def _runtimes(files: ModelFiles, first: str, everything: bool) -> list[str]:
    """Installed ones, without frameworks that have nothing to do with the model."""
    found = []
    for name in plugins.names("runtimes"):
        forms = _FRAMEWORKS.get(name)
        wanted = everything or forms is None or bool(forms & set(files.graphs)) or name == first
        if wanted and plugins.installed(name):
            found.append(name)
    return found


def _load(reference: str, runtime: str, trust_model: bool, log: Callable[[str], None]) -> Model:
    """In float32 where there is a choice: other precisions have other bounds."""
    choices = plugins.load("runtimes", runtime).precisions
    precision = "float32" if "float32" in choices else "auto"
    return load_model(
        reference, runtime=runtime, precision=precision, threads=1, trust_model=trust_model, log=log
    )


def _does_not_apply(error: Exception) -> bool:
    return ", but " in str(error) and " runs " in str(error)


def _name(model: Model) -> str:
    return type(model.runtime).__name__.lower()


def show_verified(found: dict[str, Any], console: Console) -> None:
    """What `verify_model` found, as people read it."""
    table = plain_table("check", "", "")
    styles = {OK: "green", FAILED: "red", SKIPPED: "dim"}
    for check in found["checks"]:
        result = check["result"]
        table.add_row(Text(check["what"]), Text(result, styles[result]), Text(check["said"]))
    console.print(table, highlight=False)
    failed = sum(check["result"] == FAILED for check in found["checks"])
    console.print(
        f"{found['model']}: {f'{failed} failed' if failed else 'all that was checked holds'}",
        style="red" if failed else "",
        highlight=False,
        markup=False,
    )
