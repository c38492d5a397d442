"""`score_file`: batch from Python."""

import doctest
import shutil
from pathlib import Path

import pandas as pd
import pytest

import mlopsdeploy
from mlopsdeploy import ConfigError, InputError, MlopsDeployError, ModelError, score_file

QUICK = {"runtime": "onnxruntime", "precision": "float32", "threads": 1}


def test_a_file_is_scored_and_nothing_printed(bert, reviews, tmp_path, capfd):
    path = tmp_path / "a.csv"
    texts = [*reviews(20), ""]
    pd.DataFrame({"review": texts, "stars": 1}).to_csv(path, index=False)
    done = score_file(path, model=bert, text_column="review", **QUICK)
    assert isinstance(done, mlopsdeploy.ScoredFile)
    assert done.output == str(tmp_path / "a.predictions.csv")
    assert (done.rows, done.bad_rows, done.empty) == (21, 0, 1)
    assert done.seconds > 0
    scored = pd.read_csv(done.output)
    model = mlopsdeploy.load_model(str(bert), **QUICK)
    assert scored["label"].fillna("").tolist() == model.predict(texts)["label"].tolist()
    assert sum(done.labels.values()) == 20
    assert capfd.readouterr() == ("", "")


def test_bad_rows_are_counted(churn_onnx, tmp_path):
    (tmp_path / "a.csv").write_text("age,visits,spend\n20,1,10\nold,0,1\n40,2,3\n")
    done = score_file(
        tmp_path / "a.csv", tmp_path / "b.csv", model=churn_onnx, max_errors="50%", **QUICK
    )
    assert (done.output, done.rows, done.bad_rows) == (str(tmp_path / "b.csv"), 3, 1)
    assert done.summary["first_failed"].endswith("line 3: column 'age' holds no number")


@pytest.mark.parametrize(
    ("error", "how", "message"),
    [
        (ConfigError, {"batchsize": 3}, "no setting 'batchsize'; did you mean 'batch_size'?"),
        (ConfigError, {"batch_size": 0}, "batch-size"),
        (ConfigError, {"dry_run": True}, "score_file: dry_run is for the command line"),
        (ConfigError, {"schedule": "* * * * *"}, "call score_file from your scheduler"),
        (ConfigError, {"retries": 3}, "retries is for a schedule of the command line"),
        (ConfigError, {"output": "-"}, "not '-'"),
        (ModelError, {"model": "nowhere.onnx"}, "nowhere.onnx"),
        (InputError, {"text_column": "nothing"}, "nothing"),
        (MlopsDeployError, {"input": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_what_is_wrong_is_one_line(bert, tmp_path, error, how, message):
    (tmp_path / "a.csv").write_text("text\ngood\n")
    chosen = {"input": tmp_path / "a.csv", "model": bert, **QUICK, **how}
    with pytest.raises(error) as caught:
        score_file(chosen.pop("input"), **chosen)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_public_names_are_listed_and_there():
    assert set(dir(mlopsdeploy)) == set(mlopsdeploy.__all__)
    assert all(getattr(mlopsdeploy, name) is not None for name in mlopsdeploy.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mlopsdeploy.nothing  # noqa: B018


def test_the_examples_of_the_reference(tmp_path, monkeypatch):
    repository = Path(__file__).resolve().parents[2]
    shutil.copy(repository / "examples" / "reviews.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "reference" / "api.md").read_text("utf-8")
    examples = doctest.DocTestParser().get_doctest(page.replace("```", ""), {}, "api.md", None, 0)
    done = doctest.DocTestRunner().run(examples)
    assert done.attempted >= 10
    assert done.failed == 0
