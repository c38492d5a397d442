"""A real RTSP camera (GStreamer's, run by the system's Python) that boots late, dies, changes."""

import signal
import subprocess

import pytest

from .ports import lasting_port

PYTHON = "/usr/bin/python3"
CAMERA = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_service(sys.argv[1])
factory.set_launch(
    f"( videotestsrc is-live=true ! video/x-raw,width={sys.argv[2]},height=240,framerate=15/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/clip.mp4", factory)
server.attach(None)
print("up", flush=True)
GLib.MainLoop().run()
"""


@pytest.fixture
def camera():
    """`camera(port, width)` is switched on; the test skips where there is no GStreamer."""
    running = []

    def switch_on(port, width):
        command = [PYTHON, "-c", CAMERA, str(port), str(width)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        running.append(process)
        if process.stdout.readline() != "up\n":
            pytest.skip("gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed")
        return process

    try:
        yield switch_on
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_an_rtsp_camera_late_dead_and_changed(start, camera, tmp_path, lines_of, wait_for):
    port, path = lasting_port(), tmp_path / "e.jsonl"
    camera(lasting_port(), 320).kill()  # whether there is GStreamer
    process = start(
        "--camera", f"rtsp://127.0.0.1:{port}/clip.mp4", "--stall-seconds", "2",
        "--events", "e.jsonl", "--save", "o.mkv",
    )  # fmt: skip

    def happened():
        lines = lines_of(path) if path.exists() else []
        return [line["event"] for line in lines if line["event"] != "frame"]

    wait_for(lambda: happened() == ["lost"])
    first = camera(port, 320)
    wait_for(lambda: happened()[-1] == "connected")
    first.kill()
    first.wait()
    wait_for(lambda: happened()[-1] == "lost")
    camera(port, 160)
    wait_for(lambda: happened()[-1] == "resized")
    assert happened()[-2:] == ["reconnected", "resized"]
    resized = [line for line in lines_of(path) if line["event"] == "resized"]
    assert (resized[0]["width"], resized[0]["height"]) == (160, 240)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
