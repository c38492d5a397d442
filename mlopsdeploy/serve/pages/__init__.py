"""The page at `/`: try a model by hand, and see how the server is doing.

Plain HTML, CSS and JavaScript modules, served as they lie in this folder and in `page_look`:
nothing is built, and nothing comes from another host.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

import msgspec
from flask import Flask, Response, request

from mlopsdeploy import __version__, page_look
from mlopsdeploy.serve.endpoint import Endpoint, Predict, Served
from mlopsdeploy.serve.messages import JSON
from mlopsdeploy.serve.pictures import TYPES

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Asked for again each time; the ETag makes the answer short, and a new version shows at once.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add(app: Flask, endpoints: Mapping[str, Endpoint], served: Mapping[str, Served]) -> None:
    """The page, what it is made of, and what it must know of the models.

    Args:
        app: gets the routes.
        endpoints: by path; one for each model, at least.
        served: the models by name, in the order in which the page lists them.
    """
    for file in (*resources.files(__name__).iterdir(), page_look.FOLDER / "look.css"):
        if kind := _TYPES.get(PurePath(file.name).suffix):
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            _add_file(app, path, file.read_bytes(), kind)
    ways = {
        endpoint.served.name: (path, endpoint)
        for path, endpoint in endpoints.items()
        if isinstance(endpoint, Predict)
    }
    models = [_about(one, *ways[name]) for name, one in served.items()]
    for about in models:
        if about["kind"] == "pictures" and about["example"] is not None:
            # A picture that came as a data URL (see `models.files`), at an address of its own.
            head, _, content = about["example"].partition(";base64,")
            about["example"] = f"page/examples/{about['name']}"
            kind = head.removeprefix("data:")
            _add_file(app, f"/{about['example']}", b64decode(content), kind)
    known = {"version": __version__, "models": models}
    _add_file(app, "/page/models.json", msgspec.json.encode(known), JSON)


def _about(served: Served, route: str, endpoint: Predict) -> dict[str, Any]:
    """What the page must know of a model to make a form for it and to read its answers."""
    model, instances = served.model, endpoint.instances
    return {
        "name": served.name,
        "version": model.version,
        "runtime": model.runtime.name,
        "precision": model.runtime.precision,
        "route": route,
        "key": instances.key,
        "kind": instances.kind,
        "types": TYPES if instances.kind == "pictures" else (),
        "named": instances.named,
        "width": instances.width,
        "fields": [
            {"name": field.name, "dtype": field.dtype, "shape": field.shape}
            for field in instances.fields
        ],
        "example": endpoint.example(),
        "answers": [
            {**answer._asdict(), "probability": answer.is_probability}
            for answer in model.task.answers
        ],
        "several": model.task.multi_label,
        "threshold": model.task.threshold,
        "answer": endpoint.answers.template,
    }


def _add_file(app: Flask, path: str, content: bytes, kind: str) -> None:
    etag = hashlib.sha256(content).hexdigest()[:32]

    def view() -> Response:
        response = Response(content, content_type=kind, headers=_HEADERS)
        response.set_etag(etag)
        return response.make_conditional(request)  # type: ignore[return-value]

    app.add_url_rule(path, endpoint=f"page {path}", view_func=view)
