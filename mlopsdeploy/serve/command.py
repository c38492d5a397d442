"""`mlopsdeploy serve`, from settings to a server: what a person sees of it."""

from __future__ import annotations

import ipaddress
import socket

from rich.console import Console
from rich.table import Table

from mlopsdeploy.config import ServeSettings
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model import prepare_model
from mlopsdeploy.serve import server


def run_serve(settings: ServeSettings) -> None:
    """Serve the models of `settings` until a signal ends it.

    Raises:
        MlopsDeployError: see `prepare_model` and `server.run`.
    """
    console = Console(stderr=True, highlight=False)
    names = [served.called for served in settings.models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"--model: two models are called {name!r}; name them, as in --model {name}-2=PATH"
            )
    server.check_address(settings.host, settings.port)
    if not settings.port:
        settings = settings.model_copy(update={"port": _free_port(settings.host)})
    for served in settings.models:
        running = settings.running(served)
        # Compiled here, once, rather than by each worker; and what is wrong is said at once.
        prepare_model(
            served.model,
            runtime=running.runtime,
            trust_model=running.trust_model,
            say=lambda line: console.print(line, style="dim"),
        )
    _show(console, settings, names)
    server.run(settings)


def _show(console: Console, settings: ServeSettings, names: list[str]) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http://{host}:{settings.port}"
    workers = server.worker_count(settings)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("models", ", ".join(names))
    table.add_row("try it", f"{base}/")
    table.add_row("API", f"{base}/openapi.json, Open Inference at {base}/v2")
    table.add_row("server", f"{settings.server}, {workers} worker{'s' if workers > 1 else ''}")
    console.print(table)
    if not _loopback(settings.host):
        console.print(
            f"Listening at {settings.host}: whoever reaches port {settings.port} of this machine can "
            "use the models. There is no login and no TLS here; put a proxy with both in front.",
            style="yellow",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _free_port(host: str) -> int:
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.bind(address)
        port: int = probe.getsockname()[1]
        return port
