"""What `Model.predict` takes, and that its answers are those of batch."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlopsdeploy import LanguageWarning
from mlopsdeploy.columns import Field, objects, rows_of, take
from mlopsdeploy.core import by_language, model
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, InputError, RowError
from mlopsdeploy.tasks import texts

from ..answering import answering

AGES, VISITS, SPEND = [20, 40, 60], [1, 0, 8], [10.0, 300.0, 50.5]
TABLE = {"age": AGES, "visits": VISITS, "spend": SPEND}
MATRIX = [list(row) for row in zip(AGES, VISITS, SPEND, strict=True)]
NAMES = "'age', 'visits', 'spend'"
TAKES = f"but the model takes 3 values: {NAMES}"


def load(path, **how):
    return load_model(str(path), runtime="onnxruntime", precision="float32", threads=1, **how)


@pytest.fixture(scope="module")
def churn(churn_onnx):
    return load(churn_onnx)


@pytest.fixture(scope="module")
def unnamed(unnamed_onnx):
    return load(unnamed_onnx)


@pytest.fixture(scope="module")
def per_feature(per_feature_onnx):
    return load(per_feature_onnx)


@pytest.fixture(scope="module")
def text(bert):
    return load(bert)


@pytest.fixture(scope="module")
def colours(tflite_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    path = folder / "softmax.tflite"
    path.write_bytes((tflite_models / path.name).read_bytes())
    (folder / "labels.txt").write_text("red\ngreen\nblue")
    return load_model(str(path), threads=1)


@pytest.fixture(scope="module")
def pictures(rectangle):
    box = (0.1, 0.1, 0.9, 0.9)
    return [rectangle(colour, box) for colour in ("green", "red", "blue")]


def probability(age, visits, spend):
    return 1 / (1 + np.exp(-(0.05 * age - 0.4 * visits + 0.01 * spend - 1)))


EXPECTED = probability(*(np.array(TABLE[name], float) for name in ("age", "visits", "spend")))


class Polars:
    """As much of a polars DataFrame as is asked of one: `columns` is a list, a column a Series."""

    def __init__(self, data):
        self._data = data
        self.columns = list(data)

    def __getitem__(self, name):
        return pd.Series(self._data[name])


# ---------------------------------------------------------------- rows of numbers

FORMS = {
    "dict of lists": TABLE,
    "dict of arrays": {name: np.array(values) for name, values in TABLE.items()},
    "dict of tuples": {name: tuple(values) for name, values in TABLE.items()},
    "dict of Series": {name: pd.Series(values, index=[5, 6, 7]) for name, values in TABLE.items()},
    "dict of Arrow arrays": {name: pa.array(values) for name, values in TABLE.items()},
    "another order and more": {"name": list("abc"), "spend": SPEND, "visits": VISITS, "age": AGES},
    "DataFrame": pd.DataFrame({"spend": SPEND, "name": list("abc"), "age": AGES, "visits": VISITS}),
    "nullable DataFrame": pd.DataFrame(TABLE).convert_dtypes(),
    "DataFrame of text": pd.DataFrame(TABLE).astype(str),
    "polars": Polars({"name": list("abc"), **TABLE}),
    "Arrow": pa.table({"name": list("abc"), **TABLE}),
    "list of dicts": pd.DataFrame({"name": list("abc"), **TABLE}).to_dict("records"),
    "matrix": np.array(MATRIX),
    "matrix of objects": np.array(MATRIX, object),
    "matrix in float32": np.array(MATRIX, np.float32),
    "list of lists": MATRIX,
    "tuple of tuples": tuple(tuple(row) for row in MATRIX),
    "list of arrays": [np.array(row) for row in MATRIX],
    "its tensor's name": {"features": np.array(MATRIX)},
    "generator": (row for row in MATRIX),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_numbers(churn, form):
    found = churn.predict(FORMS[form])
    assert list(found) == ["label", "score", "scores"]
    np.testing.assert_allclose(found["scores"][:, 1], EXPECTED, atol=1e-6)
    assert list(found["label"]) == ["0", "1", "0"]
    np.testing.assert_allclose(found["score"], np.maximum(EXPECTED, 1 - EXPECTED), atol=1e-6)


@pytest.mark.parametrize("rows", [np.array(MATRIX), MATRIX, pd.DataFrame(MATRIX)])
def test_features_without_names(unnamed, rows):
    np.testing.assert_allclose(unnamed.predict(rows)["scores"][:, 1], EXPECTED, atol=1e-6)


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA, "", "NA", float("nan")])
def test_a_missing_number_is_as_in_batch(churn, empty):
    """The model has no way to take it: no label, and NaN."""
    found = churn.predict({"age": [20, empty, 60], "visits": VISITS, "spend": SPEND})
    assert list(found["label"]) == ["0", "", "0"]
    assert np.isnan(found["score"]).tolist() == [False, True, False]
    np.testing.assert_allclose(found["scores"][::2, 1], EXPECTED[::2], atol=1e-6)


def test_a_missing_whole_number_is_as_in_batch(per_feature):
    found = per_feature.predict({"visits": [1, None, 2], "age": [2.0, 2.0, 2.0]})
    assert list(found["label"]) == ["1", "", "1"]
    expected = [1 / (1 + np.exp(-1)), np.nan, 0.5]
    np.testing.assert_allclose(found["scores"][:, 1], expected, atol=1e-6)
    assert np.isnan(found["score"][1])
    found = per_feature.predict({"visits": [None, None], "age": [2.0, 2.0]})
    assert list(found["label"]) == ["", ""]
    assert np.isnan(found["score"]).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"age": AGES, "spend": SPEND}, "churn: lacks 'visits', which it needs; there is 'age',"),
        (pd.DataFrame({"age": AGES}), "churn: lacks 'visits', 'spend', which it needs; there"),
        ({}, f"churn: lacks {NAMES}, which it needs; there is no column"),
        ({**TABLE, "visits": [1, 0]}, "churn: column 'age' has 3 rows, but 'visits' has 2"),
        ({**TABLE, "visits": 1}, "churn: column 'visits' is one value, not a list"),
        ({**TABLE, "visits": "1"}, "churn: column 'visits' is one value, not a list"),
        ("20,1,10", "churn: predict takes a list of rows, not one"),
        (None, "churn: predict takes rows, not NoneType"),
        ({1, 2}, "churn: predict takes rows, not set"),
        (np.array(MATRIX)[:, :2], f"churn: row 0 has 2 values, {TAKES}"),
        ([MATRIX[0], MATRIX[1][:2]], f"churn: row 1 has 2 values, {TAKES}"),
        (MATRIX[0], "churn: row 0 has one value, but the model takes 3 values"),
        (np.zeros((2, 3, 1)), r"churn: row 0 has a shape of (3, 1), but the model takes 3 values"),
        ([[1, [2, 3], 4]], "churn: row 0 has lists of different length, but"),
        ({**TABLE, "age": [20, "forty", 60]}, "churn: row 1, column 'age': 'forty' is no number"),
        ({**TABLE, "age": [20, [1], 60]}, "churn: row 1, column 'age': '[1]' is no number"),
        ([[20, 1, 2], [20, "x", 3]], "churn: row 1, column 'visits': 'x' is no number"),
        ({**TABLE, "age": pd.to_datetime(["2026-01-01"] * 3)}, "churn: row 0, column 'age': '"),
        ({**TABLE, "age": np.zeros((3, 2))}, "churn: 'age' has a shape of (3, 2), not one number"),
        ([TABLE, 3], "churn: row 1 is no dict, though others are"),
        ([{"age": 1}], "churn: row 0 lacks 'visits', 'spend'; there is 'age'"),
        (
            pd.concat([pd.DataFrame(TABLE), pd.DataFrame({"age": AGES})], axis=1),
            "churn: column 'age' is there twice",
        ),
    ],
)  # fmt: skip
def test_rows_that_are_none_are_one_line(churn, rows, message):
    with pytest.raises(InputError, match="^" + re.escape(message)) as caught:
        churn.predict(rows)
    assert "\n" not in str(caught.value)


def test_the_row_is_named(churn):
    with pytest.raises(RowError) as caught:
        churn.predict({**TABLE, "age": [20, 40, "old"]})
    assert caught.value.rows == (2,)


@pytest.mark.parametrize("rows", [np.zeros((2, 4)), [[1, 2, 3], [1, 2]], [1, 2, 3]])
def test_a_wrong_width_without_names(unnamed, rows):
    with pytest.raises(RowError, match=r"^unnamed: row \d has .* but the model takes 3 values$"):
        unnamed.predict(rows)


# ---------------------------------------------------------------- texts

TEXTS = ["good food", "the battery broke twice", "not fine, never again"]


@pytest.mark.parametrize(
    "rows",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        objects(TEXTS),
        pd.Series(TEXTS, index=[3, 4, 5]),
        pd.Series(TEXTS, dtype="string"),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        iter(TEXTS),
        {"text": TEXTS},
        {"stars": [1, 2, 3], "text": np.array(TEXTS)},
        pd.DataFrame({"stars": [1, 2, 3], "text": TEXTS}),
        pa.table({"text": TEXTS, "stars": [1, 2, 3]}),
        [{"text": text, "stars": 1} for text in TEXTS],
    ],
)
def test_texts(text, rows):
    found = text.predict(rows)
    expected = text.predict_columns({"text": objects(TEXTS)})
    assert list(found) == ["label", "score", "truncated", "scores"]
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6)


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA, "", " \t"])
def test_a_missing_text_is_as_in_batch(text, empty):
    found = text.predict([TEXTS[0], empty, TEXTS[1]])
    expected = text.predict(TEXTS[:2])
    assert found["label"].tolist() == [expected["label"][0], "", expected["label"][1]]
    np.testing.assert_allclose(found["scores"][::2], expected["scores"], atol=1e-6)
    assert np.isnan(found["score"][1])
    assert np.isnan(found["scores"][1]).all()
    assert found["truncated"].tolist() == [False] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("good food", "predict takes a list of rows, not one; for one row: [row]"),
        (b"good food", "predict takes a list of rows, not one"),
        ({"text": "good food"}, "column 'text' is one value, not a list of them"),
        ({"review": TEXTS}, "lacks 'text', which it needs; there is 'review'"),
        (pd.DataFrame({"review": TEXTS}), "lacks 'text', which it needs; there is 'review'"),
        ([TEXTS[0], 7], "row 1 is no text, but int"),
        (np.arange(3), "row 0 is no text, but int64"),
        (np.array([TEXTS]), "'text' has a shape of (1, 3), not one text a row"),
        (5, "predict takes rows, not int"),
    ],
)
def test_texts_that_are_none_are_one_line(text, rows, message):
    with pytest.raises(InputError, match=re.escape(f"{text.name}: {message}")):
        text.predict(rows)


# ---------------------------------------------------------------- pictures


def saved(folder, pictures):
    paths = [str(folder / f"{place}.png") for place in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(path, picture)
    return paths


def test_pictures(colours, pictures, tmp_path):
    paths = saved(tmp_path, pictures)
    expected = colours.predict_columns({"image": np.stack(pictures)})["scores"]
    for rows in (
        pictures,
        tuple(pictures),
        np.stack(pictures),
        objects(pictures),
        {"image": pictures, "name": paths},
        paths,
        [Path(path) for path in paths],
        [Path(path).read_bytes() for path in paths],
        pd.DataFrame({"name": [1, 2, 3], "image": paths}),
        [{"image": picture} for picture in pictures],
    ):
        found = colours.predict(rows)
        assert found["label"].tolist() == ["green", "red", "blue"]
        np.testing.assert_allclose(found["scores"], expected, atol=1e-6)


def test_more_pictures_than_are_decoded_at_once(colours, pictures):
    found = colours.predict([*pictures, None] * 10)
    assert found["label"].tolist() == ["green", "red", "blue", ""] * 10
    assert np.isnan(found["score"][3::4]).all()
    assert np.isnan(found["scores"]).any(axis=1).sum() == 10


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.zeros((8, 8), np.uint8), "expected a BGR picture, uint8 of shape (height, width, 3)"),
        (np.zeros((8, 8, 4), np.uint8), "and got uint8 (8, 8, 4)"),
        (np.zeros((8, 8, 3)), "and got float64 (8, 8, 3)"),
        ("nowhere.png", "nowhere.png: can't be read (No such file or directory)"),
        (b"GIF", "not a picture that can be read"),
    ],
)
def test_a_picture_that_is_none_is_one_line(colours, pictures, row, message):
    with pytest.raises(RowError, match=re.escape(message)) as caught:
        colours.predict([pictures[0], row])
    assert str(caught.value).startswith("row 1: ")
    assert caught.value.rows == (1,)


def test_a_bare_picture_is_one_line(colours, pictures):
    with pytest.raises(InputError, match="takes a list of pictures, not one"):
        colours.predict(pictures[0])
    with pytest.raises(InputError, match="takes a list of rows, not one"):
        colours.predict("a.png")


def test_objects_on_pictures(tflite_models, pictures):
    model = load_model(str(tflite_models / "tf1_order.tflite"), threads=1)
    with pytest.raises(ConfigError, match="all_scores: tf1_order does not have one score"):
        model.predict_frame(pictures, all_scores=True)
    assert list(model.predict_frame(pictures).columns) == ["boxes", "label", "score"]
    found = model.predict([pictures[0], None])
    expected = model.predict_columns({"image": pictures[0][None]})
    assert list(found["label"][0]) == list(expected["label"][0])
    np.testing.assert_allclose(found["boxes"][0], expected["boxes"][0], atol=1e-6)
    assert [found[name][1] for name in ("label", "score", "boxes")] == [None] * 3


# ---------------------------------------------------------------- no rows, one row, many


@pytest.mark.parametrize("model", ["text", "churn", "unnamed", "per_feature", "colours"])
def test_no_rows_are_empty_columns(request, model):
    model = request.getfixturevalue(model)
    some = {one.name: np.zeros((0, *map(abs, one.shape))) for one in model.task.inputs}
    for rows in (some, []):
        found = model.predict(rows)
        assert list(found) == [one.name for one in model.task.outputs]
        assert {name: len(array) for name, array in found.items()} == dict.fromkeys(found, 0)
        assert found["label"].dtype == object
        assert found["score"].dtype == np.float32
        assert found["scores"].shape == (0, len(model.task.labels))
    assert list(model.predict_frame([]).columns)[:2] == ["label", "score"]


def test_no_columns_of_a_strategy_are_empty_columns(text):
    found = text.predict_columns({"text": objects([])})
    assert {name: len(array) for name, array in found.items()} == dict.fromkeys(
        ("label", "score", "truncated", "scores"), 0
    )


def test_a_row_alone_is_the_row_among_others(text, reviews):
    texts = reviews(40)
    together = text.predict(texts)
    for row in (0, 17, 39):
        alone = text.predict(texts[row : row + 1])
        assert alone["label"][0] == together["label"][row]
        np.testing.assert_allclose(alone["scores"], take(together, [row])["scores"], atol=1e-5)


# ---------------------------------------------------------------- languages

GERMAN = "Das ist leider ein sehr schlechtes Produkt, ich bin enttäuscht."
ENGLISH, CHINESE = "Works like a charm, I would buy it again.", "太差了，再也不买了"


@pytest.fixture(scope="module")
def default():
    return load_model(runtime="onnxruntime", threads=1)


@pytest.mark.parametrize("method", ["predict", "predict_frame"])
def test_texts_that_a_model_does_not_read_are_one_warning_at_the_callers_line(method):
    model = load_model("sentiment", runtime="onnxruntime", threads=1)
    with pytest.warns(LanguageWarning) as warned:
        getattr(model, method)([GERMAN, ENGLISH, None, CHINESE, GERMAN])
    (warning,) = warned
    assert warning.filename == __file__
    assert str(warning.message) == (
        "sentiment: doesn't read 3 of 4 texts (2 de, 1 zh), so their labels mean little"
    )


def test_the_default_model_reads_each_text_in_its_language(default):
    found = default.predict([CHINESE, None, ENGLISH, "ok"])
    assert found["label"].tolist() == ["NEGATIVE", "", "POSITIVE", "POSITIVE"]
    assert list(found) == ["label", "score", "truncated", "scores"]
    with pytest.warns(LanguageWarning, match="doesn't read 1 of 2 texts"):
        default.predict([CHINESE, GERMAN])


def test_the_default_model_refuses_texts_most_of_which_it_does_not_read(default):
    with pytest.raises(InputError) as caught:
        default.predict([GERMAN, GERMAN, CHINESE])
    assert str(caught.value) == (
        "predict: 2 of 3 texts (67%) are in languages that the default model doesn't read: 2 de; "
        "it reads en, zh; name one that does with load_model, or "
        "load_model('sentiment,sentiment-zh') to score them all the same"
    )
    named = load_model("sentiment,sentiment-zh", runtime="onnxruntime", threads=1)
    with pytest.warns(LanguageWarning):
        assert len(named.predict([GERMAN])["label"]) == 1


def test_the_language_of_a_text_is_found_once(default, monkeypatch):
    asked = []
    find = by_language.languages_of
    monkeypatch.setattr(
        by_language, "languages_of", lambda texts: asked.extend(texts) or find(texts)
    )
    for module in (texts, model):
        monkeypatch.setattr(module, "languages_of", asked.extend)
    default.predict([ENGLISH, CHINESE])
    assert asked == [ENGLISH, CHINESE]


# ---------------------------------------------------------------- as batch


def compared(loaded, frame, path, score, **settings):
    """The same rows from a file, by batch, and from memory."""
    frame.to_csv(path, index=False)
    score(path, **settings)
    scored = pd.read_csv(
        path.with_name(f"{path.stem}.predictions.csv"), keep_default_na=False, dtype=str
    )
    found = loaded.predict(frame)
    assert scored["label"].tolist() == found["label"].tolist()
    score_of_file = pd.to_numeric(scored["score"], errors="coerce")
    np.testing.assert_allclose(score_of_file, found["score"], atol=1e-5)
    return found


def test_texts_are_scored_as_by_batch(text, reviews, score, tmp_path):
    texts = [*reviews(20), None, "", "  ", *reviews(3)]
    found = compared(text, pd.DataFrame({"text": texts}), tmp_path / "a.csv", score)
    assert (found["label"] == "").sum() == 3


def test_numbers_are_scored_as_by_batch(churn_onnx, per_feature_onnx, score, tmp_path):
    churn, per_feature = load(churn_onnx), load(per_feature_onnx)
    frame = pd.DataFrame({"spend": SPEND * 3, "age": [20, None, 60] * 3, "visits": VISITS * 3})
    found = compared(churn, frame, tmp_path / "a.csv", score, model=str(churn_onnx))
    assert (found["label"] == "").sum() == 3
    frame = frame.assign(age=[20.5] * 9, visits=[1, 2, None] * 3)
    found = compared(per_feature, frame, tmp_path / "b.csv", score, model=str(per_feature_onnx))
    assert (found["label"] == "").sum() == 3


# ---------------------------------------------------------------- frames and looks


def test_predict_frame_keeps_the_index(churn):
    frame = pd.DataFrame(TABLE, index=["a", "b", "c"])
    found = churn.predict_frame(frame)
    assert list(found.columns) == ["label", "score"]
    assert found["label"].to_dict() == {"a": "0", "b": "1", "c": "0"}
    assert list(frame.join(found).columns) == [*TABLE, "label", "score"]
    found = churn.predict_frame(frame, all_scores=True)
    np.testing.assert_allclose(found["score_1"], EXPECTED, atol=1e-6)


def test_predict_frame_of_a_series_of_texts(text):
    found = text.predict_frame(pd.Series([TEXTS[0], None], index=[4, 9]))
    assert list(found.columns) == ["label", "score", "truncated"]
    assert found.index.tolist() == [4, 9]
    assert found["label"].tolist() == [text.predict(TEXTS[:1])["label"][0], ""]


def test_predict_frame_without_pandas_is_one_line(churn, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'mlopsdeploy\[pandas\]'"):
        churn.predict_frame(TABLE)


def test_a_model_is_shown_in_one_line(churn):
    assert re.fullmatch(
        r"<Model churn: TabularClassification, onnxruntime float32, digest [0-9a-f]{12}>",
        repr(churn),
    )


# ---------------------------------------------------------------- arrays


class Echo:
    """A runtime that gives what it gets."""

    name, precision, streams, batch_scale = "echo", "float32", 1, 1

    def run(self, tensors):
        return tensors


def arrays(*inputs, **more):
    task = answering(*inputs, data="table", batch_cost=64, answers=(), **more)
    task.inputs = inputs
    task.encode = dict
    task.cost = lambda encoded: np.ones(rows_of(encoded), np.int64)
    task.collate = dict
    task.decode = lambda tensors, _: {
        one.name: tensors[one.name].astype("O" if one.dtype == "str" else one.dtype)
        for one in inputs
    }
    return model.Model("echo", "", "e" * 64, task, Echo())


WINDOW = Field("x", "float32", (2, 3))
ROWS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        ROWS.tolist(),
        list(ROWS),
        ROWS.reshape(2, 6),
        {"x": ROWS},
        {"x": ROWS.tolist()},
        pd.DataFrame({"x": ROWS.tolist()}),
        pd.DataFrame({"x": list(ROWS.reshape(2, 6))}),
        pd.DataFrame(ROWS.reshape(2, 6), columns=[f"x_{place}" for place in range(6)]),
        [{"x": row} for row in ROWS.tolist()],
        pa.table({"x": ROWS.tolist()}),
    ],
)
def test_arrays_of_a_row(rows):
    found = arrays(WINDOW).predict(rows)["x"]
    assert found.tolist() == ROWS.tolist()
    assert found.dtype == np.float32


def test_arrays_in_a_frame():
    frame = arrays(WINDOW, Field("n", "int64")).predict_frame({"x": ROWS, "n": [2**60 + 1, 5]})
    assert frame["x"][1].tolist() == ROWS[1].tolist()
    assert frame["n"].tolist() == [2**60 + 1, 5]


@pytest.mark.parametrize(
    ("inputs", "rows", "problem"),
    [
        ([WINDOW], [[1, 2]], "row 0 has 2 values, but the model takes a shape of (2, 3)"),
        ([WINDOW], {"y": [1]}, "takes 6 numbers a row (2×3) as 'x'"),
        (
            [Field("n", "int8")],
            {"n": [1, 200]},
            "row 1, column 'n': 200 is not a whole number from",
        ),
        ([Field("n", "int64")], {"n": [1, 2.5]}, "row 1, column 'n': 2.5 is not a whole number"),
        ([Field("ok", "bool")], {"ok": [True, 3]}, "row 1, column 'ok': 3 is not true or false"),
        ([Field("n", "int64")], {"n": [1, None]}, "row 1 lacks a value"),
    ],
)
def test_what_an_array_or_a_type_does_not_hold(inputs, rows, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        arrays(*inputs).predict(rows)
