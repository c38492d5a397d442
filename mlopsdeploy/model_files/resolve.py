"""A reference to a model, and what can be read about it without running it.

A reference is a built-in name (`sentiment`), a path (a Hugging Face folder, a folder with
`model.yaml`, MLflow's model folder, a SavedModel, an `.onnx`, `.keras`, `.h5` or `.tflite` file,
OpenVINO's `.xml`), a hub id (`org/name`, `org/name@revision`), or a model of an MLflow server
(`models:/name/version`, `models:/name@alias`, `runs:/id/path`). Several, with commas between, are
models of texts that stand side by side, each for the languages that it reads.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.core import plugins
from mlopsdeploy.core.language_codes import LANGUAGES
from mlopsdeploy.core.model_yaml import ModelYaml, read_model_yaml
from mlopsdeploy.core.paths import within
from mlopsdeploy.core.references import several
from mlopsdeploy.core.yaml_files import front_matter, read_yaml
from mlopsdeploy.errors import ModelError, did_you_mean
from mlopsdeploy.model_files import (
    hub,
    huggingface,
    onnx_written,
    openvino_written,
    tflite_metadata,
)
from mlopsdeploy.model_files import mlflow_models as mlflow
from mlopsdeploy.model_files.digest import digest_of_several, graph_files, verify, with_digest
from mlopsdeploy.model_files.json_file import read_json
from mlopsdeploy.model_files.pointers import refuse_pointer
from mlopsdeploy.model_files.tflite_metadata import find_labels, read_labels

_BUILT_IN = Path(__file__).parents[1] / "builtin"
# What ends a file's name; a hub id may hold dots too, as `org/name-v1.5`.
_FORMATS = {
    ".onnx": "onnx", ".xml": "openvino", ".keras": "keras", ".h5": "keras", ".hdf5": "keras",
    ".tflite": "tflite",
}  # fmt: skip
# By the format, where a folder may have it, the likeliest first.
_PLACES = {
    "onnx": ("onnx/model.onnx", "model.onnx"),
    "openvino": ("openvino/openvino_model.xml", "openvino_model.xml"),
    "tflite": ("model.tflite",),
    "checkpoint": ("model.safetensors", "model.safetensors.index.json"),
    "keras": ("model.keras", "model.h5"),
    "saved_model": ("saved_model.pb",),
}
_PICTURES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
# Loading one of these runs whatever code its author put in.
_PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin"}
_FILE_SUFFIXES = {*_FORMATS, *_PICKLES, ".safetensors"}


def find_model(reference: str) -> ModelFiles:
    """The files and facts of the model that `reference` names.

    Raises:
        ModelError: there is no such model, or its files don't make up one that can be run.
    """
    if parts := several(reference):
        return _side_by_side(tuple(map(find_model, parts)))
    path = Path(reference).expanduser()
    if reference in built_in():  # a folder of that name is ./sentiment
        return _read_folder(_BUILT_IN / reference, name=reference)
    if mlflow.is_uri(reference):
        path, name, version = mlflow.download(reference)
        files = _read_file(path) if path.is_file() else _read_folder(path, name=name)
        return replace(files, version=version or files.version)
    if path.is_dir():
        return _read_folder(path, name=path.resolve().name)
    if path.is_file():
        return _read_file(path)
    if hub.is_hub_id(reference) and path.suffix not in _FILE_SUFFIXES:
        return _read_folder(hub.download(reference), name=reference)
    if "/" in reference or path.suffix in _FILE_SUFFIXES:
        raise ModelError(f"{reference}: no such file or folder")
    raise ModelError(
        f"no model called {reference!r}; {did_you_mean(reference, built_in(), 'built in')} "
        "(a path or a hub id 'org/name' works too)"
    )


def _side_by_side(parts: tuple[ModelFiles, ...]) -> ModelFiles:
    first = parts[0]
    for files in parts:
        if files.task != "text_classification":
            raise ModelError(f"{files.name}: no classifier of texts, so none can stand beside it")
        if not files.yaml.languages:
            raise ModelError(
                f"{files.name}: doesn't say which languages it reads; put 'languages: [en]', or "
                "what they are, into a model.yaml in its folder"
            )
        if (files.labels, files.multi_label) != (first.labels, first.multi_label):
            raise ModelError(
                f"{files.name} has the labels {', '.join(files.labels)}, but {first.name} has "
                f"{', '.join(first.labels)}; models that stand side by side need the same"
            )
        if files.threshold != first.threshold:
            raise ModelError(
                f"{files.name} has the threshold {files.threshold}, but {first.name} "
                f"{first.threshold}; models that stand side by side need the same"
            )
    return ModelFiles(
        name=",".join(files.name for files in parts),
        version=",".join(files.version for files in parts).strip(","),
        digest=digest_of_several(parts),
        task=first.task,
        graphs={},
        labels=first.labels,
        multi_label=first.multi_label,
        threshold=first.threshold,
        yaml=first.yaml,
        parts=parts,
    )


def built_in() -> tuple[str, ...]:
    """Names of the models that travel with the package."""
    return tuple(sorted(path.parent.name for path in _BUILT_IN.glob("*/model.yaml")))


def _read_folder(folder: Path, *, name: str) -> ModelFiles:
    if mlflow.is_folder(folder):
        return _read_mlflow(folder, name=name)
    config = read_json(folder / "config.json")
    yaml_file = folder / "model.yaml"
    graphs = _find_graphs(folder)
    if not config and not yaml_file.is_file() and not {"saved_model", "tflite"} & set(graphs):
        huggingface.refuse_other_forms(folder, (path.name for path in folder.iterdir()))
        raise ModelError(f"{folder}: no config.json and no model.yaml; is it a model folder?")
    if not graphs:
        huggingface.refuse_other_forms(folder, (path.name for path in folder.iterdir()))
        raise ModelError(
            f"{folder}: no weights; expected model.onnx, model.safetensors, model.tflite, "
            "model.keras or saved_model.pb"
        )
    if not config:
        return _described(graphs, yaml_file, name=name)
    for form, graph in graphs.items():
        for part in graph_files(form, graph):
            refuse_pointer(part)
    files = _read_yaml(graphs, yaml_file, name=name)
    if files.task and files.task not in huggingface.TASKS:  # a model.yaml tells all of it
        return _described(graphs, yaml_file, name=name)
    named, labels_from = _described_labels(files.yaml, {}, None, yaml_file)
    try:
        found = huggingface.understand(folder, config, graphs, files.yaml, named)
    except huggingface.OtherModelError as error:
        if not {"onnx", "openvino"} & set(graphs):
            raise
        # Who asks for its tensors as they are may have them.
        return replace(_described(graphs, yaml_file, name=name), metadata={"refused": str(error)})
    files = replace(
        _with_languages(files, folder / "README.md"),
        task=found.task,
        features=(),
        labels=found.labels,
        labels_from=labels_from or "config.json",
        multi_label=found.multi_label,
        tokenizer=found.tokenizer,
        max_length=found.max_length,
        pad_id=found.pad_id,
        pad_side=found.pad_side,
        metadata={"facts": found.facts},
    )
    return with_digest(files, folder)


def _read_mlflow(folder: Path, *, name: str) -> ModelFiles:
    """An MLflow model; a `model.yaml` in its folder may add more, such as labels."""
    graph, known = mlflow.open_folder(folder)
    if (graph / "config.json").is_file():
        return _read_folder(graph, name=name)
    format_ = "saved_model" if graph.is_dir() else _FORMATS.get(graph.suffix, "onnx")
    return _described({format_: graph}, folder / "model.yaml", name=name, known=known)


def _read_file(path: Path) -> ModelFiles:
    """A single file; what it does not say itself may stand in a YAML of the same name."""
    refuse_pointer(path)
    if path.suffix in _PICKLES:
        raise ModelError(
            f"{path}: a pickle runs its author's code when it is opened, so it isn't; export the "
            "model to ONNX (skl2onnx, torch.onnx) or safetensors"
        )
    format_ = _FORMATS.get(path.suffix, path.suffix.removeprefix("."))
    if path.suffix not in _FORMATS and not plugins.runtimes_for(format_):
        raise ModelError(
            f"{path}: not a model file that can be run; expected {', '.join(_FORMATS)} or a "
            "model folder"
        )
    return _described({format_: path}, _yaml_of(path), name=path.stem)


def _yaml_of(path: Path) -> Path:
    """The YAML of a file's name, else the `model.yaml` of its folder that lists its sum."""
    own = path.with_suffix(".yaml")
    if own.is_file():
        return own
    for folder in path.parent, path.parent.parent:  # the graph of a folder may lie in onnx/
        yaml_file = folder / "model.yaml"
        if yaml_file.is_file():
            sums = read_yaml(yaml_file, ModelError).get("sha256")
            if isinstance(sums, dict) and path.relative_to(folder).as_posix() in sums:
                return yaml_file
    return own


def _read_yaml(
    graphs: Mapping[str, Path], yaml_file: Path, *, name: str, known: Mapping[str, Any] = {}
) -> ModelFiles:
    """What a YAML says of any model, once the sums in it are found to be right."""
    yaml = read_model_yaml(yaml_file, known)
    verify(yaml_file, yaml.sha256 or {})
    return ModelFiles(
        name=yaml.name or name,
        version=yaml.version or "",
        digest="",
        task=yaml.task or "",
        graphs=graphs,
        threshold=yaml.threshold,
        precision=yaml.precision,
        features=yaml.features or (),
        yaml=yaml,
        languages_from=yaml_file.name if yaml.languages else "",
        float32=_float32(yaml, yaml_file),
    )


def _with_languages(files: ModelFiles, card: Path) -> ModelFiles:
    """The same files; what the YAML doesn't say, the front matter of the model's card may.

    Its `language` is a code or a list of them, by the hub's rules
    (https://huggingface.co/docs/hub/model-cards). `multilingual`, or a word that is no language's
    code, says nothing that could be checked.
    """
    if "languages" in files.yaml.model_fields_set:
        return files
    value = front_matter(card).get("language")
    given = value if isinstance(value, list) else [value]
    codes = [str(one).lower().partition("-")[0] for one in given]
    if not codes or not set(codes) <= set(LANGUAGES):
        return files
    yaml = files.yaml.model_copy(update={"languages": tuple(dict.fromkeys(codes))})
    return replace(files, yaml=yaml, languages_from=card.name)


def _described(
    graphs: Mapping[str, Path], yaml_file: Path, *, name: str, known: Mapping[str, Any] = {}
) -> ModelFiles:
    """A model of which its YAML, a `.tflite` file's metadata and a label file say what it is."""
    for graph in graphs.values():
        refuse_pointer(graph / "saved_model.pb" if graph.is_dir() else graph)
    files = _read_yaml(graphs, yaml_file, name=name, known=known)
    metadata: dict[str, Any] = {}
    if "tflite" in graphs:
        metadata = tflite_metadata.read(graphs["tflite"])
    elif "onnx" in graphs:
        metadata = onnx_written.exported(graphs["onnx"])
    elif "openvino" in graphs:
        metadata = openvino_written.exported(graphs["openvino"])
    if "refused" in metadata:
        metadata["refused"] = f"{name}: {metadata['refused']}"
    _check_operators(graphs, metadata)
    labels, labels_from = _described_labels(files.yaml, metadata, graphs.get("tflite"), yaml_file)
    files = replace(
        files,
        task=files.task or metadata.get("task", ""),
        labels=labels,
        labels_from=labels_from,
        metadata=metadata,
        yaml=_with_picture(files.yaml, yaml_file),
    )
    return with_digest(files)


def _float32(yaml: ModelYaml, yaml_file: Path) -> Path | None:
    """The graph that decides close calls of a quantised one, relative to the YAML that names it."""
    if yaml.float32 is None:
        return None
    path = _named(yaml_file, yaml.float32)
    if path.suffix not in (".onnx", ".xml"):
        raise ModelError(
            f"{yaml_file}: float32 names {yaml.float32}; expected an .onnx or .xml file"
        )
    if not path.is_file():
        raise ModelError(f"{path}: missing; {yaml_file.name} names it")
    return path


def _named(yaml_file: Path, name: str) -> Path:
    """A file that a YAML names: in its own folder, for the rest of the machine is private."""
    path = within(yaml_file.parent, name)
    if path is None:
        raise ModelError(f"{yaml_file}: names {name[:80]}, which lies outside of its folder")
    return path


def _with_picture(yaml: ModelYaml, yaml_file: Path) -> ModelYaml:
    """The same keys; a picture next to the YAML that is its example becomes a data URL."""
    kind = isinstance(yaml.example, str) and _PICTURES.get(Path(yaml.example).suffix.lower())
    if not kind:
        return yaml
    path = _named(yaml_file, Path(yaml.example).name)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(
            f"{path}: can't be read ({reason}); {yaml_file.name} names it as example"
        ) from error
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return yaml.model_copy(update={"example": url})


def _described_labels(
    yaml: ModelYaml, metadata: Mapping[str, Any], tflite: Path | None, yaml_file: Path
) -> tuple[tuple[str, ...], str]:
    """Names of the classes and their source: a YAML, the model's own file, a file next to it."""
    if isinstance(yaml.labels, str):  # a file, relative to the YAML
        labels = read_labels(_named(yaml_file, yaml.labels))
        return labels, f"{yaml.labels}, which {yaml_file.name} names"
    if yaml.labels:
        return yaml.labels, yaml_file.name
    if "labels" in metadata:
        return metadata["labels"], metadata["labels_from"]
    file = find_labels(tflite) if tflite else None
    return (read_labels(file), f"{file.name} next to the model") if file else ((), "")


def _check_operators(graphs: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
    """Say at once what no interpreter here could run; its own words would help nobody."""
    for operator in metadata.get("operators", ()):
        if operator == "edgetpu-custom-op":
            raise ModelError(
                f"{graphs['tflite']}: compiled for a Coral Edge TPU; take the file that it was "
                "compiled from, mostly of the same name without _edgetpu"
            )
        if operator.startswith("Flex"):
            raise ModelError(
                f"{graphs['tflite']}: needs TensorFlow's own operator {operator}; convert the "
                "model without SELECT_TF_OPS"
            )


def _find_graphs(folder: Path) -> dict[str, Path]:
    graphs = {}
    for format_, names in _PLACES.items():
        if found := next((folder / name for name in names if (folder / name).is_file()), None):
            graphs[format_] = folder if format_ in ("checkpoint", "saved_model") else found
    others = sorted(folder.glob("*.tflite"))
    if not graphs and len(others) == 1:  # `detect.tflite` with its labels, as they are published
        graphs["tflite"] = others[0]
    return graphs
