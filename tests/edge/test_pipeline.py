"""The real detector on real frames: none of a file is lost, a camera's newest is what counts."""

import threading
import time
from functools import partial

import pytest

from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import RowError
from mlopsdeploy.settings import EdgeSettings


class Keeper:
    """Remembers numbers and what each picture says, and when it was handed over."""

    def __init__(self, pictures):
        self.read = pictures.number
        self.numbers, self.seen = [], []

    def put(self, result):
        self.numbers.append(result.frame.number)
        self.seen.append(self.read(result.frame.image))


@pytest.fixture
def pipeline(clip, pictures):
    def make(model, *, realtime=False, limit=None, report=print):
        stats, keeper = Stats(), Keeper(pictures)
        settings = EdgeSettings(camera=str(clip), realtime=realtime)
        source = open_source(settings, report=print, timing=partial(stats.add, "capture"))
        made = FramePipeline(model, source, [keeper], stats, limit, report)
        made.source, made.stats, made.keeper = source, stats, keeper
        return made

    return make


def test_a_file_loses_no_frame(pipeline, model):
    run = pipeline(model)
    run.run()
    assert run.keeper.numbers == run.keeper.seen == list(range(40))
    assert run.ended == "end"
    assert run.stats.frames == 40
    assert {"capture", "encode", "infer", "decode"} <= set(run.stats.stages)
    assert run.stats.stages["infer"].count == 40


def test_a_file_loses_no_frame_to_a_slow_model(pipeline, slowed):
    run = pipeline(slowed(0.03))
    run.run()
    assert run.keeper.numbers == list(range(40))
    assert run.stats.bottleneck() == "infer"


def test_a_slow_model_on_a_live_source_means_fewer_frames_never_older_ones(pipeline, slowed):
    slow = slowed(0.2)  # four frames of the source
    run = pipeline(slow, realtime=True)
    newest, at_start = [], []
    real = run.source._newest.put

    def put(frame):  # what the source has given so far
        newest.append(frame.number)
        return real(frame)

    run.source._newest.put = put
    inner = slow.runtime.run

    def infer(tensors):
        at_start.append(newest[-1])
        return inner(tensors)

    slow.runtime.run = infer
    run.run()
    numbers = run.keeper.numbers
    assert numbers == run.keeper.seen == sorted(set(numbers))
    assert 2 < len(numbers) < 20
    # At most one more had come while it was made ready.
    assert all(there - number <= 1 for number, there in zip(numbers, at_start, strict=True))
    assert run.source.dropped + len(numbers) == 40


@pytest.mark.parametrize("realtime", [False, True])
def test_stop_ends_it_with_all_that_was_done_handed_on(pipeline, slowed, realtime):
    run = pipeline(slowed(0.05), realtime=realtime)
    threading.Timer(0.4, run.stop, ("interrupted",)).start()
    run.run()
    assert run.ended == "interrupted"
    assert 0 < len(run.keeper.numbers) == run.stats.frames < 40


def test_a_frame_that_the_model_cannot_take_is_an_event_and_the_others_go_on(pipeline, slowed):
    failing = slowed(0)
    compute, calls, events = failing.runtime.run, iter(range(40)), []

    def run(tensors):
        if next(calls) in (3, 7):
            raise RowError("node 17 failed")
        return compute(tensors)

    failing.runtime.run = run
    made = pipeline(failing, report=events.append)
    made.run()
    assert made.keeper.numbers == [number for number in range(40) if number not in (3, 7)]
    assert [(event.kind, event.text) for event in events] == [
        ("unreadable", f"frame {number}: node 17 failed") for number in (3, 7)
    ]
    assert events[0].facts == {"frame": 3, "reason": "node 17 failed"}


def test_a_mistake_of_ours_in_another_thread_is_not_swallowed(pipeline, model):
    made = pipeline(model)

    def put(result):
        raise KeyError("ours")

    made.keeper.put = put
    with pytest.raises(KeyError, match="ours"):
        made.run()


def test_stages_overlap(pipeline, slowed, pictures):
    """A model and an output of 30 ms each take together hardly longer than one of them."""
    run = pipeline(slowed(0.03), limit=20)

    class Slow:
        def __init__(self):
            self.numbers, self.began, self.ended = [], [], []

        def put(self, result):
            self.began.append(time.monotonic())
            time.sleep(0.03)
            self.ended.append(time.monotonic())

    slow = run.keeper.put = Slow()
    run._outlets = [slow]
    inferred = []
    inner = run._model.runtime.run

    def infer(tensors):
        start = time.monotonic()
        done = inner(tensors)
        inferred.append((start, time.monotonic()))
        return done

    run._model.runtime.run = infer
    run.run()
    # While a frame is handed on, the next one is already in the model.
    both = sum(
        start < ended and began < end
        for began, ended in zip(slow.began, slow.ended, strict=True)
        for start, end in inferred
    )
    assert both >= 15
