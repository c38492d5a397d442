"""A live source: its newest frame, and no silence when it stalls or dies.

There is no camera on the machines that run the tests. Its place takes a fake that can be made to
block or to fail, and, for streams, a real server of motion JPEG that OpenCV's FFmpeg reads.
"""

import contextlib
import os
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from mlopsdeploy.data.cameras import has_secret, is_live, redacted, without_secret
from mlopsdeploy.edge import events as source_events
from mlopsdeploy.edge.camera import Live, _device, open_source
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

    # As long as a machine that stands still is no silent camera.
    def make(*captures, stall_seconds=60.0, opened=True, **requested):
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
        if opened:
            source.open()
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


def lasting(source):
    """Its events without silence that ended by itself, as on a machine that stood still."""
    events = []
    for event in source.events:
        if event.kind == "resumed" and events[-1].kind == "stalled":
            events.pop()
        else:
            events.append(event)
    return events


@pytest.fixture
def pauses(monkeypatch):
    """`pauses(source)`: the seconds of each that it asked for, none of which go by."""

    def of(source):
        asked = []
        monkeypatch.setattr(source._stopped, "wait", asked.append)
        return asked

    return of


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
    source = live(first, second, stall_seconds=0.2)
    frames = source.frames()
    next(frames)
    first.mode = "blocks"
    began = time.monotonic()
    numbers = []
    for frame in frames:
        numbers.append(frame.number)
        if "reconnected" in kinds(source) and len(numbers) > 5:
            break
    stalled, lost, back = lasting(source)[:3]
    assert [stalled.kind, lost.kind, back.kind] == ["stalled", "lost", "reconnected"]
    assert 0.15 < stalled.facts["seconds"] < 10
    assert stalled.text == f"camera 0: no frame for {stalled.facts['seconds']:.1f} s"
    assert stalled.time - time.time() + time.monotonic() - began < 10
    assert "no frame for" in lost.facts["reason"]
    assert back.facts["attempts"] == 1
    assert numbers == sorted(set(numbers)), "numbers go on where they were"
    # The thread in the old read is left to itself; what it reads later is nobody's.
    first.mode = "good"
    first.free.set()


def test_a_dead_camera_is_opened_again_and_again_with_longer_waits(live, pauses):
    first, last = FakeCapture(), FakeCapture()
    gone = InputError("camera 0: can't be opened")
    source = live(first, gone, gone, last)
    asked, frames = pauses(source), source.frames()
    next(frames)
    first.mode = "fails"
    while kinds(source) != ["lost", "reconnected"]:
        next(frames)
    assert source.events[1].facts["attempts"] == 3
    assert len(asked) == 3
    for pause, longest in zip(asked, (0.5, 1, 2), strict=True):
        assert longest / 2 <= pause <= longest
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
    mute, dead = FakeCapture(), FakeCapture()
    mute.mode, dead.mode = "blocks", "fails"
    with pytest.raises(InputError, match="can be opened, but gives no frames"):
        live(dead)
    monkeypatch.setattr("mlopsdeploy.edge.camera.OPEN_SECONDS", 0.2)
    with pytest.raises(InputError, match="camera 0: no frame within"):
        live(mute)
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
    source.open()
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
    assert [event.kind for event in lasting(source)] == ["stalled", "lost", "reconnected"]
    source.stop()


@pytest.mark.parametrize("lengths", [True, False])
def test_a_stream_that_changes_its_resolution_keeps_its_shape(streamer, pictures, lengths):
    server = streamer()
    server.lengths = lengths
    source = open_stream(server.url, 60)
    last = 0
    for count, frame in enumerate(source.frames()):
        height, width = frame.image.shape[:2]
        assert (width, height) in ((160, 120), (320, 120))
        # Numbers begin anew after 256.
        before, last = last, last + (pictures.number(frame.image) - last) % 256
        assert before < last <= server.number
        if count == 3:
            server.size = (320, 120)
        if width == 320:
            break
    assert kinds(source) == ["resized"]
    assert source.size == (320, 120)
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


# ---------------------------------------------------------------- comes late, dies at once


def test_a_camera_that_is_not_there_at_the_start_is_waited_for(live):
    gone = InputError("camera 0: can't be opened")
    dead, good = FakeCapture(), FakeCapture()
    dead.mode = "fails"
    source = live(gone, gone, dead, good, opened=False)
    assert source.wait()
    assert source.size == good.size
    # Each reason is told once.
    assert [event.facts["reason"] for event in source.events] == [
        "can't be opened", "can be opened, but gives no frames",
    ]  # fmt: skip
    assert "trying until it is there" in source.events[0].text
    assert next(source.frames()).image.shape == (48, 64, 3)


def test_waiting_for_a_camera_can_be_ended(live):
    source = live(InputError("camera 0: gone"), *[InputError("camera 0: gone")] * 99, opened=False)
    threading.Timer(0.2, source.stop).start()
    assert not source.wait()


def test_pauses_are_short_again_only_after_a_healthy_while(live, pauses, monkeypatch):
    """A camera that dies at its first frame is not opened twice a second."""

    class Brief(FakeCapture):
        def read(self, image=None):
            return super().read(image) if not self.count else (False, None)

    def asked_by(count):
        source = live(*[Brief() for _ in range(count + 1)])
        asked, frames = pauses(source), source.frames()
        while kinds(source).count("reconnected") < count:
            next(frames)
        return asked

    growing = asked_by(6)
    assert growing[-1] > 0.5 * 2**5 * 0.5
    assert growing[0] < growing[3] < growing[5]
    monkeypatch.setattr(source_events, "HEALTHY", 0)
    assert max(asked_by(6)) <= 0.5


def test_pictures_of_another_size_are_an_event(live):
    first, second = FakeCapture(size=(64, 48)), FakeCapture(size=(48, 64))
    source = live(first, second)
    frames = source.frames()
    next(frames)
    first.mode = "fails"
    while "resized" not in kinds(source):
        frame = next(frames)
    assert frame.image.shape == (64, 48, 3)
    assert kinds(source) == ["lost", "reconnected", "resized"]
    assert source.events[-1].facts | {"source": ""} == {"source": "", "width": 48, "height": 64}


# ---------------------------------------------------------------- what is live

OPEN = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n"


@pytest.mark.parametrize(
    ("address", "live_"),
    [
        ("rtsp://10.0.0.1/clip.mp4", True),
        ("RTSP://10.0.0.1/clip.MP4", True),
        ("tcp://10.0.0.1:8888", True),
        ("srt://10.0.0.1:9000/x.ts", True),
        ("http://10.0.0.1/video", True),
        ("http://10.0.0.1/clip.mp4?token=1", False),
        ("/dev/v4l/by-id/usb-046d_HD_Webcam-video-index0", True),
        ("/dev/video7", True),
        ("/dev/shm/none.mp4", False),
        ("none.mp4", False),
    ],
)
def test_what_is_live_is_decided_by_the_scheme(address, live_):
    assert is_live(address) == live_


def test_a_playlist_with_an_end_is_a_file(tmp_path, streamer):
    (tmp_path / "open.m3u8").write_text(OPEN, "utf-8")
    (tmp_path / "ended.m3u8").write_text(f"{OPEN}#EXT-X-ENDLIST\n", "utf-8")
    several = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"
    (tmp_path / "all.m3u8").write_text(several.format("open.m3u8"), "utf-8")
    (tmp_path / "all-ended.m3u8").write_text(several.format("ended.m3u8"), "utf-8")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for where in (str(tmp_path), f"http://me:secret@127.0.0.1:{server.server_address[1]}"):
        assert is_live(f"{where}/open.m3u8")
        assert not is_live(f"{where}/ended.m3u8")
        assert is_live(f"{where}/all.m3u8")
        assert not is_live(f"{where}/all-ended.m3u8")
    server.shutdown()
    server.server_close()
    assert is_live(f"http://127.0.0.1:{server.server_address[1]}/ended.m3u8"), "it may come"


def test_a_fifo_is_live_and_outlives_its_writers(make_clip, tmp_path, pictures):
    clip = make_clip(tmp_path / "a.avi", codec="MJPG")
    fifo = tmp_path / "camera.fifo"
    os.mkfifo(fifo)
    events = []
    source = open_source(EdgeSettings(camera=str(fifo)), report=events.append, timing=print)
    source.events = events
    assert source.live

    def write():
        with fifo.open("wb") as there, contextlib.suppress(BrokenPipeError):
            there.write(clip.read_bytes())

    threading.Thread(target=write, daemon=True).start()
    source.open()
    frames = source.frames()
    assert pictures.number(next(frames).image) > 0
    threading.Timer(1, write).start()
    while "reconnected" not in kinds(source):
        next(frames)
    assert kinds(source)[:1] == ["lost"]
    source.stop()


# ---------------------------------------------------------------- names

SECRET = {
    "rtsp://me:Tops3cret@10.0.0.1:554/x": "rtsp://me:***@10.0.0.1:554/x",
    "rtsp://me:Tops3%40cret@10.0.0.1/x": "rtsp://me:***@10.0.0.1/x",
    "rtsp://me:Tops3/c@ret?s#@10.0.0.1/x": "rtsp://me:***@10.0.0.1/x",
    "rtsp://Tops3cret@10.0.0.1/x": "rtsp://***@10.0.0.1/x",
    "http://10.0.0.1/v?user=me&pwd=Tops3cret&channel=1": "http://10.0.0.1/v?user=***&pwd=***&channel=1",
    "http://10.0.0.1/v?Tops3cret": "http://10.0.0.1/v?***",
    "http://10.0.0.1/v?p%61ss=Tops3cret": "http://10.0.0.1/v?pass=***",
    "rtsp://10.0.0.1/user=me_password=Tops3cret_channel=1_stream=0.sdp":
        "rtsp://10.0.0.1/user=***_password=***_channel=1_stream=0.sdp",
    "rtsp://10.0.0.1/user=me&password=Tops3cret&channel=1": "rtsp://10.0.0.1/user=***&password=***&channel=1",
    "rtsp://10.0.0.1/user%3Dme%26password%3DTops3cret": "rtsp://10.0.0.1/user%3D***%26password%3D***",
    "rtmp://10.0.0.1/live/Tops3cret": "rtmp://10.0.0.1/live/***",
    "rtsps://10.0.0.1:7441/aB3dE6gH9jK2mN5p?enableSrtp": "rtsps://10.0.0.1:7441/***?***",
    "srt://10.0.0.1:9000?passphrase=Tops3cret#Tops3cret": "srt://10.0.0.1:9000?passphrase=***",
    "rtsp://[fe80::1]:554/Streaming/Channels/101?profile=2": "rtsp://[fe80::1]:554/Streaming/Channels/101?profile=2",
    "rtsp://10.0.0.1:8554/@cam": "rtsp://10.0.0.1:8554/@cam",
    "/dev/video0": "/dev/video0",
}  # fmt: skip


@pytest.mark.parametrize("address", SECRET)
def test_what_is_secret_of_an_address_is_never_shown(address):
    assert redacted(address) == SECRET[address]
    assert has_secret(address) == (address != SECRET[address])
    assert "Tops3" not in without_secret(address)


def test_a_password_is_never_shown():
    assert redacted("rtsp://me:se%40cret@10.0.0.1/x") == "rtsp://me:***@10.0.0.1/x"
    assert redacted("rtsp://10.0.0.1/x") == "rtsp://10.0.0.1/x"
    with pytest.raises(InputError) as caught:
        open_stream("rtsp://me:secret@127.0.0.1:9/x", 1)
    assert "secret" not in str(caught.value)


def test_a_camera_that_is_not_there_or_not_ours(monkeypatch):
    with pytest.raises(InputError, match=r"camera 77: /dev/video77 does not exist; th"):
        open_stream("77", 1)
    with pytest.raises(InputError, match="camera 77: /dev/video77"):
        open_stream("/dev/video77", 1)
    source = Live(
        "camera 77", partial(_device, "/dev/null", "camera 77"), EdgeSettings(),
        report=print, timing=print,
    )  # fmt: skip
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="camera 77: no permission for /dev/null"):
        source.open()
    with pytest.raises(InputError, match="/dev/null: is a device, but not a camera"):
        open_stream("/dev/null", 1)


def test_what_makes_no_sense():
    with pytest.raises(InputError, match="can't read ftp://; can: rtsp"):
        open_stream("ftp://somewhere/x", 1)
    with pytest.raises(ConfigError, match="--realtime is for videos; camera 0 is live anyway"):
        open_source(EdgeSettings(realtime=True), report=print, timing=print)
