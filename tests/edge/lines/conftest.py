"""Runs of `mlopsdeploy edge --lines` as processes, and pseudo-terminals in place of devices."""

import os
import pty
import subprocess
import tty
from contextlib import suppress

import pytest


@pytest.fixture
def start_lines(tmp_path, forks):
    """`start_lines("--lines", "-")` gives a process with pipes on all three."""
    running = []

    def run(*arguments, env=None, **options):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = forks.popen(
            "edge", "--threads", "1", *arguments, cwd=tmp_path, text=True,
            env={**os.environ, **(env or {})}, **{**pipes, **options},
        )  # fmt: skip
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


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
    with suppress(OSError):
        plugged.unplug()
