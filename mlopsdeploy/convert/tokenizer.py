"""A `tokenizer.json` for models without one: made by transformers, once, in its own process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mlopsdeploy.convert import child
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.cache import cache_folder, cached, use
from mlopsdeploy.model_files.digest import sha256
from mlopsdeploy.model_files.pointers import refuse_pointer

# What may say how a text becomes tokens, besides the graph and its weights.
_SOURCES = ("*.txt", "*.json", "*.model")


def as_json(source: Path, log: Callable[[str], None] = lambda _: None) -> Path:
    """The `tokenizer.json` of a model's folder, made on first use where it has none.

    Args:
        source: `tokenizer.json`, or a file that transformers reads, such as `vocab.txt`.
        log: called with a line when one is made.

    Raises:
        ModelError: transformers is not installed or can't make one of the same tokens.
    """
    if source.name == "tokenizer.json":
        return source
    model = source.parent
    entry = cache_folder() / "tokenizer" / _digest(model)
    if not use(entry):
        if not child.installed("transformers"):
            raise ModelError(
                f"{model}: has no tokenizer.json, and making one of {source.name} needs "
                "transformers: pip install 'mlopsdeploy[torch]' (once; it is not needed to run)"
            )

        def build(building: Path) -> None:
            log(f"making a tokenizer.json of {source.name}, once")
            code, reason = child.run(
                "build_tokenizer.py", model, building, env={"HF_HUB_OFFLINE": "1"}
            )
            if code:
                raise ModelError(
                    f"{model}: has no tokenizer.json, and transformers can't make one of "
                    f"{source.name} ({reason})"
                )

        cached(entry, build, log)
    return entry / "tokenizer.json"


def _digest(model: Path) -> str:
    files = {path for pattern in _SOURCES for path in model.glob(pattern) if path.is_file()}
    for path in files:
        refuse_pointer(path)
    sums = sorted((path.name, sha256(path)) for path in files)
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:32]
