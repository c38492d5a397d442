"""The page: only for those who name this machine, idle while nobody watches, right in Chromium."""

import contextlib
import http.client
import json
import socket
import threading

import cv2
import numpy as np
import pytest

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.frames import Frame
from mlopsdeploy.edge.outputs import Outlet
from mlopsdeploy.edge.preview import Preview, parse_address
from mlopsdeploy.edge.results import Result
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError

CAT = Detection("cat", 0.9, (0.25, 0.25, 0.75, 0.75))
STATE = {
    "camera": "/media/<b>cam</b>.mp4", "model": "detector 1.0", "live": True, "fps": 12.34,
    "frames": 1234, "dropped": 5, "age": {"p50": 21.0, "p99": 42.0}, "temperature": 48.2,
    "labels": {"cat": 700}, "numbers": {"value": "31 on average"}, "bottleneck": "infer",
    "stages": {"capture": {"p50": 1, "p99": 2}, "infer": {"p50": 7, "p99": 9}},
}  # fmt: skip


@pytest.fixture
def preview():
    made = Preview("0", lambda: STATE)
    outlet = Outlet(made, Stats(), keep=False, log=print)
    made.put = outlet.put
    made.report = outlet.report
    yield made
    outlet.close()


def picture(number=0, size=(640, 480)):
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    return Result(Frame(number, image), (CAT,), Stats())


def get(preview, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", preview._server.server_address[1], 10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection, connection.getresponse()


def got(preview, path, host=None):
    """Status, headers and body."""
    connection, answer = get(preview, path, host)
    with contextlib.closing(connection):
        return answer.status, answer.headers, answer.read().decode()


def test_the_page_and_its_parts(preview):
    for path, kind in (("/", "text/html"), ("/preview.css", "text/css"), ("/preview.js", "text/j")):
        status, headers, body = got(preview, path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "http://" not in body
        assert "https://" not in body
    assert got(preview, "/../../../etc/passwd")[0] == 404


def test_the_state(preview):
    preview.put(picture())
    state = json.loads(got(preview, "/state")[2])
    assert state["fps"] == 12.34
    assert state["detections"][0]["label"] == "cat"
    assert state["happened"] == ""
    preview.report(Event("stalled", "camera 0: no frame for 3.0 s"))
    state = json.loads(got(preview, "/state")[2])
    assert state["happened"] == "camera 0: no frame for 3.0 s"


def test_only_who_names_this_machine_is_answered(preview):
    port = preview._server.server_address[1]
    for host in (f"localhost:{port}", "127.0.0.1", "[::1]:80", "192.168.1.7", socket.gethostname()):
        assert got(preview, "/state", host)[0] == 200, host
    for host in ("evil.example", f"localhost.evil.example:{port}", " "):
        for path in ("/", "/state", "/stream"):
            assert got(preview, path, host)[0] == 403, host


def test_names_that_are_given_are_answered():
    named = Preview("0", lambda: STATE, names=("Cam7.example",))
    assert got(named, "/state", "cam7.example:8081")[0] == 200
    assert got(named, "/state", "evil.example")[0] == 403
    named.close()


def test_a_snapshot(preview, wait_for):
    def put():
        wait_for(lambda: preview.watchers == 1)
        preview.put(picture(1))

    threading.Thread(target=put, daemon=True).start()
    connection, answer = get(preview, "/snapshot.jpg")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    image = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (480, 640, 3)
    connection.close()
    wait_for(lambda: preview.watchers == 0)


def test_who_has_gone_holds_no_thread_while_no_picture_comes(preview, wait_for, monkeypatch):
    monkeypatch.setattr("mlopsdeploy.edge.preview.STILL", 0.3)
    monkeypatch.setattr("mlopsdeploy.edge.preview.SNAPSHOT", 0.1)
    before = threading.active_count()
    gone = [get(preview, "/stream") for _ in range(5)]
    wait_for(lambda: preview.watchers == 5)
    for connection, answer in gone:
        answer.close()
        connection.close()
    wait_for(lambda: preview.watchers == 0)
    wait_for(lambda: threading.active_count() <= before)
    assert got(preview, "/snapshot.jpg")[0] == 503


def next_jpeg(answer):
    """The next part of a multipart stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += answer.read(1)
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = answer.read(length)
    answer.read(2)
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)


def test_pictures_are_encoded_only_while_somebody_watches(preview, wait_for, monkeypatch):
    monkeypatch.setattr("mlopsdeploy.edge.preview.SECONDS", 0)
    one = picture()
    preview.put(one)
    assert not preview._number
    connection, answer = get(preview, "/stream")
    wait_for(lambda: preview.watchers == 1)
    preview.put(picture(1, (1920, 1080)))
    image = next_jpeg(answer)
    assert image.shape == (540, 960, 3)
    preview.put(picture(2))
    assert next_jpeg(answer).shape == (480, 640, 3)
    assert preview._number == 2
    connection.close()
    answer.close()
    for number in range(3, 40):  # the server finds out when it writes
        preview.put(picture(number))
        if not preview.watchers:
            break
        threading.Event().wait(0.05)
    assert preview.watchers == 0
    seen = preview._number
    preview.put(picture(50))
    assert preview._number == seen


def test_who_watches_is_let_go_at_the_end(preview, wait_for):
    connection, answer = get(preview, "/stream")
    wait_for(lambda: preview.watchers == 1)
    threading.Timer(0.1, preview.close).start()
    assert answer.read() == b""
    connection.close()


def test_addresses():
    assert parse_address("8081") == parse_address(":8081") == ("127.0.0.1", 8081)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    for wrong in ("", "x", "localhost", "1:2:x", "99999"):
        with pytest.raises(ConfigError, match="expected a port, such as 8081"):
            parse_address(wrong)


def test_loopback_unless_told_and_a_port_that_is_taken(preview):
    assert not preview.exposed
    everywhere = Preview("0.0.0.0:0", dict)
    assert everywhere.exposed
    everywhere.close()
    with pytest.raises(ConfigError, match=r"--preview \d+: Address already in use"):
        Preview(str(preview._server.server_address[1]), dict)
    with pytest.raises(ConfigError, match="--preview 203.0.113.1:0"):
        Preview("203.0.113.1:0", dict)


# ---------------------------------------------------------------- Chromium


def text(chrome, selector):
    return chrome.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def test_the_page_in_chromium(preview, chromium, wait_for):
    going = threading.Event()

    def play():
        number = 0
        while not going.wait(0.05):
            number += 1
            preview.put(picture(number))

    playing = threading.Thread(target=play, daemon=True)
    playing.start()
    chromium.get(preview.url)
    wait_for(lambda: chromium.execute_script("return picture.naturalWidth") == 640)
    wait_for(lambda: text(chromium, "#detections li span") == ["cat", "90%"])
    assert text(chromium, "#camera") == ["b>.mp4"], "the name, and not as HTML"
    assert text(chromium, "#numbers dd") == ["12.3", "1,234", "5", "21", "42", "48"]
    assert text(chromium, "tr.slowest td") == ["infer", "7.0", "9.0"]
    assert text(chromium, "#labels li span") == ["cat", "700", "value", "31 on average"]
    assert text(chromium, "#status") == ["live"]
    # Nothing sticks out, on a phone either.
    for width in (1280, 390):
        chromium.set_window_size(width, 800)
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert chromium.execute_script(wide), width
    going.set()
    playing.join(10)
    preview.report(Event("stalled", "camera 0: no frame for 3.0 s"))
    wait_for(lambda: text(chromium, "#happened") == ["camera 0: no frame for 3.0 s"])
    assert text(chromium, "#status") == ["no picture"]
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
    preview.close()
    wait_for(lambda: text(chromium, "#status") == ["ended"])
