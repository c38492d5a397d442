"""The real detector measured on real clips, briefly: that figures fit together, never how large."""

import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from mlopsdeploy.bench.edge import bench_edge, show, slowest, verdict
from mlopsdeploy.errors import InputError
from mlopsdeploy.settings import EdgeSettings

STAGES = ["capture", "encode", "infer", "decode", "draw", "events", "save"]
COSTS = dict(zip(STAGES, (2, 2, 3, 0.1, 0.1, 0.1, 5), strict=True))


def make_clip(path, frames=40):
    """A square that moves, 160 × 120 pixels, 20 frames a second."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (160, 120))
    for number in range(frames):
        image = np.full((120, 160, 3), 90, np.uint8)
        image[40:80, 2 * number : 2 * number + 40] = 200
        video.write(image)
    video.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def bench(clip):
    def run(camera=clip, outputs=(), seconds=0.3, **settings):
        wanted = EdgeSettings(camera=str(camera), threads=1, **settings)
        return bench_edge(wanted, outputs=outputs, seconds=seconds)

    return run


@pytest.fixture(scope="module")
def report(bench):
    return bench()


def test_every_stage_is_measured(report):
    assert list(report["stages_ms"]) == STAGES
    for values in (*report["stages_ms"].values(), report["invoke"]):
        assert 0 < values["p50"] <= values["p99"]


def test_the_figures_fit_together(report):
    pipeline, invoke = report["pipeline"], report["invoke"]
    assert report["model"] == "detector"
    assert (report["width"], report["height"], report["live"]) == (160, 120, False)
    assert pipeline["frames"] > 0
    assert pipeline["frame_age_ms"] is None
    assert report["ratio"] == pytest.approx(pipeline["fps"] / invoke["fps"], abs=0.01)
    costs = {name: values["p50"] for name, values in report["stages_ms"].items()}
    assert report["bottleneck"] == slowest(costs, (), live=False)
    assert report["verdict"] == verdict(report)
    limit = report["limit"]
    assert limit["fps"] == invoke["fps"]
    assert 0 < limit["cores_ours"] <= 1
    known = [limit[key] is not None for key in ("gflops", "peak_gflops", "share_of_peak")]
    assert len(set(known)) == 1
    assert report["memory_mb"] > 10


def test_a_clip_shorter_than_the_bench_is_watched_again(bench, tmp_path):
    clip = make_clip(tmp_path / "short.mp4", frames=4)
    # A machine that stands still in its one second is asked for longer.
    found = (bench(clip, seconds=seconds)["pipeline"]["frames"] for seconds in (1.0, 4.0, 16.0))
    assert any(frames > 3 for frames in found)


def test_outputs_are_part_of_the_pipeline(bench):
    report = bench(outputs=("events", "save"))
    assert report["pipeline"]["outputs"] == ["events", "save"]
    assert report["pipeline"]["frames"] > 0


def test_a_live_source_has_ages_and_sets_the_pace(bench):
    report = bench(realtime=True, seconds=0.6)
    assert report["live"]
    assert report["pipeline"]["frame_age_ms"]["p99"] > 0
    assert report["pipeline"]["fps"] < 25  # the clip has 20


def test_what_can_not_be_watched_is_one_line(bench, tmp_path):
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.full((120, 160, 3), 90, np.uint8))
    with pytest.raises(InputError, match="a single picture; name a video"):
        bench(path)
    with pytest.raises(InputError, match=r"nowhere.mp4: no such camera or file"):
        bench("nowhere.mp4")


@pytest.mark.parametrize(
    ("costs", "outputs", "live", "stage"),
    [
        ({}, (), False, "capture"),  # reading and encoding share a thread: 4 ms
        ({"encode": 0.5}, (), False, "infer"),
        ({}, (), True, "infer"),  # encoding and the model do: 5 ms
        ({"capture": 33}, (), True, "capture"),
        ({}, ("save",), False, "save"),
        ({"save": 1}, ("events", "save"), False, "capture"),
        ({"decode": 9}, (), False, "decode"),
    ],
)
def test_the_busiest_thread_sets_the_pace(costs, outputs, live, stage):
    assert slowest({**COSTS, **costs}, outputs, live=live) == stage


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"ratio": 0.97}, "The model sets the pace: 97.0 fps are 97% of bare calls"),
        ({"live": True, "bottleneck": "capture"}, "The camera sets the pace, 97.0 fps; the model"),
        ({}, "The model is the slowest stage, but 97.0 fps are only 50% of bare calls"),
        ({"bottleneck": "save"}, "save sets the pace with 5.0 ms a frame: 97.0 fps are 50%"),
    ],
)
def test_the_verdict_is_one_sentence(changes, start):
    report = {
        "live": False, "ratio": 0.5, "bottleneck": "infer", "cores": 2,
        "invoke": {"fps": 100.0}, "pipeline": {"fps": 97.0, "cores_busy": 1.5},
        "stages_ms": {name: {"p50": cost} for name, cost in COSTS.items()},
    }  # fmt: skip
    sentence = verdict({**report, **changes})
    assert sentence.startswith(start)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_people_see_every_stage(report):
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console)
    text = " ".join(console.export_text().split())
    assert all(stage in text for stage in STAGES)
    assert report["verdict"] in text
