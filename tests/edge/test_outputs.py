"""Videos can be played, events are whole, snapshots are rare, and none disturbs another."""

import json
import shutil
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.frames import Frame
from mlopsdeploy.edge.outputs import Outlet, Sink
from mlopsdeploy.edge.results import Result
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.edge.sinks.save import VideoFile, fitted
from mlopsdeploy.edge.sinks.snapshots import Snapshots
from mlopsdeploy.edge.stages import Stats

CAT = Detection("cat", 0.9, (0.25, 0.5, 0.75, 1.0))


@pytest.fixture
def result(pictures):
    def make(number, *detections, image=None, **frame):
        image = pictures.make(number) if image is None else image
        return Result(Frame(number, image, **frame), detections, Stats())

    return make


def write(sink, results):
    for one in results:
        item = sink.pick(one)
        if item is not None:
            sink.write(item)
    sink.close()


# ---------------------------------------------------------------- a result


def test_a_result_is_drawn_once_in_place_and_only_when_asked_for(result):
    one = result(1, CAT)
    before = one.frame.image.copy()
    assert (one.frame.image == before).all()
    first = one.drawn()
    assert first is one.frame.image is one.drawn()
    assert (first != before).any()
    assert one.stats.stages["draw"].count == 1


# ---------------------------------------------------------------- save


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_saved_video_has_every_frame_of_a_file(result, pictures, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    sink = VideoFile(str(path), fps=lambda: 20, live=False)
    write(sink, [result(number, CAT) for number in range(30)])
    saved = pictures.read(path)
    assert [pictures.number(image) for image in saved] == list(range(30))
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(20)


def test_a_saved_video_of_a_live_source_runs_at_the_speed_of_life(result, pictures, tmp_path):
    path = tmp_path / "out.mp4"
    sink = VideoFile(str(path), fps=lambda: 10, live=True)
    # 30 a second, then one a second, then a minute of silence.
    times = [number / 30 for number in range(30)] + [2.0, 3.0, 63.0]
    write(sink, [result(number, captured=100 + at) for number, at in enumerate(times)])
    numbers = [pictures.number(image) for image in pictures.read(path)]
    assert numbers == sorted(numbers)
    assert len(numbers) == pytest.approx(10 + 20 + 20, abs=2)
    assert numbers[-1] == 32


def test_frames_of_another_size_are_fitted_in(result, pictures, tmp_path):
    path = tmp_path / "out.mp4"
    sink = VideoFile(str(path), fps=lambda: 10, live=False)
    sizes = [(160, 120), (320, 100), (64, 200)]
    write(sink, [result(1, image=np.full((h, w, 3), 200, np.uint8)) for w, h in sizes])
    assert [image.shape for image in pictures.read(path)] == [(120, 160, 3)] * 3
    wide = fitted(np.full((100, 320, 3), 200, np.uint8), (160, 120))
    assert (wide[35:85] == 200).all()
    assert (wide[:30] == 0).all()
    assert (wide[90:] == 0).all()


def test_a_video_in_segments_and_no_more_than_it_may_take(result, pictures, tmp_path):
    theirs = tmp_path / "out-20010101T000000.000Z.mkv"
    theirs.write_bytes(bytes(1000))
    noise = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)

    def run(most):
        sink = VideoFile(
            str(tmp_path / "out.mkv"), fps=lambda: 10, live=True, segment=1.0, most=most
        )
        moments = [number / 10 for number in range(50)]
        write(sink, [
            result(number, image=noise.copy(), captured=100 + at, time=1e9 + at)
            for number, at in enumerate(moments)
        ])  # fmt: skip
        return sorted(path.name for path in tmp_path.glob("out-2001090*.mkv"))

    names = run(None)
    assert names[0] == "out-20010909T014640.000Z.mkv"
    assert len(names) == 5
    assert [len(pictures.read(tmp_path / name)) for name in names] == [10] * 5
    size = max((tmp_path / name).stat().st_size for name in names)
    kept = run(3 * size)
    assert kept[-1] == names[-1]
    assert sum((tmp_path / name).stat().st_size for name in kept) <= 3 * size
    assert theirs.stat().st_size == 1000, "what we didn't write stays"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_an_odd_size_keeps_its_last_row(result, pictures, tmp_path, suffix):
    image = np.zeros((121, 161, 3), np.uint8)
    image[-1:], image[:, -1:] = 255, 255
    sink = VideoFile(str(tmp_path / f"o{suffix}"), fps=lambda: 10, live=False)
    write(sink, [result(number, image=image.copy()) for number in range(3)])
    saved = pictures.read(tmp_path / f"o{suffix}")[-1]
    assert saved.shape == (122, 162, 3)
    assert saved[-1].mean() > 200
    assert saved[:, -1].mean() > 200


def test_frames_that_are_further_apart_keep_their_times(result, pictures, tmp_path):
    times = [0.0, 0.1, 0.2, 1.0, 1.1, 3.0]
    sink = VideoFile(str(tmp_path / "o.mp4"), fps=lambda: 10, live=False)
    write(sink, [result(number, media_time=5 + at) for number, at in enumerate(times)])
    numbers = [pictures.number(image) for image in pictures.read(tmp_path / "o.mp4")]
    assert [numbers.index(number) / 10 for number in range(6)] == pytest.approx(times)
    assert len(numbers) == 31
    assert set(numbers) == set(range(6))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of four megabytes, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_video_on_a_full_disk_ends_in_time_to_be_finished(result, pictures, small_disk):
    said = []
    path = small_disk / "out.avi"
    sink = VideoFile(str(path), fps=lambda: 100, live=False)
    outlet = Outlet(sink, Stats(), keep=True, log=said.append)
    noise = np.random.default_rng(1)
    for number in range(200):
        outlet.put(result(number, image=noise.integers(0, 255, (480, 640, 3), np.uint8)))
    outlet.close()
    (line,) = said
    assert line.startswith(f"--save: {path}: no space left on the disk; nothing more is written")
    assert outlet.failed
    assert 1 < len(pictures.read(path)) < 200


# ---------------------------------------------------------------- events


def test_events_of_a_file_have_a_line_for_every_frame(result, tmp_path, lines_of):
    path = tmp_path / "e.jsonl"
    sink = Events(str(path), live=False)
    write(sink, [result(0, media_time=0.0), result(1, CAT, media_time=0.05, time=1e9 + 0.25)])
    first, second = lines_of(path)
    assert first["detections"] == []
    assert second == {
        "event": "frame",
        "time": "2001-09-09T01:46:40.250Z",
        "frame": 1,
        "media_time": 0.05,
        "width": 160,
        "height": 120,
        "detections": [
            {
                "label": "cat",
                "score": 0.9,
                "box": [40, 60, 120, 120],
                "relative": [0.25, 0.5, 0.75, 1.0],
            }
        ],
    }


def test_events_of_a_camera_pass_over_frames_with_nothing_on_them(result, tmp_path, lines_of):
    path = tmp_path / "e.jsonl"
    sink = Events(str(path), live=True)
    seen = [(), (), (CAT,), (CAT,), (), (), (), (CAT,), ()]
    write(sink, [result(number, *found) for number, found in enumerate(seen)])
    assert [line["frame"] for line in lines_of(path)] == [0, 2, 3, 4, 7, 8]


@pytest.mark.parametrize(("live", "kept"), [(True, [0, 1]), (False, [1])])
def test_what_a_camera_saw_before_a_restart_is_kept(result, tmp_path, lines_of, live, kept):
    path = tmp_path / "e.jsonl"
    for number in range(2):
        write(Events(str(path), live=live), [result(number, CAT)])
    assert [line["frame"] for line in lines_of(path)] == kept


def test_a_line_is_there_as_soon_as_it_is_written(result, tmp_path):
    path = tmp_path / "e.jsonl"
    sink = Events(str(path), live=False)
    sink.write(sink.pick(result(0)))
    sink.write(sink.pick_event(Event("stalled", "no frame", {"seconds": 3.1})))
    assert json.loads(path.read_text("utf-8").splitlines()[1])["seconds"] == 3.1
    sink.close()


# ---------------------------------------------------------------- snapshots


def test_snapshots_are_of_frames_with_something_on_them_and_rare(result, tmp_path):
    folder = tmp_path / "a" / "b"
    sink = Snapshots(str(folder), seconds=1)
    found = [(), (CAT,), (CAT,), (CAT,), (CAT,), ()]
    write(
        sink,
        [
            result(number, *some, media_time=number * 0.5, time=1e9)
            for number, some in enumerate(found)
        ],
    )  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == [
        "20010909T014640.000Z-000001.jpg",
        "20010909T014640.000Z-000003.jpg",
    ]
    image = cv2.imread(str(folder / "20010909T014640.000Z-000001.jpg"))
    assert image.shape == (120, 160, 3)
    assert tuple(image[110, 40]) != (90, 90, 90), "the box is on it"


def test_every_picture_of_a_folder_gets_its_snapshot(result, tmp_path):
    sink = Snapshots(str(tmp_path), seconds=1)
    write(sink, [result(number, CAT, name=f"{number}.jpg") for number in range(3)])
    assert len(list(tmp_path.iterdir())) == 3


# ---------------------------------------------------------------- outlets


class Rest(Sink):
    """A sink that takes its time, or fails."""

    name, waiting = "rest", 2

    def __init__(self, seconds=0.0, error=None):
        self.seconds, self.error = seconds, error
        self.numbers, self.closed = [], False

    def pick(self, result):
        return result.frame.number

    def pick_event(self, event):
        return event.kind

    def write(self, item):
        if self.error:
            raise self.error
        time.sleep(self.seconds)
        self.numbers.append(item)

    def close(self):
        self.closed = True


def test_an_outlet_that_keeps_gets_everything_in_order(result):
    sink = Rest(0.002)
    outlet = Outlet(sink, Stats(), keep=True, log=print)
    for number in range(30):
        outlet.put(result(number))
    outlet.report(Event("ended", "end"))
    outlet.close()
    assert sink.numbers == [*range(30), "ended"]
    assert sink.closed
    assert outlet.dropped == 0


def test_an_outlet_that_does_not_keep_never_makes_the_pipeline_wait(result):
    sink = Rest(0.1)
    outlet = Outlet(sink, Stats(), keep=False, log=print)
    gone = threading.Event()

    def put():
        for number in range(300):
            outlet.put(result(number))
        gone.set()

    threading.Thread(target=put).start()
    assert gone.wait(20), "writing all of it would take 30 seconds"
    outlet.close()
    assert sink.numbers[-1] == 299
    assert len(sink.numbers) + outlet.dropped == 300


def test_an_output_of_a_camera_that_fails_is_tried_again(
    result, small_disk, lines_of, wait_for, monkeypatch
):
    """The disk is full, then somebody makes room: no line is half, and those that waited come."""
    monkeypatch.setattr("mlopsdeploy.edge.outputs.LONGEST_PAUSE", 0.1)
    filler = small_disk / "filler"
    said, events = [], []
    path = small_disk / "e.jsonl"
    sink = Events(str(path), live=True)
    outlet = Outlet(sink, Stats(), keep=False, log=said.append, happened=events.append)
    outlet.put(result(0, CAT))
    wait_for(lambda: path.stat().st_size > 0)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    for number in range(1, 60):
        outlet.put(result(number, CAT))
    wait_for(lambda: events)
    assert (events[0].kind, events[0].text) == (
        "failed", "--events: No space left on device; trying again",
    )  # fmt: skip
    filler.unlink()
    wait_for(lambda: len(events) == 2)
    assert events[1].kind == "recovered"
    outlet.close()
    assert [line["frame"] for line in lines_of(path)] == list(range(60))
    assert said == []
    assert outlet.failed is None


def test_a_video_of_a_camera_goes_on_in_another_file_when_there_is_room(
    result, pictures, small_disk, wait_for, monkeypatch
):
    monkeypatch.setattr("mlopsdeploy.edge.outputs.LONGEST_PAUSE", 0.1)
    filler = small_disk / "filler"
    events = []
    sink = VideoFile(str(small_disk / "out.avi"), fps=lambda: 20, live=True)
    outlet = Outlet(sink, Stats(), keep=False, log=print, happened=events.append)
    outlet.put(result(0))
    wait_for(lambda: sink._written)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
    sink._next_look = 0
    outlet.put(result(1))
    wait_for(lambda: events)
    filler.unlink()
    wait_for(lambda: len(events) == 2)
    outlet.put(result(2))
    outlet.close()
    assert [event.kind for event in events] == ["failed", "recovered"]
    videos = sorted(small_disk.glob("*.avi"))
    assert [len(pictures.read(video)) > 0 for video in videos] == [True, True]


def test_an_output_that_fails_to_the_end_says_so(result):
    events, said = [], []
    sink = Rest(error=OSError(28, "No space left on device"))
    outlet = Outlet(sink, Stats(), keep=False, log=said.append, happened=events.append)
    outlet.put(result(1))
    outlet.close()
    assert outlet.failed == "--rest: No space left on device"
    assert len(said) == 1


def test_an_outlet_that_fails_says_so_once_and_takes_no_more(result):
    said = []
    sink = Rest(error=OSError(28, "No space left on device"))
    outlet = Outlet(sink, Stats(), keep=True, log=said.append)
    for number in range(30):
        outlet.put(result(number))
    outlet.close()
    assert sink.closed
    assert said == [
        "--rest: No space left on device; nothing more is written there, the rest goes on"
    ]


@pytest.mark.parametrize("ends", [True, False])
def test_an_output_that_nobody_reads_any_more(result, ends):
    """Of standard output that is the end, quietly; of a FIFO it fails."""
    said, left = [], []
    sink = Rest(error=BrokenPipeError(32, "Broken pipe"))
    sink.ends_with_reader = ends
    outlet = Outlet(sink, Stats(), keep=False, log=said.append, left=lambda: left.append(1))
    outlet.put(result(1))
    outlet.close()
    assert (left, outlet.failed) == (([1], None) if ends else ([], "--rest: Broken pipe"))
    assert len(said) == (not ends)


def test_what_happens_finds_room_although_results_wait_for_it(result):
    """The thread that says that an output fails may be that of the output itself."""
    held = threading.Event()

    class Held(Rest):
        def write(self, item):
            held.wait(20)
            super().write(item)

    sink = Held()
    outlet = Outlet(sink, Stats(), keep=True, log=print)
    for number in range(3):
        outlet.put(result(number))
    outlet.report(Event("failed", "it"))
    held.set()
    outlet.close()
    assert sink.numbers == [0, 1, 2, "failed"]
