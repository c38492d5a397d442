"""The Open Inference Protocol V2 over HTTP, with the binary tensor extension.

Triton's, KServe's and MLServer's clients speak it. A picture comes as the BYTES of its file (in
JSON as base64), or as a UINT8 tensor of its pixels; what differs in number from row to row, as the
objects of pictures do, is padded, and the output `count` tells how many there are.

Source: the protocol's specification at github.com/kserve/open-inference-protocol and Triton's
extension_binary_data.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from flask import Flask, Response, request

from mlopsdeploy import __version__
from mlopsdeploy.columns import Array, Columns, Field, objects
from mlopsdeploy.serve.endpoint import Endpoint, Served
from mlopsdeploy.serve.messages import JSON, Answer, Environ, Problem, json_response, read_body
from mlopsdeploy.serve.pictures import PICTURE, decode_all, from_base64

DATATYPES = {
    "bool": "BOOL", "str": "BYTES",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_NUMPY = {datatype: name for name, datatype in DATATYPES.items()}
_HEADER_LENGTH = "Inference-Header-Content-Length"
FILES = Field(PICTURE.name, "str")
"""The files of pictures, as a tensor."""
COUNT = Field("count", "int64")
"""How many objects of a row are not padding."""


class Tensor(msgspec.Struct):
    """A tensor of a request; without `data`, its bytes follow the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class Wanted(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Wanted] | None = None


class Infer(Endpoint):
    """`POST /v2/models/{name}/infer`: tensors in, tensors out."""

    error = True

    def __init__(self, served: Served, max_body: int) -> None:
        super().__init__(served, max_body)
        self.inputs, self.outputs = tensors_of(served)
        self._decoder = msgspec.json.Decoder(InferRequest)
        self.features = served.model.task.inputs
        self._fields = {field.name: field for field in (*self.inputs, *self.features)}
        self._pictures = served.model.task.data == "image"
        self._ragged = _ragged(served.model.task.outputs)

    def answer(self, environ: Environ) -> Answer:
        """See `Endpoint.answer`."""
        body = read_body(environ, self.max_body)
        header, binary = _split(body, environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH"))
        try:
            asked = self._decoder.decode(header)
        except msgspec.ValidationError as error:
            raise _explained(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem(400, "not-json", "the body is not JSON") from None
        columns = self._columns(asked.inputs, binary)
        rows = len(next(iter(columns.values())))
        wanted = self._wanted(asked)
        first = next(iter(columns))
        predictions = self.served.predict(
            self._decoding(columns) if self._pictures else columns,
            lambda place: f"inputs.{first}[{place}]",
        )
        if self._ragged:
            predictions = _padded(predictions, self._ragged)
        return self._respond(asked, predictions, wanted)._replace(rows=rows)

    def _columns(self, tensors: list[Tensor], binary: memoryview) -> Columns:
        columns: Columns = {}
        for tensor in tensors:
            field = self._fields.get(tensor.name)
            if field is None:
                raise Problem(
                    400,
                    "unknown-input",
                    "an input has a name that the model does not know; its metadata has the names",
                    "inputs",
                )
            if self._pictures and tensor.datatype == "BYTES":
                array, binary = _read_files(tensor, binary)
            else:
                array, binary = _read(tensor, field, binary)
            columns[field.name] = array
        if len(binary):
            raise Problem(400, "wrong-length", "there are bytes behind the last tensor", "inputs")
        matrix = self.served.model.task.matrix
        if matrix is None or matrix.name not in columns:
            lacking = [f.name for f in self.served.model.task.inputs if f.name not in columns]
            if lacking:
                name = self.inputs[0].name if matrix is not None else lacking[0]
                raise Problem(400, "missing", f"the input {name} is missing", f"inputs.{name}")
        if len({len(array) for array in columns.values()}) != 1:
            raise Problem(400, "wrong-shape", "the inputs differ in their number of rows", "inputs")
        if not len(next(iter(columns.values()))):
            raise Problem(400, "empty", "the inputs have no rows", "inputs")
        return columns

    def _decoding(self, columns: Columns) -> Callable[[], Columns]:
        """Decodes pictures, when it is called."""
        pictures, where = columns[PICTURE.name], f"inputs.{PICTURE.name}"
        if 0 in pictures.shape[1:]:
            raise Problem(400, "wrong-shape", f"{where} holds a picture without pixels", where)
        places = [f"{where}[{place}]" for place in range(len(pictures))]
        return lambda: decode_all(pictures, places, [])  # type: ignore[arg-type]

    def _wanted(self, asked: InferRequest) -> list[tuple[Field, bool]]:
        """The outputs to give, and whether as bytes."""
        by_default = asked.parameters.get("binary_data_output") is True
        if not asked.outputs:
            return [(field, by_default) for field in self.outputs]
        known = {field.name: field for field in self.outputs}
        if any(wanted.name not in known for wanted in asked.outputs):
            detail = "an output is asked for that the model does not give; its metadata has them"
            raise Problem(400, "unknown-output", detail, "outputs")
        return [
            (known[wanted.name], wanted.parameters.get("binary_data", by_default) is True)
            for wanted in asked.outputs
        ]

    def _respond(
        self, asked: InferRequest, predictions: Columns, wanted: list[tuple[Field, bool]]
    ) -> Answer:
        outputs, chunks = [], []
        for field, as_bytes in wanted:
            values = predictions[field.name]
            datatype = DATATYPES[field.dtype]
            output: dict[str, Any] = {
                "name": field.name, "datatype": datatype, "shape": list(values.shape),
            }  # fmt: skip
            if as_bytes:
                chunks.append(_to_bytes(values, datatype))
                output["parameters"] = {"binary_data_size": len(chunks[-1])}
            else:
                output["data"] = values.ravel().tolist()
            outputs.append(output)
        document = {
            "model_name": self.served.name,
            "model_version": version_of(self.served),
            "outputs": outputs,
        }
        if asked.id is not None:
            document["id"] = asked.id
        header = msgspec.json.encode(document)
        if not chunks:
            return Answer(200, JSON, header)
        headers = ((_HEADER_LENGTH, str(len(header))),)
        return Answer(200, "application/octet-stream", b"".join([header, *chunks]), headers)


def add(app: Flask, served: Mapping[str, Served], max_body: int) -> None:
    """The routes of the protocol that say what there is; `Infer` is an endpoint of its own."""

    def find(name: str, version: str | None = None) -> Served:
        one = served.get(name)
        if one is None or version not in (None, version_of(one)):
            raise Problem(404, "unknown-model", "there is no model of this name and version")
        return one

    def model_metadata(name: str, version: str | None = None) -> Response:
        return json_response(metadata(find(name, version)))

    def model_ready(name: str, version: str | None = None) -> Response:
        return json_response({"name": find(name, version).name, "ready": True})

    def infer_unknown(name: str, version: str | None = None) -> Response:
        find(name, version)
        raise AssertionError("a known model has a route of its own")

    app.add_url_rule("/v2", view_func=_server_metadata)
    app.add_url_rule("/v2/health/live", "v2_live", lambda: json_response({"live": True}))
    app.add_url_rule("/v2/health/ready", "v2_ready", lambda: json_response({"ready": True}))
    for model in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        app.add_url_rule(model, view_func=model_metadata)
        app.add_url_rule(f"{model}/ready", view_func=model_ready)
        app.add_url_rule(f"{model}/infer", view_func=infer_unknown, methods=["POST"])
    app.add_url_rule(
        "/v2/repository/index",
        "v2_index",
        lambda: _repository_index(served, read_body(request.environ, max_body)),
        methods=["POST"],
    )


def _server_metadata() -> Response:
    extensions = ["binary_tensor_data", "model_repository"]
    return json_response({"name": "mlopsdeploy", "version": __version__, "extensions": extensions})


def _repository_index(served: Mapping[str, Served], body: bytes) -> Response:
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "not-json", "the body must be a JSON object, or empty") from None
    if not isinstance(asked.get("ready", False), bool):
        raise Problem(400, "wrong-type", "ready must be true or false", "ready")
    return json_response(
        [
            {"name": name, "version": version_of(one), "state": "READY", "reason": ""}
            for name, one in served.items()
        ]
    )


def tensors_of(served: Served) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    """The inputs and outputs that the metadata names; a row of numbers is one tensor."""
    task = served.model.task
    outputs = tuple(field for field in task.outputs if field.dtype in DATATYPES)
    if _ragged(outputs):
        outputs = (*outputs, COUNT)
    return ((task.matrix,) if task.matrix else task.inputs), outputs


def metadata(served: Served) -> dict[str, Any]:
    """What the protocol calls a model's metadata.

    It has one datatype for a tensor: of pictures, that of files, which all clients can make.
    """
    inputs, outputs = tensors_of(served)
    if served.model.task.data == "image":
        inputs = (FILES,)
    return {
        "name": served.name,
        "versions": [version_of(served)],
        "platform": type(served.model.runtime).__name__.lower(),
        "inputs": [_describe(field) for field in inputs],
        "outputs": [_describe(field) for field in outputs],
    }


def version_of(served: Served) -> str:
    """The protocol wants a version; a model without one is at its first."""
    return served.model.version or "1"


def accepted_datatypes(field: Field) -> list[str]:
    """The datatypes in which a field's values may come."""
    return [name for given, name in DATATYPES.items() if _convertible(given, field.dtype)]


def _describe(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": DATATYPES[field.dtype], "shape": [-1, *field.shape]}


def _explained(message: str) -> Problem:
    """A problem from the words of msgspec."""
    place = message.rpartition("`$")[2].strip("`.") if "`$" in message else ""
    if message.startswith("Object missing required field"):
        place = f"{place}.{message.split('`')[1]}".lstrip(".")
        return Problem(400, "missing", f"{place} is missing", place)
    detail = f"{place or 'the body'} is not what the protocol says"
    return Problem(400, "wrong-type", detail, place)


def _split(body: bytes, length_header: str | None) -> tuple[bytes, memoryview]:
    """The JSON and the bytes behind it."""
    if length_header is None:
        return body, memoryview(b"")
    if not length_header.isascii() or not length_header.isdigit() or int(length_header) > len(body):
        detail = f"the header {_HEADER_LENGTH} is not a length within the body"
        raise Problem(400, "bad-length", detail)
    length = int(length_header)
    return body[:length], memoryview(body)[length:]


def _read(
    tensor: Tensor, field: Field, binary: memoryview, *, files: bool = False
) -> tuple[Array, memoryview]:
    """A tensor as the model's column, and the bytes that are left.

    With `files`, BYTES stay bytes rather than become texts.
    """
    where = f"inputs.{field.name}"
    if tensor.datatype not in _NUMPY:
        raise Problem(400, "wrong-type", f"{where}: there is no such datatype", where)
    given, wanted = _NUMPY[tensor.datatype], field.dtype
    if not _convertible(given, wanted):
        detail = f"{where} must be {DATATYPES[wanted]}, not {tensor.datatype}"
        raise Problem(400, "wrong-type", detail, where)
    shape = tuple(tensor.shape)
    if not _fits(shape, field.shape):
        sizes = ", ".join("n" if size < 0 else str(size) for size in (-1, *field.shape))
        raise Problem(400, "wrong-shape", f"{where} must have the shape [{sizes}]", where)
    size = math.prod(shape)
    declared = tensor.parameters.get("binary_data_size")
    if declared is not None:
        if not isinstance(declared, int) or not 0 <= declared <= len(binary):
            detail = f"{where}: binary_data_size is not within the body"
            raise Problem(400, "bad-length", detail, where)
        array = _from_bytes(binary[:declared], given, size, where, files=files)
        binary = binary[declared:]
    else:
        array = _from_json(tensor.data, given, shape, where)
    with np.errstate(over="ignore"):  # what it leads to is refused below
        column = array if given == "str" else array.astype(wanted, copy=False)
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise Problem(400, "out-of-range", f"{where} holds a number that is too large", where)
    return column.reshape(len(array) if not shape else shape[0], *_row(field.shape, shape)), binary


def _convertible(given: str, wanted: str) -> bool:
    """Floats of any size into each other, whole numbers into floats, and into larger ones."""
    if "str" in (given, wanted):
        return given == wanted
    kinds = np.dtype(given).kind + np.dtype(wanted).kind
    whole = given != "bool" and np.can_cast(given, wanted)
    return given == wanted or kinds in ("ff", "if", "uf") or whole


def _fits(shape: tuple[int, ...], row: tuple[int, ...]) -> bool:
    """Whether a tensor's shape is rows of the field's; (rows, 1) stands for scalars too."""
    if not shape or any(size < 0 for size in shape):
        return False
    if not row:
        return shape[1:] in ((), (1,))
    return len(shape) == len(row) + 1 and all(
        size in (-1, found) for size, found in zip(row, shape[1:], strict=True)
    )


def _row(row: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if row else ()


def _read_files(tensor: Tensor, binary: memoryview) -> tuple[Array, memoryview]:
    """A tensor of pictures' files, and the bytes that are left."""
    where = f"inputs.{FILES.name}"
    if tensor.parameters.get("binary_data_size") is None:
        texts, binary = _read(tensor, FILES, binary)
        places = (f"{where}.data[{place}]" for place in range(len(texts)))
        return objects([*map(from_base64, texts.tolist(), places)]), binary
    return _read(tensor, FILES, binary, files=True)


def _from_json(data: list[Any] | None, dtype: str, shape: tuple[int, ...], where: str) -> Array:
    if data is None:
        raise Problem(400, "missing", f"{where}.data is missing", f"{where}.data")
    flat = _flat(data, len(shape))
    size = math.prod(shape)
    if len(flat) != size:
        detail = f"{where}.data has {len(flat)} values, but its shape says {size}"
        raise Problem(400, "wrong-length", detail, f"{where}.data")
    if dtype == "str":
        if not all(isinstance(value, str) for value in flat):
            raise Problem(400, "wrong-type", f"{where}.data must hold texts", f"{where}.data")
        return objects(flat)
    allowed: Any = bool if dtype == "bool" else (int, float) if dtype[0] == "f" else int
    for value in flat:
        if not isinstance(value, allowed) or isinstance(value, bool) != (dtype == "bool"):
            raise Problem(400, "wrong-type", f"{where}.data must hold {dtype}", f"{where}.data")
    try:
        with np.errstate(over="ignore"):  # an infinity is refused with what it is converted to
            return np.array(flat, dtype)
    except (OverflowError, ValueError):
        detail = f"{where}.data holds a number that is too large"
        raise Problem(400, "out-of-range", detail, f"{where}.data") from None


def _flat(data: list[Any], depth: int) -> list[Any]:
    """Lists nested as deep as a tensor's shape is long, row by row; or flat already."""
    for _ in range(depth - 1):
        if not any(isinstance(item, list) for item in data):
            break
        data = [inner for item in data for inner in (item if isinstance(item, list) else [item])]
    return data


def _from_bytes(raw: memoryview, dtype: str, size: int, where: str, *, files: bool) -> Array:
    if dtype == "str":
        elements = _elements(raw, where)
        if len(elements) != size:
            detail = f"{where} has {len(elements)} elements, not {size}"
            raise Problem(400, "wrong-length", detail, where)
        return objects([*map(bytes, elements)] if files else _texts(elements, where))
    expected = size * np.dtype(dtype).itemsize
    if len(raw) != expected:
        detail = f"{where} has {len(raw)} bytes, but its shape and datatype say {expected}"
        raise Problem(400, "wrong-length", detail, where)
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)


def _elements(raw: memoryview, where: str) -> list[memoryview]:
    """Each is four bytes of length (little-endian) and as many bytes."""
    elements, place = [], 0
    while place < len(raw):
        if place + 4 > len(raw):
            raise Problem(400, "wrong-length", f"{where} ends within an element's length", where)
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + length > len(raw):
            raise Problem(400, "wrong-length", f"{where} ends within an element", where)
        elements.append(raw[place : place + length])
        place += length
    return elements


def _texts(elements: list[memoryview], where: str) -> list[str]:
    try:
        return [str(element, "utf-8") for element in elements]
    except UnicodeDecodeError:
        raise Problem(400, "wrong-type", f"{where} holds text that is no UTF-8", where) from None


def _ragged(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """A detector's outputs, which differ in length from row to row."""
    if not any(field.name == "label" and field.shape for field in fields):
        return ()
    return tuple(field for field in fields if field.shape[:1] == (-1,))


def _padded(predictions: Columns, fields: tuple[Field, ...]) -> Columns:
    """Ragged columns as tensors, filled up with zeros and empty texts, and `count`."""
    counts = np.array([len(row) for row in predictions[fields[0].name]], np.int64)
    made = {**predictions, COUNT.name: counts}
    for field in fields:
        shape = (len(counts), counts.max(initial=0), *field.shape[1:])
        text = field.dtype == "str"
        made[field.name] = np.full(shape, "" if text else 0, object if text else field.dtype)
        for row, values in enumerate(predictions[field.name]):
            made[field.name][row, : len(values)] = values
    return made


def _to_bytes(values: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return (
            np.ascontiguousarray(values)
            .astype(np.dtype(_NUMPY[datatype]).newbyteorder("<"), copy=False)
            .tobytes()
        )
    encoded = [str(value).encode() for value in values.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
