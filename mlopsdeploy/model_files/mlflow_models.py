"""MLflow: a model folder (one with a file `MLmodel`), and models of its registry and of its runs.

A folder is read without MLflow: `MLmodel` is YAML, and next to it is the model as its framework
saved it. To fetch `models:/name/version`, `models:/name@alias` or `runs:/id/path` needs its client,
which knows the tracking server (MLFLOW_TRACKING_URI), logins and object stores.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlopsdeploy.core.paths import within
from mlopsdeploy.core.yaml_files import read_yaml
from mlopsdeploy.errors import ModelError, one_line
from mlopsdeploy.model_files.cache import cache_folder, cached

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"models:/m-[0-9a-f]+|runs:/[^/]+/.+")
_TOKENIZER = "components/tokenizer"
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
    described = read_yaml(folder / "MLmodel", ModelError)
    flavours = described.get("flavors")
    if not isinstance(flavours, dict):
        raise ModelError(f"{folder / 'MLmodel'}: names no flavors; is it MLflow's?")
    readers: dict[str, Callable[[Path, Mapping[str, Any]], Path]] = {
        "onnx": _onnx, "transformers": _transformers, "keras": _keras, "tensorflow": _keras,
    }  # fmt: skip
    for flavour, reader in readers.items():
        if isinstance(flavours.get(flavour), dict):
            features = _features(described.get("signature"))
            return reader(folder, flavours[flavour]), {"features": features} if features else {}
    own = ", ".join(name for name in flavours if name != "python_function") or "python_function"
    known = next((_CONVERSIONS[name] for name in flavours if name in _CONVERSIONS), "")
    how = f": {known}; mlflow.onnx.log_model(onnx, name='model')" if known else ""
    raise ModelError(
        f"{folder}: an MLflow model of the flavour {own}, a pickle or a file that only its own "
        f"framework opens; where it was trained, log it as ONNX{how}"
    )


def _features(signature: Any) -> list[str]:
    """Its columns, in their order; none where it has none or is of arrays."""
    try:
        fields = json.loads(signature["inputs"])
        named = [field.get("name") for field in fields if field.get("type") != "tensor"]
    except (KeyError, ValueError, AttributeError, TypeError):
        return []
    return [str(name) for name in named] if all(named) else []


def _onnx(folder: Path, flavour: Mapping[str, Any]) -> Path:
    file = _within(folder, flavour.get("data", "model.onnx"))
    return next(iter(sorted(file.glob("*.onnx"))), file) if file.is_dir() else file


def _keras(folder: Path, flavour: Mapping[str, Any]) -> Path:
    if saved := flavour.get("saved_model_dir"):
        return _within(folder, saved)
    places = [f"{flavour.get('data', 'data')}/model{suffix}" for suffix in (".keras", ".h5", "")]
    return _within(folder, next((one for one in places if (folder / one).exists()), places[0]))


def _transformers(folder: Path, flavour: Mapping[str, Any]) -> Path:
    task = flavour.get("task")
    if task != "text-classification":
        raise ModelError(
            f"{folder}: a transformers model for {task}; of these only text-classification is run"
        )
    model = _within(folder, flavour.get("model_binary", "model"))
    if not (folder / _TOKENIZER).is_dir() or (model / "tokenizer.json").exists():
        return model
    # MLflow keeps them apart; everybody else, us included, has them in one folder.
    parts = (model, _within(folder, _TOKENIZER))
    files = [path for part in parts for path in sorted(part.iterdir()) if path.is_file()]
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    def build(building: Path) -> None:
        for file in files:
            try:
                os.link(file, building / file.name)
            except OSError:  # another disk
                shutil.copyfile(file, building / file.name)

    return cached(_entry(repr(state)), build)


def _within(folder: Path, name: object) -> Path:
    """What `MLmodel` names."""
    path = within(folder, str(name))
    if path is None:
        raise ModelError(f"{folder / 'MLmodel'}: names {name}, which lies outside of its folder")
    if not path.exists():
        raise ModelError(f"{path}: missing; the MLmodel beside it names it")
    return path


def _entry(key: str) -> Path:
    """The place in the cache of what `key` stands for."""
    return cache_folder() / "mlflow" / hashlib.sha256(key.encode()).hexdigest()


# ---------------------------------------------------------------- the registry and runs


def download(reference: str) -> tuple[Path, str, str]:
    """Fetch a model, or find what was fetched before.

    A version never changes, nor does what a run logged: both are fetched once. An alias is
    looked up each time.

    Returns:
        The model's folder (or file) in the cache; its name; the version that the registry
        has for it, empty for a run's.

    Raises:
        ModelError: the client is missing, the server can't be reached, or there is no such model.
    """
    registered = _REGISTERED.fullmatch(reference)
    name, version, uri = reference.rstrip("/").rpartition("/")[2], "", reference
    if registered:
        name, version = registered["name"], _version(reference, registered)
        uri = f"models:/{name}/{version}"
    elif not _LOGGED.fullmatch(reference):
        raise ModelError(
            f"{reference}: MLflow's models are models:/name/version, models:/name@alias or "
            "runs:/id/path"
        )
    target = _entry(f"{_server()} {uri}")

    def build(building: Path) -> None:
        with _client(reference) as mlflow:
            mlflow.artifacts.download_artifacts(uri, dst_path=str(building))

    cached(target, build)
    # MLflow keeps, or not, the last part of its path.
    for path in (target, target / reference.rpartition("/")[2]):
        if is_folder(path) or path.is_file():
            return path, name, version
    raise ModelError(f"{reference}: is no model: there is no file MLmodel in it")


def _version(reference: str, registered: re.Match[str]) -> str:
    """The number of a version, or the one that an alias or `latest` stands for now."""
    name, alias, version = registered["name"], registered["alias"], registered["version"]
    if alias:
        with _client(reference) as mlflow:
            return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
    if version.isdecimal():
        return version
    if version != "latest":
        raise ModelError(
            f"{reference}: {version!r} is no version's number; stages are a thing of MLflow's "
            f"past, so give the version an alias: models:/{name}@{version.lower()}"
        )
    with _client(reference) as mlflow:
        versions = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    if not versions:
        raise ModelError(f"{reference}: the registry has no model of this name")
    return str(max(int(one.version) for one in versions))


@contextmanager
def _client(reference: str) -> Iterator[Any]:
    """MLflow, whose errors become one line."""
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{reference}: needs MLflow's client; pip install 'mlopsdeploy[mlflow]'"
        ) from error
    try:
        yield mlflow
    except Exception as error:  # its stores and their object stores raise what they like
        raise ModelError(
            f"{reference}: {mlflow.get_registry_uri()} did not give it ({one_line(error)}); "
            "MLFLOW_TRACKING_URI says which server is asked"
        ) from error


def _server() -> str:
    """The address of the tracking server; one that is a file depends on the working folder."""
    address = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    return address if address.startswith(("http", "databricks")) else f"{address} {Path.cwd()}"
