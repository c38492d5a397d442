"""Real `mlopsdeploy` processes that import nothing: each is forked from one that has.

`Forks(folder).popen(...)` is `subprocess.Popen` of `python -m mlopsdeploy ...`, a second of imports
less. As a script, `python forks.py SOCKET` is the process that they are forked from, and
`python forks.py SOCKET WORD...` stands for one of them: its streams, folder and environment.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAVY = [
    *("cv2", "filelock", "numpy", "onnxruntime", "openvino", "pyarrow.csv", "pyarrow.parquet"),
    *("pydantic", "rich.console", "sqlite3", "tokenizers", "yaml", "ai_edge_litert.interpreter"),
    *("pandas", "numpy.random", "rich.progress"),  # PyArrow looks for the first
    *("mlopsdeploy.cli", "mlopsdeploy.batch.command", "mlopsdeploy.edge.command"),
    *("mlopsdeploy.runtimes.litert", "mlopsdeploy.runtimes.onnxruntime"),
    *("mlopsdeploy.runtimes.openvino", "mlopsdeploy.tasks.object_detection"),
    *("mlopsdeploy.tasks.text_classification", "flask", "granian.server", "mlopsdeploy.serve.app"),
]


def connect(path: str, request: dict[str, Any], streams: list[int]) -> tuple[socket.socket, int]:
    """Ask for a process; the connection that its end will be reported on, and its number."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    message = json.dumps(request).encode()
    socket.send_fds(connection, [len(message).to_bytes(4, "big")], streams)
    connection.sendall(message)
    return connection, int.from_bytes(received(connection, 4), "big")


def received(connection: socket.socket, length: int) -> bytes:
    parts = b""
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise EOFError("the process that forks has ended")
        parts += part
    return parts


class Popen(subprocess.Popen):
    """A process that another one started for us: what waits for it asks over the connection."""

    def __init__(self, path: str, arguments: list[str], prelude: str, **options: Any) -> None:
        self._path, self._prelude = path, prelude
        super().__init__(arguments, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[3:9]
        request = {
            "arguments": args,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "prelude": self._prelude,
        }
        inherited = zip((p2cread, c2pwrite, errwrite), (0, 1, 2), strict=True)
        streams = [place if stream == -1 else stream for stream, place in inherited]
        try:
            self._connection, self.pid = connect(self._path, request, streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags):
        self._connection.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = int.from_bytes(received(self._connection, 4), "big")
        except BlockingIOError:
            return 0, 0
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, *_, **__):
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


class Forks:
    """Starts processes until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "socket")
        self.program = folder / "mlopsdeploy"  # a command as an installed one is
        self.program.write_text(
            f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {self.socket} "$@"\n', "utf-8"
        )
        self.program.chmod(0o755)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, self.socket], cwd=folder, stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n", self._log.read_text("utf-8")

    def popen(
        self, *arguments: object, prelude: str = "", python: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        """`mlopsdeploy ARGUMENTS`; `prelude` is Python that the process runs first.

        With flags of its own for `python`, or modules of its own in PYTHONPATH, it is a new
        interpreter.
        """
        words = [str(one) for one in arguments]
        environment = options.get("env") or os.environ
        if python or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
            assert not prelude
            return subprocess.Popen(
                [sys.executable, *python, "-m", "mlopsdeploy", *words], **options
            )
        return Popen(self.socket, words, prelude, **options)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


# ---------------------------------------------------------------- the process that is forked


def serve(path: str) -> None:
    """Fork for each connection, and report on it the process's number and how it ended.

    Ends when standard input does, which the tests hold open as long as they live.
    """
    before = dict(os.environ)
    for name in HEAVY:
        importlib.import_module(name)
    # What importing has set: OpenCV's loudness, for one.
    added = {name: word for name, word in os.environ.items() if name not in before}
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    ended, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, ended, 0], [], [])
        if 0 in ready:
            return
        if ended in ready:
            os.read(ended, 4096)
            for pid in list(running):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                        connection.sendall(os.waitpid(pid, 0)[1].to_bytes(4, "big"))
        if listener in ready:
            connection, _ = listener.accept()
            pid = start(connection, added, [listener, *running.values()], [ended, wakes])
            running[pid] = connection
            connection.sendall(pid.to_bytes(4, "big"))


def start(
    connection: socket.socket, added: dict[str, str], others: list[socket.socket], pipes: list[int]
) -> int:
    """Fork for a connection; closes in the new process what isn't its own."""
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = json.loads(received(connection, int.from_bytes(length, "big")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries have threads, which are idle
        pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
        for one in (connection, *others):
            one.close()
        for pipe in pipes:
            os.close(pipe)
    for stream in streams:
        os.close(stream)
    if not pid:
        become(request, added)
    return pid


def become(request: dict[str, Any], added: dict[str, str]) -> None:
    """`python -m mlopsdeploy` from its first line to its exit code."""
    code: Any = 1
    try:
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update({**added, **request["environment"]})
        sys.stdin = os.fdopen(0)  # the other one remembers what its file could do
        sys.argv = ["mlopsdeploy", *request["arguments"]]
        sys.path.insert(0, request["folder"])
        exec(request["prelude"], {})
        runpy.run_module("mlopsdeploy", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:  # noqa: BLE001  # as an interpreter does
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def relay(path: str, arguments: list[str]) -> int:
    """Stand for such a process until it ends; with modules of its own it is a new interpreter."""
    if "PYTHONPATH" in os.environ:
        os.execv(sys.executable, [sys.executable, "-m", "mlopsdeploy", *arguments])
    request = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "prelude": "",
    }
    connection, pid = connect(path, request, [0, 1, 2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = os.waitstatus_to_exitcode(int.from_bytes(received(connection, 4), "big"))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(relay(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
