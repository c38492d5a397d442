"""Every task on every runtime under every strategy: the same rows get the same answers.

What the answers must be is worked out by other means: arithmetic for numbers and pictures,
transformers' own model for texts. docs/composition.py says which cells there are, and README.md
shows them.
"""

import json
import runpy
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlopsdeploy.batch.command import run_batch
from mlopsdeploy.core import plugins
from mlopsdeploy.core.answers import document
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.edge.command import run_edge
from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.serve import create_app
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings

REPOSITORY = Path(__file__).resolve().parent.parent
MATRIX = runpy.run_path(str(REPOSITORY / "docs" / "composition.py"))
WORKS, RUNTIMES = MATRIX["WORKS"], MATRIX["RUNTIMES"]
CELLS = [
    (task, runtime, strategy)
    for task, works in WORKS.items()
    for runtime, strategies in works.items()
    for strategy in strategies
    if runtime != "tflite"
]
EMPTY = [(task, runtime) for task in WORKS for runtime in RUNTIMES if runtime not in WORKS[task]]

NUMBERS = [(23, 4, 10.5), (60, 0, 250.0), (40, 3, 0.0), (71, 9, 299.9), (35, 1, 60.25)]
WINDOWS = [[[a, 2], [3, b], [5, 6], [7, 8]] for a, b in ((1, 4), (9, 0), (-3, 2.5))]
RECTANGLES = [
    ("red", (0.25, 0.25, 0.75, 0.75)),
    ("green", (0.5, 0.0, 1.0, 0.5)),
    ("blue", (0.0, 0.0, 0.125, 1.0)),
]


@pytest.fixture(scope="module")
def models(once_by, tmp_path_factory, bert_checkpoint, bert, rating):
    """By task, a folder with the model in every format that a runtime opens."""
    folder = once_by(REPOSITORY / "tests" / "composition_models.py")
    both = tmp_path_factory.mktemp("composition")
    for file in [*bert_checkpoint.iterdir(), bert / "onnx"]:
        (both / file.name).symlink_to(file)
    return {
        "text_classification": both,
        "text_regression": rating,
        "tabular_classification": folder / "churn",
        "tabular_classification: several labels": folder / "tags",
        "tabular_regression": folder / "price",
        "tabular_regression: windows": folder / "window",
        "multi_output": folder / "two",
        "clustering": folder / "groups",
        "anomaly_detection: detectors": folder / "outside",
        "anomaly_detection: autoencoders": folder / "back",
        "image_classification": folder / "colors",
        "image_regression": folder / "redness",
        "image_multi_output": folder / "both",
        "object_detection": folder / "finder",
        "tensors": folder / "raw",
    }


@pytest.fixture(scope="module")
def rating(tmp_path_factory, bert_checkpoint):
    """The checkpoint with another last layer: one number, of a regression."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("rating")
    config = AutoConfig.from_pretrained(bert_checkpoint)
    config.num_labels, config.problem_type = 1, "regression"
    torch.manual_seed(2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    for file in bert_checkpoint.glob("*token*"):
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, reviews, rectangle):
    """By task, what batch reads: texts, numbers, a folder of pictures."""
    folder = tmp_path_factory.mktemp("data")
    texts = reviews(12, seed=6)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(lines, "utf-8")
    rows = ["age,visits,spend", *(",".join(map(str, row)) for row in NUMBERS)]
    (folder / "numbers.csv").write_text("\n".join(rows) + "\n", "utf-8")
    for name, arrays in (("windows", WINDOWS), ("tensors", NUMBERS)):
        lines = "".join(json.dumps({"x": row}) + "\n" for row in arrays)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, (color, box) in enumerate(RECTANGLES):
        # As large as the model takes, so that no resizing makes a difference.
        cv2.imwrite(str(pictures / f"{number}.png"), rectangle(color, box, (64, 64)))
    others = {
        "tabular_regression: windows": folder / "windows.jsonl",
        "tensors": folder / "tensors.jsonl",
    }
    by_kind = {"text": folder / "texts.jsonl", "image": pictures, "object": pictures}
    return {
        task: others.get(task) or by_kind.get(task.partition("_")[0], folder / "numbers.csv")
        for task in WORKS
    }


@pytest.fixture(scope="module")
def expected(bert_checkpoint, rating, data):
    """By task, what the columns of each row must hold; of objects also the box."""
    spent = 0.05, -0.4, 0.01
    rows = np.array(NUMBERS, np.float64)
    prices = rows @ (2, -1.5, 0.25) + 10
    leaves = [1 / (1 + np.exp(1 - np.dot(row, spent))) for row in NUMBERS]
    colors = []
    for color, (x1, y1, x2, y2) in RECTANGLES:
        exponent = np.exp(20 * (x2 - x1) * (y2 - y1))
        colors.append({"label": color, "score": exponent / (exponent + 2)})
    churn = [{"label": "leaves" if p >= 0.5 else "stays", "score": max(p, 1 - p)} for p in leaves]
    away = np.linalg.norm(rows[:, None] - ((30, 3, 10), (65, 4, 270)), axis=2)
    said = 1 / (1 + np.exp(-(rows @ ((0.1, 0), (0, -1), (0, 0.02)) + (-4.5, 1))))
    errors = np.square(0.1 * rows[:, 2]) / 3
    return {
        "text_classification": _of_transformers(bert_checkpoint, data["text_classification"]),
        "text_regression": _of_transformers(rating, data["text_regression"]),
        "tabular_classification": churn,
        "tabular_classification: several labels": [
            {"label": "|".join(n for n, p in zip(("old", "rare"), row, strict=True) if p >= 0.5),
             "score": max(row)}
            for row in said.tolist()
        ],
        "tabular_regression": [{"value": price} for price in prices],
        "tabular_regression: windows": [
            {"value": np.mean(window, axis=0) @ (1, 0.5)} for window in WINDOWS
        ],
        "multi_output": [
            {"price": price, **{f"gone_{name}": value for name, value in row.items()}}
            for price, row in zip(prices, churn, strict=True)
        ],
        "clustering": [
            {"label": ("small", "large")[int(row.argmin())], "distance": row.min()} for row in away
        ],
        "anomaly_detection: detectors": [
            {"label": "anomaly" if spend > 100 else "normal", "decision": 1 - spend / 100}
            for spend in rows[:, 2]
        ],
        "anomaly_detection: autoencoders": [
            {"label": "anomaly" if error > 100 else "normal", "error": error} for error in errors
        ],
        "image_classification": colors,
        "image_regression": [
            {"value": (color == "red") * (x2 - x1) * (y2 - y1)}
            for color, (x1, y1, x2, y2) in RECTANGLES
        ],
        "image_multi_output": [
            {"redness": (color == "red") * (x2 - x1) * (y2 - y1),
             **{f"colour_{name}": value for name, value in row.items()}}
            for row, (color, (x1, y1, x2, y2)) in zip(colors, RECTANGLES, strict=True)
        ],
        "object_detection": [
            {"label": color, "score": 0.9, "relative": box} for color, box in RECTANGLES
        ],
        "tensors": [{"y": [price]} for price in prices],
    }  # fmt: skip


def _of_transformers(checkpoint, file):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    answers = []
    for line in file.read_text("utf-8").splitlines():
        encoded = tokenizer(json.loads(line)["text"], truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**encoded).logits
        if len(logits[0]) == 1:
            answers.append({"value": float(logits)})
            continue
        scores = logits.softmax(-1)[0]
        label = model.config.id2label[int(scores.argmax())]
        answers.append({"label": label, "score": float(scores.max())})
    return answers


# ---------------------------------------------------------------- the strategies


def by_batch(model, runtime, task, file, folder):
    """One row of output for each of the input."""
    out = folder / "out.jsonl"
    settings = BatchSettings(
        input=str(file), output=str(out), model=str(model), runtime=runtime, precision="float32"
    )
    run_batch(settings)
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def by_serve(model, runtime, task, file, folder):
    """One request for each row."""
    loaded = load_model(str(model), runtime=runtime, precision="float32", threads=1, streams=1)
    client = create_app({"m": loaded}, ServeSettings()).test_client()
    answers = []
    for body, kind in _bodies(task, file):
        answer = client.post("/v1/models/m:predict", data=body, content_type=kind)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json)
    return answers


def _bodies(task, file):
    if file.is_dir():
        return [(path.read_bytes(), "image/png") for path in sorted(file.iterdir())]
    rows = _rows(file)
    return [(json.dumps({"instances": row}), "application/json") for row in rows]


def _rows(file):
    if file.suffix == ".csv":
        return NUMBERS
    lines = file.read_text("utf-8").splitlines()  # of one key each
    return [value for line in lines for value in json.loads(line).values()]


def by_edge(model, runtime, task, file, folder):
    """One event for each picture or line."""
    events = folder / "events.jsonl"
    flag, path = _watch(task, file, folder)[:2]
    settings = EdgeSettings(
        **{flag.removeprefix("--"): path}, model=str(model), runtime=runtime, precision="float32",
        threads=1, window=None if flag == "--lines" else False, events=str(events),
    )  # fmt: skip
    _, code = run_edge(settings)
    assert code == 0
    return _events(events)


def _watch(task, file, folder):
    """The flags that name what there is to watch."""
    if file.is_dir():
        return ["--camera", str(file), "--no-window"]
    rows = [json.loads(body)["instances"] for body, _ in _bodies(task, file)]
    nested = task.endswith("windows")
    said = [
        row if isinstance(row, str) else json.dumps(row) if nested else ",".join(map(str, row))
        for row in rows
    ]
    lines = folder / "lines.txt"
    lines.write_text("\n".join(said) + "\n", "utf-8")
    return ["--lines", str(lines)]


def _events(file):
    said = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [event for event in said if event["event"] in ("frame", "line")]


STRATEGIES = {"batch": by_batch, "serve": by_serve, "edge": by_edge}


def check(task, answers, expected):
    """Labels, numbers and boxes are those that they must be."""
    assert len(answers) == len(expected)
    for answer, wanted in zip(answers, expected, strict=True):
        found = answer
        if "detections" in answer:
            found = {}
            for one in answer["detections"]:  # the one object, or each of several answers
                assert not found.keys() & one.keys()
                found |= one
        for name, value in wanted.items():
            if isinstance(value, str):  # batch writes none as null
                assert (found[name] or "") == value, name
            else:
                assert found[name] == pytest.approx(value, rel=1e-5, abs=2e-4), name


def by_python(model, runtime, task, file, folder):
    """All rows in one call."""
    loaded = load_model(str(model), runtime=runtime, precision="float32", threads=1, streams=1)
    rows = sorted(map(str, file.iterdir())) if file.is_dir() else _rows(file)
    predictions = loaded.predict(rows)
    return [document(loaded.task, predictions, row) for row in range(len(rows))]


# ---------------------------------------------------------------- the matrix


@pytest.mark.parametrize(("task", "runtime", "strategy"), CELLS)
def test_a_cell(models, data, expected, tmp_path, task, runtime, strategy):
    answers = STRATEGIES[strategy](models[task], runtime, task, data[task], tmp_path)
    check(task, answers, expected[task])


@pytest.mark.parametrize(
    ("task", "runtime"),
    [
        (task, runtime)
        for task, works in WORKS.items()
        for runtime in works
        if runtime != "tflite" and not task.startswith("object")  # rows of arrays
    ],
)
def test_a_cell_from_python(models, data, expected, tmp_path, task, runtime):
    check(task, by_python(models[task], runtime, task, data[task], tmp_path), expected[task])


@pytest.mark.parametrize("task", [task for task, works in WORKS.items() if "tflite" in works])
def test_a_cell_of_tflite(models, data, expected, tmp_path, tflite_python, task):
    """In an environment of its own, which has the edge alone."""
    events = tmp_path / "events.jsonl"
    done = subprocess.run(
        [
            str(tflite_python), "-m", "mlopsdeploy", "edge", *_watch(task, data[task], tmp_path),
            "--model", str(models[task]), "--runtime", "tflite", "--threads", "1",
            "--events", str(events),
        ],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(task, _events(events), expected[task])


@pytest.mark.parametrize(("task", "runtime"), EMPTY)
def test_an_empty_cell_says_why(models, task, runtime):
    with pytest.raises(MlopsDeployError) as refused:
        load_model(str(models[task]), runtime=runtime, precision="float32", threads=1)
    assert runtime in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_task_or_runtime_is_left_out():
    assert {task.partition(":")[0] for task in WORKS} == set(plugins.names("tasks"))
    assert set(RUNTIMES) == set(plugins.names("runtimes"))


@pytest.mark.parametrize("file", MATRIX["READMES"])
def test_the_readme_shows_it(file):
    assert MATRIX["table"](MATRIX["READMES"][file]) in (REPOSITORY / file).read_text("utf-8")
