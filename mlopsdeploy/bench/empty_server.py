"""A child of `bench.serve`: an application that reads a body and answers `{}`, served as ours is.

`python -m mlopsdeploy.bench.empty_server --config serve.yaml`. What it reaches is the most that
HTTP and the server leave to any application.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mlopsdeploy.serve import server
from mlopsdeploy.settings import ServeSettings, load

HEADERS = [("Content-Type", "application/json"), ("Content-Length", "2")]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The least that an answer can be."""
    environ["wsgi.input"].read()
    start_response("200 OK", HEADERS)
    return [b"{}"]


def application() -> Callable[..., Any]:
    """What a worker serves."""
    return app


def main() -> None:
    """Serve until a signal ends it."""
    settings = load(ServeSettings, sys.argv[-1], {})
    with server.working_folder() as folder:
        server.listen(settings, application, folder)


if __name__ == "__main__":
    main()
