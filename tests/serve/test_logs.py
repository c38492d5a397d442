"""Log lines for people and for machines."""

import json
import subprocess
import sys

from mlopsdeploy.serve import logs


def said(log_format, script):
    """What a process writes on standard error; setting up logging closes others' handlers."""
    begin = (
        "import logging, logging.config\n"
        "from mlopsdeploy.serve import logs\n"
        f"logging.config.dictConfig(logs.configuration({log_format!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", begin + script],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines():
    first, second = map(json.loads, said("json", """
log = logging.getLogger("mlopsdeploy.serve")
log.info("worker ready in %.2f s", 0.5, extra={"worker": 7})
try:
    raise ValueError("a\\nb")
except ValueError:
    log.exception("request failed", extra={"request_id": "q1", "unknown": 1})
"""))  # fmt: skip
    assert first["time"][10] == "T"
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in first if key != "time"} == {
        "level": "info", "logger": "mlopsdeploy.serve", "message": "worker ready in 0.50 s",
        "worker": 7,
    }  # fmt: skip
    assert (second["level"], second["request_id"]) == ("error", "q1")
    assert second["traceback"].splitlines()[-2:] == ["ValueError: a", "b"]
    assert "unknown" not in second


def test_text():
    first, second = said("text", """
log = logging.getLogger("mlopsdeploy.access")
log.info("POST /x 200", extra={"seconds": 0.00123, "request_id": "q1", "status": 200})
log.warning("low on %s", "cores")
""")  # fmt: skip
    assert first[8:] == " POST /x 200  1.23 ms  q1"
    assert second[8:] == " warning: low on cores"
    assert len(first.partition(" ")[0]) == len("12:30:01")


def test_auto_is_json_where_nobody_reads_along(monkeypatch):
    assert not logs.as_text("json")
    assert logs.as_text("text")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert not logs.as_text("auto")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert logs.as_text("auto")


def test_of_the_server_only_what_an_operator_needs():
    lines = said("json", """
logging.getLogger("asyncio").info("Using selector")
logging.getLogger("gunicorn.error").info("Booting worker")
logging.getLogger("somebody.else").info("hello")
logging.getLogger("somebody.else").warning("careful")
""")  # fmt: skip
    messages = [json.loads(line)["message"] for line in lines]
    assert messages == ["careful"]
