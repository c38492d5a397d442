"""`mlopsdeploy serve`: the command, and what its processes do.

The parent loads no model (see `supervisor`). It starts workers, each of which loads the models for
itself, measures them, and only then takes connections from the socket that they share.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from mlopsdeploy.core import plugins
from mlopsdeploy.core.console import counted, facts
from mlopsdeploy.core.loading import load_as_set, prepare_model
from mlopsdeploy.core.machine import core_count, free_port, is_loopback
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError
from mlopsdeploy.serve import logs
from mlopsdeploy.serve.acceptor import Acceptor
from mlopsdeploy.serve.app import App, assembled
from mlopsdeploy.serve.speed import measure
from mlopsdeploy.serve.supervisor import Pins, Start, Supervisor
from mlopsdeploy.serve.worker import Worker, event_loop
from mlopsdeploy.settings import ServeSettings

if TYPE_CHECKING:
    from mlopsdeploy.serve.flask_app import FlaskApp

Load = Callable[[int, "Pins | None"], "tuple[App, Pins]"]
"""Gives a worker of a generation its application, with models of these digests, and theirs."""

log = logging.getLogger("mlopsdeploy.serve")
_FAILURE = "failure"
_FOLDER = "mlopsdeploy-serve-"
GUNICORN_THREADS = 16
SWITCH = 0.001  # seconds that a thread keeps the interpreter while the event loop wants it
# Read when a numeric library is loaded: a worker's models bring their own threads, and a second
# set under them would fight for the same cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_serve(settings: ServeSettings) -> None:
    """Serve the models of `settings` until a signal ends it; requests in work are answered first.

    A second signal ends it at once.

    Raises:
        ConfigError: a package is missing, two models have one name, or the address can't be bound.
        MlopsDeployError: see `prepare_model`; or a worker could not load what is asked for.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    logs.configure(settings.log_format)
    try:
        _serve(settings)
    finally:
        logs.flush()  # the interpreter may end without its usual ceremony


def _serve(settings: ServeSettings) -> None:
    for package in ("flask", "httptools", "prometheus_client"):
        if not plugins.installed(package):
            raise ConfigError(
                f"serve needs the package {package!r}: pip install 'mlopsdeploy[serve]'"
            )
    names = [served.called for served in settings.models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"--model: two models are called {name!r}; name them, as in --model {name}-2=PATH"
            )
    _check_address(settings.host, settings.port)
    if not settings.port:
        settings = settings.replace(port=free_port(settings.host))
    pins = prepare(settings)  # and what is wrong is reported at once
    _show(settings, names)
    _run(settings, pins)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal before the server takes them."""
    log.warning("stopped before it served")
    sys.exit(128 + number)


def _show(settings: ServeSettings, names: list[str]) -> None:
    base = f"http://{_host(settings)}:{settings.port}"
    workers = worker_count(settings)
    if logs.as_text(settings.log_format):
        lines = [
            ("models", ", ".join(names)),
            ("try it", f"{base}/"),
            ("API", f"{base}/openapi.json"),
            ("server", counted(workers, "worker")),
        ]
        Console(stderr=True, highlight=False).print(facts(lines))
    else:
        log.info("serving", extra={"url": base, "models": names, "workers": workers})
    if not is_loopback(settings.host):
        log.warning(
            "listening at %s: whoever reaches port %d of this machine can use the models; there is "
            "no login and no TLS here, so put a proxy with both in front",
            settings.host,
            settings.port,
        )


def _host(settings: ServeSettings) -> str:
    return f"[{settings.host}]" if ":" in settings.host else settings.host


def _run(settings: ServeSettings, pins: Pins) -> None:
    _check_address(settings.host, settings.port)  # again: models may have compiled for minutes
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    gc.freeze()  # workers share what is loaded, and don't look through it for garbage
    with working_folder() as folder:
        if settings.server == "gunicorn":
            native = logs.collect()
            load = partial(_load_for_gunicorn, settings, folder, pins, os.getpid(), native)
            _gunicorn(settings, load, folder)
        else:
            listen(settings, partial(_load_app, settings, folder), pins)


def listen(settings: ServeSettings, load: Load, pins: Pins | None = None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: where, with which limits, and how many workers.
        load: gives a worker its application and the digests of its models; called in each.
        pins: what the first workers load.

    Raises:
        MlopsDeployError: a worker could not load what is asked for.
    """
    with _listener(settings.host, settings.port) as listener:
        Supervisor(
            partial(_work, settings, load, logs.collect()), worker_count(settings), listener,
            settings.drain_timeout, pins,
        ).run()  # fmt: skip


def _work(settings: ServeSettings, load: Load, native: int | None, start: Start) -> NoReturn:
    """What a worker does; what goes wrong while it loads, its parent hears."""
    threading.Thread(target=_outlive_nobody, args=(start.parent,), daemon=True).start()
    logs.divert(native)
    logs.configure(settings.log_format)
    code = 0
    try:
        started = perf_counter()
        gc.disable()
        app, pins = load(start.generation, start.pins)
        # What is loaded by now lives as long as the worker: no collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(SWITCH)

        def ready() -> None:
            start.tell(("ready", pins))
            _say_ready(app, perf_counter() - started)

        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(_worker(app, settings, start, ready))
    except MlopsDeployError as error:
        start.tell(("failed", error.exit_code, str(error)))
        code = error.exit_code
    except Exception:
        log.exception("a worker could not start")
        logs.flush()  # once the parent knows, it ends this process
        start.tell(("failed", 1, "a worker could not start; the log has the reason"))
        code = 1
    finally:
        logging.shutdown()
        os._exit(code)


def _say_ready(app: App, seconds: float) -> None:
    takes = "".join(
        f"; {name}: about {one.capacity}"
        for name, one in app.served.items()
        if one.capacity is not None
    )
    log.info("worker ready in %.2f s%s", seconds, takes, extra={"worker": os.getpid()})
    for name, one in app.served.items():
        if one.capacity is not None and one.capacity.p99 > one.queue.slo:
            log.warning(
                "%s: can't answer within %.3g s here: a row alone takes %.3g s",
                name, one.queue.slo, one.capacity.seconds, extra={"model": name},
            )  # fmt: skip


async def _worker(
    app: App, settings: ServeSettings, start: Start, ready: Callable[[], None]
) -> None:
    """Take connections until SIGTERM, and answer what is there then."""
    worker = Worker(app, settings)
    acceptor = Acceptor(worker, start.listener, (start.loads, start.place))
    worker.loop.add_signal_handler(signal.SIGTERM, acceptor.stop)
    acceptor.start()
    ready()
    await worker.run()
    acceptor.join()


def _load_app(
    settings: ServeSettings, folder: Path, generation: int, pins: Pins | None
) -> tuple[App, Pins]:
    """The application of one worker, its models loaded and warm."""
    pins = pins or prepare(settings)
    models = load_models(settings, pins)
    counted = folder / str(generation)
    counted.mkdir(exist_ok=True)
    speeds = {name: measure(model) for name, model in models.items()}
    return assembled(models, settings, counted, speeds), pins


def _load_for_gunicorn(
    settings: ServeSettings, folder: Path, pins: Pins, parent: int, native: int | None
) -> FlaskApp:
    """As `_load_app`; what goes wrong is left in `folder` for the parent, which then stops.

    Starting the worker again would not help.
    """
    threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True).start()
    logs.divert(native)
    logs.configure(settings.log_format)
    started = perf_counter()
    try:
        app, _ = _load_app(settings, folder, 0, pins)
    except Exception as error:  # whatever it is, the parent must know
        message = "1 a worker could not start; the log has the reason"
        if isinstance(error, MlopsDeployError):
            message = f"{error.exit_code} {error}"
        else:
            log.exception("a worker could not start")
        (folder / _FAILURE).write_text(message, "utf-8")
        # The parent would take it for a crash if this worker did not wait to be ended.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        os.kill(parent, signal.SIGTERM)
        time.sleep(2)
        os._exit(0)
    from mlopsdeploy.serve.flask_app import FlaskApp

    _say_ready(app, perf_counter() - started)
    return FlaskApp(app)


def prepare(settings: ServeSettings) -> dict[str, str]:
    """Compile models where need be, once, rather than in each worker; gives their digests.

    Raises:
        ConfigError, ModelError: see `prepare_model`.
    """
    pins = {}
    for served in settings.models:
        running = settings.running(served)
        pins[served.called] = prepare_model(
            served.model,
            runtime=running.runtime,
            digest=served.digest,
            trust_model=running.trust_model,
            log=log.info,
        ).digest
    return pins


def load_models(settings: ServeSettings, pins: Pins | None = None) -> dict[str, Model]:
    """The models of a server by name, each with this worker's share of the cores.

    Raises:
        ModelError: one is not what `pins` say it must be.
    """
    share = max(core_count() // worker_count(settings), 1)
    models = {}
    for served in settings.models:
        running = settings.running(served)
        models[served.called] = load_as_set(
            running, served.model, threads=running.threads or share, features=served.features,
            digest=(pins or {}).get(served.called, served.digest), log=log.info,
        )  # fmt: skip
    return models


def _outlive_nobody(parent: int) -> None:
    """A worker whose parent was killed would serve on for ever, and hold its port."""
    while os.getppid() == parent:
        time.sleep(1)
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}{parent}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def worker_count(settings: ServeSettings) -> int:
    """As many workers as cores, unless the settings say otherwise."""
    return settings.workers or core_count()


def _check_address(host: str, port: int) -> None:
    """Whether the address is free, before anything is loaded."""
    _listener(host, port).close()


def _listener(host: str, port: int) -> socket.socket:
    """A socket that is bound; nobody is let in before a worker listens."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host: {host!r} is no address of this machine") from error
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except PermissionError as error:
        listener.close()
        raise ConfigError(f"--port {port}: needs more rights; take one from 1024 on") from error
    except OSError as error:
        listener.close()
        in_use = error.errno == errno.EADDRINUSE
        reason = "is in use" if in_use else f"can't be bound ({error.strerror})"
        raise ConfigError(f"--port: {host}:{port} {reason}; choose another one") from error
    return listener


@contextmanager
def working_folder() -> Iterator[Path]:
    """Where workers count their requests and leave word for the parent."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gunicorn(settings: ServeSettings, load: Callable[[], Any], folder: Path) -> None:
    try:
        from gunicorn.app.base import BaseApplication
    except ModuleNotFoundError as error:
        raise ConfigError("--server gunicorn needs the package: pip install gunicorn") from error

    config = {
        "bind": f"{_host(settings)}:{settings.port}",
        "workers": worker_count(settings),
        "threads": GUNICORN_THREADS,
        "worker_class": "gthread",
        "timeout": 60,
        "graceful_timeout": max(round(settings.drain_timeout), 1),
        "logconfig_dict": logs.configuration(settings.log_format),
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
        "control_socket_disable": True,
        "on_exit": lambda _: log.info("stopped"),
    }

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in config.items():
                if name in self.cfg.settings:  # older ones have no control socket
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return load()

    try:
        Application().run()
    finally:
        failure = folder / _FAILURE
        if failure.exists():
            code, _, message = failure.read_text("utf-8").partition(" ")
            raise (ModelError if code == "2" else MlopsDeployError)(message)
