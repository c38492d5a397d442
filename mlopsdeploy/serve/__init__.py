"""A model behind REST: requests in, answers out, in microseconds.

`create_app(models, settings)` gives a Flask application that any WSGI server can host;
`mlopsdeploy serve` runs it under a server of its own.
"""

from typing import TYPE_CHECKING

__all__ = ["create_app"]

if TYPE_CHECKING:
    from mlopsdeploy.serve.flask_app import create_app


def __getattr__(name: str) -> object:
    if name in __all__:
        from mlopsdeploy.serve import flask_app

        return getattr(flask_app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
