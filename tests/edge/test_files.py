"""Files give every frame, in order; what is damaged is said."""

import shutil
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.frames import Buffers
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings


@pytest.fixture
def opened():
    """`opened(path)` is the source; its `events` and `times` are lists that fill up."""

    def open_(path, **options):
        events, times = [], []
        settings = EdgeSettings(camera=str(path), **options)
        source = open_source(settings, report=events.append, timing=times.append)
        source.events, source.times = events, times
        return source

    return open_


def test_a_video_gives_every_frame_with_its_time(opened, clip, pictures):
    source = opened(clip)
    assert (source.live, source.size, source.fps, source.total) == (False, (160, 120), 20, 40)
    assert source.description == "160×120 at 20 fps, 40 frames"
    for expected, frame in enumerate(source.frames()):
        assert frame.number == expected == pictures.number(frame.image)
        assert frame.media_time == pytest.approx(expected / 20)
    assert expected == 39
    assert source.events == []
    assert len(source.times) == 40


def test_frames_that_are_held_keep_their_picture(opened, clip, pictures):
    held = list(opened(clip).frames())
    assert [pictures.number(frame.image) for frame in held] == list(range(40))


def test_frames_that_are_let_go_share_a_little_memory(opened, clip):
    addresses = set()
    for frame in opened(clip).frames():
        addresses.add(frame.image.ctypes.data)
        del frame
    assert len(addresses) <= 3


def test_stop_ends_a_video(opened, clip):
    source = opened(clip)
    numbers = []
    for frame in source.frames():
        numbers.append(frame.number)
        if frame.number == 4:
            source.stop()
    assert numbers == [0, 1, 2, 3, 4]
    assert source.events == []


def test_a_video_that_is_cut_off_ends_with_an_event(opened, make_clip, tmp_path):
    whole = make_clip(tmp_path / "whole.avi", codec="MJPG")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = opened(cut)
    frames = sum(1 for _ in source.frames())
    assert 10 < frames < 30
    if source.total:  # the number of frames stands in the header
        (event,) = source.events
        assert event.kind == "unreadable"
        assert f"ended after {frames} of 40 frames" in event.text


def test_a_video_as_if_live_gives_the_newest_frame(opened, clip, pictures):
    source = opened(clip, realtime=True)
    assert source.live
    seen, began = [], time.monotonic()
    for frame in source.frames():
        assert frame.number == pictures.number(frame.image)
        seen.append(frame.number)
        time.sleep(0.15)  # three frames go by
    assert seen == sorted(set(seen))
    assert len(seen) + source.dropped == 40
    assert source.dropped > 10
    assert time.monotonic() - began > 1.9, "it takes as long as it lasts"


def test_pictures_come_in_the_order_of_their_numbers(opened, pictures, tmp_path):
    for number in (10, 9, 1, 100):
        cv2.imwrite(str(tmp_path / f"p{number}.png"), pictures.make(number))
    (tmp_path / "notes.txt").write_text("no picture", "utf-8")
    for where in (tmp_path, tmp_path / "*.png"):
        source = opened(where)
        assert (source.live, source.fps, source.total) == (False, None, 4)
        assert source.description == "4 pictures"
        frames = list(source.frames())
        assert [frame.name for frame in frames] == ["p1.png", "p9.png", "p10.png", "p100.png"]
        assert [pictures.number(frame.image) for frame in frames] == [1, 9, 10, 100]


def test_a_damaged_picture_is_said_and_the_others_go_on(opened, pictures, tmp_path):
    for number in (1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pictures.make(number))
    (tmp_path / "2.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    source = opened(tmp_path)
    assert [frame.number for frame in source.frames()] == [0, 2]
    assert [event.text for event in source.events] == ["2.jpg: the picture is cut off or damaged"]


def test_a_bomb_and_a_cut_picture_are_events(opened, pictures, tmp_path):
    """As batch reads them: neither grey below, nor memory for terabytes."""
    cv2.imwrite(str(tmp_path / "1.png"), pictures.make(1))
    cv2.imwrite(str(tmp_path / "2.jpg"), pictures.make(2, (640, 480)))
    content = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    (tmp_path / "3.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    source = opened(tmp_path)
    assert [frame.name for frame in source.frames()] == ["1.png"]
    assert [event.text for event in source.events] == [
        "2.jpg: the picture is cut off or damaged",
        "3.png: the picture has more than 67,108,864 pixels",
    ]
    assert {event.kind for event in source.events} == {"unreadable"}


def test_a_grey_picture_and_one_of_16_bits_become_bgr(opened, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((8, 8), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((8, 8, 3), 7 * 257, np.uint16))
    for frame in opened(tmp_path).frames():
        assert frame.image.shape == (8, 8, 3)
        assert (frame.image == 7).all()


def test_what_can_not_be_opened_gets_one_line(opened, clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100, "utf-8")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:2000])
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "folder").mkdir()
    wrong = {
        "none.mp4": "no such camera or file",
        "empty.mp4": "the file is empty",
        "text.mp4": "can't be read as a video or picture",
        "cut.mp4": "it may be cut off",
        "bad.jpg": "not a picture that can be read",
        "folder": "no pictures in this folder",
        "*.png": "no file fits this pattern",
    }
    for name, message in wrong.items():
        with pytest.raises(InputError) as caught:
            opened(tmp_path / name)
        line = str(caught.value)
        assert message in line
        assert str(tmp_path / name) in line
        assert "\n" not in line


def test_a_file_that_may_not_be_read(opened, clip, tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    shutil.copy(clip, path)
    path.chmod(0)
    # Root may read everything, so the system's answer is made up.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"clip\.mp4: no permission to read it"):
        opened(path)


def test_a_file_can_not_be_asked_for_what_a_camera_can(opened, clip, tmp_path, pictures):
    with pytest.raises(ConfigError, match="is a file"):
        opened(clip, width=640)
    cv2.imwrite(str(tmp_path / "a.png"), pictures.make(1))
    with pytest.raises(ConfigError, match="has no speed of its own"):
        opened(tmp_path / "a.png", realtime=True)


# ---------------------------------------------------------------- memory


def test_memory_is_used_again_only_when_nobody_holds_it():
    buffers = Buffers(limit=2)
    assert buffers.take() is None
    image = np.zeros((4, 4, 3), np.uint8)
    address = image.ctypes.data
    buffers.add(image)
    assert buffers.take() is None, "the test itself holds it"
    view = image[None]
    del image
    assert buffers.take() is None, "a view of it is held"
    del view
    again = buffers.take()
    assert again.ctypes.data == address


def test_memory_of_another_size_is_given_up_and_there_is_a_limit():
    buffers = Buffers(limit=2)
    for _ in range(5):
        buffers.add(np.zeros((4, 4, 3), np.uint8))
    assert len(buffers._buffers) == 2
    buffers.add(np.zeros((8, 8, 3), np.uint8))
    assert [buffer.shape for buffer in buffers._buffers] == [(8, 8, 3)]
