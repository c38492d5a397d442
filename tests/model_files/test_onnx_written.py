"""What is read in `.onnx` files: how outputs are made, the classes and their order, the purpose."""

import json
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, PoissonRegressor
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM

from mlopsdeploy.columns import Made
from mlopsdeploy.errors import DoubtError, ModelError
from mlopsdeploy.model_files import onnx_written

# Of scikit-learn and skl2onnx, about few rounds and options that a model has no use for.
pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
TWO = np.where(X[:, 0] > 0, "yes", "no")
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
SEVERAL = np.stack([X[:, 0] > 0, X[:, 1] > 0.5, X[:, 2] > 0], 1).astype(int)
OPSETS = {"": 15, "ai.onnx.ml": 3}


def kinds(written):
    return {name: made.kind for name, made in written.outputs.items()}


def read(model, path, **options):
    path.write_bytes(model.SerializeToString())
    return onnx_written.read(path, **options)


@pytest.fixture
def converted(tmp_path):
    def convert(estimator, target=None, **options):
        estimator.fit(X) if target is None else estimator.fit(X, target)
        model = to_onnx(estimator, X[:1], options=options or None, target_opset=OPSETS)
        return read(model, tmp_path / "model.onnx")

    return convert


CLASSIFIERS = {
    "forest": RandomForestClassifier(3, max_depth=3),
    "logistic": LogisticRegression(),
    "bayes": GaussianNB(),
    "neighbours": KNeighborsClassifier(),
    "calibrated": CalibratedClassifierCV(LinearSVC(), cv=2),
    "network": MLPClassifier((4,), max_iter=20),
    "SVC": SVC(probability=True),
    "one by one": OneVsRestClassifier(LogisticRegression()),
    "in a pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_probabilities_of_classes(converted, name, target):
    written = converted(CLASSIFIERS[name], target)
    assert kinds(written) == {"output_label": "label", "output_probability": "softmax"}
    names = tuple(str(one) for one in np.unique(target))
    assert written.classes == {"output_label": names, "output_probability": names}
    assert written.task == "classification"
    assert written.outputs["output_probability"].source.startswith("the last operator, ")


@pytest.mark.parametrize(
    "model", [SVC(), LinearSVC(), Perceptron()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_decision_values_are_no_probabilities(converted, model, target):
    written = converted(model, target)
    assert sorted(kinds(written).values()) == ["label", "values"]
    assert list(written.classes.values()) == [tuple(str(one) for one in np.unique(target))]
    assert "not shown to be probabilities" in next(
        m.source for m in written.outputs.values() if m.kind == "values"
    )


def test_raw_scores_are_no_probabilities(converted):
    written = converted(LogisticRegression(), THREE, raw_scores=True)
    assert kinds(written)["output_probability"] == "values"


def test_several_labels_a_row(converted):
    for model in (OneVsRestClassifier(LogisticRegression()), MLPClassifier((4,), max_iter=500)):
        written = converted(model, SEVERAL)
        assert kinds(written) == {"output_label": "label", "output_probability": "sigmoid"}
        assert written.classes == {"output_probability": ("0", "1", "2")}


def test_several_answers_a_row(converted):
    target = np.stack([TWO, THREE.astype(str)], 1)
    written = converted(MultiOutputClassifier(RandomForestClassifier(2, max_depth=2)), target)
    assert kinds(written) == {
        "label": "label", "probabilities_0": "softmax", "probabilities_1": "softmax"
    }  # fmt: skip
    assert written.classes == {"probabilities_0": ("no", "yes"), "probabilities_1": ("0", "1", "2")}


def test_an_output_for_each_class(converted):
    written = converted(RandomForestClassifier(2, max_depth=2), TWO, zipmap="columns")
    assert written.classes == {"output_label": ("no", "yes"), "sno": ("no",), "syes": ("yes",)}
    assert kinds(written) == {"output_label": "label", "sno": "softmax", "syes": "softmax"}


@pytest.mark.parametrize(
    "model",
    [LinearRegression(), RandomForestRegressor(2), KNeighborsRegressor(), PoissonRegressor()],
    ids=lambda model: type(model).__name__,
)
def test_regression(converted, model):
    written = converted(model, np.exp(X[:, 0]))
    assert (written.task, kinds(written), written.classes) == (
        "regression", {"variable": "values"}, {}
    )  # fmt: skip


def test_numbers_that_a_pipeline_ends_with_are_values(converted):
    written = converted(make_pipeline(StandardScaler(), PCA(2)))
    assert (written.task, kinds(written)) == ("", {"variable": "values"})


@pytest.mark.parametrize("first", [(), (StandardScaler(),)], ids=["alone", "in a pipeline"])
def test_clusters_and_outliers(converted, first):
    def written(model):
        found = converted(make_pipeline(*first, model) if first else model)
        assert found.classes == {}
        return found.task, kinds(found)

    assert written(KMeans(3, n_init=1)) == (
        "clustering", {"label": "label", "scores": "distances"}
    )  # fmt: skip
    for model in (IsolationForest(n_estimators=3), OneClassSVM(), LocalOutlierFactor(novelty=True)):
        assert written(model) == ("outliers", {"label": "label", "scores": "decision"})
    assert written(GaussianMixture(2))[1] == {"label": "label", "probabilities": "softmax"}


def boosted(library):
    if library == "lightgbm":
        import lightgbm
        from onnxmltools import convert_lightgbm as convert

        options = {"n_estimators": 3, "verbose": -1}
        return lightgbm.LGBMClassifier(**options), lightgbm.LGBMRegressor(**options), convert
    import xgboost
    from onnxmltools import convert_xgboost as convert

    return xgboost.XGBClassifier(n_estimators=3), xgboost.XGBRegressor(n_estimators=3), convert


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosted_trees(tmp_path, library):
    from onnxmltools.convert.common.data_types import FloatTensorType

    classifier, regressor, convert = boosted(library)
    types = [("x", FloatTensorType([None, 3]))]
    written = read(convert(classifier.fit(X, THREE), initial_types=types), tmp_path / "c.onnx")
    assert (written.task, kinds(written)) == (
        "classification", {"label": "label", "probabilities": "softmax"}
    )  # fmt: skip
    assert set(written.classes.values()) == {("0", "1", "2")}
    written = read(convert(regressor.fit(X, X[:, 0]), initial_types=types), tmp_path / "r.onnx")
    assert (written.task, list(kinds(written).values())) == ("regression", ["values"])
    assert written.task_source == "its TreeEnsembleRegressor"


def forest(
    path, after="SOFTMAX", names=("stay", "leave", "ask"), weights=(1.0, 2.0, -1.0), zip_=True
):
    """A tree of one leaf, of a library that writes classes in its own order."""
    count = len(weights)
    tree = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml",
        post_transform=after, classlabels_strings=list(names), class_ids=list(range(count)),
        class_nodeids=[0] * count, class_treeids=[0] * count, class_weights=list(weights),
        nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0], nodes_modes=["LEAF"],
        nodes_values=[0.0], nodes_truenodeids=[0], nodes_falsenodeids=[0], nodes_hitrates=[1.0],
        nodes_missing_value_tracks_true=[0],
    )  # fmt: skip
    zipped = helper.make_node(
        "ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=list(names)
    )
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    dicts = helper.make_value_info(
        "probabilities",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(
                TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
            )
        ),
    )
    plain = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, count])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(
        [tree, zipped] if zip_ else [tree], "trees", [x], [label, dicts if zip_ else plain]
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_classes_keep_the_order_of_their_probabilities(tmp_path):
    written = onnx_written.read(forest(tmp_path / "trees.onnx"))
    names = ("stay", "leave", "ask")
    assert written.classes == {"label": names, "probabilities": names}


def test_what_a_boosted_forest_adds_up_is_no_probability(tmp_path):
    written = onnx_written.read(forest(tmp_path / "trees.onnx", after="NONE"))
    assert kinds(written)["probabilities"] == "values"
    written = onnx_written.read(
        forest(tmp_path / "trees.onnx", after="NONE", weights=(0.25, 0.5, 0.25))
    )
    assert kinds(written)["probabilities"] == "softmax"


def graph(nodes, outputs, initializers=(), inputs=(("x", TensorProto.FLOAT, [None, 4]),), **more):
    """A model from nodes as `(operator, takes, gives, attributes)`."""
    made = [
        helper.make_node(kind, takes, gives, **options) for kind, takes, gives, options in nodes
    ]
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in initializers]
    described = [helper.make_tensor_value_info(*one) for one in inputs]
    given = [
        one if not isinstance(one, tuple) else helper.make_tensor_value_info(*one)
        for one in outputs
    ]
    model = helper.make_model(
        helper.make_graph(made, "g", described, given, constants),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more,
    )  # fmt: skip
    return onnx.checker.check_model(model) or model


W = np.ones((4, 2), np.float32)
ENDS = {
    "softmax": [("Softmax", ["h"], ["y"], {})],
    "sigmoid": [("Sigmoid", ["h"], ["y"], {})],
    "linear": [("Identity", ["h"], ["y"], {})],
    "values": [("Relu", ["h"], ["y"], {})],
    "logits": [("LogSoftmax", ["h"], ["y"], {})],
    "label": [("ArgMax", ["h"], ["y"], {"axis": 1})],
}


@pytest.mark.parametrize("kind", ENDS)
def test_ends_of_networks(tmp_path, kind):
    dtype = TensorProto.INT64 if kind == "label" else TensorProto.FLOAT
    nodes = [("MatMul", ["x", "w"], ["h"], {}), *ENDS[kind]]
    written = read(graph(nodes, [("y", dtype, ["n", "m"])], [("w", W)]), tmp_path / "m.onnx")
    operator = {"linear": "MatMul"}.get(kind, ENDS[kind][0][0])
    assert written.outputs == {"y": Made(kind, f"the last operator, {operator}")}


ARITHMETIC = {
    "an average of probabilities": ("softmax", [
        ("Softmax", ["h"], ["a"], {}), ("Softmax", ["x2"], ["b"], {}),
        ("Add", ["a", "b"], ["s"], {}), ("Div", ["s", "two"], ["y"], {}),
    ]),
    "stars from a sigmoid": ("values", [
        ("Sigmoid", ["h"], ["a"], {}), ("Mul", ["a", "two"], ["b"], {}),
        ("Add", ["b", "two"], ["y"], {}),
    ]),
    "scaled back": ("linear", [("Mul", ["h", "two"], ["a"], {}), ("Add", ["a", "two"], ["y"], {})]),
    "exp of log softmax": ("softmax", [
        ("LogSoftmax", ["h"], ["a"], {}), ("Exp", ["a"], ["y"], {}),
    ]),
    "log of softmax": ("logits", [("Softmax", ["h"], ["a"], {}), ("Log", ["a"], ["y"], {})]),
    "minus log softmax": ("", [("LogSoftmax", ["h"], ["a"], {}), ("Neg", ["a"], ["y"], {})]),
    "a sum of log softmaxes": ("", [
        ("LogSoftmax", ["h"], ["a"], {}), ("LogSoftmax", ["x2"], ["b"], {}),
        ("Add", ["a", "b"], ["y"], {}),
    ]),
    "a difference of log softmaxes": ("", [
        ("LogSoftmax", ["h"], ["a"], {}), ("LogSoftmax", ["x2"], ["b"], {}),
        ("Sub", ["a", "b"], ["y"], {}),
    ]),
    "two log softmaxes": ("", [
        ("LogSoftmax", ["h"], ["a"], {}), ("LogSoftmax", ["x2"], ["b"], {}),
        ("Concat", ["a", "b"], ["y"], {"axis": 1}),
    ]),
    "log softmax, cut": ("", [
        ("LogSoftmax", ["h"], ["a"], {}), ("Clip", ["a", "", "zero"], ["y"], {}),
    ]),
    "log of sigmoid": ("", [("Sigmoid", ["h"], ["a"], {}), ("Log", ["a"], ["y"], {})]),
    "exp of log of sigmoid": ("sigmoid", [
        ("Sigmoid", ["h"], ["a"], {}), ("Log", ["a"], ["b"], {}), ("Exp", ["b"], ["y"], {}),
    ]),
    "exp alone": ("values", [("Exp", ["h"], ["y"], {})]),
    "a multiple of probabilities": ("values", [
        ("Softmax", ["h"], ["a"], {}), ("Mul", ["a", "two"], ["y"], {}),
    ]),
    "p and 1 - p": ("softmax", [
        ("Sigmoid", ["h1"], ["p"], {}), ("Sub", ["one", "p"], ["q"], {}),
        ("Concat", ["q", "p"], ["y"], {"axis": 1}),
    ]),
    "two sides of one score": ("linear", [
        ("Neg", ["h1"], ["q"], {}), ("Concat", ["q", "h1"], ["y"], {"axis": 1}),
    ]),
    "softmax by hand": ("softmax", [
        ("Exp", ["h"], ["e"], {}), ("ReduceSum", ["e", "axis"], ["s"], {}),
        ("Div", ["e", "s"], ["y"], {}),
    ]),
    "by another's sum": ("values", [
        ("Exp", ["h"], ["e"], {}), ("Exp", ["x2"], ["f"], {}),
        ("ReduceSum", ["f", "axis"], ["s"], {}), ("Div", ["e", "s"], ["y"], {}),
    ]),
    "cut to 0 and 1": ("values", [("Clip", ["h", "zero", "one"], ["y"], {})]),
    "a residual": ("linear", [("Relu", ["x2"], ["a"], {}), ("Add", ["h", "a"], ["y"], {})]),
    "boxes beside scores": ("", [
        ("Sigmoid", ["h"], ["a"], {}), ("Concat", ["a", "x2"], ["y"], {"axis": 1}),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_after_the_end(tmp_path, name):
    kind, nodes = ARITHMETIC[name]
    constants = [
        ("w", W), ("w1", W[:, :1]), ("one", np.float32(1)), ("two", np.float32(2)),
        ("zero", np.float32(0)), ("axis", np.array([1])),
    ]  # fmt: skip
    first = [
        ("MatMul", ["x", "w"], ["h"], {}), ("MatMul", ["x", "w1"], ["h1"], {}),
        ("Identity", ["z"], ["x2"], {}),
    ]  # fmt: skip
    used = {value for _, takes, _, _ in nodes for value in takes}
    nodes = [*(one for one in first if one[2][0] in used), *nodes]
    used = {value for _, takes, _, _ in nodes for value in takes}
    constants = [one for one in constants if one[0] in used]
    inputs = [("x", TensorProto.FLOAT, [None, 4]), ("z", TensorProto.FLOAT, [None, 2])]
    model = graph(nodes, [("y", TensorProto.FLOAT, ["n", "m"])], constants, inputs)
    assert kinds(read(model, tmp_path / "m.onnx")) == {"y": kind}


PICKED = {
    "one of the probabilities": ("sigmoid", [("Gather", ["p", "last"], ["y"], {"axis": 1})]),
    "the first of the probabilities": ("", [("Gather", ["p", "zero"], ["y"], {"axis": 1})]),
    "two of the probabilities": ("", [("Gather", ["p", "places"], ["y"], {"axis": 1})]),
    "the first position's": ("softmax", [("Gather", ["p", "zero"], ["y"], {"axis": 2})]),
    "an axis that may be another": ("", [("Gather", ["p", "zero"], ["y"], {"axis": -1})]),
    "a mean over a map": ("softmax", [("GlobalAveragePool", ["p"], ["y"], {})]),
    "a mean over two axes": ("softmax", [("ReduceMean", ["p"], ["y"], {"axes": [2, 3]})]),
    "a mean over classes": ("", [("ReduceMean", ["p"], ["y"], {"axes": [1]})]),
    "the most over a map": ("", [("GlobalMaxPool", ["p"], ["y"], {})]),
}


@pytest.mark.parametrize("name", PICKED)
def test_a_part_or_a_mean_of_probabilities(tmp_path, name):
    kind, nodes = PICKED[name]
    numbers = {"last": np.array(1), "zero": np.array(0), "places": np.array([0, 1])}
    nodes = [("Softmax", ["x"], ["p"], {"axis": 1}), *nodes]
    constants = [(one, numbers[one]) for one in nodes[1][1] if one in numbers]
    inputs = [("x", TensorProto.FLOAT, [None, 3, 8, 8])]
    outputs = [("y", TensorProto.FLOAT, ["n", "m"])]
    written = read(graph(nodes, outputs, constants, inputs), tmp_path / "m.onnx")
    assert kinds(written) == {"y": kind}


@pytest.mark.parametrize("linear", ["Gemm", "MatMul"])
def test_the_second_column_of_a_softmax_is_the_second_class(tmp_path, linear):
    from mlopsdeploy import load_model

    nodes = [
        (linear, ["x", "w"], ["h"], {}), ("Softmax", ["h"], ["p"], {"axis": -1}),
        ("Gather", ["p", "one"], ["y"], {"axis": 1}),
    ]  # fmt: skip
    weights = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    constants = [("w", weights), ("one", np.array(1))]
    model = graph(nodes, [("y", TensorProto.FLOAT, [None])], constants)
    if linear == "MatMul":  # as exporters write it
        model.graph.value_info.append(
            helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])
        )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    rows = np.float32([[1, 0, 0, 1], [0, 2, 1, 0]])
    found = load_model(str(tmp_path / "m.onnx"), threads=1).predict(rows)
    expected = np.exp(rows @ weights)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
    assert found["label"].tolist() == expected.argmax(axis=1).astype(str).tolist()


class Logs(torch.nn.Module):
    """Log-probabilities of two classes, and what comes of them."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.end = torch.nn.Linear(4, 2), end

    def forward(self, rows):
        return self.end(torch.log_softmax(self.layer(rows), -1))


LOGS = {
    "whole": ("softmax", lambda logs: logs.exp()),
    "second": ("sigmoid", lambda logs: logs[:, 1].exp()),
    "second kept": ("sigmoid", lambda logs: logs[:, 1:2].exp()),
    "first": ("", lambda logs: logs[:, 0].exp()),
    "what is left of the second": ("", lambda logs: 1 - logs[:, 1].exp()),
    "logs": ("logits", lambda logs: logs),
    "log of the second": ("", lambda logs: logs[:, 1]),
}


@pytest.mark.parametrize("name", LOGS)
def test_log_probabilities_of_pytorch(tmp_path, name):
    from mlopsdeploy import load_model

    kind, end = LOGS[name]
    module = Logs(end).eval()
    rows = torch.tensor([[1.0, 0, 0, 1], [0, -2, 1, 0], [-3, 1, 4, 0]])
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        module, (rows,), str(path), input_names=["rows"], output_names=["y"], dynamo=False,
        dynamic_axes={"rows": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip
    assert kinds(onnx_written.read(path)) == {"y": kind}
    if not kind:
        with pytest.raises(DoubtError):
            load_model(str(path), threads=1)
        return
    found = load_model(str(path), threads=1).predict(rows.numpy())
    with torch.no_grad():
        right = torch.softmax(module.layer(rows), -1).numpy()
    np.testing.assert_allclose(found["scores"], right, rtol=1e-4)
    assert found["label"].tolist() == right.argmax(axis=1).astype(str).tolist()


@pytest.mark.parametrize("edge", [0, 2])
def test_a_logit_and_its_side_are_no_outliers(tmp_path, edge):
    nodes = [
        ("MatMul", ["x", "w"], ["logit"], {}), ("Greater", ["logit", "t"], ["b"], {}),
        ("Cast", ["b"], ["pred"], {"to": TensorProto.INT64}),
    ]  # fmt: skip
    outputs = [
        ("logit", TensorProto.FLOAT, [None, 2]), ("pred", TensorProto.INT64, [None, 2])
    ]  # fmt: skip
    constants = [("w", W), ("t", np.float32(edge))]
    written = read(graph(nodes, outputs, constants), tmp_path / "m.onnx")
    assert (written.task, kinds(written)["pred"]) == ("", "label")


def test_a_name_that_says_logits(tmp_path):
    for name, kind in (("logits", "logits"), ("class_logits", "logits"), ("mylogits2", "linear")):
        nodes = [("MatMul", ["x", "w"], [name], {})]
        model = graph(nodes, [(name, TensorProto.FLOAT, [None, 2])], [("w", W)])
        assert kinds(read(model, tmp_path / "m.onnx")) == {name: kind}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("classes", json.dumps(["cat", "dog"])),
        ("names", "{0: 'cat', 1: 'dog'}"),
        ("names", json.dumps({"1": "dog", "0": "cat"})),
    ],
)
def test_names_that_the_author_wrote_beside(tmp_path, key, text):
    model = graph(
        [("MatMul", ["x", "w"], ["y"], {})], [("y", TensorProto.FLOAT, [None, 2])], [("w", W)]
    )
    helper.set_model_props(model, {key: text, "feature_names": "a, b,c,d"})
    written = read(model, tmp_path / "m.onnx")
    assert written.classes == {"y": ("cat", "dog")}
    assert written.features == ("a", "b", "c", "d")
    helper.set_model_props(model, {key: "an author's word for something else"})
    assert read(model, tmp_path / "m.onnx").classes == {}


def test_tables_and_what_draws_at_random(tmp_path):
    nodes = [
        ("Cast", ["x"], ["i"], {"to": TensorProto.INT64}),
        ("Gather", ["table", "i"], ["y"], {}),
    ]
    table = [("table", np.ones((7, 2), np.float32))]
    written = read(graph(nodes, [("y", TensorProto.FLOAT, ["n", "m"])], table), tmp_path / "m.onnx")
    assert (written.sizes, written.changing) == ({"x": 7}, "")
    noise = [("RandomNormalLike", ["x"], ["r"], {}), ("Add", ["x", "r"], ["y"], {})]
    written = read(graph(noise, [("y", TensorProto.FLOAT, ["n", "m"])]), tmp_path / "m.onnx")
    assert written.changing == "it draws at random (RandomNormalLike)"


PIXELS = {
    "raw": ([("Mul", 1 / 255)], 1.0),
    "raw, to -1 and 1": ([("Sub", 127.5), ("Div", 127.5)], 1.0),
    "raw, per channel": ([("Sub", [123.7, 116.3, 103.5]), ("Div", [58.4, 57.1, 57.4])], 1.0),
    "raw, BGR": ([("Sub", [103.939, 116.779, 123.68])], 1.0),
    "0 to 1": ([("Mul", 2.0), ("Sub", 1.0)], 255.0),
    "0 to 1, per channel": (
        [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])],
        255.0,
    ),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_that_the_graph_begins_with(tmp_path, name):
    steps, std = PIXELS[name]
    constants = [
        (f"c{place}", np.float32(number).reshape(-1, 1, 1))
        for place, (_, number) in enumerate(steps)
    ]
    nodes = [
        (kind, [f"x{place}" if place else "x", f"c{place}"], [f"x{place + 1}"], {})
        for place, (kind, _) in enumerate(steps)
    ]
    nodes.append(("Relu", [f"x{len(steps)}"], ["y"], {}))
    inputs = [("x", TensorProto.FLOAT, [None, 3, 8, 8])]
    model = graph(nodes, [("y", TensorProto.FLOAT, ["n", 3, 8, 8])], constants, inputs)
    why = f"the graph itself begins with {' and '.join(kind for kind, _ in steps)}"
    written = read(model, tmp_path / "m.onnx")
    assert (written.pixels, written.color) == (
        ((0.0,), (std,), why), "bgr" if "BGR" in name else ""
    )  # fmt: skip


def test_exports_of_ultralytics(tmp_path):
    from mlopsdeploy.model_files.resolve import find_model

    model = graph(
        [("MatMul", ["x", "w"], ["y"], {})], [("y", TensorProto.FLOAT, ["n", 2])], [("w", W)]
    )
    helper.set_model_props(
        model,
        {"task": "detect", "stride": "32", "imgsz": "[640, 480]", "names": "{0: 'cat', 1: 'dog'}"},
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    files = find_model(str(tmp_path / "m.onnx"))
    assert (files.task, files.labels) == ("object_detection", ("cat", "dog"))
    assert files.metadata["size"] == (640, 480)


@pytest.mark.parametrize("task", ["obb", "pose", "segment"])
def test_other_tasks_of_ultralytics_are_named(tmp_path, task):
    from mlopsdeploy import load_model

    model = graph(
        [("MatMul", ["x", "w"], ["y"], {})], [("y", TensorProto.FLOAT, ["n", 2])], [("w", W)]
    )
    said = {"task": task, "stride": "32", "imgsz": "[64, 64]", "names": "{0: 'cat', 1: 'dog'}"}
    helper.set_model_props(model, said)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"Ultralytics' task '{task}'.*'task: tensors'"):
        load_model(str(tmp_path / "m.onnx"), threads=1)
    if task == "obb":  # whose boxes would be read without their angle
        with pytest.raises(ModelError, match="Ultralytics' task 'obb'.*'task: tensors'"):
            load_model(str(tmp_path / "m.onnx"), threads=1, task="object_detection")
    (tmp_path / "m.yaml").write_text("task: tensors\n")
    assert load_model(str(tmp_path / "m.onnx"), threads=1).predict(X[:1, [0, 0, 0, 0]])


def test_what_catboost_leaves_out_is_not_taken_for_probabilities(tmp_path):
    path = forest(tmp_path / "trees.onnx")
    model = onnx.load(path)
    model.producer_name = "CatBoost 1.2"
    helper.set_model_props(
        model,
        {"params": json.dumps({"loss_function": {"type": "MultiLogloss"}}, separators=(",", ":"))},
    )
    assert kinds(read(model, path)) == {"label": "label", "probabilities": ""}


def test_files_that_are_none(tmp_path):
    whole = forest(tmp_path / "whole.onnx").read_bytes()
    draw = np.random.default_rng(0)
    broken = [
        b"", b"\x08\x08", b"PK\x03\x04" * 9,
        *(whole[:place] for place in range(1, len(whole), 7)),
        *(draw.bytes(300) for _ in range(50)),
    ]  # fmt: skip
    path = tmp_path / "broken.onnx"
    refused = 0
    for content in broken:
        path.write_bytes(content)
        try:
            onnx_written.read(path)
        except ModelError as error:
            assert re.fullmatch(
                r"\S+broken\.onnx: not an ONNX file, or cut off; fetch it again", str(error)
            )
            refused += 1
    assert refused > len(broken) * 0.9  # a message may end where it is cut
