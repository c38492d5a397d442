"""Webhooks at a real server: it fails, is slow, cuts connections, and each event arrives once."""

import base64
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mlopsdeploy.edge.sinks.webhook import _seconds


def numbers(receiver):
    return [one["number"] for one in receiver.data() if "number" in one]


def test_each_event_is_posted_as_cloud_events_ask(sending, receiver, until):
    run = sending(webhook=receiver.url)
    run.put({"number": 1, "label": "Auto 车"})
    until(lambda: receiver.accepted)
    ((path, headers, envelope),) = receiver.requests
    assert path == "/hook/s3cret"
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert "Authorization" not in headers
    assert envelope["specversion"] == "1.0"
    assert (envelope["type"], envelope["source"]) == (
        "mlopsdeploy.edge.line", "/mlopsdeploy/edge/cam7",
    )  # fmt: skip
    assert envelope["data"]["label"] == "Auto 车"


@pytest.mark.parametrize(
    ("account", "token", "expected"),
    [
        ("me:p%40ss@", None, "Basic " + base64.b64encode(b"me:p@ss").decode()),
        ("", "t0ken", "Bearer t0ken"),
    ],
)
def test_credentials(sending, receiver, until, account, token, expected):
    url = receiver.url.replace("://", f"://{account}")
    run = sending(webhook=url, **({"webhook_token": token} if token else {}))
    run.put({"number": 1})
    until(lambda: receiver.accepted)
    assert receiver.requests[0][1]["Authorization"] == expected


def test_whatever_it_does_each_event_arrives_in_order(sending, receiver, until):
    receiver.answers += [
        500,
        "cut",
        502,
        "rubbish",
        0.3,
        429,
        "cut",
        "cut",
        200,
        302,
        401,
        404,
        408,
    ]
    run = sending(webhook=receiver.url)
    for number in range(40):
        run.put({"number": number})
    until(lambda: len(numbers(receiver)) == 40)
    assert numbers(receiver) == list(range(40))
    until(lambda: run.waiting() == 0)
    assert run.sink.standing()["webhook"].refused == 0
    assert {"failed", "recovered"} <= set(run.kinds())
    told = "--webhook: 127.0.0.1: answers with status 500; trying again, events wait"
    assert told in run.said
    assert not any("s3cret" in one for one in run.said)


def test_what_is_never_accepted_is_put_aside_and_the_rest_goes_on(sending, receiver, until):
    receiver.answers += [200, 422, 413, 200, 400]
    run = sending(webhook=receiver.url)
    for number in range(6):
        run.put({"number": number})
    until(lambda: len(numbers(receiver)) == 3)
    assert numbers(receiver) == [0, 3, 5]
    until(lambda: run.sink.standing()["webhook"].refused == 3)
    until(lambda: run.kinds().count("rejected") > 0)
    rows = run.sink.outbox._store.execute("SELECT reason FROM refused ORDER BY rowid").fetchall()
    assert [reason for (reason,) in rows] == ["status 422", "status 413", "status 400"]
    until(lambda: any(one["data"]["event"] == "rejected" for one in receiver.accepted))


def test_it_waits_as_long_as_it_is_asked_to(sending, receiver, until):
    receiver.answers += [(429, "2"), (503, "1")]
    run = sending(webhook=receiver.url)
    run.put({"number": 1})
    until(lambda: numbers(receiver) == [1])
    first, second, third = receiver.times[:3]
    assert second - first >= 2
    assert third - second >= 1


def test_retry_after_has_two_forms():
    assert _seconds("120") == 120
    assert _seconds("soon") is None
    assert _seconds("") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < _seconds(later) <= 90
    assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_nobody_there_and_then_somebody(sending, receiver, until):
    """Events of before, in order, and how it stood meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    run = sending(webhook=f"http://127.0.0.1:{port}/hook")
    for number in range(30):
        run.put({"number": number})
    until(lambda: "failed" in run.kinds())
    until(lambda: run.waiting() >= 31)
    standing = run.sink.standing()["webhook"]
    assert (standing.delivered, standing.at) == (0, None)
    receiver.server.socket.close()
    with socket.create_server(("127.0.0.1", port)) as there:
        receiver.server.socket = there
        threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True).start()
        until(lambda: len(numbers(receiver)) == 30)
        assert numbers(receiver) == list(range(30))
        until(lambda: "recovered" in run.kinds())
        run.close()


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_that_is_named_is_not(
    sending, receiver, until, tmp_path, monkeypatch
):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = receiver.server
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = receiver.url.replace("http://127.0.0.1", "https://localhost")
    run = sending(webhook=url)
    run.put({"number": 1})
    until(lambda: any("its certificate is not trusted" in one for one in run.said))
    assert numbers(receiver) == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    until(lambda: numbers(receiver) == [1])


def test_a_run_that_ends_gives_what_is_left_a_moment_and_the_next_sends_it(
    sending, receiver, until
):
    receiver.answers += [0.2] * 3
    run = sending(webhook=receiver.url)
    for number in range(3):
        run.put({"number": number})
    run.report("ended", reason="terminated")
    run.close()
    assert [one["data"]["event"] for one in receiver.accepted] == ["line"] * 3 + ["ended"]
    receiver.answers += [500] * 2
    run = sending(webhook=receiver.url)
    for number in range(3, 5):
        run.put({"number": number})
    until(lambda: "failed" in run.kinds())
    receiver.answers += [500] * 9
    run.close()
    assert any("events wait in" in one and "the next run sends them" in one for one in run.said)
    receiver.answers.clear()
    run = sending(webhook=receiver.url)
    until(lambda: numbers(receiver) == [0, 1, 2, 3, 4])
