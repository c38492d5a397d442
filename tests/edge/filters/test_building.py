"""Settings into filters, on the real model and a real clip."""

import json

import pytest

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.filters.building import stage
from mlopsdeploy.edge.filters.picking import large, sure
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import EdgeSettings, load


@pytest.fixture
def watched(model, street):
    """Results, statistics and events of the clip with these settings."""

    def run(**settings):
        settings = EdgeSettings(camera=str(street), **settings)
        events, results, stats = [], [], Stats()

        class Keeper:
            put = staticmethod(results.append)

        made = stage(settings, model, events.append)
        source = open_source(settings, report=print, timing=lambda _: None)
        FramePipeline(
            made.model, source, [Keeper()], stats, settings.limit, print, made.filters
        ).run()
        return results, stats, events, made.counting

    return run


def test_only_some_labels_are_left_and_counted(watched):
    everything, counted, *_ = watched(limit=60)
    results, stats, *_ = watched(limit=60, labels=["Car"])
    assert set(counted.labels) == {"Car", "Chair"}
    assert stats.labels == {"Car": counted.labels["Car"]}
    for all_of_it, result in zip(everything, results, strict=True):
        assert result.detections == tuple(one for one in all_of_it.detections if one.label == "Car")


def test_a_label_may_have_a_threshold_of_its_own_higher_or_lower(watched):
    usual = watched(limit=60)[1].labels
    stricter = watched(limit=60, thresholds={"Car": 0.65})
    scores = [
        one.score for one in sum((r.detections for r in stricter[0]), ()) if one.label == "Car"
    ]
    assert 0 < len(scores) < usual["Car"]
    assert min(scores) >= 0.65
    assert stricter[1].labels["Chair"] == usual["Chair"]
    looser = watched(limit=60, thresholds={"Car": 0.2})[1].labels
    assert looser["Car"] > usual["Car"]
    assert looser["Chair"] == usual["Chair"]


def test_small_objects_are_left_out(watched):
    labels = watched(limit=60, min_area=0.06)[0]
    areas = [
        (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
        for result in labels
        for one in result.detections
    ]
    assert areas
    assert min(areas) >= 0.06


def test_the_clip_is_counted_right(watched):
    """A chair that stands there; a car that leaves to the right and comes back a second later."""
    results, _, events, counting = watched(
        gates="middle=0.5,0 0.5,1; right=0.97,0 0.97,1", zones="left=0,0 0.5,0 0.5,1 0,1"
    )
    assert counting.as_dict()["gates"] == {
        "middle": {"Car": {"in": 1, "out": 1}}, "right": {"Car": {"in": 1, "out": 1}},
    }  # fmt: skip
    stays = counting.as_dict()["zones"]["left"]["Car"]
    assert (stays["entered"], stays["left"], stays["inside"]) == (2, 2, 0)
    assert {one.kind for one in events} == {"crossed", "entered", "left"}
    chair = {one.track for r in results[5:] for one in r.detections if one.label == "Chair"}
    assert chair == {1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["car"]}, ["--labels: detector has no label 'car'", "did you mean 'Car'?"]),
        ({"thresholds": {"Persom": 0.5}}, ["--thresholds: ", "did you mean 'Person'?"]),
        ({"labels": ["qqqq"]}, ["'qqqq'", "there are: ", "Bicycle"]),
    ],
)
def test_labels_that_nobody_knows_are_refused(model, settings, words):
    with pytest.raises(ConfigError) as raised:
        stage(EdgeSettings(**settings), model, print)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gates: {a: [[0, 0]]}", ["gates", "'a': a gate has two points"]),
        ("gates: {a: [[0, 0], [0, 0]]}", ["gates", "two points"]),
        ("zones: {a: [[0, 0], [1, 1]]}", ["zones", "'a': a zone has three points or more"]),
        ("zones: {a: [[0, 0], [640, 0], [640, 360]]}", ["shares of the picture, from 0 to 1"]),
        ("zones: {a: [0, 0, 1]}", ["zones.a[0]", "expected a list"]),
        ("thresholds: {Car: 40}", ["thresholds", "'Car': expected a score from 0 to 1"]),
        ("thresholds: Car", ["thresholds", "expected LABEL=SCORE"]),
        ("gates: door", ["gates", "expected NAME=X,Y X,Y"]),
        ("min_area: 200%", ["min_area", "less than or equal to 1"]),
        ("lines: '-'\ntrack: true", ["--track is for a camera, not for --lines"]),
    ],
)
def test_settings_that_make_no_sense(tmp_path, text, words):
    from mlopsdeploy.edge.loading import check_settings

    file = tmp_path / "edge.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        check_settings(load(EdgeSettings, str(file), {}, {}))
    for word in words:
        assert word in str(raised.value)


def test_settings_as_flags_are_those_of_yaml(tmp_path):
    file = tmp_path / "edge.yaml"
    file.write_text(
        "labels: [Car, Person]\nthresholds: {Car: 40%}\nmin_area: 1%\n"
        "gates: {door: [[0, 0.5], [1, 0.5]]}\n",
        "utf-8",
    )
    flags = {
        "labels": "Car,Person", "thresholds": "Car=0.4", "min_area": "0.01",
        "gates": "door=0,0.5 1,0.5",
    }  # fmt: skip
    from_file = load(EdgeSettings, str(file), {}, {})
    assert from_file == load(EdgeSettings, None, flags, {})
    assert from_file.thresholds == {"Car": 0.4}
    assert json.loads(json.dumps(from_file.as_dict(only_given=True)))["gates"] == {
        "door": [[0.0, 0.5], [1.0, 0.5]]
    }


def test_answers_to_the_whole_picture_have_no_size():
    assert large(0.5)(Detection("cat", 0.9))
    assert not large(0.5)(Detection("cat", 0.9, (0, 0, 0.5, 0.5)))
    assert sure(lambda _: 0.5)(Detection("value", 0.1, answer=Detection("", None).answer)) is False
