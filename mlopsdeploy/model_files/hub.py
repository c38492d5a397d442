"""The Hugging Face hub: download once, work from its cache ever after."""

from __future__ import annotations

import re
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from mlopsdeploy.errors import ModelError, one_line
from mlopsdeploy.model_files.huggingface import refuse_other_forms

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_NEEDED = [
    "config.json", "tokenizer*", "vocab.txt", "*.model", "merges.txt", "vocab.json",
    "README.md",  # which may say what languages it reads
]  # fmt: skip
_ONNX = ["onnx/model.onnx", "onnx/model.onnx_data*"]
_WEIGHTS = ["model*.safetensors", "model.safetensors.index.json"]


def is_hub_id(reference: str) -> bool:
    """Whether it reads `org/name` or `org/name@revision`."""
    return _HUB_ID.fullmatch(reference) is not None


def download(reference: str) -> Path:
    """The model's folder in the hub's cache, downloaded if it isn't there.

    Only what is needed travels: the ONNX file if the model has one, else the weights.

    Raises:
        ModelError: the hub can't be reached, or has no such model; one line, no retries.
    """
    try:
        import huggingface_hub  # a second and a network stack: only for those who ask for a hub id
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{reference}: a hub id needs huggingface_hub; pip install 'mlopsdeploy[batch]'"
        ) from error

    name, _, revision = reference.partition("@")

    def fetch(patterns: list[str], *, local: bool) -> Path:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=patterns, local_files_only=local,
            etag_timeout=5,
        )  # fmt: skip
        return Path(folder)

    with suppress(OSError):  # not in the cache: LocalEntryNotFoundError
        cached = fetch(_NEEDED, local=True)
        has_graph = (cached / _ONNX[0]).exists() or any(cached.glob(_WEIGHTS[0]))
        if has_graph and (cached / "config.json").exists():
            return cached
    try:
        listed = huggingface_hub.HfApi().model_info(name, revision=revision or None, timeout=5)
        files = {sibling.rfilename for sibling in listed.siblings or ()}
        if not any(fnmatch(file, pattern) for file in files for pattern in (*_ONNX, *_WEIGHTS)):
            refuse_other_forms(Path(name), files)  # before anything travels
        return fetch(_NEEDED + (_ONNX if _ONNX[0] in files else _WEIGHTS), local=False)
    except ModelError:
        raise
    except Exception as error:  # its HTTP client's errors are not part of its interface
        raise ModelError(
            f"{reference}: not in the local cache, and the hub did not give it "
            f"({one_line(error)}); with no network, pass the path of a downloaded folder"
        ) from error
