"""Real Python processes that import nothing: each is forked from one that has.

`Forks(folder, owner).popen(...)` is `subprocess.Popen` of `python -m mlopsdeploy ...`, a second of
imports less; `run(...)` is `subprocess.run` of a script, five seconds less where it is one of
PyTorch's or TensorFlow's. What they start so themselves is forked, too. There is one process to
fork from per kind, for all that test together: it ends when the process `owner` does.

As a script, `python forks.py serve FOLDER OWNER KIND` starts it, and `python forks.py relay FOLDER
WORD...` stands for a `mlopsdeploy WORD...`: its streams, folder and environment.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

KINDS = {  # and what has been imported there
    "mlopsdeploy": [
        *("cv2", "filelock", "numpy", "onnxruntime", "openvino", "pyarrow.csv", "pyarrow.parquet"),
        *("pydantic", "rich.console", "sqlite3", "tokenizers", "yaml"),
        *("pandas", "numpy.random", "rich.progress"),  # PyArrow looks for the first
        *("ai_edge_litert.interpreter", "flask", "uvloop"),
        *("mlopsdeploy.cli", "mlopsdeploy.batch.command", "mlopsdeploy.edge.command"),
        *("mlopsdeploy.runtimes.litert", "mlopsdeploy.runtimes.onnxruntime"),
        *("mlopsdeploy.runtimes.openvino", "mlopsdeploy.tasks.object_detection"),
        *("mlopsdeploy.tasks.text_classification", "mlopsdeploy.serve.flask_app"),
    ],
    "torch": [
        *("onnx", "onnxruntime", "torch", "transformers", "transformers.modeling_utils"),
        *(f"transformers.models.{name}" for name in ("auto.modeling_auto", "bert.modeling_bert")),
        *("pandas", "transformers.trainer"),  # of the guides
    ],
    "tensorflow": [
        *("ai_edge_litert.interpreter", "flatbuffers", "h5py", "keras", "onnx", "tensorflow"),
        *("mlopsdeploy.runtimes.litert", "mlopsdeploy.runtimes.tensorflow"),
    ],
    "nncf": ["nncf", "openvino", "mlopsdeploy.runtimes.openvino_graph"],
}
SCRIPTS = {  # that are forked from these; another is a new interpreter
    "torch": ("export_onnx.py", "guide-hugging-face.py", "guide-pytorch.py"),
    "tensorflow": (
        *("composition_models.py", "contract_models.py", "export_litert.py", "guide-keras.py"),
        *("guide-tflite.py", "in_keras.py", "keras_models.py", "tflite_models.py"),
        "tiny_models.py",
    ),
    "nncf": ("quantize_openvino.py",),
}


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

    def __init__(self, path: Path, script: str, arguments: list[str], prelude: str, **options: Any):
        self._path, self._runs = str(path), {"script": script, "prelude": prelude}
        super().__init__(arguments, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[3:9]
        request = {
            **self._runs,
            "arguments": args,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": rest[14],
            "cores": [*os.sched_getaffinity(0)],
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
    """Starts processes, for as long as the process `owner` lives."""

    def __init__(self, folder: Path, owner: int) -> None:
        self.folder, self.owner = folder, owner

    def program(self) -> Path:
        """A command as an installed one is."""
        self._socket("mlopsdeploy", os.environ)
        made = self.folder / "program"
        relay = f'{sys.executable} -I -S {__file__} relay {self.folder} "$@"'
        made.write_text(f"#!/bin/sh\nexec {relay}\n", "utf-8")
        made.chmod(0o755)
        return made

    def _socket(self, kind: str, environment: Mapping[str, str]) -> Path:
        """Where the process of a kind listens; started if need be."""
        from filelock import FileLock

        place = self.folder / kind
        command = [sys.executable, "-P", __file__, "serve", self.folder, str(self.owner), kind]
        with FileLock(f"{place}.lock"):
            if not place.exists():
                with Path(f"{place}.log").open("wb") as log:
                    subprocess.run(
                        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        check=True,
                    )  # fmt: skip
        return place

    def popen(
        self, *arguments: object, prelude: str = "", python: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        """`mlopsdeploy ARGUMENTS`; `prelude` is Python that the process runs first.

        With flags of its own for `python`, or modules of its own in PYTHONPATH, it is a new
        interpreter.
        """
        words = [str(one) for one in arguments]
        if python or not self._may_fork(options):
            assert not prelude
            return subprocess.Popen(
                [sys.executable, *python, "-m", "mlopsdeploy", *words], **options
            )
        path = self._socket("mlopsdeploy", os.environ)
        return Popen(path, "", words, prelude, **options)

    def _may_fork(self, options: Mapping[str, Any]) -> bool:
        environment = options.get("env") or os.environ
        return environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")

    def _started(self, command: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
        """A command; one of ours by forking."""
        from mlopsdeploy.convert import child

        words = [str(word) for word in command]
        if words[:3] == [sys.executable, "-m", "mlopsdeploy"]:
            return self.popen(*words[3:], **options)
        if words[:3] == [sys.executable, "-P", child.__file__]:
            words[2:4] = []  # of the forked one, this is not the parent
        script = words[2] if words[:2] == [sys.executable, "-P"] else ""
        kinds = [kind for kind, names in SCRIPTS.items() if Path(script).name in names]
        if not (kinds and self._may_fork(options)):
            return subprocess.Popen(command, **options)
        path = self._socket(kinds[0], options.get("env") or os.environ)
        return Popen(path, script, words[3:], "", **options)

    def run(self, command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        """`subprocess.run(command, capture_output=True, check=False, **options)`."""
        assert options.pop("capture_output", True)
        assert not options.pop("check", False)
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        with self._started(command, **streams, **options) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Meanwhile, what our own modules start so is forked."""
        from mlopsdeploy.bench import processes
        from mlopsdeploy.convert import child

        ours = {**vars(subprocess), "Popen": self._started, "run": self.run}
        for module in (child, processes):
            module.subprocess = SimpleNamespace(**ours)
        try:
            yield
        finally:
            for module in (child, processes):
                module.subprocess = subprocess


# ---------------------------------------------------------------- the process that is forked


def serve(folder: Path, owner: int, kind: str) -> None:
    """Go on in a process that forks for each connection, and reports on it the new process's number
    and how it ended. It ends when `owner` does."""
    before = dict(os.environ)
    for name in KINDS[kind]:
        importlib.import_module(name)
    # What importing has set: OpenCV's loudness, for one.
    added = {name: word for name, word in os.environ.items() if name not in before}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / kind))
    listener.listen(64)
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries have threads, which are idle
        if os.fork():
            os._exit(0)
    os.setsid()
    with Forks(folder, owner).instead():
        answer(listener, added, os.pidfd_open(owner))


def answer(listener: socket.socket, added: dict[str, str], owner: int) -> None:
    ended, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, ended, owner], [], [])
        if owner in ready:
            os._exit(0)  # no thread of a library's is there to be waited for
        if ended in ready:
            os.read(ended, 4096)
            for pid in list(running):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                        connection.sendall(os.waitpid(pid, 0)[1].to_bytes(4, "big"))
        if listener in ready:
            connection, _ = listener.accept()
            pipes = [ended, wakes, owner]
            pid = start(connection, added, [listener, *running.values()], pipes)
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
    """`python -m mlopsdeploy` or a script, from its first line to its exit code."""
    code: Any = 1
    try:
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update({**added, **request["environment"]})
        # The other ones remember what their files could do.
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        os.sched_setaffinity(0, request["cores"])
        if request["session"]:
            os.setsid()
        sys.argv = [request["script"] or "mlopsdeploy", *request["arguments"]]
        if request["script"]:
            runpy.run_path(request["script"], run_name="__main__")
        else:
            sys.path.insert(0, request["folder"])
            exec(request["prelude"], {})
            runpy.run_module("mlopsdeploy", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as leaving:
        code = leaving.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  # as an interpreter does
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def relay(folder: str, arguments: list[str]) -> int:
    """Stand for such a process until it ends; with modules of its own it is a new interpreter."""
    if "PYTHONPATH" in os.environ:
        os.execv(sys.executable, [sys.executable, "-m", "mlopsdeploy", *arguments])
    request = {
        "script": "",
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "prelude": "",
        "session": False,
        "cores": [*os.sched_getaffinity(0)],
    }
    connection, pid = connect(f"{folder}/mlopsdeploy", request, [0, 1, 2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = os.waitstatus_to_exitcode(int.from_bytes(received(connection, 4), "big"))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    what, place, *words = sys.argv[1:]
    if what == "relay":
        sys.exit(relay(place, words))
    serve(Path(place), int(words[0]), words[1])
