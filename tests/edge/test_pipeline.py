"""The real detector on real frames: none of a file is lost, a camera's newest is what counts."""

import threading
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
    run = pipeline(slowed(0.2), realtime=True)  # four frames of the source
    given, there = [], []
    newest = run.source._newest
    put, take = newest.put, newest.take

    def given_on(frame):  # what the source has given so far
        given.append(frame.number)
        return put(frame)

    def asked(*timeout):
        there.append(given[-1] if given else 0)
        return take(*timeout)

    newest.put, newest.take = given_on, asked
    run.run()
    numbers = run.keeper.numbers
    assert numbers == run.keeper.seen == sorted(set(numbers))
    assert 0 < len(numbers) < 20
    # When the model was ready for one, there was no newer one, but for one on its way.
    for number, newest_then in zip(numbers, there, strict=False):
        assert number >= newest_then - 1
    assert run.source.dropped + len(numbers) == 40


@pytest.mark.parametrize("realtime", [False, True])
def test_stop_ends_it_with_all_that_was_done_handed_on(pipeline, slowed, realtime):
    slow, begun = slowed(0.05), threading.Event()
    run, inner = pipeline(slow, realtime=realtime), slow.runtime.run

    def infer(tensors):
        begun.set()
        return inner(tensors)

    slow.runtime.run = infer
    stopping = threading.Thread(target=lambda: begun.wait() and run.stop("interrupted"))
    stopping.start()
    run.run()
    stopping.join()
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


def test_stages_overlap(pipeline, slowed):
    """While a frame is handed on, the next one is in the model: each waits for the other."""
    model = slowed(0)
    run, inner = pipeline(model, limit=20), model.runtime.run
    handing, inferring = [[threading.Event() for _ in range(20)] for _ in range(2)]
    calls = iter(range(20))

    def infer(tensors):
        number = next(calls)
        inferring[number].set()
        if number:
            assert handing[number - 1].wait(60)
        return inner(tensors)

    def put(result):
        number = result.frame.number
        handing[number].set()
        if number < 19:
            assert inferring[number + 1].wait(60)

    model.runtime.run, run.keeper.put = infer, put
    run.run()
    assert run.stats.frames == 20
