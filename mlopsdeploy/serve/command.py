"""`mlopsdeploy serve`, from settings to a server: what a person sees of it."""

from __future__ import annotations

import ipaddress
import logging
import logging.config
import signal
import sys
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from mlopsdeploy.core import plugins
from mlopsdeploy.core.loading import prepare_model
from mlopsdeploy.core.machine import free_port
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import logs, server
from mlopsdeploy.settings import ServeSettings

log = logging.getLogger("mlopsdeploy.serve")


def run_serve(settings: ServeSettings) -> None:
    """Serve the models of `settings` until a signal ends it.

    Raises:
        MlopsDeployError: see `prepare_model` and `server.run`.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    logging.config.dictConfig(logs.configuration(settings.log_format))
    for package in ("flask", "prometheus_client", settings.server):
        if not plugins.installed(package) and package != "gunicorn":
            raise ConfigError(
                f"serve needs the package {package!r}: pip install 'mlopsdeploy[serve]'"
            )
    names = [served.called for served in settings.models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"--model: two models are called {name!r}; name them, as in --model {name}-2=PATH"
            )
    server.check_address(settings.host, settings.port)
    if not settings.port:
        settings = settings.replace(port=free_port(settings.host))
    for served in settings.models:
        running = settings.running(served)
        # Compiled here, once, rather than by each worker; and what is wrong is said at once.
        prepare_model(
            served.model,
            runtime=running.runtime,
            digest=served.digest,
            trust_model=running.trust_model,
            log=log.info,
        )
    _show(settings, names)
    server.run(settings)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal before the server takes them."""
    log.warning("stopped before it served")
    sys.exit(128 + number)


def _show(settings: ServeSettings, names: list[str]) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http://{host}:{settings.port}"
    workers = server.worker_count(settings)
    if logs.as_text(settings.log_format):
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("models", ", ".join(names))
        table.add_row("try it", f"{base}/")
        table.add_row("API", f"{base}/openapi.json")
        table.add_row("server", f"{settings.server}, {workers} worker{'s' if workers > 1 else ''}")
        Console(stderr=True, highlight=False).print(table)
    else:
        log.info("serving", extra={"url": base, "models": names, "workers": workers})
    if not _loopback(settings.host):
        log.warning(
            "listening at %s: whoever reaches port %d of this machine can use the models; there is "
            "no login and no TLS here, so put a proxy with both in front",
            settings.host,
            settings.port,
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
