"""What a model's author wrote of it, whatever format it came in."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from mlopsdeploy.columns import Made, MadeAs, Written
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import onnx_written, openvino_written, tflite_metadata
from mlopsdeploy.model_files.folder import proof_in

RT_INFO = ("mlopsdeploy", "written")
"""Where OpenVINO's own file, which keeps no metadata of ONNX, has it."""
_RT_INFO = re.compile(r'<mlopsdeploy>\s*<written value="([^"]*)"')


def read_written(graph: Path) -> Written:
    """What the files tell of the graph that runs, or of the one that it was compiled from.

    Args:
        graph: the file, or the SavedModel's folder, that its runtime opens.

    Raises:
        ModelError: a file that a runtime may open can't be read all the same.
    """
    if graph.suffix == ".tflite":
        metadata = tflite_metadata.read(graph)
        carried = metadata.get("written")
        return from_json(carried, graph) if carried else metadata.get("graph", Written())
    if (graph / "saved_model.pb").is_file():  # compiled here: its proof lies beside it
        return from_json(proof_in(graph.parent).get("written", {}), graph)
    if graph.suffix == ".onnx":
        return onnx_written.read(graph)
    if graph.suffix == ".xml":
        return _of_openvino(graph)
    return Written()


def _of_openvino(graph: Path) -> Written:
    try:
        found = _RT_INFO.search(graph.read_text("utf-8"))
        if found is None:  # not made here
            return openvino_written.read(graph)
        return from_json(json.loads(html.unescape(found[1])), graph)
    except (OSError, ValueError) as error:
        raise ModelError(f"{graph}: can't be read ({error})") from error


def to_json(written: Written) -> dict[str, Any]:
    """Its attributes that aren't empty, as JSON has them."""
    return {key: value for key, value in asdict(written).items() if value}


def from_json(document: Any, where: Path) -> Written:
    """What `to_json` made.

    Raises:
        ModelError: it is something else.
    """
    try:
        return _from_json(document)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{where}: what is written in it of its outputs can't be read; compile it again"
        ) from error


def _from_json(document: Mapping[str, Any]) -> Written:
    pixels = document.get("pixels")
    if pixels is not None:
        mean, std, source = pixels
        pixels = (tuple(map(float, mean)), tuple(map(float, std)), str(source))
    return Written(
        outputs={str(name): _made(*made) for name, made in document.get("outputs", {}).items()},
        classes={str(name): _texts(held) for name, held in document.get("classes", {}).items()},
        parts={str(name): _texts(parts) for name, parts in document.get("parts", {}).items()},
        task=str(document.get("task", "")),
        task_source=str(document.get("task_source", "")),
        pixels=pixels,
        color="bgr" if document.get("color") == "bgr" else "",
        sizes={str(name): int(size) for name, size in document.get("sizes", {}).items()},
        changing=str(document.get("changing", "")),
        features=_texts(document.get("features", ())),
    )


def _made(kind: Any, source: Any) -> Made:
    if kind not in get_args(MadeAs):
        raise ValueError(kind)
    return Made(kind, str(source))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
