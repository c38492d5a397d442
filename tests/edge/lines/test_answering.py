"""The real pipeline over lines in memory: order, batches, what is dropped, what fails."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.edge.lines import answering
from mlopsdeploy.edge.lines.answering import LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.sources import LineSource, Splitter
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import InputError, MlopsDeployError, RowError


class Memory(LineSource):
    """A source of blocks of text."""

    def __init__(self, blocks, *, live=False):
        super().__init__("memory", print)
        self.live = live
        self._blocks = blocks

    def blocks(self):
        splitter = Splitter()
        for block in self._blocks:
            if self._stopped.is_set():
                return
            yield splitter.feed(block.encode())


class Kept:
    """An output that keeps what it gets; `wait` is called before."""

    def __init__(self, wait=lambda: None):
        self.batches = []
        self._wait = wait

    def write(self, answers):
        self._wait()
        self.batches.append(list(answers))

    @property
    def answers(self):
        return [answer for batch in self.batches for answer in batch]


@pytest.fixture(scope="module")
def churn(churn_onnx):
    return load_model(str(churn_onnx), runtime="onnxruntime", threads=1, streams=1)


@pytest.fixture
def make(churn):
    def build(source, *, model=churn, kept=None, **options):
        kept, reported = kept or Kept(), []
        pipeline = LinePipeline(
            model, parser_for(model), source, kept.write, Stats(), report=reported.append, **options
        )
        return pipeline, kept, reported

    return build


def rows(count, start=0):
    return "".join(f"{20 + number % 50},{number % 9},10\n" for number in range(start, count))


def test_every_line_is_answered_as_the_model_answers_it_alone(make, churn):
    text = rows(300)
    pipeline, kept, reported = make(Memory([text[:997], text[997:]]))
    pipeline.run()
    assert pipeline.ended == "end"
    assert [answer.line.number for answer in kept.answers] == list(range(1, 301))
    for answer in kept.answers[::37]:
        columns = parser_for(churn)([answer.text]).columns
        alone = churn.predict(columns)
        assert answer.values["label"] == alone["label"][0]
        assert answer.values["score"] == pytest.approx(float(alone["score"][0]), abs=1e-6)
    assert reported == []


def test_lines_that_wait_are_computed_together(make):
    pipeline, kept, _ = make(Memory([rows(2000)]))
    pipeline.run()
    sizes = [len(batch) for batch in kept.batches]
    assert sizes[0] == 1
    assert max(sizes) > 100
    assert sum(sizes) == 2000


def test_what_is_odd_about_lines(make):
    pipeline, kept, _ = make(Memory(["age,visits,spend\n25,3,100\n\nx,3,1\nNA,1,1\n"]))
    pipeline.run()
    header, good, empty, wrong, lacking = kept.answers
    assert header.header
    assert (good.values["label"], good.problem) == ("1", "")
    assert (empty.values, empty.problem) == (None, "")
    assert (wrong.values, wrong.problem) == (None, "'age' is not a number")
    assert (lacking.values, lacking.problem) == (None, "")
    stats = pipeline._stats
    assert (stats.frames, stats.empty, stats.unreadable) == (5, 2, 1)
    assert dict(stats.labels) == {"1": 1}


def test_a_limit(make):
    pipeline, kept, _ = make(Memory([rows(100)]), limit=7)
    pipeline.run()
    assert len(kept.answers) == 7
    assert pipeline.ended == "limit"


def test_a_pipe_waits_for_a_slow_output(make):
    pipeline, kept, reported = make(Memory([rows(4000)]), kept=Kept(wait=lambda: time.sleep(0.005)))
    pipeline.run()
    assert [answer.line.number for answer in kept.answers] == list(range(1, 4001))
    assert reported == []


def test_of_a_device_the_oldest_lines_are_dropped_and_counted(make):
    everything = threading.Event()
    blocks = [rows(2000, 0)[:20_000]]
    count = blocks[0].count("\n")

    class Burst(Memory):
        def blocks(self):
            yield from super().blocks()
            everything.set()

    pipeline, kept, reported = make(Burst(blocks, live=True), kept=Kept(wait=everything.wait))
    pipeline.run()
    numbers = [answer.line.number for answer in kept.answers]
    assert numbers == sorted(numbers)
    assert numbers[-1] == count
    assert len(numbers) <= answering.LIVE + 2
    assert [event.kind for event in reported] == ["dropped"] * len(reported)
    assert sum(event.facts["lines"] for event in reported) == count - len(numbers)
    assert pipeline._stats.dropped == count - len(numbers)


def test_stopped_it_answers_what_waits(make):
    first = threading.Event()
    source = Memory([rows(100)] * 1000)
    pipeline, kept, _ = make(source, kept=Kept(wait=first.set))
    running = threading.Thread(target=pipeline.run)
    running.start()
    assert first.wait(10)
    pipeline.stop("interrupted")
    running.join(20)
    assert not running.is_alive()
    assert pipeline.ended == "interrupted"
    numbers = [answer.line.number for answer in kept.answers]
    assert numbers == list(range(1, len(numbers) + 1))


class Failing:
    """A real runtime that can't take rows with a certain number."""

    def __init__(self, runtime):
        self._runtime = runtime

    def __getattr__(self, name):
        return getattr(self._runtime, name)

    def run(self, tensors):
        if (tensors["features"][:, 0] == 66).any():
            raise RowError("no 66 please")
        return self._runtime.run(tensors)


def test_a_line_that_the_model_fails_on_is_lost_alone(make, churn):
    model = replace(churn, runtime=Failing(churn.runtime))
    pipeline, kept, _ = make(Memory([rows(20), "66,1,1\n", rows(20)]), model=model)
    pipeline.run()
    problems = {answer.line.number: answer.problem for answer in kept.answers if answer.problem}
    assert problems == {21: "no 66 please"}
    assert sum(answer.values is not None for answer in kept.answers) == 40


def test_a_source_that_breaks_is_one_line(make):
    class Broken(Memory):
        def blocks(self):
            yield from super().blocks()
            raise OSError(5, "Input/output error")

    pipeline, kept, _ = make(Broken([rows(3)]))
    with pytest.raises(MlopsDeployError, match="memory: can't be read on .Input/output error"):
        pipeline.run()
    assert len(kept.answers) == 3


def test_texts_and_what_is_not_one(make, bert, reviews):
    model = load_model(str(bert), runtime="onnxruntime", threads=1, streams=1)
    texts = [*reviews(30), "good " * 300]

    class Bytes(Memory):
        def blocks(self):
            splitter = Splitter()
            yield splitter.feed("".join(text + "\n" for text in texts).encode())
            yield splitter.feed(b"caf\xe9\n")

    pipeline, kept, _ = make(Bytes([]), model=model)
    pipeline.run()
    *good, long, broken = kept.answers
    assert {answer.values["label"] for answer in good} <= {"NEGATIVE", "POSITIVE"}
    assert [answer.truncated for answer in (good[0], long)] == [False, True]
    assert broken.problem == "is not UTF-8"


# ---------------------------------------------------------------- languages

GERMAN = "Das ist leider ein sehr schlechtes Produkt, ich bin enttäuscht.\n"
ENGLISH, CHINESE = "Works like a charm, I would buy it again.\n", "太差了，再也不买了\n"


@pytest.fixture(scope="module")
def default():
    return load_model(runtime="onnxruntime", threads=1, streams=1)


def test_lines_that_are_not_read_are_marked_and_counted(make, default):
    model = replace(default, chosen=True)
    pipeline, kept, _ = make(Memory([ENGLISH + "\n" + GERMAN * 30, CHINESE]), model=model)
    pipeline.run()
    assert [answer.unread for answer in kept.answers] == ["", "", *["de"] * 30, ""]
    assert [kept.answers[place].values["label"] for place in (0, -1)] == ["POSITIVE", "NEGATIVE"]
    assert pipeline._stats.unread == {"de": 30}
    assert pipeline._stats.models == {"sentiment": 31, "sentiment-zh": 1}


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        (GERMAN, 1),
        (ENGLISH + "\n" + GERMAN * 2, 4),
        (GERMAN * 500 + ENGLISH * 2000, answering.JUDGED),
    ],
    ids=["one line", "most of a few", "the first of many"],
)
def test_the_default_model_does_not_go_on_with_texts_that_it_does_not_read(
    make, default, text, answered
):
    pipeline, kept, _ = make(Memory([text]), model=default)
    with pytest.raises(
        InputError, match=r"memory: \d+ of .* are in languages .*: \d+ de; .*--model"
    ):
        pipeline.run()
    assert answered <= len(kept.answers) <= 2 * answered


@pytest.mark.parametrize("text", [ENGLISH * 30 + GERMAN * 60, "ok\n" * 3 + GERMAN * 3, ""])
def test_later_lines_and_no_more_than_half_are_only_counted(make, default, text):
    pipeline, kept, _ = make(Memory([text]), model=default)
    pipeline.run()
    assert len(kept.answers) == text.count("\n")


def test_a_complete_row_without_an_answer_has_a_reason(make, churn, monkeypatch):
    def predict(_, columns):
        return {"label": np.array([""], object), "score": np.array([np.nan], "float32")}

    monkeypatch.setattr(type(churn), "predict_columns", predict)
    pipeline, kept, _ = make(Memory(["25,3,100\n"]))
    pipeline.run()
    (answer,) = kept.answers
    assert answer.problem == "the model's score is not a number"
    assert pipeline._stats.empty == 0
