"""`mlopsdeploy models init`: a YAML to start from: what was read, and what is to be decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.files import whole_file
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import ConfigError, DoubtError, MlopsDeployError, ModelError
from mlopsdeploy.model_files import find_model

MOST_LABELS = 100  # of more, a file is better


def init_model(
    reference: str,
    *,
    output: str | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write what is known of a model into a YAML beside it.

    Args:
        reference: a file or a folder; see `find_model`.
        output: the YAML; by default `model.yaml` in a folder, `NAME.yaml` beside a file.
        overwrite: replace a file that is there.
        log: called with a line about each slow step (a compilation).

    Returns:
        `output`, and `to_decide`: what of the model can be read in several ways.

    Raises:
        ConfigError: the model is no file or folder, or the YAML is there.
        ModelError: the model can't be found or loaded at all.
    """
    path = Path(reference).expanduser()
    if output is None and not path.exists():
        raise ConfigError(f"{reference}: is no file or folder to put a YAML beside; name --output")
    place = Path(output or (path / "model.yaml" if path.is_dir() else path.with_suffix(".yaml")))
    Protected(models=(), overwrite=overwrite).check(place, f"--output {place}")
    doubts: list[DoubtError] = []
    files = find_model(reference)
    try:
        model = load_model(reference, threads=1, doubts=doubts, log=log)
    except ModelError as error:
        lines = [f"name: {_plain(files.name)}", "", f"# To be decided: {error}"]
        undecided = [str(error)]
    else:
        lines = [*_known(model), *_undecided(doubts)]
        undecided = [doubt.what for doubt in doubts]
    text = "\n".join([f"# {path.name}: what was read in its files, and why.", *lines]) + "\n"
    try:
        with whole_file(place) as file:
            file.write(text.encode())
    except OSError as error:
        raise MlopsDeployError(f"{place}: {error.strerror or error}") from error
    return {"output": str(place), "to_decide": undecided}


def _known(model: Model) -> Iterator[str]:
    task = model.task
    yield f"name: {_plain(model.name)}"
    yield f"version: {_plain(model.version or '1')}"
    if "guess" not in model.task_from:
        yield f"task: {model.task_name}  # {model.task_from}"
    names = [field.name for field in task.inputs if not field.shape]
    if task.data == "table" and len(names) == len(task.inputs):
        yield f"features: {_plain(names)}"
    elif task.matrix is not None:
        count = task.matrix.shape[0]
        yield f"# features: [...]  # the names of its {count} columns, in the model's order"
    if task.labels and len(task.labels) <= MOST_LABELS:
        numbered = task.labels == tuple(map(str, range(len(task.labels))))
        note = "  # nothing names them: name them in this order" if numbered else ""
        yield f"labels: {_plain(list(task.labels))}{note}"
    if task.threshold is not None:
        yield f"threshold: {task.threshold:g}"
    for fact in task.facts:
        if "guess" not in fact.source:
            yield f"# {fact.name}: {fact.value} ({fact.source})"


def _undecided(doubts: list[DoubtError]) -> Iterator[str]:
    for doubt in doubts:
        yield ""
        yield f"# To be decided: {doubt.what}. One of:"
        yield from (f"# {line}  # {meaning}" for line, meaning in doubt.readings)


def _plain(value: Any) -> str:
    """As YAML, in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def show_init(found: dict[str, Any], console: Console) -> None:
    """What `init_model` did, as people read it."""
    console.print(Text(f"{found['output']}: written"))
    for what in found["to_decide"]:
        console.print(Text(f"to be decided there: {what}", style="yellow"))
