"""The window on a real X server, which Xvfb is; and without one."""

import ctypes
import ctypes.util
import os
import shutil
import signal
import struct
import subprocess
import time

import cv2
import numpy as np
import pytest

from mlopsdeploy.edge.draw import GREEN
from mlopsdeploy.edge.window import _on_screen


@pytest.fixture
def display(tmp_path, wait_for):
    """An X server of its own. `look` gives what is on its screen, BGR."""
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp",
         "-noreset", "-fbdir", str(tmp_path)],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as announced:
        number = announced.readline().strip()
    if not number:
        pytest.skip("Xvfb does not start here")

    class Display:
        name = f":{number}"

        @staticmethod
        def look():
            """From the server's own memory, in the format of xwd."""
            dump = (tmp_path / "Xvfb_screen0").read_bytes()
            header = struct.unpack(">25I", dump[:100])
            start, line = header[0] + header[19] * 12, header[12]
            width, height = header[4], header[5]
            pixels = np.frombuffer(dump, np.uint8, line * height, start)
            return pixels.reshape(height, line // 4, 4)[:, :width, :3].copy()

    yield Display
    server.terminate()
    server.wait()


def xdotool(display, *arguments):
    return subprocess.run(
        ["xdotool", *arguments], env={**os.environ, "DISPLAY": display.name}, text=True,
        capture_output=True, check=False,
    ).stdout.split()  # fmt: skip


def press_the_cross(display, window):
    """What a window manager sends then: a message that asks the window to go."""
    path = ctypes.util.find_library("X11")
    if not path:
        pytest.skip("libX11 is not installed")
    x11 = ctypes.CDLL(path)
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    x11.XInternAtom.restype = ctypes.c_ulong
    x11.XSendEvent.argtypes = [
        ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p,
    ]  # fmt: skip
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    connection = x11.XOpenDisplay(display.name.encode())
    protocols, delete = (
        x11.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
    )
    # XClientMessageEvent: type 33, then serial, send_event, display, window, kind, format, data.
    event = (ctypes.c_long * 24)(33, 0, 1, connection, window, protocols, 32, delete, 0)
    x11.XSendEvent(connection, window, 0, 0, event)
    x11.XCloseDisplay(connection)


def windows(display):
    """How many there are, seen or not."""
    x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
    x11.XOpenDisplay.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.name.encode()))
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    root = ctypes.c_ulong(x11.XDefaultRootWindow(connection))
    ids, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
    found = ctypes.c_void_p()
    x11.XQueryTree(connection, root, *map(ctypes.byref, (ids, parent, found, count)))
    x11.XFree(found)
    x11.XCloseDisplay(connection)
    return count.value


def green(image):
    return int((image == np.array(GREEN, np.uint8)).all(axis=2).sum())


@pytest.fixture
def shown(start, display, make_clip, tmp_path, wait_for):
    """The command with a window that can be seen; a low threshold finds boxes on anything.

    On an X server without a window manager one of seven windows of OpenCV's Qt stays black,
    whoever opens it, a script of five lines too. So there are some attempts.
    """
    clip = make_clip(tmp_path / "long.mp4", frames=600, size=(640, 480))
    for _ in range(6):
        process = start(
            "--camera", clip, "--realtime", "--threshold", "0.02", "--save", "out.mp4",
            env={"DISPLAY": display.name},
        )  # fmt: skip
        wait_for((tmp_path / "out.mp4").exists)
        end = time.monotonic() + 6
        while time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            if green(display.look()) > 500:
                return process
            time.sleep(0.05)
        process.kill()
        process.communicate()
        (tmp_path / "out.mp4").unlink()
    raise AssertionError("no window was ever painted")


@pytest.mark.parametrize(("ending", "code"), [("q", 0), ("cross", 0), ("Ctrl-C", 130)])
def test_the_window_shows_boxes_until_it_is_ended(shown, display, tmp_path, pictures, ending, code):
    screen = display.look()
    rows = screen.any(axis=2).any(axis=1).sum()
    columns = screen.any(axis=2).any(axis=0).sum()
    assert (columns, rows) == (640, 480)
    if ending == "Ctrl-C":
        shown.send_signal(signal.SIGINT)
    elif not shutil.which("xdotool"):
        pytest.skip("xdotool is not installed")
    else:
        (window,) = xdotool(display, "search", "--name", "mlopsdeploy edge")
        if ending == "q":
            xdotool(display, "key", "--window", window, "q")
        else:
            press_the_cross(display, int(window))
    out, err = shown.communicate(timeout=60)
    assert shown.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert "QFont" not in err
    assert "window" in err
    assert len(pictures.read(tmp_path / "out.mp4")) > 1


def test_a_single_picture_stays_until_q(start, display, pictures, tmp_path, wait_for):
    cv2.imwrite(str(tmp_path / "a.png"), pictures.make(7, (640, 480)))
    assert not windows(display)
    process = start("--camera", "a.png", env={"DISPLAY": display.name})
    wait_for(lambda: windows(display))
    time.sleep(1)  # in which it might end
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_a_window_fits_on_the_screen_and_is_no_stamp():
    assert _on_screen(640, 480) == (640, 480)
    assert _on_screen(3840, 2160) == (1280, 720)
    assert _on_screen(160, 120) == (640, 480)


@pytest.mark.parametrize(
    ("environment", "flags", "line"),
    [
        ({}, [], "no window: no display"),
        ({}, ["--window"], "no window: no display"),
        ({}, ["--no-window"], None),
        ({"DISPLAY": ":4711"}, [], "no window: the display can't be opened"),
    ],
    ids=["none", "asked for", "not wanted", "stale"],
)
def test_without_a_display_it_says_so_once_and_goes_on(
    edge, make_clip, tmp_path, environment, flags, line
):
    # Long enough for the display that is tried in another process.
    clip = make_clip(tmp_path / "c.mp4", frames=24, fps=6 if environment else 20)
    code, _, err = edge("--camera", clip, "--realtime", *flags, env=environment)
    assert code == 0, err
    assert err.count("no window") == (line is not None)
    assert (line or "") in err
    assert "qt.qpa" not in err
    assert "24" in err
