"""The page at `/` for every kind of model, in a real Chromium."""

import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from mlopsdeploy.serve import create_app

from .. import kinds
from .test_page import Page


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    app = create_app({make.__name__: make() for make in kinds.ALL})
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(chromium, server):
    return lambda model: Page(chromium, server, model)


def filled(page, name):
    shown = page(name)
    for field, value in zip(("area", "rooms", "age"), ("0.25", "0.75", "0.6"), strict=True):
        shown.type(field, value)
    status, answer = shown.predict()
    assert status == 200
    assert not shown.errors()
    return shown.told().splitlines(), answer


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("regression", ["value", "250749.4"]),
        ("several_values", ["weight", "1.6", "height", "0.624999"]),
        ("clusters", ["2", "distance", "0.3"]),
        ("multi_label", ["threat, insult", "score of the highest", "0.75", "threshold 0.5"]),
        (
            "several_answers",
            ["fraud", "no", "score of no", "0.75", "threshold 0.5",
             "kind", "cash", "score of cash", "0.75", "threshold 0.5"],
        ),
    ],
)  # fmt: skip
def test_an_answer_is_told_as_what_it_is(page, name, told):
    lines, answer = filled(page, name)
    assert [line[: len(want)] for line, want in zip(lines, told, strict=True)] == told
    assert answer


def test_a_window_is_a_table_of_numbers(page):
    shown = page("window")
    box = shown.field("window (8×3 numbers)")
    assert box.get_attribute("value").count("\n") == 7
    status, answer = shown.predict()
    assert (status, answer) == (200, {"value": 0})
    shown.type("window (8×3 numbers)", "[[1, 2], [3, 4]]")
    assert shown.predict()[0] == 422
    ((control, words),) = shown.wrong()
    assert control == box
    assert words == "each row must be 8x3 numbers"


def test_tensors_have_a_control_for_each_input(page):
    shown = page("tensors")
    assert shown.field("word").tag_name == "input"
    shown.type("tokens:0 (n numbers)", "[3, 4, 5, 6, 7]")
    shown.type("word", 'né "x"')
    status, answer = shown.predict()
    assert status == 200
    assert answer["said"] == 'né "x"!'
    told = shown.told()
    assert "hidden.state\n5×2 values: 3, 1, 4, 1.333, 5, 1.667, …; from 1 to 7" in told
    assert "even\n[false, true, false, true, false]" in told
    assert "version\n7" in told
    shown.type("grid (2×3 numbers)", "[[1]]")
    assert shown.predict()[0] == 422
    ((control, _),) = shown.wrong()
    assert control == shown.field("grid (2×3 numbers)")
    assert not [line for line in shown.errors() if "422" not in line["message"]]


def test_a_long_row_is_a_file_for_the_terminal(page):
    shown = page("tensors")
    assert "-d '" in shown.id("curl").text
    shown.type("tokens:0 (n numbers)", f"[{', '.join(['1234'] * 900)}]")
    assert "--data-binary @row.json" in shown.id("curl").text


def test_a_pictures_value(page, tmp_path):
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 51, np.uint8))
    shown = page("picture_regression")
    shown.field("Picture").send_keys(str(path))
    shown.until(lambda: "grey.png" in shown.id("curl").text)
    assert shown.predict() == (200, {"value": 51})
    assert shown.told().splitlines() == ["value", "51"]
