"""Log lines for people and for machines."""

import json
import logging
import logging.config
import sys

import pytest

from mlopsdeploy.serve import logs


@pytest.fixture
def configured():
    """`configured("json")` sets logging up; afterwards it is as it was."""
    names = ("mlopsdeploy", "_granian", "granian.access", "gunicorn.error", "gunicorn.access", None)
    before = {}
    for name in names:
        logger = logging.getLogger(name)
        before[name] = logger.level, logger.handlers[:], logger.propagate, logger.filters[:]
    yield lambda said: logging.config.dictConfig(logs.configuration(said))
    for name, (level, handlers, propagate, filters) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers, logger.propagate, logger.filters = handlers, propagate, filters


def test_json_lines(configured, capfd):
    configured("json")
    log = logging.getLogger("mlopsdeploy.serve")
    log.info("worker ready in %.2f s", 0.5, extra={"worker": 7})
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("request failed", extra={"request_id": "q1", "unknown": 1})
    out, err = capfd.readouterr()
    assert out == ""
    first, second = (json.loads(line) for line in err.splitlines())
    assert first["time"][10] == "T"
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in first if key != "time"} == {
        "level": "info", "logger": "mlopsdeploy.serve", "message": "worker ready in 0.50 s",
        "worker": 7,
    }  # fmt: skip
    assert (second["level"], second["request_id"]) == ("error", "q1")
    assert second["traceback"].splitlines()[-2:] == ["ValueError: a", "b"]
    assert "unknown" not in second


def test_text(configured, capfd):
    configured("text")
    log = logging.getLogger("mlopsdeploy.access")
    log.info("POST /x 200", extra={"seconds": 0.00123, "request_id": "q1", "status": 200})
    log.warning("low on %s", "cores")
    first, second = capfd.readouterr().err.splitlines()
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


def test_of_the_server_only_what_an_operator_needs(configured, capfd):
    configured("json")
    granian = logging.getLogger("_granian")
    granian.info("Spawning worker-1")
    granian.warning("Configuration allows spawning up to 16 Python threads, which seems high")
    granian.error("Unexpected exit from worker-1")
    logging.getLogger("gunicorn.error").info("Booting worker")
    logging.getLogger("somebody.else").info("hello")
    logging.getLogger("somebody.else").warning("careful")
    said = [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()]
    assert said == ["Unexpected exit from worker-1", "careful"]


def test_granian_still_gives_the_advice_that_is_left_out():
    """If it words it anew, the filter misses it, and a user meets a warning at every start."""
    from pathlib import Path

    import granian.server.mp

    assert "Python threads" in Path(granian.server.mp.__file__).read_text("utf-8")
