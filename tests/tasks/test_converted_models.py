"""What the usual converters make of real models, read and answered as their frameworks do."""

import warnings

import numpy as np
import onnx
import pytest

from mlopsdeploy import load_model
from mlopsdeploy.errors import ModelError

FEATURES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def convert(rows, tmp_path_factory):
    """`convert(model, answers, **options)`: trained, as an .onnx file."""
    folder = tmp_path_factory.mktemp("converted")

    def make(model, answers, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnxmltools
            from onnxmltools.convert.common.data_types import FloatTensorType
            from skl2onnx import to_onnx

            model.fit(rows, answers)
            package = type(model).__module__.partition(".")[0]
            if package == "sklearn":
                converted = to_onnx(model, rows[:1], options={id(model): options})
            else:
                kinds = [("features", FloatTensorType([None, 4]))]
                converter = getattr(onnxmltools, f"convert_{package}")
                converted = converter(model, initial_types=kinds, **options)
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        path.write_bytes(converted.SerializeToString())
        return path

    return make


def predict(path, rows, **how):
    model = load_model(str(path), features=FEATURES, threads=1, **how)
    return model.task.labels, model.predict(
        {name: rows[:, place] for place, name in enumerate(FEATURES)}
    )


def models():
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from xgboost import XGBClassifier

    boosted = {"n_estimators": 5, "n_jobs": 1}
    return {
        "logistic": LogisticRegression,
        "forest": lambda: RandomForestClassifier(30, random_state=0),
        "neighbours": lambda: KNeighborsClassifier(5),
        "xgboost": lambda: XGBClassifier(**boosted),
        "lightgbm": lambda: LGBMClassifier(**boosted, verbose=-1),
    }


@pytest.mark.parametrize("name", ["logistic", "forest", "neighbours", "xgboost", "lightgbm"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("zipmap", [True, False])
def test_numbers_as_classes(name, classes, zipmap, rows, convert):
    """Every score of a forest counts: some of its sums are 1.0000001."""
    model = models()[name]()
    answers = np.digitize(rows[:, 0] + rows[:, 1] * rows[:, 2], [-0.4, 0.6][: classes - 1])
    labels, got = predict(convert(model, answers, **options(name, zipmap)), rows)
    assert labels == tuple(str(number) for number in range(classes))
    own = model.predict_proba(rows)
    np.testing.assert_allclose(got["scores"], own, atol=2e-6)
    assert got["scores"].min() >= 0
    assert got["scores"].max() <= 1
    clear = np.sort(own, axis=1)[:, -1] - np.sort(own, axis=1)[:, -2] > 1e-5
    assert got["label"][clear].tolist() == own.argmax(axis=1)[clear].astype(str).tolist()


def options(name, zipmap):
    return {} if name == "xgboost" else {"zipmap": zipmap}


@pytest.mark.parametrize("name", ["logistic", "forest", "neighbours", "lightgbm"])
@pytest.mark.parametrize("zipmap", [True, False])
def test_words_as_classes(name, zipmap, rows, convert):
    model = models()[name]()
    labels, got = predict(
        convert(model, np.where(rows[:, 0] > 0.3, "leaves", "stays"), zipmap=zipmap), rows
    )
    assert labels == ("leaves", "stays")
    np.testing.assert_allclose(got["scores"], model.predict_proba(rows), atol=2e-6)
    assert set(got["label"]) == {"leaves", "stays"}


@pytest.mark.parametrize(("name", "most"), [("forest", [2, 3]), ("neighbours", [3, 3])])
@pytest.mark.parametrize("zipmap", [True, False])
def test_several_answers_of_one_estimator(name, most, zipmap, rows, convert):
    """Which skl2onnx stacks, one answer behind the other, with zeros behind fewer classes."""
    model = models()[name]()
    edges = [-0.4, 0.6]
    answers = np.stack(
        [np.digitize(rows[:, place], edges[: count - 1]) for place, count in enumerate(most)], 1
    )
    path = convert(model, answers + 4, zipmap=zipmap)
    assert load_model(str(path), threads=1).task_name == "multi_output"
    _, got = predict(path, rows)
    output = "output_probability" if zipmap else "probabilities"
    for place, own in enumerate(model.predict_proba(rows)):
        np.testing.assert_allclose(got[f"{output}_{place}_scores"], own, atol=2e-6)
        clear = np.sort(own, axis=1)[:, -1] - np.sort(own, axis=1)[:, -2] > 1e-5
        labels = model.predict(rows)[clear, place].astype(str)
        assert got[f"{output}_{place}_label"][clear].tolist() == labels.tolist()


def test_several_answers_of_a_tree_are_labels_alone(rows, convert):
    """skl2onnx writes 1 for each class that its leaf has seen at all."""
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=3)
    answers = (rows[:, :2] * rows[:, 2:] > 0).astype(int)
    _, got = predict(convert(model, answers, zipmap=False), rows)
    assert list(got) == ["label_0_label", "label_1_label"]
    for place, labels in enumerate(got.values()):
        assert labels.tolist() == model.predict(rows)[:, place].astype(str).tolist()


def test_numbers_that_do_not_begin_at_zero(rows, convert):
    answers = np.where(rows[:, 0] > 0, 7, -2)
    labels, got = predict(convert(models()["forest"](), answers, zipmap=False), rows)
    assert labels == ("-2", "7")
    assert got["label"][:50].tolist() == answers[:50].astype(str).tolist()


def test_a_threshold_keeps_the_models_own_labels(rows, convert):
    path = convert(models()["logistic"](), np.where(rows[:, 0] > 0, "yes", "no"), zipmap=False)
    _, got = predict(path, rows, threshold=0.9)
    assert (got["label"] == np.where(got["scores"][:, 1] >= 0.9, "yes", "no")).all()


def test_regressors_answer_with_a_value(rows, convert):
    from lightgbm import LGBMRegressor
    from sklearn.linear_model import LinearRegression

    columns = {name: rows[:, place] for place, name in enumerate(FEATURES)}
    for model in (LinearRegression(), LGBMRegressor(n_estimators=3, verbose=-1)):
        path = convert(model, rows[:, 0] / 10 + 0.5)  # mostly within 0 and 1, as a probability is
        found = load_model(str(path), features=FEATURES, threads=1).predict(columns)
        np.testing.assert_allclose(found["value"], model.predict(rows), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_that_are_no_probabilities(classes, rows, convert):
    """The label stands alone: a decision value is no probability."""
    from sklearn.svm import LinearSVC

    answers = np.digitize(rows[:, 0], [-0.4, 0.6][: classes - 1])
    model = LinearSVC()
    _, got = predict(convert(model, answers), rows)
    assert list(got) == ["label"]
    assert got["label"].tolist() == model.predict(rows).astype(str).tolist()


@pytest.mark.parametrize(("field", "way"), [("opset", r"target_opset=\d+"), ("ir", "an older op")])
def test_a_file_for_a_newer_runtime(field, way, rows, convert, tmp_path):
    model = onnx.load(str(convert(models()["logistic"](), (rows[:, 0] > 0).astype(int))))
    if field == "ir":
        model.ir_version = 99
    else:
        model.opset_import[0].version = 99
    onnx.save(model, str(tmp_path / "new.onnx"))
    with pytest.raises(ModelError, match=rf"new\.onnx: made for a newer ONNX Runtime .* {way}"):
        load_model(str(tmp_path / "new.onnx"), threads=1)
