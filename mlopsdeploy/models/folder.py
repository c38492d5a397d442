"""A model as a folder that `--model` takes: its graph, what is needed beside it, `model.yaml`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import ConfigError, one_line
from mlopsdeploy.model_files.cache import appearing
from mlopsdeploy.model_files.digest import graph_files, parts_of, sha256

# Of a text classifier: how texts become tokens, and what its outputs are called.
BESIDE_TEXT = ("config.json", "tokenizer.json", "tokenizer_config.json")
# What says where a model comes from goes where the model goes.
PAPERS = ("MODEL_CARD.md", "README.md", "LICENSE", "LICENSE.txt", "NOTICE")
# Of a model.yaml, what is not true of a model that is made of that one.
_MADE_ANEW = ("sha256", "precision", "float32")
NAMES = {"onnx": "model.onnx", "tflite": "model.tflite", "openvino": "openvino_model.xml"}


def home_of(files: ModelFiles) -> Path | None:
    """The model's own folder; None where it is a file that may lie anywhere."""
    if files.tokenizer is not None:
        return files.tokenizer.parent
    graph = next(iter(files.graphs.values()))
    folder = graph if graph.is_dir() else graph.parent
    if (folder / "config.json").is_file() and folder.name == "onnx":
        return folder.parent
    return folder if (folder / "model.yaml").is_file() else None


def weight_files(files: ModelFiles) -> list[Path]:
    """The files that hold the graphs and their weights."""
    found = [part for form, graph in files.graphs.items() for part in graph_files(form, graph)]
    return found + parts_of(files.float32)


def origin(files: ModelFiles) -> dict[str, str]:
    """Which model another one is made from, for its `model.yaml`."""
    return {"name": files.name, "version": files.version, "digest": files.digest}


def checked_output(
    path: str | None, files: ModelFiles, suffix: str, reference: str, *, overwrite: bool
) -> Path:
    """The folder to write, by default `NAME-SUFFIX`; refused, before the work, where it can't be.

    Raises:
        ConfigError: the folder holds something, the model among it, or is a mount point, or the
            one above it does not exist or can't be written.
    """
    output = Path(path or f"{files.name.rpartition('/')[2]}-{suffix}")
    shown = f"--output {output}"
    try:
        place = output.resolve()
        if place.is_symlink():  # to itself; before Python 3.13 that is a RuntimeError above
            place.stat()
        empty = output.is_dir() and not any(output.iterdir())
        protected = Protected(models=(reference,), overwrite=overwrite)
        protected.check(output, shown, ours=empty, folder=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{shown}: can't be looked into ({one_line(error)})") from error
    if not place.parent.is_dir():
        raise ConfigError(f"{shown}: the folder {place.parent} does not exist")
    try:
        Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent)).rmdir()
    except OSError as error:
        raise ConfigError(
            f"{shown}: {place.parent} can't be written ({error.strerror}); name another"
        ) from error
    return output


def write_folder(
    output: Path,
    files: ModelFiles,
    form: str,
    graph: Path,
    keys: Mapping[str, Any],
    *,
    floating: Path | None = None,
    prove: Callable[[Path], None] = lambda _: None,
) -> list[Path]:
    """Write a model so that `--model OUTPUT` runs it; whole or not at all.

    Args:
        output: a folder; one that is there is replaced, see `check_output`.
        files: the model that it was made from: labels, features and tokenizer are its.
        form: "onnx", "tflite" or "openvino".
        graph: the file to run.
        keys: of `model.yaml`, over those that it had before, such as a proof.
        floating: of a quantised graph, the one in float32 that decides its close calls.
        prove: called with the folder before it is in its place; raises if it must not get there.

    Returns:
        The files written.
    """
    with appearing(output.resolve(), replace=True) as building:
        home = home_of(files)
        for part in parts_of(graph):
            name = Path(NAMES[form]).stem + "".join(part.suffixes[-1:])
            if form == "onnx" and part != graph:  # weights are called what the ONNX file calls them
                name = part.name
            shutil.copyfile(part, building / name)
        if floating:
            keys = {**keys, "float32": floating.name}
        for part in parts_of(floating):
            shutil.copyfile(part, building / part.name)
        text = files.task == "text_classification" and files.tokenizer is not None
        for name in (*(BESIDE_TEXT if text else ()), *PAPERS):
            if home and (home / name).is_file():
                shutil.copyfile(home / name, building / name)
        made = [path for path in sorted(building.iterdir()) if path.name not in PAPERS]
        sums = {path.name: sha256(path) for path in made}
        document = {**_facts(files), **keys, "sha256": sums}
        (building / "model.yaml").write_text(
            "# Written by mlopsdeploy models; the folder is what --model takes.\n"
            + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
            "utf-8",
        )
        building.chmod(0o755)  # others may run it
        prove(building)
    return sorted(output.iterdir())


def _facts(files: ModelFiles) -> dict[str, Any]:
    """The keys of the old `model.yaml`, and what was read elsewhere."""
    known: dict[str, Any] = {
        "name": files.name.rpartition("/")[2],
        "version": files.version,
        "task": files.task,
    }
    if files.tokenizer is None:  # else config.json names them
        known |= {"labels": list(files.labels), "features": list(files.features)}
    known = {key: value for key, value in known.items() if value}
    if files.threshold is not None:
        known["threshold"] = files.threshold
    kept = {key: value for key, value in files.yaml.written().items() if key not in _MADE_ANEW}
    return {**known, **kept, **{key: known[key] for key in ("labels",) if key in known}}
