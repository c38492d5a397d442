"""A child of `bench.serve`: an application that reads a body and answers `{}`, served as ours is.

`python -m mlopsdeploy.bench.empty_server --config serve.yaml`. What it reaches is the most that
HTTP and the server leave to any application.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mlopsdeploy.serve import server
from mlopsdeploy.serve.app import App, assembled
from mlopsdeploy.serve.endpoint import Endpoint
from mlopsdeploy.serve.messages import JSON, Answer, Problem, Request, problem_answer
from mlopsdeploy.serve.supervisor import Pins
from mlopsdeploy.settings import MAX_BODY_OF_PICTURES, ServeSettings, load


class Empty(Endpoint):
    """The least that an answer can be."""

    def __init__(self) -> None:
        self.max_body = MAX_BODY_OF_PICTURES
        self.reads_long = False

    def start(
        self,
        request: Request,  # noqa: ARG002
        done: Callable[[Answer], None],
        *,
        here: bool = False,  # noqa: ARG002
    ) -> None:
        """See `Endpoint.start`."""
        done(Answer(200, JSON, b"{}"))

    def refuse(self, problem: Problem, request: Request) -> Answer:
        """See `Endpoint.refuse`."""
        return problem_answer(problem, request.id)


class AnyPath(dict[str, Endpoint]):
    """One endpoint for all of them."""

    def get(self, path: str, default: Any = None) -> Any:
        """It, but for what asks how the server is."""
        return default if path == "/readyz" else self["any"]


def application(_generation: int, _pins: Pins | None) -> tuple[App, Pins]:
    """What a worker serves."""
    app = assembled({})
    app.endpoints = AnyPath(any=Empty())
    return app, {}


def main() -> None:
    """Serve until a signal ends it."""
    settings = load(ServeSettings, sys.argv[-1], {})
    server.listen(settings, application)


if __name__ == "__main__":
    main()
