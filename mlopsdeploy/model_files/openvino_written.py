"""What the author of an OpenVINO `.xml` wrote into it: outputs, names of classes and columns."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Made, Written, named_features
from mlopsdeploy.core.yaml_files import read_yaml
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.author_names import classes_in
from mlopsdeploy.model_files.graph_ends import End, Ends
from mlopsdeploy.model_files.tflite_metadata import ultralytics

_SMALL = 1 << 16  # bytes: of a constant that is read
_MOST = 4 << 20  # bytes: of metadata
_DTYPES = {
    "f16": "<f2", "f32": "<f4", "f64": "<f8", "i32": "<i4", "i64": "<i8", "i8": "i1", "u8": "u1",
}  # fmt: skip
# In ONNX's words, where OpenVINO has others.
_KINDS = {
    "Clamp": "Clip", "Convert": "Cast", "ConvertLike": "CastLike", "Convolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose", "Divide": "Div", "FakeQuantize": "Identity",
    "GRUSequence": "GRU", "HSwish": "HardSwish", "LSTMSequence": "LSTM",
    "MVN": "LayerNormalization", "Multiply": "Mul", "NormalizeL2": "LpNormalization",
    "ReLU": "Relu", "SoftMax": "Softmax", "SoftPlus": "Softplus", "Subtract": "Sub",
    "Tile": "Expand",
}  # fmt: skip


class _NoEntities(ET.TreeBuilder):
    """Of a file that nobody vouches for: what may grow without bound is declared in a DOCTYPE."""

    def doctype(self, name: str, *_: Any) -> None:
        raise ValueError(f"a DOCTYPE, {name}")


class _Layer:
    """An operator of the graph; its values are called `layer:port`."""

    def __init__(self, element: ET.Element) -> None:
        data = element.find("data")
        self.id = element.get("id", "")
        self.name = element.get("name", "")
        self.data: Mapping[str, str] = {} if data is None else data.attrib
        self.ports = element.findall("output/port")
        self.kind = _KINDS.get(element.get("type", ""), element.get("type", ""))
        self.gives = tuple(f"{self.id}:{port.get('id')}" for port in self.ports)
        self.takes: tuple[str, ...] = ()
        self.classes: tuple[str, ...] = ()

    def attribute(self, name: str) -> Any:
        """A number, or the text that it is written as."""
        text = self.data.get(name)
        try:
            return text if text is None else int(text)
        except ValueError:
            return text


class _Graph:
    def __init__(self, root: ET.Element, weights: Path) -> None:
        self._weights = weights
        self.layers = {layer.id: layer for layer in map(_Layer, root.iterfind("layers/layer"))}
        takes: dict[str, dict[int, str]] = {}
        for edge in root.iterfind("edges/edge"):
            places = takes.setdefault(edge.attrib["to-layer"], {})
            source = f"{edge.attrib['from-layer']}:{edge.attrib['from-port']}"
            places[int(edge.attrib["to-port"])] = source
        for identity, places in takes.items():
            self.layers[identity].takes = tuple(places[place] for place in sorted(places))
        self.makers = {
            value: layer
            for layer in self.layers.values()
            if layer.kind not in ("Parameter", "Const")
            for value in layer.gives
        }
        self._constants = {
            layer.gives[0]: layer.data for layer in self.layers.values() if layer.kind == "Const"
        }
        for layer in self.layers.values():
            if layer.kind == "TopK" and self._is_first(layer):
                layer.kind = "ArgMin" if layer.data.get("mode") == "min" else "ArgMax"
                layer.gives = layer.gives[1:]  # the values are a maximum
                self.makers.pop(f"{layer.id}:{layer.ports[0].get('id')}")

    def _is_first(self, layer: _Layer) -> bool:
        count = self.constant(layer.takes[1])
        return len(layer.gives) == 2 and count is not None and count.size == 1 and count == 1

    def constant(self, value: str) -> Array | None:
        """A constant of up to 64 KiB."""
        value = value if value in self._constants else self._unpacked(value)
        data = self._constants.get(value)
        dtype = _DTYPES.get(data["element_type"]) if data else None
        if data is None or dtype is None or int(data["size"]) > _SMALL:
            return None
        shape = [int(size) for size in data["shape"].split(",") if size.strip()]
        with self._weights.open("rb") as file:
            file.seek(int(data["offset"]))
            return np.frombuffer(file.read(int(data["size"])), dtype).reshape(shape)

    def rank(self, value: str) -> int | None:
        """How many axes a value has."""
        layer, _, place = value.partition(":")
        ports = self.layers[layer].ports if layer in self.layers else ()
        return next((len(port.findall("dim")) for port in ports if port.get("id") == place), None)

    def _unpacked(self, value: str) -> str:
        """The constant that a value is converted from, as those of float16 are."""
        maker = self.makers.get(value)
        return maker.takes[0] if maker is not None and maker.kind == "Cast" and maker.takes else ""


def read(file: Path) -> Written:
    """What the file tells, as far as it does; outputs have the name that the runtime gives them.

    Raises:
        ModelError: it, or the `.bin` beside it, can't be read.
    """
    weights = file.with_suffix(".bin")
    try:
        parser = ET.XMLParser(target=_NoEntities())  # noqa: S314
        root = ET.parse(file, parser).getroot()  # noqa: S314
        if root.tag != "net":
            raise ValueError("another kind of XML")
        graph = _Graph(root, weights)
        ends = Ends(graph)
        results = [layer for layer in graph.layers.values() if layer.kind == "Result"]
        outputs = {_name(graph, layer): ends.of(layer.takes[0]) for layer in results}
        metadata = {
            element.tag: element.get("value", "") for element in root.iterfind("rt_info//*[@value]")
        }
    except (ET.ParseError, KeyError, ValueError, IndexError, TypeError) as error:
        raise ModelError(f"{file}: no OpenVINO model, or cut off; fetch it again") from error
    except OSError as error:
        raise ModelError(f"{weights}: missing or can't be read; {file.name} needs it") from error
    # Two results of one value have one name.
    starts = {_name(graph, layer): ends.start(layer.takes[0]) for layer in results}
    task, task_source, outputs = _purpose(ends, starts, outputs)
    return Written(
        outputs={
            name: Made(end.kind, f"the last operator, {end.operator}" if end.operator else "")
            for name, end in outputs.items()
        },
        classes=classes_in(metadata, {name: end.kind for name, end in outputs.items()}),
        task=task,
        task_source=task_source,
        features=named_features(file, metadata),
    )


def described_in(file: Path) -> Path | None:
    """The `metadata.yaml` that Ultralytics puts beside its exports; others' are none of ours."""
    beside = file.with_name("metadata.yaml")
    try:
        with beside.open("rb") as opened:
            content = opened.read(_MOST)
    except OSError:
        return None
    keys = {key.decode() for key in re.findall(rb"^(\w+):", content, re.MULTILINE)}
    return beside if keys >= {"names", "task", "stride"} else None


def exported(file: Path) -> dict[str, Any]:
    """What Ultralytics wrote beside an export, as `tflite_metadata.read` has it; else nothing.

    Raises:
        ModelError: it can't be read.
    """
    beside = described_in(file)
    if beside is None:
        return {}
    try:
        return ultralytics(read_yaml(beside, ModelError), f"{beside.name} next to the model")
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{beside}: damaged; fetch it again") from error


def _purpose(
    ends: Ends, starts: Mapping[str, str], outputs: Mapping[str, End]
) -> tuple[str, str, dict[str, End]]:
    """Clusters, by a label that is the place of the least distance."""
    label = next((end for end in outputs.values() if end.kind == "label" and end.smallest), None)
    if label is None or len(outputs) == 1:
        return "", "", dict(outputs)
    found = {
        name: replace(end, kind="distances")
        if end.kind != "label" and ends.squared(starts[name]) in (label.chosen, starts[name])
        else end
        for name, end in outputs.items()
    }
    return "clustering", f"its label is the {label.operator} of distances", found


def _name(graph: _Graph, result: _Layer) -> str:
    """As the runtime calls an output: by its tensor's names the first, else by its operator."""
    layer, _, place = result.takes[0].partition(":")
    source = graph.layers[layer]
    ports = [port for port in source.ports if port.get("id") == place]
    names = [name for port in ports for name in port.get("names", "").split(",") if name]
    return min(names, default=result.name)
