"""A live source: its newest frame, and no silence when it stalls or dies.

There is no camera on the machines that run the tests. Its place takes a fake that can be made to
block or to fail, and, for streams, a real server of motion JPEG that OpenCV's FFmpeg reads.
"""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from mlopsdeploy.edge.camera import Live, open_source, redacted
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings


class FakeCapture:
    """Stands for a `cv2.VideoCapture` on a camera. `mode`: good, blocks, fails."""

    def __init__(self, size=(64, 48), fps=200):
        self.size, self.fps = size, fps
        self.mode = "good"
        self.free = threading.Event()
        self.asked = {}
        self.released = False
        self.count = 0

    def isOpened(self):  # noqa: N802
        return True

    def set(self, setting, value):
        self.asked[setting] = value
        return True

    def get(self, setting):
        return {cv2.CAP_PROP_FPS: self.fps}.get(setting, 0)

    def read(self, image=None):
        if self.mode == "blocks":
            self.free.wait()
        if self.mode != "good":
            return False, None
        time.sleep(1 / self.fps)
        width, height = self.size
        self.count += 1
        return True, np.full((height, width, 3), self.count % 256, np.uint8)

    def release(self):
        self.released = True


@pytest.fixture
def live():
    """`live(captures…)`: each opening takes the next; one that is an error is raised."""
    made = []

    def make(*captures, stall_seconds=0.2, **requested):
        left, events = list(captures), []

        def opener():
            capture = left.pop(0) if left else captures[-1]
            if isinstance(capture, Exception):
                raise capture
            return capture

        source = Live(
            "camera 0", opener, EdgeSettings(stall_seconds=stall_seconds, **requested),
            report=events.append, timing=lambda _: None,
        )  # fmt: skip
        source.events = events
        made.append((source, captures))
        return source

    yield make
    for source, captures in made:
        source.stop()
        for capture in captures:
            if isinstance(capture, FakeCapture):
                capture.mode = "fails"
                capture.free.set()


def kinds(source):
    return [event.kind for event in source.events]


def test_who_is_slow_gets_the_newest_frame(live):
    capture = FakeCapture()
    source = live(capture)
    frames = source.frames()
    before = -1
    while before < 100:
        time.sleep(0.1)  # 20 frames go by
        there = capture.count  # frames that the camera has given, the last on its way perhaps
        frame = next(frames)
        assert frame.number > before
        assert frame.number >= there - 2
        before = frame.number
    assert source.dropped > 50
    assert source.events == []


def test_a_read_that_never_returns_is_stalled_and_then_lost_and_opened_again(live):
    first, second = FakeCapture(), FakeCapture()
    source = live(first, second)
    frames = source.frames()
    next(frames)
    first.mode = "blocks"
    began = time.monotonic()
    numbers = []
    for frame in frames:
        numbers.append(frame.number)
        if "reconnected" in kinds(source) and len(numbers) > 5:
            break
    assert kinds(source) == ["stalled", "lost", "reconnected"]
    stalled, lost, back = source.events
    assert 0.15 < stalled.facts["seconds"] < 10
    assert stalled.text == f"camera 0: no frame for {stalled.facts['seconds']:.1f} s"
    assert stalled.time - time.time() + time.monotonic() - began < 10
    assert "no frame for" in lost.facts["reason"]
    assert back.facts["attempts"] == 1
    assert numbers == sorted(set(numbers)), "numbers go on where they were"
    # The thread in the old read is left to itself; what it reads later is nobody's.
    first.mode = "good"
    first.free.set()


def test_a_dead_camera_is_opened_again_and_again_with_longer_waits(live):
    first, last = FakeCapture(), FakeCapture()
    gone = InputError("camera 0: can't be opened")
    source = live(first, gone, gone, last)
    frames = source.frames()
    next(frames)
    first.mode = "fails"
    while kinds(source) != ["lost", "reconnected"]:
        next(frames)
    assert source.events[1].facts["attempts"] == 3
    # 0.5, 1 and 2 seconds, each times 0.5 to 1.
    assert 1.75 <= source.events[1].facts["seconds"] < 6
    assert source.events[0].facts["reason"] == "the stream ended"
    assert first.released


def test_stop_ends_it_within_a_read_that_does_not_return_and_while_waiting(live):
    for mode in ("blocks", "fails"):
        capture = FakeCapture()
        source = live(capture, stall_seconds=60)
        frames = source.frames()
        next(frames)
        capture.mode = mode
        threading.Timer(0.1, source.stop).start()
        began = time.monotonic()
        for _ in frames:
            pass
        assert time.monotonic() - began < 30  # of the 60 that a stall may last


def test_a_camera_that_gives_no_frame_at_all(live, monkeypatch):
    monkeypatch.setattr("mlopsdeploy.edge.camera.OPEN_SECONDS", 0.2)
    mute, dead = FakeCapture(), FakeCapture()
    mute.mode, dead.mode = "blocks", "fails"
    with pytest.raises(InputError, match="camera 0: no frame within"):
        live(mute)
    with pytest.raises(InputError, match="can be opened, but gives no frames"):
        live(dead)
    mute.free.set()


def test_what_is_asked_of_a_camera_and_what_it_gives(live):
    capture = FakeCapture(size=(64, 48), fps=200)
    source = live(capture, width=1280, height=720, fps=60)
    assert capture.asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert capture.asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
    assert capture.asked[cv2.CAP_PROP_FPS] == 60
    assert source.description == "64×48 at 200 fps (requested 1280×720 at 60 fps)"
    assert live(FakeCapture(), width=64, height=48).description == "64×48 at 200 fps"
    assert live(FakeCapture(), fps=30).description == "64×48 at 200 fps (requested 30 fps)"


# ---------------------------------------------------------------- a real stream


def open_stream(url, stall_seconds):
    events = []
    settings = EdgeSettings(camera=url, stall_seconds=stall_seconds)
    source = open_source(settings, report=events.append, timing=lambda _: None)
    source.events = events
    return source


def test_a_stream_that_stays_silent_is_connected_anew(streamer):
    server = streamer()
    source = open_stream(server.url, 0.3)
    for count, _ in enumerate(source.frames()):
        if count == 3:
            server.mode = "silent"
            # Silent until somebody connects again.
            threading.Thread(target=_speak_to_the_second, args=(server,), daemon=True).start()
        if "reconnected" in kinds(source):
            break
    assert kinds(source) == ["stalled", "lost", "reconnected"]
    source.stop()


def _speak_to_the_second(server):
    while len(server.connections) < 2:
        time.sleep(0.02)
    server.mode = "good"


def test_a_stream_nobody_serves(streamer):
    server = streamer()
    server.close()
    with pytest.raises(InputError, match=r"can't be opened; is it running"):
        open_stream(server.url, 1)


def test_a_video_on_a_web_server_loses_no_frame(clip, tmp_path, pictures):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = clip.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body[start:])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    source = open_stream(f"http://127.0.0.1:{server.server_address[1]}/clip.mp4", 3)
    assert not source.live
    assert [pictures.number(frame.image) for frame in source.frames()] == list(range(40))
    server.shutdown()
    server.server_close()


# ---------------------------------------------------------------- names


def test_a_password_is_never_shown():
    assert redacted("rtsp://me:se%40cret@10.0.0.1/x") == "rtsp://me:***@10.0.0.1/x"
    assert redacted("rtsp://10.0.0.1/x") == "rtsp://10.0.0.1/x"
    with pytest.raises(InputError) as caught:
        open_stream("rtsp://me:secret@127.0.0.1:9/x", 1)
    assert "secret" not in str(caught.value)


def test_a_camera_that_is_not_there_or_not_ours(monkeypatch):
    with pytest.raises(InputError, match=r"no camera 77: /dev/video77 does not exist; th"):
        open_stream("77", 1)
    with pytest.raises(InputError, match="no camera 77"):
        open_stream("/dev/video77", 1)
    monkeypatch.setattr("pathlib.Path.exists", lambda _: True)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="no permission for /dev/video77"):
        open_stream("77", 1)


def test_what_makes_no_sense():
    with pytest.raises(InputError, match="can't read ftp://; can: rtsp"):
        open_stream("ftp://somewhere/x", 1)
    with pytest.raises(ConfigError, match="--realtime is for videos; 0 is live anyway"):
        open_source(EdgeSettings(realtime=True), report=print, timing=print)
