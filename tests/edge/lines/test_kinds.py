"""Lines of every kind of model: numbers, windows, arrays in; values, clusters, arrays out."""

import io
import json

import pytest
from rich.console import Console

from mlopsdeploy.edge import terminal
from mlopsdeploy.edge.lines.answering import Answers, Form, LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.run import Readable
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError

from ... import kinds
from .test_answering import Memory

ROW = "0.25,0.75,0.6"
WINDOW = json.dumps([[float(step), 0.0, 3.0] for step in range(8)])


def tensors(tokens, **more):
    row = {"tokens:0": tokens, "grid": [[1, 2, 3], [0, 0, 0]], "word": "né", **more}
    return json.dumps({name: value for name, value in row.items() if value is not None})


@pytest.fixture
def answered(tmp_path):
    """`answered(model, *lines)`: the line of JSON for each, what people see, and the summary."""

    def answer(model, *lines):
        kept, stats = [], Stats()
        source = Memory(["".join(f"{line}\n" for line in lines)])
        LinePipeline(
            model, parser_for(model), source, kept.extend, stats, report=lambda _: None
        ).run()
        form = Form(model.task, echo=False)
        documents = json.loads(json.dumps(Answers(kept, form).documents()))
        for document in documents:
            del document["time"]
        console = Console(file=io.StringIO(), width=100)
        Readable(console, model.task, echo=False).write(kept)
        view = terminal.LineView(stats, source)
        summary = view.summary(ended="end", seconds=1.0)
        told = Console(file=io.StringIO(), width=100)
        terminal.show_summary(told, view, summary, [])
        assert "None" not in console.file.getvalue() + told.file.getvalue()
        shown = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return documents, shown, summary, told.file.getvalue()

    return answer


def line(number, **said):
    return {"event": "line", "line": number, **said}


def test_a_regression(answered):
    documents, shown, summary, told = answered(kinds.regression(), ROW, "", "1,1,1", "NA,1,1")
    assert documents == [
        line(1, value=250749.4), line(2, value=None), line(3, value=1000999.0),
        line(4, value=None),
    ]  # fmt: skip
    assert shown == ["250749", "–", "1000999", "–"]
    assert summary["labels"] == {}
    assert summary["numbers"] == {
        "value": {"count": 2, "mean": 625874.203, "min": 250749.406, "max": 1000999.0}
    }
    assert summary["empty"] == 2
    assert "value    625874 on average, 250749 to 1000999" in told


def test_several_values(answered):
    documents, shown, summary, _ = answered(kinds.several_values(), ROW)
    assert documents[0].pop("height") == pytest.approx(0.625)
    assert documents == [line(1, weight=1.6)]
    assert shown == ["weight  1.6  height  0.625"]
    assert [*summary["numbers"]] == ["weight", "height"]


def test_clusters(answered):
    documents, shown, summary, told = answered(kinds.clusters(), ROW, "1,1,1.25")
    assert documents[1] == line(2, label="3", distance=0.25)
    assert shown[1].split() == ["3", "0.25"]
    assert summary["labels"] == {"2": 1, "3": 1}
    assert summary["numbers"]["distance"]["count"] == 2
    assert "2 1 (50%)" in told


def test_several_labels_of_a_line(answered):
    documents, shown, summary, _ = answered(kinds.multi_label(), ROW, "0,0.75,0", "0,0,0")
    assert documents == [
        line(1, label="threat|insult", score=0.75), line(2, label="threat", score=0.75),
        line(3, label="", score=0.0),
    ]  # fmt: skip
    assert shown == ["threat, insult  0.750", "threat  0.750", "–       0.000"]
    assert summary["labels"] == {"threat": 2, "insult": 1}
    assert summary["numbers"] == {}


def test_several_answers_to_a_line(answered):
    documents, shown, summary, told = answered(kinds.several_answers(), ROW)
    assert documents == [
        line(1, fraud_label="no", fraud_score=0.75, kind_label="cash", kind_score=0.75)
    ]
    assert shown == ["fraud  no    0.750  kind  cash  0.750"]
    assert summary["labels"] == {"fraud no": 1, "kind cash": 1}
    assert "fraud no 1 (100%)" in told


def test_windows(answered):
    documents, shown, _, _ = answered(kinds.window(), WINDOW, f'{{"window": {WINDOW}}}', "[[1]]")
    assert documents[0] == documents[1] | {"line": 1} == line(1, value=2.1666667)
    assert documents[2]["reason"] == "does not fit: each row must be 8x3 numbers"
    assert shown[0] == "2.16667"


def test_arrays_of_lines_that_differ_in_size(answered):
    lines = [tensors([3, 4]), tensors([7]), "", tensors([5, 6])]
    documents, shown, summary, told = answered(kinds.tensors(), *lines)
    assert [one["even"] for one in documents] == [[False, True], [False], None, [False, True]]
    assert documents[1] == line(
        2, **{"hidden.state": [[7.0, 2.3333333]], "twice": [[2, 4, 6], [0, 0, 0]]},
        even=[False], said="né!", version=7,
    )  # fmt: skip
    assert (
        shown[1]
        == "hidden.state 7, 2.33333, twice 2, 4, 6, 0, 0, 0, even False, said né!, version 7"
    )
    assert (summary["labels"], summary["numbers"], summary["lines"]) == ({}, {}, 4)
    assert "labels" not in told


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[1, 2]", "is not a JSON object with tokens:0, grid, word"),
        ("{", "is not JSON"),
        (tensors(None), "lacks 'tokens:0'"),
        (tensors([1.5]), "'tokens:0' must hold numbers only"),
        (tensors(["4711"]), "'tokens:0' must hold numbers only"),
        (tensors([2**70]), "'tokens:0' has a number that is too large for the model"),
        (tensors([1], grid=[[1, 2, 3]]), "'grid' does not fit: each row must be 2x3 numbers"),
        (tensors([1], grid=[[1, 2, 3], [1, 2]]), "'grid' does not fit: rows differ in shape"),
        (tensors([1], word=7), "'word' must hold texts only"),
    ],
)
def test_arrays_that_do_not_fit(answered, said, reason):
    documents, _, summary, _ = answered(kinds.tensors(), said, tensors([1]))
    assert documents[0] == {"event": "unreadable", "line": 1, "reason": reason}
    assert documents[1]["said"] == "né!"
    assert summary["unreadable"] == 1


def test_one_list_of_numbers_may_be_csv(answered):
    task = kinds.Kind((kinds.MATRIX,), (kinds.Field("value", "float32"),))
    model = kinds.model(task, lambda given: {"value": given["features"].sum(axis=1)})
    documents, _, _, _ = answered(model, "1,2,3", "[1, 2, 3]", "1;x;3", "1,2")
    assert [one.get("value") for one in documents] == [6.0, 6.0, None, None]
    reasons = [one["reason"] for one in documents[2:]]
    assert reasons == ["must hold numbers only", "does not fit: each row must be 3 numbers"]


def test_pictures_are_no_lines():
    with pytest.raises(ConfigError, match="takes pictures: name --camera"):
        parser_for(kinds.picture_regression())
