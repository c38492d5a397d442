"""What a Keras file holds, read as data before anything builds a model of it.

It may carry code (CVE-2025-1550, CVE-2025-8747, CVE-2025-9905), name other files of this machine
to read (CVE-2025-12058, CVE-2026-1669), and be far larger than it looks (CVE-2026-0897).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mlopsdeploy.errors import ModelError, one_line

# A model of this size loads anyway. A larger one may be so many times its file: weights hardly
# pack, but those of a layer that was never trained may all be zero.
_SMALL = 256 << 20
_PACKED = 100
_CONFIG = 64 << 20  # bytes; vocabularies stand in it, and a million words take 12 MB
# Layers and values that are their author's code, or load some from elsewhere.
_CODE = {
    "Lambda": "a Lambda layer, which runs",
    "__lambda__": "a Python lambda, which runs",
    "TorchModuleWrapper": "a pickled PyTorch module, which runs",
    "TFSMLayer": "a TFSMLayer, which loads another model and runs",
    "JaxLayer": "a JaxLayer, which runs",
    "FlaxLayer": "a FlaxLayer, which runs",
    "ClassMethod": "a call of a class's method, which runs",
}
# Functions of TensorFlow that Keras 2 wrote down as layers, by their names. These compute; others
# load libraries, read and write files.
_COMPUTES = re.compile(
    r"(compat\.v1\.)?((__operators__|bitwise|image|linalg|math|nn|signal|strings)\.\w+|"
    r"(abs|argmax|argmin|batch_to_space|boolean_mask|broadcast_to|cast|clip_by_\w+|concat|"
    r"convert_to_tensor|cumsum|einsum|exp|expand_dims|fill|floor|gather|gather_nd|identity|matmul|"
    r"maximum|minimum|norm|one_hot|ones|ones_like|pad|pow|range|rank|reduce_\w+|repeat|reshape|"
    r"reverse|roll|round|shape|sigmoid|sign|size|slice|sort|space_to_batch|split|sqrt|square|"
    r"squeeze|stack|stop_gradient|strided_slice|subtract|tanh|tensordot|tile|transpose|unstack|"
    r"where|zeros|zeros_like))"
)
_OPERATIONS = {"TFOpLambda", "SlicingOpLambda"}
# Of Keras, what models are made of; others (keras.utils.get_file) fetch files.
_PARTS_OF_KERAS = {
    "activations", "constraints", "dtype_policies", "engine", "initializers", "layers", "losses",
    "metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random",
    "regularizers",
}  # fmt: skip
_MODELS = {"Functional", "Model", "Sequential"}  # keras.models.load_model reads files, too
_TRUST = "if you trust it: --trust-model"


def check(source: Path, *, trusted: bool) -> str:
    """Whether a file can be loaded, and may be. Loads nothing.

    Args:
        source: what is called a Keras model.
        trusted: it may hold code, name other files and be of any size.

    Returns:
        "keras" or "h5": what it is, whatever it is called.

    Raises:
        ModelError: it can't or may not be loaded; one line says why.
    """
    with _readable(source), source.open("rb") as file:
        start = file.read(8)
    if not start:
        raise ModelError(f"{source}: is empty")
    if start.startswith(b"PK"):
        form, config = "keras", _zip_config(source, trusted=trusted)
    elif start == b"\x89HDF\r\n\x1a\n":
        form, config = "h5", _h5_config(source)
    else:
        raise ModelError(f"{source}: not a Keras model; it is neither a .keras zip nor HDF5")
    if not trusted:
        for refusal in _refusals(config):
            raise ModelError(f"{source}: {refusal}")
        _check_weights(source, form)
    return form


def version(source: Path, form: str) -> str:
    """The Keras that wrote a file that `check` took; "2" where none is written, as in old ones."""
    if form == "h5":
        import h5py

        with h5py.File(source, "r") as file:
            written = file.attrs.get("keras_version", "2")
        return written.decode() if isinstance(written, bytes) else str(written)
    with zipfile.ZipFile(source) as archive:
        if "metadata.json" not in archive.namelist():
            return "3"
        metadata = json.loads(archive.read("metadata.json"))
    return str(metadata.get("keras_version", "3")) if isinstance(metadata, dict) else "3"


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"{source}: damaged or cut off ({one_line(error)}); fetch it again"
        ) from error
    except (ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise ModelError(f"{source}: its config is not a model's ({one_line(error)})") from error


# ---------------------------------------------------------------- the zip of Keras 3


def _zip_config(source: Path, *, trusted: bool) -> Any:
    with _readable(source), zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            raise ModelError(f"{source}: a zip, but not a Keras model: it holds no config.json")
        if not {"model.weights.h5", "model.weights.npz"} & {*names}:
            raise ModelError(f"{source}: its weights are missing; save it again with model.save")
        for refusal in () if trusted else _refusals_of_zip(source, archive):
            raise ModelError(f"{source}: {refusal}")
        damaged = archive.testzip()
        if damaged:
            raise ModelError(f"{source}: damaged ({damaged} fails its checksum); fetch it again")
        config = json.loads(archive.read("config.json"))
    if isinstance(config, dict):
        config.pop("compile_config", None)  # how it was trained is not loaded
    return config


def _refusals_of_zip(source: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    """Why an archive isn't unpacked, from its directory: what members are called, and how large."""
    members = archive.infolist()
    for name, count in Counter(member.filename for member in members).items():
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            yield f"holds a file that would be unpacked elsewhere, {name[:80]!r}; no Keras wrote it"
        if count > 1:
            yield f"holds two files called {name[:80]!r}; no Keras wrote it"
    if archive.getinfo("config.json").file_size > _CONFIG:
        yield f"its config.json is larger than {_CONFIG >> 20} MiB, too large for a model's"
    # Python unpacks no more of a member than its directory says.
    yield from _too_large(source, sum(member.file_size for member in members))


def _too_large(source: Path, size: int) -> Iterator[str]:
    packed = source.stat().st_size
    if size > max(_SMALL, _PACKED * packed):
        yield (
            f"a file of {packed / 1e6:,.1f} MB that would become {size / 1e6:,.0f} MB, which no "
            f"model's weights do; {_TRUST}"
        )


# ---------------------------------------------------------------- HDF5


def _h5_config(source: Path) -> Any:
    import h5py

    with _readable(source), h5py.File(source, "r") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise ModelError(
                f"{source}: holds no model_config, so it is weights alone; save the whole model "
                "with model.save"
            )
        if "model_weights" not in file:
            raise ModelError(f"{source}: its weights are missing; save it again with model.save")
        return json.loads(config)


# ---------------------------------------------------------------- layers


def _refusals(config: Any) -> Iterator[str]:
    """Why a model of this config is not loaded, for each part that is a reason."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        if not isinstance(part, dict):
            continue
        pending.extend(part.values())
        yield from _refusals_of_part(part)


def _refusals_of_part(part: dict[str, Any]) -> Iterator[str]:
    name = str(part.get("class_name", "")).rpartition(">")[2]
    if name in _CODE:
        yield f"holds {_CODE[name]} its author's code; {_TRUST}"
    for key in ("vocabulary", "vocabulary_file"):
        if isinstance(part.get(key), str):
            yield f"names a file of this machine to read, {part[key][:80]!r}; {_TRUST}"
    if name in _OPERATIONS and not _COMPUTES.fullmatch(function := _function_of(part)):
        yield f"calls {function[:80]!r}, which may do more than compute; {_TRUST}"
    if name and part.get("module", "builtins") != "builtins":
        if name == "function":
            name = str(part.get("config"))
        if _is_foreign(part["module"], name):
            yield (
                f"needs {name[:80]!r}, which is neither a part of Keras nor in the file; where "
                "it was made, model.export('folder') makes a SavedModel that can be used"
            )


def _function_of(part: dict[str, Any]) -> str:
    config = part.get("config")
    return str(config.get("function")) if isinstance(config, dict) else ""


def _is_foreign(module: Any, name: str) -> bool:
    """Whether a part comes from elsewhere than the modules that models are made of."""
    package, *inner = str(module).split(".")
    inner = [part for part in inner if part != "src"]
    if package not in ("keras", "tf_keras") or (inner and inner[0] not in _PARTS_OF_KERAS):
        return True
    return inner[:1] == ["models"] and name not in _MODELS


# ---------------------------------------------------------------- weights


def _check_weights(source: Path, form: str) -> None:
    """Refuse weights that lie elsewhere, or become far more than they are."""
    with _readable(source):
        if form == "h5":
            _check_h5(source, source)
            return
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if name.endswith((".h5", ".npz")):
                    with tempfile.TemporaryFile() as file:
                        with archive.open(name) as member:
                            shutil.copyfileobj(member, file, 1 << 20)
                        (_check_h5 if name.endswith(".h5") else _check_npz)(source, file)


def _check_npz(source: Path, file: Any) -> None:
    with zipfile.ZipFile(file) as arrays:
        for refusal in _too_large(source, sum(member.file_size for member in arrays.infolist())):
            raise ModelError(f"{source}: {refusal}")


def _check_h5(source: Path, file: Any) -> None:
    import h5py

    size = 0
    seen: set[Any] = set()
    with h5py.File(file, "r") as opened:
        pending: list[Any] = [opened]
        while pending:
            item = pending.pop()
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ModelError(
                        f"{source}: keeps {item.name!r} in another file of this machine; {_TRUST}"
                    )
                size += item.nbytes
            for name in item if isinstance(item, h5py.Group) else ():
                link = item.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise ModelError(
                        f"{source}: links to another file of this machine, "
                        f"{link.filename[:80]!r}; {_TRUST}"
                    )
                if isinstance(link, h5py.HardLink):  # a soft one is to what has such a one, too
                    pending.append(item[name])
    for refusal in _too_large(source, size):
        raise ModelError(f"{source}: {refusal}")
