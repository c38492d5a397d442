"""What a process serves: endpoints by path, and what else is answered.

Nothing here needs Flask, which is loaded by the first request for a page; see `flask_app`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from mlopsdeploy.core.model import Model
from mlopsdeploy.core.model_yaml import ServeKeys
from mlopsdeploy.core.once import once
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import metrics as prometheus
from mlopsdeploy.serve import open_inference
from mlopsdeploy.serve.answers import Answers
from mlopsdeploy.serve.capacity import capacities, capacity
from mlopsdeploy.serve.endpoint import Endpoint, Predict, PredictPictures, Served
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import JSON, Answer, Request
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.serve.pictures import PictureInstances
from mlopsdeploy.serve.speed import UNKNOWN, Speed
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES, Route, ServeSettings

if TYPE_CHECKING:
    from mlopsdeploy.serve.flask_app import FlaskApp

PAGES = "/page/"
OWN = ("/openapi.json", "/v2", "/v2/repository/index")
"""Paths that Flask answers, beside what is below `PAGES` and models' own."""
access_log = logging.getLogger("mlopsdeploy.access")


class App:
    """What is served.

    Attributes:
        endpoints: by path; each answers POST.
        served: the models by name.
        metrics: of all that is served.
        max_body: the most bytes of a request to any other path.
        health: what is answered to the paths that ask how the server is.
        numbers: what is answered to those that ask how much it does and can take.
        log_requests: whether each has a line in the access log.
    """

    def __init__(self, metrics: Metrics, max_body: int, *, log_requests: bool = False) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.served: dict[str, Served] = {}
        self.metrics = metrics
        self.max_body = max_body
        self.health: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: Answer(200, prometheus.CONTENT_TYPE, metrics.text()),
            "/capacity": lambda: Answer(200, JSON, msgspec.json.encode(capacities(self.served))),
        }
        self.log_requests = log_requests
        self._flask = once(self._load_flask)

    def add(self, path: str, endpoint: Endpoint) -> None:
        """Answer POST requests to a path.

        Raises:
            ConfigError: another endpoint has it, or the server itself.
        """
        if path in self.endpoints:
            names = self.endpoints[path].served.name, endpoint.served.name
            raise ConfigError(f"models {names[0]!r} and {names[1]!r} have the same route {path}")
        if path in (*OWN, *self.health, *self.numbers) or path.startswith(PAGES):
            raise ConfigError(f"route {path}: is the server's own; choose another one")
        self.endpoints[path] = endpoint

    def _load_flask(self) -> FlaskApp:
        from mlopsdeploy.serve.flask_app import FlaskApp

        return FlaskApp(self)

    def page(self, request: Request, host: str, port: int) -> Answer:
        """The answer to a request that came to our own server and is for no endpoint."""
        if request.method == "GET" and request.path in self.numbers:
            return self.numbers[request.path]()
        return self._flask().page(request, host, port)

    def log(self, request: Request, status: int) -> None:
        """A line of the access log."""
        log_request(
            request.method, request.path, status, perf_counter() - request.arrived, request.id,
            request.remote,
        )  # fmt: skip


def assembled(
    models: Mapping[str, Model],
    settings: ServeSettings | None = None,
    metrics_folder: Path | None = None,
    speeds: Mapping[str, Speed] | None = None,
) -> App:
    """What serves some models; see `create_app`.

    Raises:
        ConfigError: two routes are the same, or an answer asks for what its model does not give.
    """
    settings = settings or ServeSettings()
    metrics = Metrics(models, metrics_folder)
    app = App(metrics, settings.max_body or MAX_BODY, log_requests=settings.access_log)
    app.health = {
        "/healthz": {"status": "ok"},
        "/readyz": {"status": "ready", "models": list(models)},
        **open_inference.HEALTH,
    }
    routes = {one.called: one for one in settings.models}
    speeds = speeds or {}
    for name, model in models.items():
        route = routes.get(name)
        slo = (route.slo if route else None) or settings.slo
        counted = metrics.of(name)
        app.served[name] = Served(name, model, counted, speeds.get(name, UNKNOWN), slo)
    for name, one in app.served.items():
        for path, endpoint in _endpoints(one, routes.get(name, Route()), settings):
            app.add(path, endpoint)
        if name in speeds:
            infer = app.endpoints[open_inference.path_of(one)]
            assert isinstance(infer, open_inference.Infer)
            one.capacity = capacity(infer)
            one.metrics.can_take(one.capacity.requests_per_second)
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


def log_request(
    method: str, path: str, status: int, seconds: float, request_id: str, remote: str
) -> None:
    """A line of the access log."""
    request = {
        "method": method,
        "path": quote(path, safe="/:", encoding="latin-1"),
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": request_id,
        "remote": remote,
    }
    access_log.info("%(method)s %(path)s %(status)d", request, extra=request)
