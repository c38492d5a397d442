"""The Flask application.

A prediction takes microseconds; what Flask does around a view takes ninety. So the application
answers its prediction routes before Flask's routing, context and response objects come to be, by
calling the endpoint that the route's view would call. As soon as a host adds a hook of its own
(`before_request` and the like), every request goes through Flask, and the hook sees it.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mlopsdeploy.core.model import Model
from mlopsdeploy.core.model_yaml import ServeKeys
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import metrics as prometheus
from mlopsdeploy.serve import open_inference, openapi, pages
from mlopsdeploy.serve.answers import Answers
from mlopsdeploy.serve.endpoint import Endpoint, Predict, PredictPictures, Served
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import (
    Environ,
    Problem,
    flask_response,
    json_response,
    problem_answer,
)
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.serve.pictures import PictureInstances
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES, Route, ServeSettings

STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_DETAILS = {404: "there is nothing at this path", 405: "this path takes another method"}
access_log = logging.getLogger("mlopsdeploy.access")


class App(Flask):
    """Flask with a short way for endpoints.

    Attributes:
        endpoints: by path; each answers POST.
    """

    def __init__(self, *, log_requests: bool = False) -> None:
        super().__init__("mlopsdeploy.serve", static_folder=None, template_folder="pages")
        self.endpoints: dict[str, Endpoint] = {}
        self._log_requests = log_requests
        self._ids = itertools.count(int.from_bytes(os.urandom(4), "big"))
        self._id_prefix = os.urandom(4).hex()
        self._hooks = (
            self.before_request_funcs,
            self.after_request_funcs,
            self.teardown_request_funcs,
            self.teardown_appcontext_funcs,
            self.url_value_preprocessors,
        )

    def add_endpoint(self, path: str, endpoint: Endpoint) -> None:
        """Answer POST requests to a path."""
        self.endpoints[path] = endpoint

        def view() -> Response:
            return flask_response(endpoint(request.environ, _request_id()))

        self.add_url_rule(path, endpoint=path, view_func=view, methods=["POST"])

    def wsgi_app(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Every request comes in here and gets its id here."""
        started = perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID")
        if request_id is None or not _ID.fullmatch(request_id):
            request_id = f"{self._id_prefix}-{next(self._ids):x}"
        environ["mlopsdeploy.request_id"] = request_id
        status = 500

        endpoint = self.endpoints.get(environ["PATH_INFO"])
        if endpoint is not None and environ["REQUEST_METHOD"] == "POST" and not any(self._hooks):
            answer = endpoint(environ, request_id)
            headers = [
                ("Content-Type", answer.content_type),
                ("Content-Length", str(len(answer.body))),
                ("X-Request-ID", request_id),
                *answer.headers,
            ]
            start_response(STATUS_LINES[answer.status], headers)
            if self._log_requests:
                _log(environ, answer.status, perf_counter() - started, request_id)
            return [answer.body]

        def start(line: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            nonlocal status
            status = int(line[:3])
            headers.append(("X-Request-ID", request_id))
            return start_response(line, headers, error)

        body = super().wsgi_app(environ, start)
        if self._log_requests:
            _log(environ, status, perf_counter() - started, request_id)
        return body


def create_app(
    models: Mapping[str, Model],
    settings: ServeSettings | None = None,
    metrics_folder: Path | None = None,
) -> App:
    """An application that serves models; hand it to any WSGI server.

    Args:
        models: by the name that callers know them by.
        settings: their routes and shapes of answers, and the limits; see `ServeSettings`. A
            setting in `models` belongs to the model of that name.
        metrics_folder: an empty folder that all worker processes of a server share, so that
            `/metrics` tells of all of them; by default each tells of itself.

    Raises:
        ConfigError: two routes are the same, or an answer asks for what its model does not give.
    """
    settings = settings or ServeSettings()
    app = App(log_requests=settings.access_log)
    metrics = Metrics(models, metrics_folder)
    routes = {one.called: one for one in settings.models}
    served = {name: Served(name, model, metrics.of(name)) for name, model in models.items()}
    for name, one in served.items():
        for path, endpoint in _endpoints(one, routes.get(name, Route()), settings):
            if path in app.endpoints:
                other = app.endpoints[path].served.name
                raise ConfigError(f"models {other!r} and {name!r} have the same route {path}")
            app.add_endpoint(path, endpoint)
    open_inference.add(app, served, settings.max_body or MAX_BODY)
    pages.add(app, app.endpoints, served)
    for path, document in {
        "/healthz": {"status": "ok"},
        "/readyz": {"status": "ready", "models": list(served)},
        "/openapi.json": openapi.document(app.endpoints, served),
    }.items():
        app.add_url_rule(path, f"own {path}", partial(json_response, document))
    app.add_url_rule("/metrics", "own metrics", lambda: _exposition(metrics))
    for kind in (HTTPException, Exception):
        app.register_error_handler(kind, _error)
    rules = [rule.rule for rule in app.url_map.iter_rules()]
    for path in app.endpoints:
        if rules.count(path) > 1:
            raise ConfigError(f"route {path}: is the server's own; choose another one")
    return app


def _endpoints(served: Served, route: Route, settings: ServeSettings) -> list[tuple[str, Endpoint]]:
    """A model's endpoints by path: as the settings say, else its `model.yaml`, else the default."""
    own = served.model.yaml.serve or ServeKeys()
    path = route.route or own.route or f"/v1/models/{served.name}:predict"
    key = route.input or own.input or "instances"
    answers = Answers(served.model, served.name, route.answer or own.answer)
    predict: Predict
    max_body, max_rows = settings.max_body, settings.rows(served.model.task.data)
    if served.model.task.data == "image":
        max_body = max_body or MAX_BODY_OF_PICTURES
        pictures = PictureInstances(served.model.task, key, max_rows)
        predict = PredictPictures(served, max_body, pictures, answers)
    else:
        max_body = max_body or MAX_BODY
        instances = Instances(served.model.task, key, max_rows)
        predict = Predict(served, max_body, instances, answers)
    infer = open_inference.Infer(served, max_body, max_rows)
    base, version = f"/v2/models/{served.name}", open_inference.version_of(served)
    at_version = f"{base}/versions/{version}/infer"
    return [(path, predict), (f"{base}/infer", infer), (at_version, infer)]


def _exposition(metrics: Metrics) -> Response:
    return Response(metrics.text(), content_type=prometheus.CONTENT_TYPE)


def _request_id() -> str:
    request_id: str = request.environ["mlopsdeploy.request_id"]
    return request_id


def _error(error: Exception) -> Response:
    """Every error as problem details: ours, and Flask's (no such page, wrong method)."""
    if isinstance(error, HTTPException):
        code = error.code or 500
        if code < 400:
            return error.get_response()  # type: ignore[return-value]
        headers = tuple((k, v) for k, v in error.get_headers() if k in ("Allow", "Retry-After"))
        phrase = HTTPStatus(code).phrase.lower()
        kind = phrase.replace(" ", "-")
        error = Problem(code, kind, _DETAILS.get(code, phrase), headers=headers)
    protocol = request.path == "/v2" or request.path.startswith("/v2/")
    return flask_response(problem_answer(error, _request_id(), error=protocol))


def _log(environ: Environ, status: int, seconds: float, request_id: str) -> None:
    request = {
        "method": environ["REQUEST_METHOD"],
        "path": quote(environ["PATH_INFO"], safe="/:", encoding="latin-1"),
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": request_id,
        "remote": environ.get("REMOTE_ADDR", ""),
    }
    access_log.info("%(method)s %(path)s %(status)d", request, extra=request)
