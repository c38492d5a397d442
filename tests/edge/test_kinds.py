"""Pictures with every kind of answer, through the real pipeline to events, drawings and summary."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from mlopsdeploy.columns import AnswerColumns, Field, objects
from mlopsdeploy.edge import terminal
from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.outputs import Outlet
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.preview import Preview
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.settings import EdgeSettings

from .. import kinds


def clusters():
    outputs = kinds.LABEL, Field("distance", "float32")
    task = kinds.Kind(kinds.PICTURE, outputs, answers=(AnswerColumns("label", "distance"),))
    return kinds.model(
        task, lambda given: {"label": objects(["night"]), "distance": np.array([12.5], np.float32)}
    )


def several_labels():
    outputs = kinds.LABEL, Field("score", "float32")
    task = kinds.Kind(kinds.PICTURE, outputs, multi_label=True, labels=("day", "rain", "fog"))
    return kinds.model(
        task, lambda given: {"label": objects(["day|rain"]), "score": np.array([0.9], np.float32)}
    )


class Pictures:
    """An outlet that draws each result and keeps it."""

    def __init__(self):
        self.kept = []

    def put(self, result):
        before = result.frame.image.copy()
        self.kept.append((result, bool((result.drawn() != before).any())))


@pytest.fixture
def watched(clip, tmp_path):
    """`watched(model)`: documents of the frames, whether each was drawn on, summary and words."""

    def watch(model):
        stats, shown = Stats(), Pictures()
        source = open_source(EdgeSettings(camera=str(clip)), report=print, timing=lambda _: None)
        sink = Events(str(tmp_path / "e.jsonl"), live=False)
        outlet = Outlet(sink, stats, keep=True, log=print)
        preview = Preview("0", dict)
        FramePipeline(model, source, [outlet, shown, Outlet(preview, stats, keep=False, log=print)],
                      stats, 3).run()  # fmt: skip
        outlet.close()
        preview.close()
        view = terminal.FrameView(stats, source, counts=bool(model.task.answers))
        summary = view.summary(ended="limit", seconds=1.0)
        console = Console(file=io.StringIO(), width=120)
        terminal.show_summary(console, view, summary, [])
        screen = terminal.Screen(console, "x", view)
        console.print(screen._panel())
        text = console.file.getvalue()
        assert "None" not in text
        lines = (tmp_path / "e.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line)["detections"] for line in lines]
        return found, [drawn for _, drawn in shown.kept], summary, text, preview.found

    return watch


def test_a_regressions_value_is_told_and_drawn(watched):
    found, drawn, summary, text, shown = watched(kinds.picture_regression())
    assert [len(one) for one in found] == [1, 1, 1]
    assert all(one[0].keys() == {"value"} for one in found)
    assert 0 < found[0][0]["value"] < 255
    assert all(drawn)
    assert summary["labels"] == {}
    assert summary["numbers"]["value"]["count"] == 3
    assert " on average, " in text
    assert "nothing was found" not in text
    assert shown[0][0] == "value"


def test_clusters(watched):
    found, drawn, summary, text, shown = watched(clusters())
    assert found == [[{"label": "night", "distance": 12.5}]] * 3
    assert all(drawn)
    assert summary["labels"] == {"night": 3}
    assert summary["numbers"] == {"distance": {"count": 3, "mean": 12.5, "min": 12.5, "max": 12.5}}
    assert "night 3" in text
    assert shown == [("night", "12.5")]


def test_several_labels_are_counted_each(watched):
    found, drawn, summary, _, shown = watched(several_labels())
    assert found == [[{"label": "day|rain", "score": 0.9}]] * 3
    assert all(drawn)
    assert summary["labels"] == {"day": 3, "rain": 3}
    assert shown == [("day, rain", "90%")]


def test_arrays_are_events_only(watched):
    found, drawn, summary, text, shown = watched(kinds.picture_tensors())
    assert [len(one) for one in found] == [1, 1, 1]
    assert all(len(one[0]["embedding"]) == 2 for one in found)
    assert not any(drawn)
    assert (summary["labels"], summary["numbers"]) == ({}, {})
    assert "nothing was found" not in text
    assert shown[0][0] == "embedding"


def test_a_frame_without_an_answer_has_nothing_on_it(watched):
    model = kinds.picture_regression()
    blind = kinds.Numpy(lambda given: {"value": np.array([np.nan], np.float32)})
    found, drawn, summary, text, _ = watched(dataclasses.replace(model, runtime=blind))
    assert found == [[]] * 3
    assert not any(drawn)
    assert summary["numbers"] == {}
    assert "nothing was found" in text
