"""`mlopsdeploy edge` as a process: a real video in, whole files out, whatever ends it."""

import http.client
import json
import re
import signal
import subprocess
import sys

import cv2
import pytest
import yaml

from mlopsdeploy.settings import EdgeSettings

from .ports import lasting_port


def test_the_config_shows_every_setting(repository):
    text = (repository / "configs" / "edge.yaml").read_text("utf-8")
    everything = yaml.safe_load(re.sub(r"^# (?=\w+: )", "", text, flags=re.MULTILINE))
    assert set(everything) == set(EdgeSettings.declared())
    assert EdgeSettings(**everything).camera == "0"


# ---------------------------------------------------------------- to the end


def test_a_video_into_all_outputs_at_once(edge, street, tmp_path, lines_of, pictures):
    code, out, err = edge(
        "--camera", street, "--save", "out.mp4", "--events", "e.jsonl", "--snapshots", "shots",
        "--preview", "0", "--json",
    )  # fmt: skip
    assert code == 0, err
    summary = json.loads(out)
    capture = cv2.VideoCapture(str(street))
    frames, fps = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    assert summary["frames"] == frames
    assert summary["ended"] == "end"
    assert summary["dropped"] == 0
    assert summary["failed"] == []
    assert summary["bottleneck"] in summary["stages_ms"]
    assert summary["model"]["name"] == "detector"
    assert {"capture", "encode", "infer", "decode", "draw", "save", "events"} <= set(
        summary["stages_ms"]
    )
    lines = lines_of(tmp_path / "e.jsonl")
    assert (lines[0]["event"], lines[-1]["event"]) == ("connected", "ended")
    seen = [line for line in lines if line["event"] == "frame"]
    assert [line["frame"] for line in seen] == list(range(int(frames)))
    assert seen[-1]["media_time"] == pytest.approx((frames - 1) / fps, abs=0.002)
    found = [one for line in seen for one in line["detections"]]
    assert found, "the example clip has objects in it that the detector finds"
    for one in found:
        x1, y1, x2, y2 = one["box"]
        assert 0 <= x1 <= x2 <= seen[0]["width"]
        assert 0 <= y1 <= y2 <= seen[0]["height"]
        assert all(0 <= side <= 1 for side in one["relative"])
        assert 0.4 <= one["score"] <= 1
    counts = {}
    for one in found:
        counts[one["label"]] = counts.get(one["label"], 0) + 1
    assert counts == summary["labels"]
    assert len(pictures.read(tmp_path / "out.mp4")) == frames
    assert 1 <= len(list((tmp_path / "shots").iterdir())) <= frames / fps + 2
    assert "sets the pace" in err
    assert re.search(r"preview: http://127\.0\.0\.1:\d+/", err)
    assert "\x1b" not in err, "no colours where there is no terminal"


def test_pictures(edge, pictures, tmp_path, lines_of):
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), pictures.make(number, (320, 240)))
    code, _, err = edge("--camera", "in", "--events", "e.jsonl", "--save", "o.avi")
    assert code == 0, err
    seen = [line for line in lines_of(tmp_path / "e.jsonl") if line["event"] == "frame"]
    assert [line["name"] for line in seen] == ["0.png", "1.png", "2.png"]
    assert "media_time" not in seen[0]
    assert len(pictures.read(tmp_path / "o.avi")) == 3


def test_who_sees_nothing_is_told_how_to(edge, clip):
    _, _, err = edge("--camera", clip, "--limit", "2")
    assert "nothing is shown or written: --preview 8081" in err
    _, _, err = edge("--camera", clip, "--limit", "2", "--events", "e.jsonl")
    assert "nothing is shown" not in err


def test_a_limit_goes_before_that_of_a_config_file(edge, clip, tmp_path, lines_of):
    (tmp_path / "e.yaml").write_text(f"camera: {clip}\nlimit: 3\nwindow: false\n", "utf-8")
    code, out, err = edge("--config", "e.yaml", "--limit", "5", "--events", "e.jsonl", "--json")
    assert code == 0, err
    assert (json.loads(out)["frames"], json.loads(out)["ended"]) == (5, "limit")
    assert "no window" not in err
    lines = lines_of(tmp_path / "e.jsonl")
    assert [line.get("frame") for line in lines] == [None, *range(5), None]
    assert lines[-1]["reason"] == "limit"


def test_threads_are_measured(start, clip, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "mlopsdeploy", "edge", "--camera", str(clip), "--limit", "1",
         "--no-window"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    from mlopsdeploy.core.machine import core_count

    chosen = re.search(r"threads: (\d+) \(1: \d+\.\d ms", process.stderr)
    assert chosen or core_count() == 1
    assert not chosen or 1 <= int(chosen[1]) <= core_count()


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("realtime", [True, False])
def test_a_signal_finishes_the_files(
    start, make_clip, tmp_path, lines_of, pictures, wait_for, number, code, word, realtime
):
    clip = make_clip(tmp_path / "long.mp4", frames=3000)
    process = start(
        "--camera", clip, "--save", "out.mp4", "--events", "e.jsonl", "--json",
        *["--realtime"] * realtime,
    )  # fmt: skip
    wait_for(lambda: (tmp_path / "e.jsonl").exists() and len(lines_of(tmp_path / "e.jsonl")) > 1)
    # The video has its first frames.
    wait_for((tmp_path / "out.mp4").exists)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{word}; all files are finished" in err
    assert "Traceback" not in err
    assert "nothing was written" not in err
    summary = json.loads(out)
    assert summary["ended"] == word
    lines = lines_of(tmp_path / "e.jsonl")
    assert lines[-1]["event"] == "ended"
    assert lines[-1]["reason"] == word
    saved = len(pictures.read(tmp_path / "out.mp4"))
    if realtime:
        assert saved > 0
    else:
        seen = [line["frame"] for line in lines if line["event"] == "frame"]
        assert seen == list(range(summary["frames"]))
        assert saved == summary["frames"]


def test_a_stream_that_goes_silent_dies_and_comes_back(
    start, streamer, tmp_path, lines_of, pictures, wait_for
):
    """Each is an event in the file and a line for people, and the video can be played."""
    server = streamer()
    path = tmp_path / "e.jsonl"
    process = start(
        "--camera", server.url, "--stall-seconds", "1.5", "--events", "e.jsonl", "--save", "o.mp4"
    )

    def happened():
        lines = lines_of(path) if path.exists() else []
        return [line["event"] for line in lines if line["event"] != "frame"]

    wait_for(lambda: "connected" in happened())
    wait_for(lambda: server.number > 15)
    server.mode = "silent"
    wait_for(lambda: "stalled" in happened())
    server.mode = "good"
    wait_for(lambda: "resumed" in happened())
    server.close()
    wait_for(lambda: "lost" in happened())
    again = streamer(server.port)
    wait_for(lambda: "reconnected" in happened())
    wait_for(lambda: again.number > 15)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    # A machine that stands still stalls more often; the order is the same.
    rest = iter(happened())
    for kind in ("connected", "stalled", "resumed", "lost", "reconnected", "ended"):
        assert kind in rest
    assert not list(rest)
    for said in ("no frame for ", "frames again after", "connecting again", "back after"):
        assert err.count(f"{server.url}: ") >= 5
        assert said in err
    assert len(pictures.read(tmp_path / "o.mp4")) > 10


def test_a_camera_that_is_switched_on_later_than_the_device(
    start, streamer, tmp_path, lines_of, wait_for
):
    """After a power cut the camera may boot for longer; nobody has to come and start us again."""
    port = lasting_port()
    path = tmp_path / "e.jsonl"
    address = f"http://me:Tops3cret@127.0.0.1:{port}/v?token=Tops3cret"
    process = start("--camera", address, "--events", "e.jsonl", "--save", "o.mp4")

    def happened():
        return [line["event"] for line in lines_of(path)] if path.exists() else []

    wait_for(lambda: happened() == ["lost"])
    server = streamer(port)
    wait_for(lambda: "connected" in happened())
    wait_for(lambda: server.number > 15)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "trying until it is there" in err
    lost, connected = (line for line in lines_of(path) if line["event"] in ("lost", "connected"))
    assert (connected["width"], connected["height"]) == (160, 120)
    assert lost["source"] == f"http://me:***@127.0.0.1:{port}/v?token=***"
    for place in (err, path.read_text("utf-8")):
        assert "Tops3cret" not in place


def test_waiting_for_a_camera_ends_with_a_signal(start, tmp_path):
    process = start("--camera", "77", "--events", "e.jsonl", "--json")
    for line in process.stderr:
        if "trying until it is there" in line:
            break
    assert line.startswith("camera 77: /dev/video77 does not exist; ")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["frames"] == 0


def test_a_camera_that_nobody_named_is_not_waited_for(edge):
    code, _, err = edge("--no-window")
    assert code == 2
    assert "mlopsdeploy: camera 0: /dev/video0 does not exist" in err


def test_kill_9_leaves_a_video_that_can_be_read(
    start, make_clip, tmp_path, pictures, lines_of, wait_for
):
    clip = make_clip(tmp_path / "long.mp4", frames=3000)
    process = start("--camera", clip, "--realtime", "--save", "o.mkv", "--segment", "1s")
    wait_for(lambda: len(list(tmp_path.glob("o-*.mkv"))) >= 3)
    process.kill()
    process.wait()
    videos = sorted(tmp_path.glob("o-*.mkv"))
    assert all(len(pictures.read(video)) >= 15 for video in videos[:2])


def test_events_of_a_camera_to_standard_output(edge, clip):
    code, out, err = edge("--camera", clip, "--limit", "3", "--events", "-")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [event.get("frame") for event in events] == [None, 0, 1, 2, None]
    code, _, err = edge("--camera", clip, "--events", "-", "--json")
    assert code == 2
    assert "both" in err or "standard output too" in err


def test_a_video_that_is_cut_off_says_so_in_json_and_exit_code(edge, make_clip, tmp_path):
    whole = make_clip(tmp_path / "whole.avi", codec="MJPG")
    (tmp_path / "cut[1].avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code, out, err = edge("--camera", "cut[1].avi", "--json")
    assert code == 1
    assert json.loads(out)["cut_off"]
    assert "is cut off or damaged" in err.replace("cut \noff", "cut off")
    assert "Traceback" not in err
    assert edge("--camera", "whole.avi", "--json")[0] == 0


def test_kill_9_leaves_whole_lines(start, make_clip, tmp_path, lines_of, wait_for):
    clip = make_clip(tmp_path / "long.mp4", frames=3000)
    process = start("--camera", clip, "--events", "e.jsonl")
    path = tmp_path / "e.jsonl"
    wait_for(lambda: path.exists() and path.stat().st_size > 20_000)
    process.kill()
    process.wait()
    frames = [line["frame"] for line in lines_of(path) if line["event"] == "frame"]
    assert frames == list(range(len(frames)))


# ---------------------------------------------------------------- what goes wrong

WRONG = {
    "no camera": (["--camera", "none.mp4"], "none.mp4: no such camera or file"),
    "two cameras": (["--camera", "clip.mp4", "--camera", "77"], "--camera is given twice"),
    "segment": (["--camera", "clip.mp4", "--segment", "10m"], "--segment is of a video"),
    "no such scheme": (
        ["--camera", "ftp://me:secret@host/x"],
        "ftp://me:***@host/x: can't read ftp://",
    ),
    "no model": (["--camera", "clip.mp4", "-m", "detecter"], "no model called 'detecter'; did you"),
    "a model of text": (["--camera", "clip.mp4", "-m", "fraud"], "--model fraud: takes"),
    "threads": (["--camera", "clip.mp4", "--threads", "0"], "--threads: 0"),
    "threshold": (["--camera", "clip.mp4", "--threshold", "7"], "--threshold: 7:"),
    "limit": (["--camera", "clip.mp4", "--limit", "0"], "--limit: 0"),
    "save": (["--camera", "clip.mp4", "--save", "none/out.mp4"], "the folder none does not exist"),
    "save as": (["--camera", "clip.mp4", "--save", "out.txt"], "can't write that; can: .mp4"),
    "events": (["--camera", "clip.mp4", "--events", "none/e.jsonl"], "No such file"),
    "snapshots": (["--camera", "clip.mp4", "--snapshots", "clip.mp4"], "--snapshots clip.mp4: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_asked_wrongly_gets_one_line(edge, clip, tmp_path, case):
    (tmp_path / "clip.mp4").symlink_to(clip)
    arguments, message = WRONG[case]
    code, out, err = edge("--no-window", *arguments)
    assert code == 2, err
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("mlopsdeploy: ")]
    assert message in line
    assert "Traceback" not in err
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_is_one_line_and_the_other_outputs_go_on(edge, clip, tmp_path, pictures):
    code, out, err = edge("--camera", clip, "--events", "/dev/full", "--save", "out.mp4", "--json")
    assert code == 1
    assert err.count("--events: No space left on device; nothing more is written there") == 1
    assert "Traceback" not in err
    assert json.loads(out)["failed"] == ["--events: No space left on device"]
    assert len(pictures.read(tmp_path / "out.mp4")) == 40


def test_a_preview_for_others_is_warned_of_and_can_be_looked_at(
    start, make_clip, tmp_path, wait_for
):
    clip = make_clip(tmp_path / "long.mp4", frames=600)
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = start("--camera", clip, "--realtime", "--preview", "0.0.0.0:0", stderr=stderr)
    wait_for(lambda: "no password" in log.read_text("utf-8"))
    port = int(re.search(r"preview: http://0\.0\.0\.0:(\d+)/", log.read_text("utf-8"))[1])

    def state():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/state")
        said = json.loads(connection.getresponse().read())
        connection.close()
        return said

    wait_for(lambda: state()["frames"] > 3)
    assert state()["camera"] == str(clip)
    assert state()["stages"]["infer"]["p50"] > 0
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


# ---------------------------------------------------------------- footprint

LOADED = """
import atexit, os, sys
before, leave = set(sys.modules), os._exit
def say(code=0):  # the process may end without unwinding
    loaded = {name for name, module in sys.modules.items() if module} - before
    print("@", *{name.partition(".")[0] for name in loaded}, flush=True)
    leave(code)
os._exit = say
atexit.register(say)
sys.argv = ["mlopsdeploy", "edge", *sys.argv[1:]]
from mlopsdeploy.cli import main
main()
"""


def test_it_loads_only_what_a_small_device_has(clip, tmp_path):
    """`pip install 'mlopsdeploy[edge]'`: no framework, no pandas, no Flask."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "--camera", clip, "--no-window", "--threads", "1",
         "--events", tmp_path / "e.jsonl", "--preview", "0", "--save", tmp_path / "o.mp4"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = set(done.stdout.rpartition("@")[2].split()) - set(sys.stdlib_module_names)
    own = {name for name in loaded if not name.startswith("_")}
    allowed = {
        "mlopsdeploy", "numpy", "cv2", "ai_edge_litert", "rich", "typer", "yaml",
        "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions",
        "shellingham", "annotated_doc", "click", "markdown_it", "mdurl", "pygments",
        "cython_runtime",
    }  # fmt: skip
    assert (tmp_path / "o.mp4").stat().st_size > 10_000
    assert {"numpy", "cv2", "ai_edge_litert"} <= own
    assert own <= allowed, sorted(own - allowed)


@pytest.mark.parametrize("flag", ["--save", "--events", "--snapshots"])
def test_an_output_never_takes_the_place_of_the_video(edge, clip, tmp_path, flag):
    content = clip.read_bytes()
    for more in ((), ("--overwrite",)):
        code, _, err = edge("--camera", clip, flag, clip, *more)
        assert code == 2
        assert "is the input itself; give another" in err
    assert clip.read_bytes() == content


def test_what_a_run_wrote_the_next_one_replaces_and_nothing_else(edge, clip, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"theirs")
    command = ("--camera", clip, "--save", "out.mp4", "--events", "e.jsonl", "--limit", "3")
    code, _, err = edge(*command)
    assert (code, (tmp_path / "out.mp4").read_bytes()) == (2, b"theirs")
    assert "say --overwrite" in err
    assert edge(*command, "--overwrite")[0] == 0
    assert edge(*command)[0] == 0
