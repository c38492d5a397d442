"""The OpenAPI 3.1 document: requests and responses, from the models' own fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlopsdeploy import __version__
from mlopsdeploy.columns import Field
from mlopsdeploy.serve.endpoint import Endpoint, Predict, Served
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import JSON, PROBLEM_JSON
from mlopsdeploy.serve.open_inference import DATATYPES, FILES, Infer, accepted_datatypes
from mlopsdeploy.serve.pictures import FORM, TYPES
from mlopsdeploy.serve.unread import HEADER

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_REFUSALS = {
    400: "The body is not JSON, or not as the protocol says.",
    413: "The body is too long.",
    415: "The body is of a type that is not taken.",
    422: "The body is of the right type, but not what the model takes.",
    500: "The server failed; its log has the reason.",
    503: "The answer could only be late; the header Retry-After says when to ask again.",
}
_REFUSED = {404: "There is no such model.", **_REFUSALS}


def document(endpoints: Mapping[str, Endpoint], served: Mapping[str, Served]) -> Schema:
    """The whole document.

    Args:
        endpoints: by path.
        served: the models by name.
    """
    names = list(served)
    paths = _protocol(names) | _operations()
    for path, endpoint in endpoints.items():
        if isinstance(endpoint, Predict):
            paths[path] = {"post": _predict(endpoint)}
        elif isinstance(endpoint, Infer):
            paths[path] = {"post": _infer(endpoint, path)}
    texts = dict.fromkeys(("type", "title", "detail", "request_id"), _TEXT)
    problem = _object({**texts, "status": {"type": "integer"}}, field=_TEXT)
    problem["description"] = "RFC 9457 problem details."
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlopsdeploy",
            "version": __version__,
            "description": "Predictions of " + ", ".join(names) + ".",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": problem}},
    }


def _predict(endpoint: Predict) -> Schema:
    instances, answers = endpoint.instances, endpoint.answers
    one = _object(answers.schemas)
    many = _object({"predictions": _array(one), "model": _TEXT, "version": _TEXT})
    row = _row(instances)
    listed = {**_array(row, -1), "maxItems": instances.max_rows}
    rows = {"anyOf": [row, listed]}
    media: Schema = {"schema": _object({instances.key: rows})}
    example = endpoint.example()
    if example is not None:
        media["example"] = {instances.key: example}
    content = {JSON: media}
    if instances.kind == "pictures":
        form = {**_ANY, "minProperties": 1, "additionalProperties": _FILE}
        content |= {kind: {"schema": _FILE} for kind in TYPES} | {FORM: {"schema": form}}
    name = endpoint.served.name
    answer = _media(JSON, {"anyOf": [one, many]})
    return {
        "operationId": f"predict_{name}",
        "summary": f"Predictions of {name}.",
        "requestBody": {"required": True, "content": content},
        "responses": _with_headers(
            endpoint, _responses("One object for one row, a list for a list.", answer, *_REFUSALS)
        ),
    }


def _row(instances: Instances) -> Schema:
    """One row of a model."""
    fields = instances.fields
    kinds: list[Schema] = []
    if instances.kind == "text":
        kinds.append(_TEXT)
    elif instances.matrix is not None:
        kinds.append(_array(_value(instances.matrix.dtype), instances.width))
    elif instances.kind == "values":
        kinds.append(_tuple([_value(field.dtype) for field in fields]))
    elif len(fields) == 1:
        if instances.kind == "pictures":
            b64 = _object({"b64": _BASE64})
            kinds += [_BASE64, b64, _object({"image": {"anyOf": [_BASE64, b64]}})]
        kinds.append(_nested(fields[0]))
    if instances.by_name:
        kinds.append(_object({field.name: _nested(field) for field in fields}))
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _nested(field: Field) -> Schema:
    schema = _value(field.dtype)
    for size in reversed(field.shape):
        schema = _array(schema, size)
    return schema


def _value(dtype: str) -> Schema:
    """A value of a NumPy type."""
    if dtype == "str":
        return _TEXT
    kind = np.dtype(dtype).kind
    if kind == "b":
        return _FLAG
    limits = np.iinfo(dtype) if kind in "iu" else np.finfo(dtype)
    name, number = ("integer", int) if kind in "iu" else ("number", float)
    return {"type": name, "minimum": number(limits.min), "maximum": number(limits.max)}


def _protocol(names: list[str]) -> dict[str, Schema]:
    """The Open Inference Protocol, but for `infer`."""
    ready = {"ready": _FLAG}
    tensors = _array(_object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}))
    metadata = {"versions": _TEXTS, "platform": _TEXT, "inputs": tensors, "outputs": tensors}
    state = {"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": names}}
    model: Schema = {"parameters": [name]}
    server = {"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}
    index = {
        "summary": "The models.",
        "requestBody": {"content": _media(JSON, {**_ANY, "properties": ready})},
        "responses": _responses("All models.", _media(JSON, _array(_object(state))), 400, 413),
    }
    return {
        "/v2": _get("The server.", _object(server)),
        "/v2/health/live": _get("Alive?", _object({"live": _FLAG})),
        "/v2/health/ready": _get("Ready?", _object(ready)),
        "/v2/models/{name}": _get(
            "A model's inputs and outputs.", _object({"name": _TEXT, **metadata}), 404, **model
        ),
        "/v2/models/{name}/ready": _get(
            "Is the model ready?", _object({"name": _TEXT, **ready}), 404, **model
        ),
        "/v2/repository/index": {"post": index},
    }


def _infer(endpoint: Infer, path: str) -> Schema:
    names = {"enum": [field.name for field in (*endpoint.outputs, *endpoint.raw)]}
    outputs = _array(_object({"name": names, "datatype": _TEXT, "shape": _SHAPE}))
    answer = {"model_name": _TEXT, "model_version": _TEXT, "outputs": outputs}
    content = _media(JSON, _object(answer)) | _media("application/octet-stream", {})
    request = _media(JSON, _infer_request(endpoint, names))
    request[JSON]["example"] = example_of(endpoint)
    version = " at this version." if "/versions/" in path else "."
    return {
        "summary": f"Tensors in, tensors out: {endpoint.served.name}{version}",
        "requestBody": {"required": True, "content": request},
        "responses": _with_headers(
            endpoint, _responses("The outputs.", content, 400, 413, 422, 500, 503)
        ),
    }


def _with_headers(endpoint: Endpoint, responses: Schema) -> Schema:
    """The same responses, with the header that tells of texts that the model doesn't read."""
    if endpoint.served.model.task.data == "text":
        description = "How many texts the model doesn't read and why, if any: 12 de, 3 ar."
        responses["200"]["headers"] = {HEADER: {"description": description, "schema": _TEXT}}
    return responses


def _infer_request(endpoint: Infer, names: Schema) -> Schema:
    """The protocol's request for one model.

    What JSON Schema can't say: `data` has as many values as the sizes of `shape` multiply to, and
    all tensors have the same number of rows.
    """
    fields = {field.name: field for field in (*endpoint.inputs, *endpoint.features)}
    tensors = [_tensor(field) for field in fields.values()]
    if endpoint.served.model.task.data == "image":
        tensors.append(_tensor(FILES, {"items": _BASE64}))
    inputs = {"type": "array", "minItems": len(endpoint.inputs), "items": {"anyOf": tensors}}
    outputs = _object({"name": names}, parameters=_ANY)
    return _object(
        {"inputs": inputs},
        id={"type": ["string", "null"]},
        parameters=_ANY,
        outputs={"type": ["array", "null"], "items": outputs},
    )


def example_of(endpoint: Infer) -> dict[str, Any]:
    """A request of one row."""
    return {"inputs": [_example(field) for field in endpoint.inputs]}


def _example(field: Field) -> dict[str, Any]:
    """A tensor of one row."""
    shape = [1, *(max(size, 1) for size in field.shape)]
    value = {"s": "good", "b": True}.get(field.dtype[0], 0)
    data = [value] * math.prod(shape)
    return {
        "name": field.name, "datatype": DATATYPES[field.dtype], "shape": shape, "data": data,
    }  # fmt: skip


def _tensor(field: Field, values: Schema | None = None) -> Schema:
    sizes: list[Schema] = [{"type": "integer", "minimum": 1}]
    sizes += [{"const": size} if size >= 0 else {"type": "integer"} for size in field.shape]
    shapes = [sizes] if field.shape else [sizes, [*sizes, {"const": 1}]]
    data = {"type": "array", "description": "Flat, or nested as the shape is.", **(values or {})}
    tensor: Mapping[str, Schema] = {
        "name": {"const": field.name},
        "datatype": {"enum": accepted_datatypes(field)},
        "shape": {"anyOf": [_tuple(shape) for shape in shapes]},
        "data": data,
    }
    return _object(tensor, parameters=_ANY)


def _operations() -> dict[str, Schema]:
    return {
        "/healthz": _get("Is the process alive?", _object({"status": _TEXT})),
        "/readyz": _get("Are the models loaded?", _object({"status": _TEXT, "models": _TEXTS})),
        "/capacity": _get("What a worker can take of each model, and its limits now.", _ANY),
        "/metrics": _get("Numbers for Prometheus.", _TEXT, media="text/plain"),
        "/openapi.json": _get("This document.", _ANY),
        "/": _get("A page to try the models.", _TEXT, media="text/html"),
    }


def _get(
    summary: str, schema: Schema, *refusals: int, media: str = JSON, **more: Any
) -> dict[str, Schema]:
    responses = _responses(summary, _media(media, schema), *refusals)
    return {"get": {"summary": summary, **more, "responses": responses}}


def _responses(description: str, content: Schema, *refusals: int) -> Schema:
    problem = _media(PROBLEM_JSON, {"$ref": "#/components/schemas/Problem"})
    refused = {str(code): {"description": _REFUSED[code], "content": problem} for code in refusals}
    return {"200": {"description": description, "content": content}, **refused}


def _media(kind: str, schema: Schema) -> Schema:
    return {kind: {"schema": schema}}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _array(items: Schema, size: int | None = None) -> Schema:
    """Of so many items; -1: of at least one."""
    return {"type": "array", "items": items, **_length(size)}


def _tuple(items: list[Schema]) -> Schema:
    return {"type": "array", "prefixItems": items, **_length(len(items))}


def _length(size: int | None) -> Schema:
    if size is None:
        return {}
    return {"minItems": size, "maxItems": size} if size >= 0 else {"minItems": 1}
