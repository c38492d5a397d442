"""`mlopsdeploy serve`: the WSGI server around the application; processes, threads, signals.

The parent loads no model. It starts workers, each of which loads the models for itself, calls
each of them once, and only then takes requests from the socket that they share.
"""

from __future__ import annotations

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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from rich.console import Console

from mlopsdeploy.columns import Columns
from mlopsdeploy.core import plugins
from mlopsdeploy.core.console import counted, facts
from mlopsdeploy.core.loading import load_as_set, prepare_model
from mlopsdeploy.core.machine import core_count, free_port, is_loopback
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError, RowError
from mlopsdeploy.serve import logs
from mlopsdeploy.settings import ServeSettings

log = logging.getLogger("mlopsdeploy.serve")
_FAILURE = "failure"
_LONG_ENOUGH = "warmed up by a text that is long enough to tell its language"
_STOPPING = "stopping"
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
    _check_address(settings.host, settings.port)
    if not settings.port:
        settings = settings.replace(port=free_port(settings.host))
    for served in settings.models:
        running = settings.running(served)
        # Compiled here, once, rather than by each worker; and what is wrong is reported at once.
        prepare_model(
            served.model,
            runtime=running.runtime,
            digest=served.digest,
            trust_model=running.trust_model,
            log=log.info,
        )
    _show(settings, names)
    _run(settings)


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
            ("server", f"{settings.server}, {counted(workers, 'worker')}"),
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


def _run(settings: ServeSettings) -> None:
    _check_address(settings.host, settings.port)  # again: models may have compiled for minutes
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    with working_folder() as folder:
        # Loaded before the workers fork, so that they share its memory.
        from mlopsdeploy.serve import app  # noqa: F401

        try:
            load = partial(_load_app, settings, folder, os.getpid(), logs.collect())
            listen(settings, load, folder)
        finally:
            failure = folder / _FAILURE
            if failure.exists():
                code, _, message = failure.read_text("utf-8").partition(" ")
                raise (ModelError if code == "2" else MlopsDeployError)(message)


def load_models(settings: ServeSettings) -> dict[str, Model]:
    """The models of a server by name, each with this worker's share of the cores."""
    share = max(core_count() // worker_count(settings), 1)
    models = {}
    for served in settings.models:
        running = settings.running(served)
        models[served.called] = load_as_set(
            running, served.model, threads=running.threads or share, features=served.features,
            digest=served.digest, log=log.info,
        )  # fmt: skip
    return models


def _load_app(
    settings: ServeSettings, folder: Path, parent: int, native: int | None
) -> Callable[..., Any]:
    """The application of one worker, its models loaded and warm.

    What goes wrong is left in `folder` for the parent, which then stops: starting the worker
    again would not help. A worker whose parent is gone ends too.
    """
    from mlopsdeploy.serve.app import create_app

    threading.Thread(target=_outlive_nobody, args=(parent, folder), daemon=True).start()
    logs.divert(native)
    logs.configure(settings.log_format)
    started = perf_counter()
    try:
        models = load_models(settings)
        app = create_app(models, settings, folder)
        for model in models.values():
            _warm_up(model)
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
    # What is loaded by now lives as long as the worker: no collection need look at it again.
    gc.collect()
    gc.freeze()
    log.info("worker ready in %.2f s", perf_counter() - started, extra={"worker": os.getpid()})
    return app


def _outlive_nobody(parent: int, folder: Path) -> None:
    """A worker whose parent was killed would serve on for ever, and hold its port."""
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _warm_up(model: Model) -> None:
    """Call a model once on each stream, so that no caller pays for what happens only once.

    Of models side by side each, as none of their texts is in the languages of all.
    """
    row: Columns = {}
    for field in model.task.inputs:
        shape = (1, *(max(size, 1) for size in field.shape))
        text = field.dtype == "str"
        row[field.name] = (
            np.full(shape, _LONG_ENOUGH, object) if text else np.zeros(shape, field.dtype)
        )
    for one in (model, *(load() for load in model.parts)):
        for _ in range(one.runtime.streams):
            with suppress(RowError):  # it may know no such category, or take no such size
                one.predict_columns(row)


def worker_count(settings: ServeSettings) -> int:
    """As many workers as cores, unless the settings say otherwise."""
    return settings.workers or core_count()


def _check_address(host: str, port: int) -> None:
    """Whether the address is free, before anything is loaded."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host: {host!r} is no address of this machine") from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as error:
            raise ConfigError(f"--port {port}: needs more rights; take one from 1024 on") from error
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            reason = "is in use" if in_use else f"can't be bound ({error.strerror})"
            raise ConfigError(f"--port: {host}:{port} {reason}; choose another one") from error


@contextmanager
def working_folder() -> Iterator[Path]:
    """Where workers count their requests and leave word for the parent."""
    folder = Path(tempfile.mkdtemp(prefix="mlopsdeploy-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def listen(settings: ServeSettings, load: Callable[[], Any], folder: Path) -> None:
    """Serve until a signal ends it.

    Args:
        settings: where, with which server, and how many workers.
        load: gives a worker its application; called in each.
        folder: of this run, see `working_folder`.

    Raises:
        ConfigError: the server's package is missing.
    """
    if settings.server == "granian":
        _granian(settings, load, folder)
    else:
        _gunicorn(settings, load)


def _granian(settings: ServeSettings, load: Callable[[], Any], folder: Path) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server import Server

    server = Server(
        "mlopsdeploy.serve",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        # The other modes wait for a connection's first bytes to tell HTTP/2, with no time-out.
        http=HTTPModes.http1,
        workers=worker_count(settings),
        # A request holds a thread while its body arrives, so that one slow client does not hold
        # up the others; the model itself is behind a gate.
        blocking_threads=settings.request_threads,
        respawn_failed_workers=True,
        workers_kill_timeout=max(round(settings.drain_timeout), 1),
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=round(settings.header_timeout * 1000)),
        log_level=LogLevels.warning,
        log_dictconfig=logs.configuration(settings.log_format),
    )

    parent = os.getpid()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if os.getpid() != parent:  # a worker that was forked this moment has no handler yet
            os._exit(0)
        if server.interrupt_signal:
            for worker in server.wrks:
                worker.kill()  # type: ignore[no-untyped-call]
            return
        log.info("stopping; what is in work is answered first")
        (folder / _STOPPING).touch()
        server.signal_handler_interrupt()  # type: ignore[no-untyped-call]

    @server.on_startup
    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    server.on_shutdown(lambda: log.info("stopped"))
    server.serve(target_loader=partial(_in_granian, load, folder), wrap_loader=False)


def _in_granian(load: Callable[[], Any], folder: Path) -> Any:
    """Loads an application in a worker, which takes signals from its parent alone."""
    os.setpgid(0, 0)  # Ctrl-C reaches the terminal's group: the parent, which drains the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler until now
    app = load()
    threading.Thread(target=_repeat_signal, args=(folder,), daemon=True).start()
    return app


def _repeat_signal(folder: Path) -> None:
    """Granian loses a signal that comes just before it serves.

    It is sent again once, and only in that case: a worker that gets a third one hangs.
    """
    time.sleep(0.25)
    if (folder / _STOPPING).exists():
        time.sleep(0.25)
        os.kill(os.getpid(), signal.SIGTERM)


def _gunicorn(settings: ServeSettings, load: Callable[[], Any]) -> None:
    try:
        from gunicorn.app.base import BaseApplication
    except ModuleNotFoundError as error:
        raise ConfigError("--server gunicorn needs the package: pip install gunicorn") from error

    config = {
        "bind": f"{_host(settings)}:{settings.port}",
        "workers": worker_count(settings),
        "threads": settings.request_threads,
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

    Application().run()
