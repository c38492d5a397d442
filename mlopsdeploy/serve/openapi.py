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

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FILE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_REFUSALS = {
    400: "The body is not JSON, or not as the protocol says.",
    413: "The body is too long.",
    415: "The body is of a type that is not taken.",
    422: "The body is of the right type, but not what the model takes.",
    500: "The server failed; its log has the reason.",
}


def document(endpoints: Mapping[str, Endpoint], served: Mapping[str, Served]) -> Schema:
    """The whole document.

    Args:
        endpoints: by path.
        served: the models by name.
    """
    paths: dict[str, Schema] = {}
    for path, endpoint in endpoints.items():
        if isinstance(endpoint, Predict):
            paths[path] = {"post": _predict(endpoint)}
    names = list(served)
    paths.update(_open_inference(endpoints, names))
    paths.update(_operations())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlopsdeploy",
            "version": __version__,
            "description": "Predictions of " + ", ".join(names) + ".",
        },
        "paths": paths,
        "components": {"schemas": _components()},
    }


def rows_schema(instances: Instances) -> Schema:
    """One row, or a list of at least one."""
    row = row_schema(instances)
    return {"anyOf": [row, {"type": "array", "minItems": 1, "items": row}]}


def row_schema(instances: Instances) -> Schema:
    """One row of a model."""
    kinds: list[Schema] = []
    if instances.kind == "text":
        kinds.append(_TEXT)
    elif instances.kind == "numbers":
        assert instances.matrix is not None
        items = value_schema(instances.matrix.dtype)
        kinds.append(_list_of(items, instances.width))
    elif instances.kind == "values":
        types = [value_schema(field.dtype) for field in instances.fields]
        kinds.append({"type": "array", "prefixItems": types, **_length(len(types))})
    elif len(instances.fields) == 1:
        kinds.append(_nested(instances.fields[0]))
        if instances.kind == "pictures":
            b64 = _object(b64=_BASE64)
            kinds = [_BASE64, b64, _object(image={"anyOf": [_BASE64, b64]}), *kinds]
    if instances.named or len(instances.fields) > 1:
        kinds.append(
            {
                "type": "object",
                "required": [field.name for field in instances.fields],
                "properties": {field.name: _nested(field) for field in instances.fields},
            }
        )
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def value_schema(dtype: str) -> Schema:
    """A value of a NumPy type."""
    if dtype == "str":
        return _TEXT
    kind = np.dtype(dtype).kind
    if kind == "b":
        return {"type": "boolean"}
    if kind in "iu":
        limits = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    largest = float(np.finfo(dtype).max)
    return {"type": "number", "minimum": -largest, "maximum": largest}


def _nested(field: Field) -> Schema:
    schema = value_schema(field.dtype)
    for size in reversed(field.shape):
        schema = _list_of(schema, size)
    return schema


def _list_of(items: Schema, size: int) -> Schema:
    return {"type": "array", "items": items, **_length(size)}


def _length(size: int) -> Schema:
    return {"minItems": size, "maxItems": size} if size >= 0 else {"minItems": 1}


def _predict(endpoint: Predict) -> Schema:
    instances, answers = endpoint.instances, endpoint.answers
    one = {
        "type": "object",
        "required": list(answers.template),
        "properties": {key: answers.schema(key) for key in answers.template},
    }
    many = {
        "type": "object",
        "required": ["predictions", "model", "version"],
        "properties": {
            "predictions": {"type": "array", "items": one},
            "model": _TEXT,
            "version": _TEXT,
        },
    }
    media: Schema = {
        "schema": {
            "type": "object",
            "required": [instances.key],
            "properties": {instances.key: rows_schema(instances)},
        }
    }
    example = endpoint.example()
    if example is not None:
        media["example"] = {instances.key: example}
    return {
        "operationId": f"predict_{endpoint.served.name}",
        "summary": f"Predictions of {endpoint.served.name}.",
        "requestBody": {"required": True, "content": {JSON: media, **_files(instances)}},
        "responses": {
            "200": _response("One object for one row, a list for a list.", {"anyOf": [one, many]}),
            **_refusals(*_REFUSALS),
        },
    }


def _files(instances: Instances) -> Schema:
    """Bodies other than JSON: a picture itself, and a form with one."""
    if instances.kind != "pictures":
        return {}
    form = {"type": "object", "minProperties": 1, "additionalProperties": _FILE}
    return {**{kind: {"schema": _FILE} for kind in TYPES}, FORM: {"schema": form}}


def _open_inference(endpoints: Mapping[str, Endpoint], names: list[str]) -> dict[str, Schema]:
    model = {"name": "name", "in": "path", "required": True, "schema": {"enum": names}}
    paths = {
        "/v2": _get("The server.", _object(name=_TEXT, version=_TEXT, extensions=_texts())),
        "/v2/health/live": _get("Alive?", _object(live={"type": "boolean"})),
        "/v2/health/ready": _get("Ready?", _object(ready={"type": "boolean"})),
        "/v2/models/{name}": _get(
            "A model's inputs and outputs.",
            _object(
                name=_TEXT,
                versions=_texts(),
                platform=_TEXT,
                inputs=_tensors(),
                outputs=_tensors(),
            ),
            404,
            parameters=[model],
        ),
        "/v2/models/{name}/ready": _get(
            "Is the model ready?",
            _object(name=_TEXT, ready={"type": "boolean"}),
            404,
            parameters=[model],
        ),
        "/v2/repository/index": {
            "post": {
                "summary": "The models.",
                "requestBody": {
                    "content": {
                        JSON: {
                            "schema": {
                                "type": "object",
                                "properties": {"ready": {"type": "boolean"}},
                            }
                        }
                    }
                },
                "responses": {
                    "200": _response(
                        "All models.",
                        {
                            "type": "array",
                            "items": _object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT),
                        },
                    ),
                    **_refusals(400, 413),
                },
            }
        },
    }
    for path, endpoint in endpoints.items():
        if isinstance(endpoint, Infer):
            paths[path] = {"post": _infer(endpoint, path)}
    return paths


def _infer(endpoint: Infer, path: str) -> Schema:
    outputs = {
        "type": "array",
        "items": _object(
            name={"enum": [field.name for field in endpoint.outputs]},
            datatype=_TEXT,
            shape={"type": "array", "items": {"type": "integer"}},
        ),
    }
    return {
        "summary": f"Tensors in, tensors out: {endpoint.served.name}"
        + (" at this version." if "/versions/" in path else "."),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": _infer_request(endpoint),
                    "example": {"inputs": [_example(field) for field in endpoint.inputs]},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The outputs.",
                "content": {
                    JSON: {
                        "schema": _object(model_name=_TEXT, model_version=_TEXT, outputs=outputs)
                    },
                    "application/octet-stream": {"schema": {}},
                },
            },
            **_refusals(400, 413, 422, 500),
        },
    }


def _infer_request(endpoint: Infer) -> Schema:
    """The protocol's request for one model.

    What JSON Schema can't say: `data` has as many values as the sizes of `shape` multiply to, and
    all tensors have the same number of rows.
    """
    outputs = _object(name={"enum": [field.name for field in endpoint.outputs]})
    outputs["properties"]["parameters"] = {"type": "object"}
    fields = {field.name: field for field in (*endpoint.inputs, *endpoint.features)}
    tensors = [_tensor(field) for field in fields.values()]
    if endpoint.served.model.task.data == "image":
        files = _tensor(FILES)
        files["properties"]["data"]["items"] = _BASE64
        tensors.append(files)
    request = _object(
        inputs={"type": "array", "minItems": len(endpoint.inputs), "items": {"anyOf": tensors}}
    )
    request["properties"] |= {
        "id": {"type": ["string", "null"]},
        "parameters": {"type": "object"},
        "outputs": {"type": ["array", "null"], "items": outputs},
    }
    return request


def _example(field: Field) -> dict[str, Any]:
    """A tensor of one row."""
    shape = [1, *(max(size, 1) for size in field.shape)]
    value = {"s": "good", "b": True}.get(field.dtype[0], 0)
    data = [value] * math.prod(shape)
    return {
        "name": field.name, "datatype": DATATYPES[field.dtype], "shape": shape, "data": data,
    }  # fmt: skip


def _tensor(field: Field) -> Schema:
    sizes: list[Schema] = [{"type": "integer", "minimum": 1}]
    sizes += [{"const": size} if size >= 0 else {"type": "integer"} for size in field.shape]
    scalar = [*sizes, {"const": 1}]
    shapes = [sizes] if field.shape else [sizes, scalar]
    tensor = _object(
        name={"const": field.name},
        datatype={"enum": accepted_datatypes(field)},
        shape={
            "anyOf": [
                {"type": "array", "prefixItems": shape, **_length(len(shape))} for shape in shapes
            ]
        },
        data={"type": "array", "description": "Flat, or nested as the shape is."},
    )
    tensor["properties"]["parameters"] = {"type": "object"}
    return tensor


def _operations() -> dict[str, Schema]:
    text = {"type": "string"}
    return {
        "/healthz": _get("Is the process alive?", _object(status=_TEXT)),
        "/readyz": _get("Are the models loaded?", _object(status=_TEXT, models=_texts())),
        "/metrics": _get("Numbers for Prometheus.", text, media="text/plain"),
        "/openapi.json": _get("This document.", {"type": "object"}),
        "/": _get("A page to try the models.", text, media="text/html"),
    }


def _get(
    summary: str, schema: Schema, *refusals: int, media: str = JSON, **more: Any
) -> dict[str, Schema]:
    responses = {"200": _response(summary, schema, media), **_refusals(*refusals)}
    return {"get": {"summary": summary, **more, "responses": responses}}


def _response(description: str, schema: Schema, media: str = JSON) -> Schema:
    return {"description": description, "content": {media: {"schema": schema}}}


def _refusals(*codes: int) -> Schema:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    details = {404: "There is no such model.", **_REFUSALS}
    return {str(code): {"description": details[code], "content": content} for code in codes}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _texts() -> Schema:
    return {"type": "array", "items": _TEXT}


def _tensors() -> Schema:
    shape = {"type": "array", "items": {"type": "integer"}}
    return {"type": "array", "items": _object(name=_TEXT, datatype=_TEXT, shape=shape)}


def _components() -> dict[str, Schema]:
    status = {"type": "integer"}
    problem = _object(type=_TEXT, title=_TEXT, status=status, detail=_TEXT, request_id=_TEXT)
    problem["properties"]["field"] = _TEXT
    problem["description"] = "RFC 9457 problem details."
    return {"Problem": problem}
