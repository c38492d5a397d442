"""The Open Inference Protocol V2 over HTTP, with the binary tensor extension.

Triton's, KServe's and MLServer's clients speak it. A picture comes as the BYTES of its file (in
JSON as base64), or as a UINT8 tensor of its pixels; what differs in number from row to row, as the
objects of pictures do, is padded, and the output `count` tells how many there are.

The metadata's `outputs` are what a request gets that asks for none: those of the task. Beside them
a request may ask for any output of the model's own file by its name, such as the logits under the
probabilities; the metadata list these in `parameters` as `raw_outputs`, for a client that asks for
all `outputs` should not pay for them. Of a name that is both, the task's is meant. A task of
tensors has the file's own inputs and outputs to begin with.

Source: the protocol's specification at github.com/kserve/open-inference-protocol and Triton's
extension_binary_data.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mlopsdeploy import __version__
from mlopsdeploy.columns import Array, Columns, Field, Task, objects
from mlopsdeploy.core.answers import plain
from mlopsdeploy.core.inputs import fits
from mlopsdeploy.serve.endpoint import Endpoint, Served
from mlopsdeploy.serve.instances import one_at_a_time
from mlopsdeploy.serve.messages import (
    JSON,
    NOT_JSON,
    Answer,
    Problem,
    Request,
    explained,
    misfit,
    too_many,
)
from mlopsdeploy.serve.pictures import PICTURE, decode_all, from_base64
from mlopsdeploy.serve.queue import Call
from mlopsdeploy.settings import MAX_ROWS

if TYPE_CHECKING:
    from flask import Flask, Response

DATATYPES = {
    "bool": "BOOL", "str": "BYTES",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_NUMPY = {datatype: name for name, datatype in DATATYPES.items()}
_PYTHON: Mapping[str, set[type]] = {"s": {str}, "b": {bool}, "f": {int, float}}
_misfit = partial(misfit, 400)
_HEADER_LENGTH = "Inference-Header-Content-Length"
FILES = Field(PICTURE.name, "str")
"""The files of pictures, as a tensor."""
HEALTH = {"/v2/health/live": {"live": True}, "/v2/health/ready": {"ready": True}}
"""What the protocol answers to who asks how the server is."""
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

    def __init__(self, served: Served, max_body: int, max_rows: int = MAX_ROWS) -> None:
        super().__init__(served, max_body)
        self.max_rows = max_rows
        self.inputs, self.outputs = tensors_of(served)
        self._decoder = msgspec.json.Decoder(InferRequest)
        self.features = served.model.task.inputs
        self._fields = {field.name: field for field in (*self.inputs, *self.features)}
        self._pictures = served.model.task.data == "image"
        self._exact = not served.model.task.answers
        self._ragged = _ragged(served.model.task)
        self.raw = raw_outputs(served)
        self._known = {field.name: field for field in (*self.raw, *self.outputs)}
        self._raw = {field.name for field in self.raw}

    def read(self, request: Request) -> Call:
        """See `Endpoint.read`."""
        length = request.headers.get(_HEADER_LENGTH.lower())
        header, binary = _split(request.body, length)
        with one_at_a_time(header):
            asked = self._asked(header)
            columns = self._columns(asked.inputs, binary)
            for tensor in asked.inputs:
                tensor.data = None  # many times as large as its array
        first, values = next(iter(columns.items()))
        wanted = self._wanted(asked)
        rows = self._decoding(values) if self._pictures else columns

        def respond(predictions: Columns) -> Answer:
            return self._respond(asked, predictions, wanted)._replace(rows=len(values))

        raw = [field.name for field, _ in wanted if field.name in self._raw]
        compute = partial(self._compute, raw, len(raw) < len(wanted)) if raw else None
        at = f"inputs.{first}[{{}}]".format
        return Call(request, rows, len(values), at, respond, compute, _timeout(asked))

    def _asked(self, header: bytes) -> InferRequest:
        try:
            asked: InferRequest = self._decoder.decode(header)
        except msgspec.ValidationError as error:
            message, where = explained(error)
            if message.startswith("Object missing"):
                raise _misfit("missing", where, " is missing") from None
            detail = f"{where or 'the body'} is not what the protocol says"
            raise Problem(400, "wrong-type", detail, where) from None
        except NOT_JSON:
            raise Problem(400, "not-json", "the body is not JSON") from None
        return asked

    def _compute(self, raw: list[str], predicts: bool, columns: Columns) -> Columns:
        """What the file outputs, and what the task does.

        What the file outputs is computed apart: predictions may be rechecked in another precision.
        """
        predictions = self.served.model.predict_columns(columns) if predicts else {}
        return predictions | self.served.raw(raw, columns)

    def _columns(self, tensors: list[Tensor], binary: memoryview) -> Columns:
        columns: Columns = {}
        for tensor in tensors:
            field = self._fields.get(tensor.name)
            if field is None:
                detail = "has a name that the model does not know; its metadata has the names"
                raise Problem(400, "unknown-input", f"an input {detail}", "inputs")
            if tensor.shape and tensor.shape[0] > self.max_rows:
                raise too_many(f"inputs.{field.name}", self.max_rows)
            files = self._pictures and tensor.datatype == "BYTES"
            columns[field.name], binary = _read(
                tensor, FILES if files else field, binary, as_it_is=self._exact
            )
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

    def _decoding(self, pictures: Array) -> Callable[[], Columns]:
        """Decodes pictures, when it is called."""
        where = f"inputs.{PICTURE.name}"
        if 0 in pictures.shape[1:]:
            raise _misfit("wrong-shape", where, " holds a picture without pixels")
        places = [f"{where}[{place}]" for place in range(len(pictures))]
        return lambda: decode_all(pictures, places)

    def _wanted(self, asked: InferRequest) -> list[tuple[Field, bool]]:
        """The outputs to give, and whether as bytes."""
        by_default = asked.parameters.get("binary_data_output") is True
        if not asked.outputs:
            return [(field, by_default) for field in self.outputs]
        known = self._known
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
        if self._ragged and self._ragged[0].name in predictions:
            predictions = _padded(predictions, self._ragged)
        outputs, chunks = [], []
        for field, as_bytes in wanted:
            values = predictions[field.name]
            datatype = DATATYPES[field.dtype]
            shape = list(values.shape)
            output: dict[str, Any] = {"name": field.name, "datatype": datatype, "shape": shape}
            if as_bytes:
                chunks.append(_to_bytes(values, datatype))
                output["parameters"] = {"binary_data_size": len(chunks[-1])}
            else:
                output["data"] = _to_json(values)
            outputs.append(output)
        name, version = self.served.name, version_of(self.served)
        document = {"model_name": name, "model_version": version, "outputs": outputs}
        if asked.id is not None:
            document["id"] = asked.id
        header = msgspec.json.encode(document)
        headers = self.served.unread.note(predictions)
        if not chunks:
            return Answer(200, JSON, header, headers)
        headers = ((_HEADER_LENGTH, str(len(header))), *headers)
        return Answer(200, "application/octet-stream", b"".join([header, *chunks]), headers)


def _timeout(asked: InferRequest) -> float | None:
    """The seconds that the request waits: its parameter `timeout`, in microseconds as Triton's.

    Raises:
        Problem: 400 where it is no number above 0.
    """
    timeout = asked.parameters.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        detail = "must be a number of microseconds above 0"
        raise _misfit("bad-timeout", "parameters.timeout", f" {detail}")
    return float(timeout) / 1e6


def add(app: Flask, served: Mapping[str, Served], max_body: int) -> None:
    """The routes of the protocol that say what there is; `Infer` is an endpoint of its own."""
    from flask import request  # the endpoint does without

    from mlopsdeploy.serve.wsgi import json_response, wsgi_request

    def find(name: str, version: str | None = None) -> Served:
        one = served.get(name)
        if one is None or version not in (None, version_of(one)):
            raise Problem(404, "unknown-model", "there is no model of this name and version")
        return one

    def model_metadata(name: str, version: str | None = None) -> Response:
        return json_response(_metadata(find(name, version)))

    def model_ready(name: str, version: str | None = None) -> Response:
        return json_response({"name": find(name, version).name, "ready": True})

    def infer_unknown(name: str, version: str | None = None) -> Response:
        find(name, version)
        raise AssertionError("a known model has a route of its own")

    extensions = ["binary_tensor_data", "model_repository"]
    server = {"name": "mlopsdeploy", "version": __version__, "extensions": extensions}
    app.add_url_rule("/v2", "v2", partial(json_response, server))
    for model in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        app.add_url_rule(model, view_func=model_metadata)
        app.add_url_rule(f"{model}/ready", view_func=model_ready)
        app.add_url_rule(f"{model}/infer", view_func=infer_unknown, methods=["POST"])

    @app.post("/v2/repository/index")
    def repository_index() -> Response:
        _check_index_request(wsgi_request(request.environ, "", max_body).body)
        state = {"state": "READY", "reason": ""}
        return json_response(
            [{"name": name, "version": version_of(one), **state} for name, one in served.items()]
        )


def _check_index_request(body: bytes) -> None:
    """Whatever it asks for, all models are ready."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
    except NOT_JSON:
        raise Problem(400, "not-json", "the body must be a JSON object, or empty") from None
    if not isinstance(asked.get("ready", False), bool):
        raise Problem(400, "wrong-type", "ready must be true or false", "ready")


def tensors_of(served: Served) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    """The inputs and outputs that the metadata names; a row of numbers is one tensor."""
    task = served.model.task
    outputs = tuple(field for field in task.outputs if field.dtype in DATATYPES)
    if _ragged(task):
        outputs = (*outputs, COUNT)
    return ((task.matrix,) if task.matrix else task.inputs), outputs


def raw_outputs(served: Served) -> tuple[Field, ...]:
    """What the model's file outputs under other names than the task does.

    None of models side by side, which have each their own.
    """
    model = served.model
    own = {field.name for field in tensors_of(served)[1]}
    fields = () if model.parts else model.runtime.outputs
    return tuple(one for one in fields if one.name not in own and one.dtype in DATATYPES)


def _metadata(served: Served) -> dict[str, Any]:
    """With one datatype for a tensor: of pictures that of files, which all clients can make."""
    inputs, outputs = tensors_of(served)
    if served.model.task.data == "image":
        inputs = (FILES,)
    raw = [_describe(field) for field in raw_outputs(served)]
    return {
        "name": served.name,
        "versions": [version_of(served)],
        "platform": served.model.runtime.name,
        "inputs": [_describe(field) for field in inputs],
        "outputs": [_describe(field) for field in outputs],
        **({"parameters": {"raw_outputs": raw}} if raw else {}),
    }


def path_of(served: Served) -> str:
    """Where a model's tensors are sent to."""
    return f"/v2/models/{served.name}/infer"


def version_of(served: Served) -> str:
    """The protocol wants a version; a model without one is at its first."""
    return served.model.version or "1"


def accepted_datatypes(field: Field) -> list[str]:
    """The datatypes in which a field's values may come."""
    return [name for given, name in DATATYPES.items() if _convertible(given, field.dtype)]


def _describe(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": DATATYPES[field.dtype], "shape": [-1, *field.shape]}


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
    tensor: Tensor, field: Field, binary: memoryview, *, as_it_is: bool = False
) -> tuple[Array, memoryview]:
    """A tensor as the model's column, and the bytes that are left.

    NaN and infinities are refused, unless it goes to the model `as_it_is`.
    """
    where = f"inputs.{field.name}"
    if tensor.datatype not in _NUMPY:
        raise _misfit("wrong-type", where, ": there is no such datatype")
    given, wanted = _NUMPY[tensor.datatype], field.dtype
    if not _convertible(given, wanted):
        raise _misfit("wrong-type", where, f" must be {DATATYPES[wanted]}, not {tensor.datatype}")
    shape = tuple(tensor.shape)
    rows_of_one = not field.shape and shape[1:] == (1,)
    if min(shape, default=-1) < 0 or not (rows_of_one or fits(shape[1:], field.shape)):
        sizes = ", ".join("n" if size < 0 else str(size) for size in (-1, *field.shape))
        raise _misfit("wrong-shape", where, f" must have the shape [{sizes}]")
    size = math.prod(shape)
    declared = tensor.parameters.get("binary_data_size")
    if declared is None:
        array = _from_json(tensor.data, given, shape, f"{where}.data")
        if field is FILES:
            places = (f"{where}.data[{place}]" for place in range(size))
            array = objects([*map(from_base64, array.tolist(), places)])
    elif isinstance(declared, int) and 0 <= declared <= len(binary):
        array = _from_bytes(binary[:declared], given, size, where, files=field is FILES)
        binary = binary[declared:]
    else:
        raise _misfit("bad-length", where, ": binary_data_size is not within the body")
    with np.errstate(over="ignore"):  # what it leads to is refused below
        column = array if given == "str" else array.astype(wanted, copy=False)
    kept = as_it_is and given == wanted and declared is not None
    if column.dtype.kind == "f" and not kept and not np.isfinite(column).all():
        raise _misfit("out-of-range", where, " holds a number that is too large")
    return column.reshape(shape if field.shape else shape[0]), binary


def _convertible(given: str, wanted: str) -> bool:
    """Floats of any size into each other, whole numbers into floats, and into larger ones."""
    if "str" in (given, wanted):
        return given == wanted
    kinds = np.dtype(given).kind + np.dtype(wanted).kind
    whole = given != "bool" and np.can_cast(given, wanted)
    return given == wanted or kinds in ("ff", "if", "uf") or whole


def _from_json(data: list[Any] | None, dtype: str, shape: tuple[int, ...], where: str) -> Array:
    if data is None:
        raise _misfit("missing", where, " is missing")
    flat = _flat(data, len(shape))
    if len(flat) != math.prod(shape):
        detail = f" has {len(flat)} values, but its shape says {math.prod(shape)}"
        raise _misfit("wrong-length", where, detail)
    kinds = _PYTHON.get(dtype[0], {int})
    if not kinds.issuperset(map(type, flat)):
        raise _misfit("wrong-type", where, f" must hold {'texts' if dtype == 'str' else dtype}")
    if dtype == "str":
        return objects(flat)
    try:
        with np.errstate(over="ignore"):  # an infinity is refused with what it is converted to
            return np.array(flat, dtype)
    except OverflowError:
        raise _misfit("out-of-range", where, " holds a number that is too large") from None


def _flat(data: list[Any], depth: int) -> list[Any]:
    """Lists nested as deep as a tensor's shape is long, row by row; or flat already."""
    for _ in range(depth - 1):
        if not any(isinstance(item, list) for item in data):
            break
        data = [inner for item in data for inner in (item if isinstance(item, list) else [item])]
    return data


def _from_bytes(raw: memoryview, dtype: str, size: int, where: str, *, files: bool) -> Array:
    if dtype != "str":
        expected = size * np.dtype(dtype).itemsize
        if len(raw) != expected:
            detail = f" has {len(raw)} bytes, but its shape and datatype say {expected}"
            raise _misfit("wrong-length", where, detail)
        return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
    elements = _elements(raw, where)
    if len(elements) != size:
        raise _misfit("wrong-length", where, f" has {len(elements)} elements, not {size}")
    try:
        return objects(elements if files else [element.decode() for element in elements])
    except UnicodeDecodeError:
        raise _misfit("wrong-type", where, " holds text that is no UTF-8") from None


def _elements(raw: memoryview, where: str) -> list[bytes]:
    """Each is four bytes of length (little-endian) and as many bytes."""
    elements, place = [], 0
    while place < len(raw):
        if place + 4 > len(raw):
            raise _misfit("wrong-length", where, " ends within an element's length")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + length > len(raw):
            raise _misfit("wrong-length", where, " ends within an element")
        elements.append(bytes(raw[place : place + length]))
        place += length
    return elements


def _ragged(task: Task) -> tuple[Field, ...]:
    """A detector's outputs, which differ in length from row to row."""
    if not task.finds_objects:
        return ()
    return tuple(field for field in task.outputs if field.shape[:1] == (-1,))


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


def _to_json(values: Array) -> list[Any]:
    listed = values.ravel().tolist()
    return [*map(plain, listed)] if values.dtype.kind in "OS" else listed


def _to_bytes(values: Array, datatype: str) -> bytes | memoryview:
    if datatype != "BYTES":
        wanted = np.dtype(_NUMPY[datatype]).newbyteorder("<")
        # Its memory as it is, in most cases; an empty array has none that can be cast.
        array = np.ascontiguousarray(values, wanted)
        return array.data.cast("B") if array.size else b""
    encoded = [
        one if isinstance(one, bytes) else str(one).encode() for one in values.ravel().tolist()
    ]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
