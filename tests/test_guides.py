"""Each guide as its reader follows it: its script, its commands, its server; and its numbers.

The point of a guide is that a model answers here as it does in its framework. So each page's script
is run with one more line, which keeps the framework's own predictions; what `batch` wrote and what
`serve` answered has to be those.
"""

import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
GUIDES = REPOSITORY / "docs" / "guides"

# How the README's commands are run is how a guide's are.
_spec = importlib.util.spec_from_file_location(
    "how_docs_run", Path(__file__).with_name("test_docs.py")
)
docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs)
clone = docs.clone


@dataclass(frozen=True)
class Guide:
    """What a page leads to.

    `scored` maps a file that `batch` writes to an expression of the page's script: the framework's
    own scores of the same rows, one column per label. `asked` has one for each caller of the page's
    server, in their order. `labels` is what `models inspect` says of each model.
    """

    page: str
    scored: dict[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    labels: dict[str, list[str]] = field(default_factory=dict)
    tolerance: float = 1e-5
    threshold: float | None = None


ONE = "pd.DataFrame([{'age': 31, 'plan': 'basic', 'spend': 20}])"
PUMP = "np.array([[0.5, 1, 0.2, 0.9]], 'float32')"
BOTH = "(lambda second: np.hstack([1 - second, second]))"
TEXTS = (
    "model.eval()(**tokenizer({}, padding=True, return_tensors='pt')).logits.softmax(1).detach()"
)
PAGES = [
    Guide(
        "scikit-learn",
        {"customers.predictions.csv": "model.predict_proba(customers)"},
        (f"model.predict_proba({ONE})",),
        {"churn.onnx": ["leaves", "stays"]},
    ),
    Guide(
        "boosting",
        {
            "xgb.csv": "boosted.predict_proba(rows.to_numpy())",
            "lgb.csv": "light.predict_proba(rows)",
        },
        (f"boosted.predict_proba({PUMP})", f"light.predict_proba({PUMP})"),
        {"xgb.onnx": ["runs", "fails"]},
    ),
    Guide(
        "pytorch",
        {
            "loads.predictions.csv": f"{BOTH}(net(loads).detach().numpy())",
            "stripes.csv": "cnn(pictures[::6]).softmax(1).detach()",
        },
        (
            f"{BOTH}(net(torch.tensor([[40.0, 180.0, 3.0]])).detach().numpy())",
            "cnn(pictures[54:55]).softmax(1).detach()",
        ),
        {"stripes.onnx": ["lying", "standing"]},
    ),
    Guide(
        "keras",
        {"cards.predictions.csv": f"{BOTH}(model.predict(rows.to_numpy(), verbose=0))"},
        (f"{BOTH}(model.predict(np.array([[300.0, 3, 1]]), verbose=0))",),
        {"cards.keras": ["honest", "stolen"]},
        threshold=0.3,
    ),
    Guide(
        "hugging-face",
        {"reviews.predictions.csv": TEXTS.format("texts[:18]")},
        (TEXTS.format("['works well, love it', 'broke again']"),),
        {"reviews": ["bad", "good"]},
    ),
    Guide(
        "tflite",
        {"lamp.csv": "model.predict(pictures[::6].astype('float32'), verbose=0)"},
        ("model.predict(pictures[30:31].astype('float32'), verbose=0)",),
        {"lamp.tflite": ["red", "green", "blue"]},
        tolerance=0.02,  # int8 throughout
    ),
    Guide(
        "mlflow",
        dict.fromkeys(
            ("loans.predictions.csv", "from-folder.csv"), "model.predict_proba(loans.to_numpy())"
        ),
        ("model.predict_proba(np.array([[30.0, 80, 4]], 'float32'))",),
        {"loans-folder": ["grant", "refuse"]},
    ),
]


def blocks(page, language):
    text = (GUIDES / f"{page}.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run_script(forks, folder, guide):
    """The page's Python blocks as one script, which also writes what the framework predicts."""
    wanted = [*guide.scored.values(), *guide.asked]
    keep = "\n".join([
        "", "import json as _json", "import numpy as _np", "_kept = []",
        *(f"_kept.append(_np.asarray({wish}, float).tolist())" for wish in wanted),
        "open('framework.json', 'w').write(_json.dumps(_kept))",
    ])  # fmt: skip
    script = folder / f"guide-{guide.page}.py"  # no name that can be imported
    script.write_text("\n".join(blocks(guide.page, "python")) + keep, "utf-8")
    done = forks.run(
        [sys.executable, "-P", script], cwd=folder, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads((folder / "framework.json").read_text("utf-8"))
    return kept[: len(guide.scored)], kept[len(guide.scored) :]


def serve(folder, lines):
    """A page's server, asked what the page asks; the answers."""
    port = docs.free_port()
    command, *callers = (re.sub(r"\b8080\b", str(port), line) for line in lines)
    answers = []
    with docs.running(folder, command, port):
        for line in callers:
            done = docs.shell(folder, line)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            answers.append(json.loads(done.stdout))
    return answers


def run_commands(folder, guide, monkeypatch):
    """The page's commands in their order; the server's answers, and what `inspect` said."""
    answers, inspected = [], {}
    for block in blocks(guide.page, "bash"):
        lines = [line for line in block.splitlines() if not line.startswith("pip install")]
        if lines and lines[0].startswith("mlopsdeploy serve"):
            answers += serve(folder, lines)
            continue
        for line in lines:
            if line.startswith("export "):
                monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
                continue
            looks = line.startswith("mlopsdeploy models inspect ")
            done = docs.shell(folder, f"{line} --json --no-speed" if looks else line)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            if looks:
                inspected[line.split()[-1]] = json.loads(done.stdout)["labels"]
    return answers, inspected


def given(own, guide):
    """Which label each row gets by the framework's own scores, and that label's score."""
    own = np.array(own)
    places = own.argmax(axis=1)
    if guide.threshold is not None:
        places = (own[:, 1] >= guide.threshold).astype(int)
    return places, own[np.arange(len(own)), places]


@pytest.mark.parametrize("guide", PAGES, ids=lambda guide: guide.page)
def test_a_guide_answers_as_its_framework_does(guide, forks, clone, tmp_path, monkeypatch):
    (tmp_path / "bin").symlink_to(clone / "bin")
    for line in "".join(blocks(guide.page, "bash")).splitlines():
        if line.startswith("export "):  # for the script, too
            monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
    predicted, of_the_asked = run_script(forks, tmp_path, guide)
    answers, inspected = run_commands(tmp_path, guide, monkeypatch)
    assert inspected == guide.labels
    for name, own in zip(guide.scored, predicted, strict=True):
        table = pd.read_csv(tmp_path / name)
        columns = [column for column in table if column.startswith("score_")]
        np.testing.assert_allclose(table[columns], own, atol=guide.tolerance)
        places, scores = given(own, guide)
        np.testing.assert_allclose(table["score"], scores, atol=guide.tolerance)
        assert table["label"].tolist() == [columns[place][6:] for place in places]
        assert len(set(places)) > 1, "a model that tells nothing apart"
    for answer, own in zip(answers, of_the_asked, strict=True):
        rows = answer.get("predictions", [answer])
        scores = given(own, guide)[1]
        np.testing.assert_allclose([row["score"] for row in rows], scores, atol=guide.tolerance)


def test_every_guide_is_short_and_in_the_index():
    index = (GUIDES / "README.md").read_text("utf-8")
    pages = {path.stem for path in GUIDES.glob("*.md")} - {"README"}
    assert {guide.page for guide in PAGES} | {"own-runtime-or-task"} == pages
    for page in pages:
        assert f"]({page}.md)" in index
        text = (GUIDES / f"{page}.md").read_text("utf-8")
        assert len(text.splitlines()) <= 110
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
            assert docs.is_there(GUIDES / page, target), target
