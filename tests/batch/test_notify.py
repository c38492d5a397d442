"""Somebody is told how a run ended, and never of a failure as of a success."""

import socket
import threading

import pytest

from mlopsdeploy.batch import notify
from mlopsdeploy.batch.command import _once
from mlopsdeploy.batch.notify import Ended, Notifier
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import BatchSettings, load

DONE = Ended(0, "done: exit code 0, 2.1 s", 2.1)
FAILED = Ended(137, "failed: killed by SIGKILL, 2.1 s", 2.1, run=3, tries=4)
PATHS = {"notify_success": "/s3cr3t", "notify_failure": "/s3cr3t/fail"}


@pytest.fixture
def tell():
    """`tell(url, ended, ...)`: what was logged when such an end was told."""

    def told(url, ended, paths=PATHS):
        lines = []
        places = {name: url + path for name, path in paths.items()}
        notifier = Notifier(BatchSettings(input="postgresql://me:pw@db/shop", **places))
        notifier.tell(ended, lines.append)
        notifier.wait()
        return lines

    return told


@pytest.mark.parametrize(
    ("ended", "path", "expected"),
    [
        (
            DONE, "/s3cr3t",
            {"status": "ok", "exit_code": 0, "seconds": 2.1, "run": 1, "tries": 1,
             "text": "{} done: exit code 0, 2.1 s"},
        ),
        (
            FAILED, "/s3cr3t/fail",
            {"status": "failed", "exit_code": 137, "seconds": 2.1, "run": 3, "tries": 4,
             "text": "{} failed: killed by SIGKILL, 2.1 s, 4 tries"},
        ),
        (
            Ended(None, "failed to start: x: No such file", 0.0), "/s3cr3t/fail",
            {"status": "failed", "exit_code": None, "seconds": 0.0, "run": 1, "tries": 1,
             "text": "{} failed to start: x: No such file"},
        ),
    ],
)  # fmt: skip
def test_each_end_has_its_address(listener, tell, ended, path, expected):
    assert tell(listener.url, ended) == []
    who = {"input": "postgresql://me:***@db/shop", "host": socket.gethostname()}
    text = expected["text"].format(f"mlopsdeploy batch {who['input']} on {who['host']}")
    assert listener.calls == [(path, {**expected, **who, "text": text})]


@pytest.mark.parametrize(("ended", "name"), [(FAILED, "notify_success"), (DONE, "notify_failure")])
def test_an_end_without_an_address_is_not_told(listener, tell, ended, name):
    assert tell(listener.url, ended, {name: "/s3cr3t"}) == []
    assert listener.calls == []


@pytest.mark.parametrize("status", [204, 302, 307, 404, 503])
def test_who_does_not_take_it_is_named_in_one_line(listener, tell, status):
    """By its host alone; and where it sends on to nobody is told."""
    listener.status = status
    refused = f"could not notify 127.0.0.1: it answered with status {status}"
    assert tell(listener.url, DONE) == ([] if status == 204 else [refused])
    assert [path for path, _ in listener.calls] == ["/s3cr3t"]


def test_nobody_is_there(tell):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert tell(f"http://127.0.0.1:{port}", FAILED) == [
        "could not notify 127.0.0.1: Connection refused"
    ]


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"s3cr3t\r\n\r\n", "BadStatusLine"), (b"", "Remote end closed")]
)
def test_who_speaks_no_http_is_not_quoted(tell, answer, reason):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak():
            connection, _ = server.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"}"):  # else closing resets the connection
                    asked += connection.recv(10_000)
                connection.sendall(answer)

        threading.Thread(target=speak, daemon=True).start()
        (line,) = tell(f"http://127.0.0.1:{server.getsockname()[1]}", DONE)
    assert line.startswith(f"could not notify 127.0.0.1: {reason}")
    assert "s3cr3t" not in line


def test_who_does_not_answer_is_not_waited_for(listener, tell, monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT", 0.3)
    listener.answers.clear()
    lines = []
    notifier = Notifier(BatchSettings(notify_success=listener.url))
    notifier.tell(DONE, lines.append)
    assert not lines, "it goes on at once"
    notifier.wait()
    assert lines == ["could not notify 127.0.0.1: timed out"]


def test_a_host_whose_name_is_looked_up_for_long_is_not_waited_for(tell, monkeypatch):
    """Whoever looks names up is played: none can be made slow here."""
    monkeypatch.setattr(notify, "WAIT", 0.2)
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(20) and [])
    assert tell("http://slow.example", DONE) == ["could not notify slow.example: it takes too long"]
    found.set()


# ---------------------------------------------------------------- a single run


@pytest.mark.parametrize(
    ("arguments", "code", "path"),
    [
        (("r.csv",), 0, "/s3cr3t"),
        (("r.csv", "-o", "o.csv"), 1, "/s3cr3t/fail"),
        (("none.csv",), 2, "/s3cr3t/fail"),
        (("r.csv", "--dry-run"), 0, None),
    ],
)
def test_a_single_run_tells_too(mlopsdeploy, listener, bag, tmp_path, arguments, code, path):
    (tmp_path / "r.csv").write_text("text\ngood food\nbad,food\n")
    (tmp_path / "o.csv.unfinished").touch()  # where a run's folder should be
    environment = {f"MLOPSDEPLOY_{name.upper()}": listener.url + PATHS[name] for name in PATHS}
    done = mlopsdeploy("batch", "--max-errors", "none", *arguments, "--model", bag, env=environment)
    assert done.code == code, done
    assert [called for called, _ in listener.calls] == ([path] if path else [])
    for _, message in listener.calls:
        assert (message["exit_code"], message["input"]) == (code, arguments[0])
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not [text for text in [done.out, done.err.encode(), *written] if b"s3cr3t" in text]


# ---------------------------------------------------------------- an address


@pytest.mark.parametrize(
    "address",
    [
        "s3cr3t", "ftp://s3cr3t.example", "file:///s3cr3t", "https://", "https:///s3cr3t",
        "https://me:s3cr3t@example.com/", "https://s3cr3t@example.com",
        "https://a.example/s3cr3t x",
        "https://a.example/s3cr3t\n", "https://a.example:port/s3cr3t",
        "https://a.example:65536/s3cr3t", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_address_is_not_shown(name, address):
    for flags, environment in (
        ({name: address}, {}),
        ({}, {f"MLOPSDEPLOY_{name.upper()}": address}),
    ):
        with pytest.raises(ConfigError) as caught:
            load(BatchSettings, None, flags, environment)
        assert "expected http:// or https://, a host" in str(caught.value)
        assert name in str(caught.value).replace("-", "_")
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["https://hc-ping.com/1/fail", "HTTP://[::1]:3001/api/push/x?status=down&msg=", "http://host"],
)
def test_what_is_one(address):
    assert load(BatchSettings, None, {"notify_failure": address}, {}).notify_failure == address
    off = load(
        BatchSettings, None, {"notify_failure": "off"}, {"MLOPSDEPLOY_NOTIFY_FAILURE": address}
    )
    assert off.notify_failure is None


def test_the_command_of_a_single_run_has_no_address():
    given = [
        *("batch", "r.csv", "--notify-success", "https://s3cr3t", "--schedule=0 2 * * *"),
        *("--notify-failure=https://s3cr3t", "-o", "o.csv", "--", "--notify-success"),
    ]
    off = ["--schedule", "off", "--notify-success", "off", "--notify-failure", "off"]
    assert _once(given, []) == ["batch", *off, "r.csv", "-o", "o.csv", "--", "--notify-success"]
