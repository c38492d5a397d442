"""The Flask application.

A prediction takes microseconds; what Flask does around a view takes ninety. So the application
answers its prediction routes before Flask's routing, context and response objects come to be, by
calling the endpoint that the route's view would call. As soon as a host adds a hook of its own
(`before_request` and the like), every request goes through Flask, and the hook sees it.
"""

from __future__ import annotations

import logging
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
from mlopsdeploy.serve.capacity import capacities, capacity
from mlopsdeploy.serve.endpoint import Endpoint, Predict, PredictPictures, Served
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import Answer, Problem, Request, RequestIds, problem_answer
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.serve.pictures import PictureInstances
from mlopsdeploy.serve.speed import UNKNOWN, Speed
from mlopsdeploy.serve.wsgi import (
    Environ,
    flask_response,
    json_response,
    wsgi_environ,
    wsgi_request,
)
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES, Route, ServeSettings

STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_DETAILS = {404: "there is nothing at this path", 405: "this path takes another method"}
access_log = logging.getLogger("mlopsdeploy.access")


class App(Flask):
    """Flask with a short way for endpoints.

    Attributes:
        endpoints: by path; each answers POST.
        served: the models by name.
        metrics: of all that is served.
        max_body: the most bytes of a request to any other path.
        health: what is answered to the paths that ask how the server is.
        ids: of the requests.
    """

    def __init__(self, metrics: Metrics, max_body: int, *, log_requests: bool = False) -> None:
        super().__init__("mlopsdeploy.serve", static_folder=None, template_folder="pages")
        self.endpoints: dict[str, Endpoint] = {}
        self.served: dict[str, Served] = {}
        self.metrics = metrics
        self.max_body = max_body
        self.health: dict[str, dict[str, Any]] = {}
        self.ids = RequestIds()
        self.log_requests = log_requests
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
            return flask_response(_called(endpoint, request.environ, _request_id()))

        self.add_url_rule(path, endpoint=path, view_func=view, methods=["POST"])

    def wsgi_app(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Every request of another server comes in here and gets its id here."""
        started = perf_counter()
        request_id = self.ids.of(environ.get("HTTP_X_REQUEST_ID"))
        environ["mlopsdeploy.request_id"] = request_id
        status = 500

        endpoint = self.endpoints.get(environ["PATH_INFO"])
        if endpoint is not None and environ["REQUEST_METHOD"] == "POST" and not any(self._hooks):
            answer = _called(endpoint, environ, request_id)
            headers = [
                ("Content-Type", answer.content_type),
                ("Content-Length", str(len(answer.body))),
                ("X-Request-ID", request_id),
                *answer.headers,
            ]
            start_response(STATUS_LINES[answer.status], headers)
            if self.log_requests:
                self._log_of(environ, answer.status, started)
            return [answer.body]

        def start(line: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            nonlocal status
            status = int(line[:3])
            headers.append(("X-Request-ID", request_id))
            return start_response(line, headers, error)

        body = super().wsgi_app(environ, start)
        if status >= 400:
            self.metrics.refused(status)
        if self.log_requests:
            self._log_of(environ, status, started)
        return body

    def page(self, request: Request, host: str, port: int) -> Answer:
        """The answer of Flask to a request that came to our own server."""
        environ = wsgi_environ(request, host, port)
        environ["mlopsdeploy.request_id"] = request.id
        if request.method == "HEAD":  # who writes the answer leaves out the body, not its length
            environ["REQUEST_METHOD"] = "GET"
        response = Response.from_app(super().wsgi_app, environ, buffered=True)
        if response.status_code >= 400:
            self.metrics.refused(response.status_code)
        skipped = ("content-type", "content-length", "date", "x-request-id")
        headers = tuple(one for one in response.headers.items() if one[0].lower() not in skipped)
        kind = response.headers.get("Content-Type", "")
        return Answer(response.status_code, kind, response.get_data(), headers)

    def _log_of(self, environ: Environ, status: int, started: float) -> None:
        _log_request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], status, perf_counter() - started,
            environ["mlopsdeploy.request_id"], environ.get("REMOTE_ADDR", ""),
        )  # fmt: skip

    def log(self, request: Request, status: int) -> None:
        """A line of the access log."""
        _log_request(
            request.method, request.path, status, perf_counter() - request.arrived, request.id,
            request.remote,
        )  # fmt: skip


def _called(endpoint: Endpoint, environ: Environ, request_id: str) -> Answer:
    """An endpoint's answer to a request of another server."""
    try:
        asked = wsgi_request(environ, request_id, endpoint.max_body)
    except Problem as problem:
        head = Request("POST", "", {}, b"", request_id, perf_counter())
        return endpoint.refuse(problem, head)
    return endpoint(asked)


def create_app(
    models: Mapping[str, Model],
    settings: ServeSettings | None = None,
    metrics_folder: Path | None = None,
    speeds: Mapping[str, Speed] | None = None,
) -> App:
    """An application that serves models; hand it to any WSGI server.

    Args:
        models: by the name that callers know them by.
        settings: their routes and shapes of answers, and the limits; see `ServeSettings`. A
            setting in `models` belongs to the model of that name.
        metrics_folder: an empty folder that all worker processes of a server share, so that
            `/metrics` tells of all of them; by default each tells of itself.
        speeds: what calls of the models take, as `speed.measure` finds; without them requests are
            computed one by one until the first ones tell.

    Raises:
        ConfigError: two routes are the same, or an answer asks for what its model does not give.
    """
    settings = settings or ServeSettings()
    metrics = Metrics(models, metrics_folder)
    app = App(metrics, settings.max_body or MAX_BODY, log_requests=settings.access_log)
    routes = {one.called: one for one in settings.models}
    speeds = speeds or {}
    for name, model in models.items():
        route = routes.get(name)
        slo = (route.slo if route else None) or settings.slo
        counted = metrics.of(name)
        app.served[name] = Served(name, model, counted, speeds.get(name, UNKNOWN), slo)
    served = app.served
    for name, one in served.items():
        for path, endpoint in _endpoints(one, routes.get(name, Route()), settings):
            if path in app.endpoints:
                other = app.endpoints[path].served.name
                raise ConfigError(f"models {other!r} and {name!r} have the same route {path}")
            app.add_endpoint(path, endpoint)
        if name in speeds:
            infer = app.endpoints[open_inference.path_of(one)]
            assert isinstance(infer, open_inference.Infer)
            one.capacity = capacity(infer)
            one.metrics.can_take(one.capacity.requests_per_second)
    open_inference.add(app, served, app.max_body)
    pages.add(app, app.endpoints, served)
    app.health = {
        "/healthz": {"status": "ok"},
        "/readyz": {"status": "ready", "models": list(served)},
        **open_inference.HEALTH,
    }
    described = {"/openapi.json": openapi.document(app.endpoints, served)}
    for path, document in {**app.health, **described}.items():
        app.add_url_rule(path, f"own {path}", partial(json_response, document))
    app.add_url_rule("/metrics", "own metrics", lambda: _exposition(metrics))
    app.add_url_rule("/capacity", "own capacity", lambda: json_response(capacities(served)))
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
    version = open_inference.version_of(served)
    at_version = f"/v2/models/{served.name}/versions/{version}/infer"
    return [(path, predict), (open_inference.path_of(served), infer), (at_version, infer)]


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


def _log_request(
    method: str, path: str, status: int, seconds: float, request_id: str, remote: str
) -> None:
    request = {
        "method": method,
        "path": quote(path, safe="/:", encoding="latin-1"),
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": request_id,
        "remote": remote,
    }
    access_log.info("%(method)s %(path)s %(status)d", request, extra=request)
