"""MQTT at a real mosquitto, which is killed, and to which connections are cut."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from mlopsdeploy.edge.outbox import Outbox


def numbers(broker, kind="line"):
    return [one["number"] for one in broker.events(kind)]


def url(broker, prefix="site"):
    return f"mqtt://127.0.0.1:{broker.port}/{prefix}"


def test_events_state_and_availability(sending, broker, until):
    there = broker()
    run = sending(mqtt=url(there))
    run.report("connected", width=640)
    run.put({"number": 1, "label": "on"}, {"number": 2, "label": "off"})
    until(lambda: numbers(there) == [1, 2])
    topics = [message.topic for message in there.heard if "/events/" in message.topic]
    assert topics == ["site/cam7/events/connected"] + ["site/cam7/events/line"] * 2
    assert there.last("site/cam7/availability") == "online"
    until(lambda: json.loads(there.last("site/cam7/state") or "{}").get("source") is True)
    assert json.loads(there.last("/state"))["answer"] == {"label": "off"}
    run.close()
    until(lambda: there.last("/availability") == "offline")


@pytest.mark.skipif(not shutil.which("mosquitto_sub"), reason="there are no mosquitto-clients")
def test_who_comes_later_learns_how_things_stand(sending, broker, until):
    there = broker()
    run = sending(mqtt=url(there))
    run.put({"number": 1, "label": "on"})
    until(lambda: "answer" in json.loads(there.last("/state") or "{}"))
    told = subprocess.run(
        ["mosquitto_sub", "-p", str(there._inner), "-t", "site/cam7/+", "-v", "-C", "2"],
        timeout=20, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert "site/cam7/availability online" in told
    assert any(line.startswith('site/cam7/state {"source": true') for line in told)


def test_the_broker_says_that_a_killed_device_is_away(broker, until, start_lines, churn_onnx):
    there = broker()
    process = start_lines(
        "--lines", "-", "--model", churn_onnx, "--mqtt", url(there), "--device", "cam7"
    )
    until(lambda: there.last("/availability") == "online")
    process.send_signal(signal.SIGKILL)
    until(lambda: there.last("/availability") == "offline")


def test_a_broker_that_is_killed_again_and_again(sending, broker, until, some, pauses):
    """Each event arrives, in the order of happening, and doubles are known by their id."""
    there = broker()
    run = sending(mqtt=url(there))
    done = threading.Event()
    put = []

    def flow():
        while not done.wait(0.004):
            run.put({"number": len(put), "label": "a"})
            put.append(None)

    feeder = threading.Thread(target=flow)
    feeder.start()
    try:
        for _ in range(some(5, 100)):
            before = len(there.heard)
            until(lambda: len(there.heard) > before + 20)  # noqa: B023
            time.sleep(pauses.uniform(0, 0.1))
            there.kill()
            time.sleep(pauses.uniform(0, 0.2))
            there.start()
    finally:
        done.set()
        feeder.join()
    until(lambda: run.waiting() == 0)
    until(lambda: len(numbers(there)) == len(put))
    assert numbers(there) == list(range(len(put)))
    assert run.outlet.dropped == 0


def test_connections_that_are_cut_again_and_again(sending, broker, until, some, pauses):
    there = broker()
    run = sending(mqtt=url(there))
    for number in range(3000):
        run.put({"number": number, "label": "a"})
        if number % 400 == 399:
            until(lambda: run.outlet._queue.dropped or not run.outlet._queue._items)
    assert run.outlet.dropped == 0
    for _ in range(some(8, 60)):
        time.sleep(pauses.uniform(0, 0.15))
        there.cut()
    until(lambda: len(numbers(there)) == 3000)
    assert numbers(there) == list(range(3000))


def test_a_killed_sender_goes_on_where_it_was(
    broker, until, start_lines, churn_onnx, tmp_path, some
):
    """All that its file holds when it is killed arrives, and nothing before it is missing."""
    there = broker()
    command = ["--lines", "-", "--model", churn_onnx, "--mqtt", url(there), "--device", "cam7",
               "--send", "all", "--outbox", "o.db"]  # fmt: skip
    fed, wanted = 0, set()
    for attempt in range(some(3, 20)):
        process = start_lines(*command)
        before = len(there.events("line"))
        while len(there.events("line")) < before + 10:
            process.stdin.write("25,3,100\n" * 5)
            process.stdin.flush()
            fed += 5
            time.sleep(0.05)
        if attempt % 2:
            there.cut()
        process.stdin.write("60,0,1\n" * 50)
        process.stdin.flush()
        time.sleep(0.01 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        box = Outbox(str(tmp_path / "o.db"), ("mqtt",), limit=10**8, age=1e6, log=print)
        wanted |= {one.id for one in box.waiting("mqtt", 10**6)}
        box.close()
    process = start_lines(*command)
    ids = lambda: [json.loads(m.payload)["id"] for m in tuple(there.heard) if "/events/" in m.topic]  # noqa: E731
    until(lambda: wanted <= set(ids()))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_of_results_only_changes_go_unless_all_are_asked_for(sending, broker, until):
    there = broker()
    run = sending(mqtt=url(there), send="changes")
    run.put({"number": 0, "label": "a"})
    until(lambda: numbers(there) == [0])
    for number in range(1, 20):
        run.put({"number": number, "label": "a"})
    run.report("crossed", gate="door")
    run.report("crossed", gate="door")
    until(lambda: len(there.events("crossed")) == 2)
    run.put({"number": 20, "label": "b"})
    until(lambda: numbers(there) == [0, 20])
    run.put({"number": 21, "label": "a"})
    until(lambda: numbers(there) == [0, 20, 21])


def test_changes_that_come_together_are_one_with_the_last_word(sending, broker, until, monkeypatch):
    there = broker()
    monkeypatch.setattr("mlopsdeploy.edge.sending.Outgoing.pause", 2.0)
    run = sending(mqtt=url(there), send="changes")
    run.put({"number": 0, "label": "a"})
    until(lambda: numbers(there) == [0])  # from here on two seconds are together
    for number in range(1, 20):
        run.put({"number": number, "label": "ab"[number % 2]})
    until(lambda: len(numbers(there)) == 2)
    assert numbers(there) == [0, 19]


def test_mqtt_3_where_the_broker_speaks_nothing_newer(sending, broker, until):
    """What refuses MQTT 5 is before the broker, as this mosquitto can't be told to."""
    there = broker()
    there.refuses_5 = True
    run = sending(mqtt=url(there))
    run.put({"number": 1})
    until(lambda: numbers(there) == [1])
    assert run.kinds() == []


def test_what_the_broker_does_not_let_us_publish_is_put_aside(sending, broker, until, tmp_path):
    (tmp_path / "acl").write_text(
        "topic readwrite site/+/availability\ntopic readwrite site/+/state\n"
        "topic readwrite site/+/events/line\ntopic read #\n", "utf-8"
    )  # fmt: skip
    there = broker(f"acl_file {tmp_path / 'acl'}")
    run = sending(mqtt=url(there))
    run.put({"number": 1})
    run.report("crossed", gate="door")
    run.put({"number": 2})
    until(lambda: numbers(there) == [1, 2])
    until(lambda: run.sink.standing()["mqtt"].refused)
    reasons = {one for (one,) in run.sink.outbox._store.execute("SELECT reason FROM refused")}
    assert reasons == {"not authorized"}
    assert there.events("crossed") == []


def test_larger_than_the_broker_takes(sending, broker, until):
    there = broker("max_packet_size 3000")
    run = sending(mqtt=url(there))
    run.put({"number": 1}, {"number": 2, "filler": "x" * 5000}, {"number": 3})
    until(lambda: numbers(there) == [1, 3])
    until(lambda: run.sink.standing()["mqtt"].refused == 1)


@pytest.mark.parametrize("password", ["s3cr/et@x", "wr0ngpassword"])
def test_a_password_and_that_it_is_shown_nowhere(
    broker, until, start_lines, churn_onnx, tmp_path, password
):
    there = broker()
    there.kill()
    users = tmp_path / "users"
    tool = subprocess.run(
        ["mosquitto_passwd", "-b", "-c", users, "me", "s3cr/et@x"], capture_output=True, check=False
    )
    assert tool.returncode == 0, tool.stderr
    users.chmod(0o644)
    inner = there._inner
    there._config.write_text(
        f"user root\nper_listener_settings true\nlistener {inner} 127.0.0.1\nallow_anonymous true\n"
        f"listener {there.port} 127.0.0.1\npassword_file {users}\n", "utf-8"
    )  # fmt: skip
    there.start(gate=False)
    address = f"mqtt://me:{password}@127.0.0.1:{there.port}/site"
    process = start_lines(
        "--lines", "-", "--model", churn_onnx, "--events", "e.jsonl", "--device", "cam7",
        env={"MLOPSDEPLOY_MQTT": address},
    )  # fmt: skip
    process.stdin.write("25,3,100\n")
    process.stdin.flush()
    if password == "wr0ngpassword":
        path = tmp_path / "e.jsonl"
        until(lambda: path.exists() and "127.0.0.1: not authorized" in path.read_text("utf-8"))
    else:
        until(lambda: there.events("line"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    said = err + (tmp_path / "e.jsonl").read_text("utf-8")
    assert password not in said
    assert password.encode() not in (tmp_path / "outbox.db").read_bytes()


# paho leaves it to the garbage collector to close a socket whose handshake failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls(sending, broker, until, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o644)
    there = broker()
    there.kill()
    there._config.write_text(
        f"user root\nlistener {there._inner} 127.0.0.1\nallow_anonymous true\n"
        f"listener {there.port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n", "utf-8"
    )  # fmt: skip
    there.start(gate=False)
    run = sending(mqtt=f"mqtts://localhost:{there.port}/site")
    run.put({"number": 1})
    until(lambda: any("its certificate is not trusted" in one for one in run.said))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    until(lambda: numbers(there) == [1])


@pytest.mark.parametrize(
    "address",
    ["mqtt://", "http://host", "host:1883", "mqtt://host:99999", "mqtt://host/a/#", "mqtt://a b",
     "mqtt://me:s3cret@host/+/x"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_shown(mlopsdeploy, address):
    done = mlopsdeploy("edge", "--lines", "x", "--mqtt", address)
    assert done.code == 2
    (line,) = done.lines
    assert line.startswith("mlopsdeploy: --mqtt: expected ")
    assert "s3cret" not in line


def test_without_paho_it_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['paho'] = None\n"
        "sys.argv = ['mlopsdeploy', 'edge', '--lines', '-', '--mqtt', 'mqtt://h']\n"
        "from mlopsdeploy.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
        input="", timeout=60, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "mlopsdeploy: sink 'mqtt' needs the package 'paho': pip install 'mlopsdeploy[mqtt]'"
    )
