"""Files that are text: Dockerfile, units, scripts, the DAG, the README."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlopsdeploy import __version__
from mlopsdeploy.package.plan import Plan

_ENVIRONMENT = Environment(
    loader=PackageLoader("mlopsdeploy.package"),
    autoescape=False,  # noqa: S701 - nothing here is HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, plan: Plan, **values: Any) -> str:
    """A template of the folder `templates`."""
    return _ENVIRONMENT.get_template(template).render(plan=plan, version=__version__, **values)
