"""systemd is told the truth, settings are read again, and a device says how it is."""

import json
import os
import signal
import socket
import threading

import pytest

from mlopsdeploy.edge.supervised import Watchdog, expected_within, notify


@pytest.fixture
def systemd(tmp_path):
    """A socket that takes what systemd would."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(path))
        there.settimeout(60)
        yield there, {"NOTIFY_SOCKET": str(path)}


def told(there, word):
    """All that comes, up to a message with this word."""
    said = []
    while not said or word not in said[-1]:
        said.append(there.recv(4096).decode())
    return said


def test_nobody_is_told_where_nobody_asks(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    assert expected_within() == 2
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert expected_within() is None


def test_ready_alive_and_stopping_while_the_camera_is_away(start, systemd):
    there, environment = systemd
    process = start("--camera", "77", env={**environment, "WATCHDOG_USEC": "600000"})
    assert told(there, "READY=1")[-1].startswith("READY=1\nSTATUS=camera 77 · detector")
    for _ in range(3):
        assert "WATCHDOG=1" in told(there, "WATCHDOG=1")[-1]
    process.send_signal(signal.SIGTERM)
    told(there, "STOPPING=1")
    assert process.wait(60) == 143


def test_what_hangs_is_not_said_to_be_alive(systemd, monkeypatch):
    there, environment = systemd
    monkeypatch.setenv("NOTIFY_SOCKET", environment["NOTIFY_SOCKET"])
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    silent, ended = [0.0], threading.Event()
    dog = Watchdog(lambda: silent[0], lambda: "here", limit=5, ends=lambda _: ended.set())
    assert told(there, "WATCHDOG=1")[-1] == "WATCHDOG=1\nSTATUS=here"
    silent[0] = 4.0
    there.settimeout(0.3)
    with pytest.raises(TimeoutError):
        for _ in range(3):  # one may have been on its way
            there.recv(4096)
    assert not ended.is_set()
    silent[0] = 5.0
    assert ended.wait(10)
    dog.stop()


def test_settings_are_read_again_and_bad_ones_refused(
    start, streamer, tmp_path, lines_of, wait_for, systemd
):
    there, environment = systemd
    server = streamer()
    config, path = tmp_path / "e.yaml", tmp_path / "e.jsonl"
    good = f"camera: {server.url}\nevents: e.jsonl\n"
    config.write_text(good, "utf-8")
    with (tmp_path / "log").open("w") as log:
        process = start(
            "--config", "e.yaml", env=environment, stderr=log, start_new_session=True
        )  # fmt: skip

    def happened(kind):
        lines = lines_of(path) if path.exists() else []
        return [line for line in lines if line["event"] == kind]

    wait_for(lambda: happened("connected"))
    for bad, why in (
        ("threshold: 7\n", "threshold: 7"),
        ("model: none.tflite\n", "none.tflite"),
        ("save: none/o.mp4\nlines: x\n", "is for a camera"),
        ("camera: [\n", "e.yaml"),
    ):
        before = len(happened("refused"))
        config.write_text((good if "camera" not in bad else "") + bad, "utf-8")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(happened("refused")) > before)  # noqa: B023
        assert why in happened("refused")[-1]["reason"]
        told(there, "RELOADING=1")
        told(there, "READY=1")
    assert len(happened("connected")) == 1, "the old run goes on"
    other = streamer()
    config.write_text(f"camera: {other.url}\nevents: e.jsonl\n", "utf-8")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(happened("connected")) == 2)
    assert happened("connected")[-1]["source"] == other.url
    assert happened("reloaded")
    # Settings that fail only when outputs are opened: the old ones are back.
    (tmp_path / "file").write_text("x", "utf-8")
    config.write_text(f"camera: {server.url}\nevents: e.jsonl\nsave: nowhere/o.mp4\n", "utf-8")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the old ones are back" in (tmp_path / "log").read_text("utf-8"))
    wait_for(lambda: len(happened("connected")) == 3)
    assert happened("connected")[-1]["source"] == other.url
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


def test_a_device_says_how_it_is(edge, clip, tmp_path):
    code, out, err = edge("--check", "--camera", clip, "--events", "e.jsonl", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["healthy"]
    assert found["camera"]["text"] == f"{clip}: 160×120 at 20 fps, 40 frames"
    lines = [line.split()[:2] for line in err.splitlines()]
    names = ["model", "camera", "outputs", "disk", "temperature"]
    assert lines == [[name, "good"] for name in names]
    assert not (tmp_path / "e.jsonl").exists(), "a look changes nothing"


@pytest.mark.parametrize(
    ("part", "arguments", "text"),
    [
        ("camera", ["--camera", "77"], "camera 77: /dev/video77 does not exist"),
        ("camera", ["--camera", "http://me:Tops3@127.0.0.1:9/x"], "http://me:***@127.0.0.1:9/x"),
        ("model", ["--camera", "c.mp4", "--model", "none.tflite"], "none.tflite"),
        ("outputs", ["--camera", "c.mp4", "--events", "none/e.jsonl"], "none does not exist"),
        ("outputs", ["--camera", "c.mp4", "--events", "c.mp4"], "is the input itself"),
        ("lines", ["--lines", "/dev/ttyUSB77"], "is not there"),
    ],
)
def test_what_is_bad_is_said_and_in_the_exit_code(edge, clip, tmp_path, part, arguments, text):
    os.link(clip, tmp_path / "c.mp4") if not (tmp_path / "c.mp4").exists() else None
    code, _, err = edge("--check", *arguments)
    assert code == 1, err
    (line,) = [line for line in err.splitlines() if line.split()[:2] == [part, "bad"]]
    assert text in line
    assert "Tops3" not in err
    assert "Traceback" not in err
