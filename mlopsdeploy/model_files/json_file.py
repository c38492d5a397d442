"""JSON next to a model: its configuration, its tokenizer, the list of its shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.pointers import refuse_pointer

MAX_BYTES = 64 << 20  # the largest tokenizers have half of that


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds; empty where there is no such file.

    Raises:
        ModelError: it holds something else, is too large, or nested too deep.
    """
    if not path.is_file():
        return {}
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, too large for its kind")
        value = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from error
    except RecursionError as error:
        raise ModelError(f"{path}: nested too deep for its kind") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value
