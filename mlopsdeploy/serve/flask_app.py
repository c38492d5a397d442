"""The Flask application.

A prediction takes microseconds; what Flask does around a view takes ninety. So the application
answers its prediction routes before Flask's routing, context and response objects come to be, by
calling the endpoint that the route's view would call. As soon as a host adds a hook of its own
(`before_request` and the like), every request goes through Flask, and the hook sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mlopsdeploy.core.model import Model
from mlopsdeploy.serve import open_inference, openapi, pages
from mlopsdeploy.serve.app import App, assembled, log_request
from mlopsdeploy.serve.endpoint import Endpoint
from mlopsdeploy.serve.messages import Answer, Problem, Request, RequestIds, problem_answer
from mlopsdeploy.serve.speed import Speed
from mlopsdeploy.serve.wsgi import (
    Environ,
    flask_response,
    json_response,
    wsgi_environ,
    wsgi_request,
)
from mlopsdeploy.settings import ServeSettings

STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_DETAILS = {404: "there is nothing at this path", 405: "this path takes another method"}


class FlaskApp(Flask):
    """Flask with a short way for endpoints.

    Args:
        app: what it serves.
    """

    def __init__(self, app: App) -> None:
        super().__init__("mlopsdeploy.serve", static_folder=None, template_folder="pages")
        self.endpoints = app.endpoints
        self.ids = RequestIds()
        self._app = app
        self._hooks = (
            self.before_request_funcs,
            self.after_request_funcs,
            self.teardown_request_funcs,
            self.teardown_appcontext_funcs,
            self.url_value_preprocessors,
        )
        for path, endpoint in app.endpoints.items():
            view = partial(_view, endpoint)
            self.add_url_rule(path, endpoint=path, view_func=view, methods=["POST"])
        open_inference.add(self, app.served, app.max_body)
        pages.add(self, app.endpoints, app.served)
        described = {"/openapi.json": openapi.document(app.endpoints, app.served)}
        for path, document in {**app.health, **described}.items():
            self.add_url_rule(path, f"own {path}", partial(json_response, document))
        for path, number in app.numbers.items():
            self.add_url_rule(path, f"own {path}", partial(_answered, number))
        for kind in (HTTPException, Exception):
            self.register_error_handler(kind, _error)

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
            if self._app.log_requests:
                self._log_of(environ, answer.status, started)
            return [answer.body]

        def start(line: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            nonlocal status
            status = int(line[:3])
            headers.append(("X-Request-ID", request_id))
            return start_response(line, headers, error)

        body = super().wsgi_app(environ, start)
        if status >= 400:
            self._app.metrics.refused(status)
        if self._app.log_requests:
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
            self._app.metrics.refused(response.status_code)
        skipped = ("content-type", "content-length", "date", "x-request-id")
        headers = tuple(one for one in response.headers.items() if one[0].lower() not in skipped)
        kind = response.headers.get("Content-Type", "")
        return Answer(response.status_code, kind, response.get_data(), headers)

    def _log_of(self, environ: Environ, status: int, started: float) -> None:
        log_request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], status, perf_counter() - started,
            environ["mlopsdeploy.request_id"], environ.get("REMOTE_ADDR", ""),
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
) -> FlaskApp:
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
    return FlaskApp(assembled(models, settings, metrics_folder, speeds))


def _view(endpoint: Endpoint) -> Response:
    return flask_response(_called(endpoint, request.environ, _request_id()))


def _answered(make: Callable[[], Answer]) -> Response:
    return flask_response(make())


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
