"""MLflow: a model folder (one with a file `MLmodel`), and models of its registry and of its runs.

A folder is read without MLflow: `MLmodel` is YAML, and the model lies beside it as its framework
saved it. To fetch `models:/name/version`, `models:/name@alias` or `runs:/id/path` takes its client,
which knows the tracking server (MLFLOW_TRACKING_URI), logins and object stores.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlopsdeploy.core.yaml_files import read_yaml
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.cache import cache_folder, cached

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"models:/m-[0-9a-f]+")
_RUN = re.compile(r"runs:/[^/]+/.+")
# Flavours whose files open only in their framework; what makes ONNX of the model where it is one.
_CONVERSIONS = {
    "sklearn": "onnx = skl2onnx.to_onnx(model, X[:1])",
    "xgboost": "onnx = onnxmltools.convert_xgboost(model, initial_types=[...])",
    "lightgbm": "onnx = onnxmltools.convert_lightgbm(model, initial_types=[...])",
    "catboost": "model.save_model('model.onnx', format='onnx'); onnx = onnx.load('model.onnx')",
    "pytorch": "torch.onnx.export(model, (x,), 'model.onnx'); onnx = onnx.load('model.onnx')",
}
# Unless the user says otherwise: reports of its use stay here, and a server that is not there is
# a line in seconds, not after minutes of new tries.
_CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def is_uri(reference: str) -> bool:
    """Whether it begins as MLflow's own addresses of models do."""
    return reference.startswith(("models:/", "runs:/"))


def is_folder(folder: Path) -> bool:
    """Whether MLflow wrote it."""
    return (folder / "MLmodel").is_file()


# ---------------------------------------------------------------- a folder


def open_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    """What an MLflow model's folder holds.

    Returns:
        The file or folder of the model itself (ONNX, Keras, a SavedModel, a Hugging Face folder),
        and what `MLmodel` says of it, under the names that `model.yaml` has for it.

    Raises:
        ModelError: it can't be read, or its flavours are none that can be run.
    """
    said = _read(folder / "MLmodel")
    flavours = said["flavors"]
    readers: dict[str, Callable[[Path, Mapping[str, Any]], Path]] = {
        "onnx": _onnx, "transformers": _transformers, "keras": _keras, "tensorflow": _keras,
    }  # fmt: skip
    for flavour, reader in readers.items():
        if isinstance(flavours.get(flavour), dict):
            features = _features(said)
            return reader(folder, flavours[flavour]), {"features": features} if features else {}
    own = ", ".join(name for name in flavours if name != "python_function") or "python_function"
    known = next((_CONVERSIONS[name] for name in flavours if name in _CONVERSIONS), "")
    way = f": {known}; mlflow.onnx.log_model(onnx, name='model')" if known else ""
    raise ModelError(
        f"{folder}: an MLflow model of the flavour {own}, a pickle or a file that only its own "
        f"framework opens; where it was trained, log it as ONNX{way}"
    )


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, ModelError)
    if not isinstance(content.get("flavors"), dict):
        raise ModelError(f"{path}: names no flavors; is it MLflow's?")
    return content


def _features(said: Mapping[str, Any]) -> list[str]:
    """The columns of its signature, in their order; none where it has none or takes arrays."""
    signature = said.get("signature")
    text = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        fields = json.loads(text) if isinstance(text, str) else []
        named = [field.get("name") for field in fields if field.get("type") != "tensor"]
    except (ValueError, AttributeError, TypeError):
        return []
    return [str(name) for name in named] if named and all(named) else []


def _onnx(folder: Path, flavour: Mapping[str, Any]) -> Path:
    file = _within(folder, flavour.get("data", "model.onnx"))
    return _there(next(iter(sorted(file.glob("*.onnx"))), file) if file.is_dir() else file)


def _keras(folder: Path, flavour: Mapping[str, Any]) -> Path:
    saved = flavour.get("saved_model_dir")
    if saved:
        return _there(_within(folder, saved))
    data = _within(folder, flavour.get("data", "data"))
    names = ("model.keras", "model.h5", "model")
    return _there(next((data / name for name in names if (data / name).exists()), data / names[0]))


def _transformers(folder: Path, flavour: Mapping[str, Any]) -> Path:
    task = flavour.get("task")
    if task != "text-classification":
        raise ModelError(
            f"{folder}: a transformers model for {task}; of these only text-classification is run"
        )
    model = _there(_within(folder, flavour.get("model_binary", "model")))
    tokenizer = _within(folder, "components/tokenizer")
    if not tokenizer.is_dir() or (model / "tokenizer.json").exists():
        return model
    # MLflow keeps them apart; everybody else, us included, has them in one folder.
    return _joined(model, tokenizer)


def _joined(*folders: Path) -> Path:
    """A folder in the cache with the files of all of these, linked where that can be."""
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    target = cache_folder() / "mlflow" / hashlib.sha256(repr(state).encode()).hexdigest()[:32]

    def build(building: Path) -> None:
        for file in files:
            try:
                os.link(file, building / file.name)
            except OSError:  # another disk
                shutil.copyfile(file, building / file.name)

    return cached(target, build)


def _within(folder: Path, name: object) -> Path:
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / 'MLmodel'}: names {name}, which lies outside of its folder")
    return path


def _there(path: Path) -> Path:
    if not path.exists():
        raise ModelError(f"{path}: missing; the MLmodel beside it names it")
    return path


# ---------------------------------------------------------------- the registry and runs


def download(reference: str) -> tuple[Path, str, str]:
    """Fetch a model, or find what was fetched before.

    A version never changes, nor does what a run logged: both are fetched once. An alias is
    looked up each time.

    Returns:
        The model's folder (or file) in the cache; its name; the version that the registry
        gives it, empty for a run's.

    Raises:
        ModelError: the client is missing, the server can't be reached, or there is no such model.
    """
    registered = _REGISTERED.fullmatch(reference)
    if not registered and not _RUN.fullmatch(reference) and not _LOGGED.fullmatch(reference):
        raise ModelError(
            f"{reference}: MLflow's models are models:/name/version, models:/name@alias or "
            "runs:/id/path"
        )
    name, version, uri = reference.rstrip("/").rpartition("/")[2], "", reference
    if registered:
        name, version = registered["name"], registered["version"] or ""
        if not version.isdecimal():
            version = _version(reference, registered)
            uri = f"models:/{name}/{version}"
    target = cache_folder() / "mlflow" / hashlib.sha256(f"{_server()} {uri}".encode()).hexdigest()

    def build(building: Path) -> None:
        _ask(
            reference,
            lambda client: client.artifacts.download_artifacts(uri, dst_path=str(building)),
        )

    cached(target, build)
    return _found(target, reference), name, version


def _version(reference: str, registered: re.Match[str]) -> str:
    """The number that an alias, or `latest`, stands for now."""
    name, alias, said = registered["name"], registered["alias"], registered["version"]
    if alias:
        return str(
            _ask(
                reference,
                lambda mlflow: mlflow.MlflowClient().get_model_version_by_alias(name, alias),
            ).version
        )
    if said != "latest":
        raise ModelError(
            f"{reference}: {said!r} is no version's number; stages are a thing of MLflow's past, "
            f"so give the version an alias: models:/{name}@{said.lower()}"
        )
    versions = _ask(
        reference, lambda mlflow: mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    )
    if not versions:
        raise ModelError(f"{reference}: the registry has no model of this name")
    return str(max(int(version.version) for version in versions))


def _ask(reference: str, question: Callable[[Any], Any]) -> Any:
    """What MLflow's client answers; its errors as one line."""
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{reference}: needs MLflow's client; pip install 'mlopsdeploy[mlflow]'"
        ) from error
    try:
        return question(mlflow)
    except Exception as error:  # its stores and their object stores raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{reference}: {mlflow.get_registry_uri()} did not give it ({reason}); "
            "MLFLOW_TRACKING_URI says which server is asked"
        ) from error


def _server() -> str:
    """What tells one tracking server from another; those that are files lie in some folder."""
    said = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    return said if said.startswith(("http", "databricks")) else f"{said} {Path.cwd()}"


def _found(folder: Path, reference: str) -> Path:
    """Where in a download the model is: MLflow keeps, or not, the last part of its path."""
    last = folder / reference.rpartition("/")[2]
    for path in (folder, last):
        if is_folder(path) or path.is_file():
            return path
    raise ModelError(f"{reference}: is no model: there is no file MLmodel in it")
