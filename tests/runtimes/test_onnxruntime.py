"""What `.onnx` files need of ONNX Runtime and OpenVINO: rows, names, types, missing values."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mlopsdeploy.columns import objects
from mlopsdeploy.errors import ModelError, RowError
from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime
from mlopsdeploy.runtimes.openvino import OpenVino

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(80, 3)).astype(np.float32)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
OPSETS = {"": 15, "ai.onnx.ml": 3}

pytestmark = pytest.mark.filterwarnings("ignore:Option zipmap is ignored")


@pytest.fixture
def opened(tmp_path):
    def open_(model, runtime=OnnxRuntime):
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        return runtime(tmp_path / "m.onnx", precision="float32")

    return open_


@pytest.fixture(params=[OnnxRuntime, OpenVino], ids=["onnxruntime", "openvino"])
def either(request, opened):
    return lambda model: opened(model, request.param)


def graph(nodes, inputs, outputs, constants=()):
    made = [helper.make_node(kind, takes, gives, **more) for kind, takes, gives, more in nodes]
    return helper.make_model(
        helper.make_graph(
            made, "g",
            [helper.make_tensor_value_info(*one) for one in inputs],
            [helper.make_tensor_value_info(*one) for one in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip


def test_dicts_are_arrays_in_the_order_of_the_classes(opened):
    model = to_onnx(LogisticRegression().fit(X, THREE), X[:1], target_opset=OPSETS)
    runtime = opened(model)
    assert [(one.name, one.shape) for one in runtime.outputs] == [
        ("output_label", ()), ("output_probability", (3,))
    ]  # fmt: skip
    expected = LogisticRegression().fit(X, THREE).predict_proba(X)
    np.testing.assert_allclose(runtime.run({"X": X})["output_probability"], expected, atol=1e-6)


def unsorted(names):
    """A tree of two leaves whose classes have these names, as CatBoost may write it."""
    kind = "strings" if isinstance(names[0], str) else "int64s"
    named = {f"classlabels_{kind}": list(names)}
    tree = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", **named,
        post_transform="LOGISTIC", class_ids=[0, 1, 0, 1], class_nodeids=[1, 1, 2, 2],
        class_treeids=[0] * 4, class_weights=[-2.0, 2.0, 2.0, -2.0], nodes_treeids=[0] * 3,
        nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3, nodes_values=[0.0] * 3,
        nodes_modes=["BRANCH_GT", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0], nodes_hitrates=[1.0] * 3,
        nodes_missing_value_tracks_true=[0] * 3,
    )  # fmt: skip
    zipped = helper.make_node("ZipMap", ["p"], ["dicts"], domain="ai.onnx.ml", **named)
    key = TensorProto.STRING if kind == "strings" else INT64
    dicts = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    return helper.make_model(
        helper.make_graph(
            [tree, zipped], "trees", [helper.make_tensor_value_info("x", FLOAT, ["n", 1])],
            [
                helper.make_tensor_value_info("label", key, ["n"]),
                helper.make_value_info("dicts", helper.make_sequence_type_proto(dicts)),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8, producer_name="CatBoost",
    )  # fmt: skip


@pytest.mark.parametrize("names", [("stay", "leave"), (5, 2), (1, 0), (1, 2), (-1, 1)])
def test_label_and_largest_probability_agree_for_unsorted_classes(opened, names):
    found = opened(unsorted(names)).run({"x": np.array([[1.0], [-1.0]], np.float32)})
    assert found["label"].tolist() == [names[1], names[0]]
    assert found["dicts"].argmax(axis=1).tolist() == [1, 0]


def test_several_answers_and_float64(opened):
    target = np.stack([THREE > 0, THREE], 1).astype(int)
    model = MultiOutputClassifier(RandomForestClassifier(2, max_depth=2)).fit(X, target)
    found = opened(to_onnx(model, X[:1], target_opset=OPSETS)).run({"X": X})
    for place, expected in enumerate(model.predict_proba(X)):
        np.testing.assert_allclose(found[f"probabilities_{place}"], expected, atol=1e-6)
    wide = X.astype(np.float64)
    for model in (DecisionTreeClassifier(), LogisticRegression()):
        types = [("X", DoubleTensorType([None, 3]))]
        converted = convert_sklearn(model.fit(wide, THREE), initial_types=types)
        found = opened(converted).run({"X": wide})["output_probability"]
        np.testing.assert_allclose(found, model.predict_proba(wide), atol=1e-6)


def test_a_classifier_of_several_labels_has_its_rows_first(opened):
    target = np.stack([THREE > 0, THREE > 1], 1).astype(int)
    model = KNeighborsClassifier().fit(X, target)
    runtime = opened(to_onnx(model, X[:1], target_opset=OPSETS))
    for rows in (1, 2, 5):
        found = runtime.run({"X": X[:rows]})["output_probability"]
        np.testing.assert_allclose(found, np.stack(model.predict_proba(X[:rows]), 1), atol=1e-6)


def test_a_locale_that_is_missing(opened):
    texts = ["Good film", "BAD film", "great", "AWFUL"] * 3
    vectors = TfidfVectorizer(token_pattern="[a-z]+")
    model = make_pipeline(vectors, LogisticRegression()).fit(texts, [1, 0, 1, 0] * 3)
    converted = convert_sklearn(model, initial_types=[("text", StringTensorType([None, 1]))])
    found = opened(converted).run({"text": objects(texts).reshape(-1, 1)})["output_probability"]
    np.testing.assert_allclose(found, model.predict_proba(texts), atol=1e-6)


def test_a_fixed_number_of_rows(either):
    for fixed in (1, 4):
        model = graph(
            [("Mul", ["x", "two"], ["y"], {})], [("x", FLOAT, [fixed, 3])],
            [("y", FLOAT, [fixed, 3])], [("two", np.float32(2))],
        )  # fmt: skip
        runtime = either(model)
        for rows in (0, 1, 4, 9):
            np.testing.assert_array_equal(runtime.run({"x": X[:rows]})["y"], X[:rows] * 2)


def test_all_of_an_output_belongs_to_the_one_row(either):
    model = graph(
        [("Squeeze", ["x", "first"], ["y"], {})], [("x", FLOAT, [1, 5, 3])],
        [("y", FLOAT, [5, 3])], [("first", np.array([0]))],
    )  # fmt: skip
    runtime = either(model)
    rows = DRAW.normal(size=(6, 5, 3)).astype(np.float32)
    assert runtime.outputs[0].shape == (5, 3)
    np.testing.assert_array_equal(runtime.run({"x": rows})["y"], rows)


@pytest.mark.parametrize("name", ["rows", None])
def test_rows_that_are_not_the_first_axis(either, name):
    model = graph(
        [("Transpose", ["x"], ["y"], {"perm": [1, 0]})], [("x", FLOAT, [name, 3])],
        [("y", FLOAT, [3, name])],
    )  # fmt: skip
    runtime = either(model)
    assert runtime.outputs[0].shape == (3,)
    for rows in (1, 3, 5):
        np.testing.assert_array_equal(runtime.run({"x": X[:rows]})["y"], X[:rows])


def test_an_output_without_rows(either):
    model = graph(
        [("ReduceSum", ["x", "first"], ["y"], {"keepdims": 0})], [("x", FLOAT, ["n", 3])],
        [("y", FLOAT, [3])], [("first", np.array([0]))],
    )  # fmt: skip
    runtime = either(model)
    for rows in (2, 3):
        with pytest.raises(ModelError, match=r"output 'y' has the shape \(3,\) for \d rows"):
            runtime.run({"x": X[:rows]})


def test_an_input_without_rows(either):
    model = graph([("Identity", ["x"], ["y"], {})], [("x", FLOAT, [4])], [("y", FLOAT, [4])])
    with pytest.raises(ModelError, match="input 'x' takes 4 numbers and has no axis for rows"):
        either(model)


def test_a_number_for_each_row_and_inputs_of_several_types(either):
    model = graph(
        [
            ("Cast", ["flag"], ["f"], {"to": FLOAT}), ("Cast", ["count"], ["c"], {"to": FLOAT}),
            ("Cast", ["wide"], ["w"], {"to": FLOAT}), ("Add", ["f", "c"], ["s"], {}),
            ("Add", ["s", "w"], ["y"], {}),
        ],
        [("flag", TensorProto.BOOL, ["n"]), ("count", INT64, ["n"]),
         ("wide", TensorProto.DOUBLE, ["n"])],
        [("y", FLOAT, ["n"])],
    )  # fmt: skip
    runtime = either(model)
    columns = {"flag": np.array([0.0, 1.0]), "count": np.array([3.0, 4.0]), "wide": X[:2, 0]}
    np.testing.assert_allclose(runtime.run(columns)["y"], [3, 5] + X[:2, 0], rtol=1e-6)
    with pytest.raises(RowError, match="flag: holds what is neither 0 nor 1") as raised:
        runtime.run({**columns, "flag": np.array([0.0, np.nan])})
    assert raised.value.rows == (1,)


def test_another_width_than_the_constants_have(either):
    model = graph(
        [("Sub", ["x", "mean"], ["d"], {}), ("MatMul", ["d", "w"], ["y"], {})],
        [("x", FLOAT, ["n", "m"])], [("y", FLOAT, ["n", 2])],
        [("mean", np.ones((1, 65), np.float32)), ("w", np.ones((65, 2), np.float32))],
    )  # fmt: skip
    runtime = either(model)
    with pytest.raises(RowError):
        runtime.run({"x": X})
    rows = DRAW.normal(size=(4, 65)).astype(np.float32)
    expected = np.repeat((rows - 1).sum(axis=1, keepdims=True), 2, axis=1)
    np.testing.assert_allclose(runtime.run({"x": rows})["y"], expected, atol=1e-3)


def test_one_tensor_under_two_names(either):
    model = graph(
        [("Relu", ["x"], ["y"], {}), ("Identity", ["y"], ["also"], {})],
        [("x", FLOAT, ["n", 3])], [("also", FLOAT, ["n", 3]), ("y", FLOAT, ["n", 3])],
    )  # fmt: skip
    found = either(model).run({"x": X})
    assert list(found) == ["also", "y"]
    np.testing.assert_array_equal(found["also"], found["y"])


ODD = np.array([[1, 2, 3], [1, np.nan, 3], [1, np.inf, 3]], np.float32)


def test_rows_that_no_rule_is_for_are_set_aside(either):
    model = graph(
        [("ReduceMax", ["x"], ["y"], {"axes": [1]})], [("x", FLOAT, ["n", 3])],
        [("y", FLOAT, ["n", 1])],
    )  # fmt: skip
    assert np.isnan(either(model).run({"x": ODD})["y"]).ravel().tolist() == [False, True, True]


def test_labels_alone_can_not_be_missing(either):
    model = graph(
        [("ArgMax", ["x"], ["y"], {"axis": 1, "keepdims": 0})], [("x", FLOAT, ["n", 3])],
        [("y", INT64, ["n"])],
    )  # fmt: skip
    with pytest.raises(RowError, match="missing") as raised:
        either(model).run({"x": ODD})
    assert raised.value.rows == (1, 2)


def test_trees_of_scikit_learn_have_no_rule_for_missing_values_in_onnx(opened):
    holes = X.copy()
    holes[::4, 1] = np.nan
    model = RandomForestClassifier(5, random_state=0).fit(holes, THREE)
    found = opened(to_onnx(model, X[:1], target_opset=OPSETS)).run({"X": holes})
    missing = np.isnan(holes).any(axis=1)
    np.testing.assert_array_equal(np.isnan(found["output_probability"]).all(axis=1), missing)
    expected = model.predict_proba(holes[~missing])
    np.testing.assert_allclose(found["output_probability"][~missing], expected, atol=1e-6)


@pytest.mark.parametrize("holes_in_training", [False, True])
def test_boosted_trees_keep_their_own_rule(opened, holes_in_training):
    import lightgbm
    import xgboost
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    holes = X.copy()
    holes[DRAW.random(X.shape) < 0.2] = np.nan
    trained = holes if holes_in_training else X
    types = [("x", FloatTensorType([None, 3]))]
    for model, convert in (
        (xgboost.XGBRegressor(n_estimators=5), convert_xgboost),
        (lightgbm.LGBMRegressor(n_estimators=5, min_child_samples=5, verbose=-1), convert_lightgbm),
    ):
        model.fit(trained, X[:, 0])
        (found,) = opened(convert(model, initial_types=types)).run({"x": holes}).values()
        np.testing.assert_allclose(found.ravel(), model.predict(holes), atol=1e-5)


HOLE, ENDLESS = [np.nan, 0, 0], [0, np.inf, 0]
# Which have an answer: a hole in the first column, in the last one, an infinite number.
IMPUTERS = {
    "all columns": (SimpleImputer(), [True, True, False]),
    "some columns": (
        ColumnTransformer([("a", SimpleImputer(), [0, 1]), ("b", "passthrough", [2])]),
        [False, False, False],
    ),
}


@pytest.mark.parametrize("name", IMPUTERS)
def test_an_imputer_covers_what_goes_through_it_alone(opened, name):
    first, answered = IMPUTERS[name]
    model = make_pipeline(first, LogisticRegression()).fit(X, THREE)
    runtime = opened(to_onnx(model, X[:1], target_opset=OPSETS))
    rows = np.array([HOLE, HOLE[::-1], ENDLESS], np.float32)
    found = runtime.run({"X": rows})["output_probability"]
    assert np.isfinite(found).all(axis=1).tolist() == answered
    assert ("Imputer" in runtime.missing_values) == answered[0]


def test_dicts_with_weights_in_another_file(tmp_path):
    model = graph(
        [
            ("MatMul", ["x", "w"], ["h"], {}), ("Softmax", ["h"], ["p"], {}),
            ("ZipMap", ["p"], ["y"], {"domain": "ai.onnx.ml", "classlabels_int64s": [4, 7, 9]}),
        ],
        [("x", FLOAT, ["n", 3])], [("p", FLOAT, ["n", 3])],
        [("w", np.eye(3, dtype=np.float32))],
    )  # fmt: skip
    dicts = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None))
    kind = helper.make_sequence_type_proto(dicts)
    model.graph.output[0].CopyFrom(helper.make_value_info("y", kind))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (found,) = OnnxRuntime(tmp_path / "m.onnx").run({"x": np.eye(3, dtype=np.float32)}).values()
    assert found.shape == (3, 3)
    assert found.argmax(axis=1).tolist() == [0, 1, 2]


def test_decision_values_stay_as_they_are(opened):
    model = LinearSVC().fit(X, THREE)
    found = opened(to_onnx(model, X[:1], target_opset=OPSETS)).run({"X": X})
    np.testing.assert_allclose(found["probabilities"], model.decision_function(X), atol=1e-5)


def test_files_that_can_not_be_opened(either, tmp_path):
    model = graph([("Identity", ["x"], ["y"], {})], [("x", FLOAT, [4])], [("y", FLOAT, [4])])
    whole = model.SerializeToString()
    for content in (b"", b"no model at all", whole[: len(whole) // 2], DRAW.bytes(400)):
        (tmp_path / "m.onnx").write_bytes(content)
        for runtime in (OnnxRuntime, OpenVino):
            with pytest.raises(ModelError) as raised:
                runtime(tmp_path / "m.onnx", precision="float32")
            assert "\n" not in str(raised.value)
    model.graph.node[0].op_type = "AnOperatorOfNobody"
    with pytest.raises(ModelError, match="AnOperatorOfNobody"):
        either(model)
    onnx.checker.check_model(unsorted(("a", "b")))
