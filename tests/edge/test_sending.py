"""Runs that send: what is asked wrongly, how it stands in --check and in the summary."""

import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

NOBODY = "http://127.0.0.1:9/hook"


@pytest.fixture
def hook():
    """A server that accepts; `.events` are their data."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.events.append(json.loads(body)["data"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.events = True, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_camera_sends_what_events_have(edge, hook, street, tmp_path, lines_of):
    code, out, err = edge(
        "--camera", street, "--no-window", "--limit", "60", "--gates", "middle=0.5,0 0.5,1",
        "--webhook", hook.url, "--events", "e.jsonl", "--send", "all", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert hook.events == lines_of(tmp_path / "e.jsonl")
    sent = json.loads(out)["sent"]["webhook"]
    assert (sent["waiting"], sent["delivered"]) == (0, len(hook.events))
    assert "webhook" in err


def test_by_default_only_changes_go(edge, hook, street):
    code, _, err = edge("--camera", street, "--no-window", "--limit", "60", "--webhook", hook.url)
    assert code == 0, err
    kinds = [event["event"] for event in hook.events]
    assert (kinds[0], kinds[-1]) == ("connected", "ended")
    assert 1 <= kinds.count("frame") < 10


def test_of_texts_all_go_and_the_next_run_sends_what_is_left(start_lines, bert, hook):
    command = ["--lines", "-", "--model", bert, "--echo"]
    process = start_lines(*command, "--webhook", NOBODY)
    _, err = process.communicate("it was good\nit was good\n", timeout=60)
    assert process.returncode == 0, err
    assert "--webhook: 127.0.0.1: Connection refused; trying again, events wait" in err
    assert "events wait in outbox.db; the next run sends them" in err
    process = start_lines(*command, "--webhook", hook.url)
    _, err = process.communicate("it was good\n", timeout=60)
    assert process.returncode == 0, err
    assert [one["text"] for one in hook.events if one["event"] == "line"] == ["it was good"] * 3


def test_check_says_how_it_stands(start_lines, edge, churn_onnx, tmp_path):
    (tmp_path / "a.csv").write_text("25,3,100\n", "utf-8")
    command = ["--lines", "a.csv", "--model", churn_onnx, "--webhook", NOBODY]
    code, _, err = edge(*command, "--check")
    assert code == 0, err
    assert "0 wait; none delivered yet" in err
    assert start_lines(*command).wait(60) == 0
    code, out, err = edge(*command, "--check", "--json")
    assert code == 0, err
    assert "wait, the oldest for" in json.loads(out)["webhook"]["text"]
    store = sqlite3.connect(tmp_path / "outbox.db")
    with store:
        store.execute("UPDATE events SET time = ?", (time.time() - 7200,))
    store.close()
    code, _, err = edge(*command, "--check")
    assert code == 1
    assert "the oldest for 2 h" in err


def test_a_second_process_is_told_to_have_its_own(
    start_lines, edge, churn_onnx, wait_for, tmp_path
):
    command = ["--model", churn_onnx, "--webhook", NOBODY]
    process = start_lines("--lines", "-", *command)
    wait_for((tmp_path / "outbox.db-lock").exists)
    process.stdin.write("25,3,100\n")
    process.stdin.flush()
    process.stdout.readline()
    (tmp_path / "a.csv").write_text("25,3,100\n", "utf-8")
    code, _, err = edge("--lines", "a.csv", *command)
    assert code == 2
    assert "--outbox outbox.db: another process uses it; give each its own" in err
    assert "Traceback" not in err


WRONG = {
    "an outbox for nothing": (["--outbox", "o.db"], "--outbox is of events that are sent; say"),
    "a cap for nothing": (["--outbox-age", "1d"], "--outbox-age is of events that are sent"),
    "a token for nobody": (["--webhook-token", "s3cret"], "--webhook-token is of --webhook"),
    "no broker": (["--home-assistant", "ha", "--webhook", NOBODY], "--home-assistant is of --mqtt"),
    "another file": (["--webhook", NOBODY, "--outbox", "a.csv"], "--outbox a.csv: is the input"),
    "no outbox": (["--webhook", NOBODY, "--outbox", "b"], "is there already, and is no outbox"),
    "no folder": (["--webhook", NOBODY, "--outbox", "x/o"], "--outbox x/o: the folder x does not"),
    "no address": (["--webhook", "ftp://me:s3cret@h"], "--webhook: expected http:// or https://"),
    "no device": (["--webhook", NOBODY, "--device", "a/b"], "--device: 'a/b'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_asked_wrongly_gets_one_line(edge, churn_onnx, tmp_path, case):
    arguments, message = WRONG[case]
    for name in ("a.csv", "b"):
        (tmp_path / name).write_text("25,3,100\n", "utf-8")
    code, _, err = edge("--lines", "a.csv", "--model", churn_onnx, *arguments)
    assert code == 2
    assert message in err
    assert "s3cret" not in err
    assert "Traceback" not in err
    assert (tmp_path / "b").read_text("utf-8") == "25,3,100\n"
