"""Small real clips, whose pictures say which frame they are, and a real model."""

import contextlib
import dataclasses
import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
import tty
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlopsdeploy.edge  # noqa: F401  # sets what OpenCV reads when it is loaded

import cv2  # isort: skip
import numpy as np
import pytest

from mlopsdeploy.core.loading import load_model

from .ports import lasting_port

SIZE = (160, 120)
BITS = 8


def numbered(number, size=SIZE):
    """A picture whose upper half spells its number in black and white bars."""
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        image[: height // 2, bit * bar : (bit + 1) * bar] = 255 * (number >> bit & 1)
    return image


def number_of(image):
    """What the picture says it is, even after compression."""
    height, width = image.shape[:2]
    bar = width // BITS
    bars = [image[height // 8 : height // 3, bit * bar + 4 : (bit + 1) * bar - 4].mean() > 127
            for bit in range(BITS)]  # fmt: skip
    return sum(int(white) << bit for bit, white in enumerate(bars))


def read_all(path):
    """Every picture of a video."""
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while True:
        good, image = capture.read()
        if not good:
            return pictures
        pictures.append(image)


@pytest.fixture(scope="session")
def pictures():
    class Pictures:
        make, number, read = staticmethod(numbered), staticmethod(number_of), staticmethod(read_all)

    return Pictures


@pytest.fixture(scope="session")
def make_clip():
    def make(path, frames=40, fps=20, codec="mp4v", size=SIZE):
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
        assert writer.isOpened()
        for number in range(frames):
            writer.write(numbered(number, size))
        writer.release()
        return path

    return make


@pytest.fixture(scope="session")
def clip(make_clip, tmp_path_factory):
    """40 frames, two seconds."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def model():
    """The built-in detector; one thread, loaded in the thread of the tests."""
    return load_model("detector", threads=1, streams=1)


@pytest.fixture
def slowed(model):
    """The same with a runtime that takes longer: real answers, after a rest."""

    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def __getattr__(self, name):
            return getattr(model.runtime, name)

        def run(self, tensors):
            time.sleep(self.seconds)
            return model.runtime.run(tensors)

    return lambda seconds: dataclasses.replace(model, runtime=Slow(seconds))


class Streamer:
    """A real server of motion JPEG on a port of its own. `mode`: good, silent."""

    def __init__(self, picture, port=0):
        streamer = self
        self.mode = "good"
        self.number = 0
        self.size = SIZE
        self.lengths = True
        self.connections = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                streamer.connections.append(self.connection)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not streamer.closed.is_set():
                        if streamer.mode == "good":
                            streamer.number += 1
                            jpeg = cv2.imencode(
                                ".jpg", picture(streamer.number % 256, streamer.size)
                            )[1].tobytes()
                            length = f"Content-Length: {len(jpeg)}\r\n" * streamer.lengths
                            head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
                            self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(0.03)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self.closed = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port or lasting_port()), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/video"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def streamer():
    servers = []

    def make(port=0):
        servers.append(Streamer(numbered, port))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def start(tmp_path, forks):
    """`start("--camera", clip)` runs `mlopsdeploy edge` in a process that the test may signal."""
    running = []

    def run(*arguments, env=None, **options):
        environment = {**os.environ, **(env or {})}
        if not env or "DISPLAY" not in env:
            environment.pop("DISPLAY", None)
            environment.pop("WAYLAND_DISPLAY", None)
        words = ["edge", "--threads", "1", *map(str, arguments)]
        options = {
            "cwd": tmp_path, "env": environment, "stdin": subprocess.DEVNULL, "text": True,
            "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options,
        }  # fmt: skip
        if "DISPLAY" in environment:  # which Qt reads when it is loaded
            process = subprocess.Popen([sys.executable, "-m", "mlopsdeploy", *words], **options)
        else:
            process = forks.popen(*words, **options)
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def edge(start):
    """The same to its end: exit code, standard output and error."""

    def run(*arguments, **options):
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def lines_of():
    """Each line of a JSON Lines file, which all have to be whole."""
    return lambda path: [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def wait_for():
    """Wait until something holds, at most for some seconds."""

    def wait(holds, seconds=60.0):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def street(repository):
    """Our example: objects that the built-in detector knows."""
    return repository / "examples" / "street.mp4"


# ---------------------------------------------------------------- lines


@pytest.fixture
def start_lines(start):
    """`start_lines("--lines", "-")` starts a process with pipes on all three."""
    return lambda *arguments, **options: start(*arguments, **{"stdin": subprocess.PIPE, **options})


class Plugged:
    """A pseudo-terminal under a name of its own, as udev gives one to a serial device."""

    def __init__(self, path):
        self.path = path
        self.plug_in()

    def plug_in(self):
        self.wire, device = pty.openpty()
        tty.setraw(device)
        self.device = device
        self.path.symlink_to(os.ttyname(device))

    def send(self, text):
        os.write(self.wire, text.encode())

    def unplug(self):
        self.path.unlink()
        os.close(self.device)
        os.close(self.wire)


@pytest.fixture
def sensor(tmp_path):
    """A serial device `ttyUSB0`: `send`, `unplug`, `plug_in`."""
    plugged = Plugged(tmp_path / "ttyUSB0")
    yield plugged
    with contextlib.suppress(OSError):
        plugged.unplug()
