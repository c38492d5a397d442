"""A Keras model or SavedModel is compiled once, with a proof, and without its author's code."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlopsdeploy.convert import child
from mlopsdeploy.convert import from_keras as keras
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.runtimes.litert import LiteRT
from mlopsdeploy.runtimes.tensorflow import TensorFlow


@pytest.fixture(scope="session")
def made(once_by):
    """The folder that keras_models.py fills, in one process for all tests."""
    return once_by(Path(__file__).with_name("keras_models.py"))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))


@pytest.fixture
def no_child(monkeypatch):
    """What is called in this test may not start a process."""

    def run(*arguments, env):
        raise AssertionError("a child was started")

    monkeypatch.setattr(child, "run", run)


def told(made, name):
    return json.loads((made / "told.json").read_text("utf-8"))[name]


def proof_of(made, name):
    return json.loads((made / "compiled" / name / "parity.json").read_text("utf-8"))


def answers_of(made, name):
    """Inputs and the original's outputs, by name; an empty name is the only one."""
    with np.load(made / "answers" / f"{name}.npz") as saved:
        parts = {key: saved[key] for key in saved.files}
    return tuple(
        {key.partition(":")[2]: value for key, value in parts.items() if key.startswith(side)}
        for side in ("in:", "out:")
    )


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("fraud", {"transaction": (6,)}, {"fraud": (1,)}),
        ("fraud_h5", {"transaction": (6,)}, {"fraud": (1,)}),
        ("two", {"Amount": (3,), "kind": (2,)}, {"risk": (1,), "group": (3,)}),
        ("lstm", {"series": (-1, 3)}, {"trend": (2,)}),
        ("ids", {"ids": (4,)}, {"said": (1,)}),
        ("users", {"user": (1,)}, {"liked": (1,)}),
        ("flag", {"amount": (2,), "sure": (1,)}, {"answer": (1,)}),
        ("picture", {"picture": (-1, -1, 3)}, {"animal": (3,)}),
        ("operations", {"rows": (3,)}, {"out": (2,)}),
        ("early", {"dense_input": (3,)}, {"out": (2,)}),
        ("gates_h5", {"lstm_input": (5, 3)}, {"trend": (2,)}),
        ("gates_keras", {"lstm_input": (5, 3)}, {"trend": (2,)}),
    ],
)
def test_litert_answers_as_keras_does_under_the_authors_names(made, name, inputs, outputs):
    runtime = LiteRT(made / "compiled" / name / "model.tflite")
    assert {field.name: field.shape for field in runtime.inputs} == inputs
    assert {field.name: field.shape for field in runtime.outputs} == outputs
    given, expected = answers_of(made, name)
    given = {key or next(iter(inputs)): value for key, value in given.items()}
    got = runtime.run(given)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key or next(iter(outputs))], value, rtol=0, atol=1e-5)


def test_the_second_column_of_a_softmax_is_the_second_class(made):
    given, expected = answers_of(made, "second")
    model = load_model(str(made / "compiled" / "second" / "model.tflite"), threads=1)
    found = model.predict(given[""])
    np.testing.assert_allclose(found["scores"][:, 1], expected[""], rtol=1e-5)
    assert found["label"].tolist() == ["1" if score > 0.5 else "0" for score in expected[""]]


@pytest.mark.parametrize("name", ["fraud", "fraud_h5", "two", "picture", "renamed", "plain"])
def test_any_number_of_rows_with_a_proof(made, name):
    proof = proof_of(made, name)
    assert proof["largest_difference"] < 1e-4
    assert proof["share_of_bound"] < 1
    assert proof["label_flips"] == 0
    assert proof["rows"] >= 14
    assert proof["batches"][:3] == [1, 2, 7]
    assert proof["fixed_rows"] is None
    assert proof["not_litert"] is None
    assert {"tensorflow", "keras"} <= set(proof)


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("fraud", "zeros, ones, random numbers, and up to 1e+06 either way; batches of none, 1, 2"),
        ("ids", "ids from 0 to 8; batches"),
        ("users", "user from 0 to 49999; batches"),
        ("two", "kind from 0 to 4; batches"),
        ("lstm", "sizes of 7 and 32; batches"),
        ("free", "sizes of 5; batches"),
    ],
)
def test_the_proof_names_what_it_covered(made, name, covered):
    assert covered in proof_of(made, name)["covered"]


def test_rows_that_the_original_answers_otherwise_have_no_answer(made):
    proof = proof_of(made, "fraud")
    assert not proof["answers"], "a ReLU makes 0 of NaN in oneDNN's kernels, and NaN in others"
    assert proof_of(made, "second")["answers"] == ["NaN"], "so does a softmax of infinite numbers"
    assert proof_of(made, "plain")["answers"] == ["NaN", "infinity"], "no kernel has it otherwise"
    line = keras._agreement(proof)
    assert "rows with NaN or infinity have no answer, where Keras may have one" in line
    runtime = LiteRT(made / "compiled" / "fraud" / "model.tflite")
    values = np.ones((3, 6), np.float32)
    values[1, 2] = np.nan
    assert np.isnan(runtime.run({"transaction": values})["fraud"]).ravel().tolist() == [0, 1, 0]
    assert runtime.run({"transaction": values[:0]})["fraud"].shape == (0, 1)


def test_infinite_numbers_that_differ_have_no_answer(made, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes((made / "compiled" / "plain" / "model.tflite").read_bytes())
    values = np.array([[1, 2, 3, 4], [np.inf, 0, 0, 0]], np.float32)
    assert LiteRT(file).run({"rows": values})["sum"].tolist() == [[10], [np.inf]]
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("mlopsdeploy.json", json.dumps({"written": {}, "answers": ["NaN"]}))
    got = LiteRT(file).run({"rows": values})["sum"]
    np.testing.assert_array_equal(got, [[10], [np.nan]])


def test_a_recurrent_layer_runs_row_by_row_with_any_length(made):
    proof = proof_of(made, "lstm")
    assert proof["fixed_rows"] == 1
    assert "recurrent" in proof["fixed_because"]
    runtime = LiteRT(made / "compiled" / "lstm" / "model.tflite")
    for rows, length in ((1, 4), (3, 20), (2, 4)):
        assert runtime.run({"series": np.ones((rows, length, 3))})["trend"].shape == (rows, 2)


def test_a_number_of_rows_that_the_author_fixed_stays(made):
    assert proof_of(made, "four")["fixed_rows"] == 4
    runtime = LiteRT(made / "compiled" / "four" / "model.tflite")
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    together = runtime.run({"four": values})["out"]
    assert together.shape == (7, 2)
    np.testing.assert_allclose(together[6:], runtime.run({"four": values[6:]})["out"], atol=1e-6)


def test_what_litert_lacks_is_left_to_tensorflow(made):
    for name, why in (("text", "takes text"), ("lacking", "has no MatrixSolve")):
        assert why in proof_of(made, name)["not_litert"]
        assert proof_of(made, name)["largest_difference"] < 1e-4
        assert (made / "compiled" / name / "saved_model" / "saved_model.pb").is_file()
        assert not (made / "compiled" / name / "model.tflite").exists()
    random = proof_of(made, "random")
    assert "another answer each time" in random["unproven"]
    assert random["largest_difference"] is None


def test_a_saved_model_whose_rounding_moves_with_the_batch_runs_as_it_is(made):
    proof = proof_of(made, "unsteady")
    assert "in TensorFlow itself, its answers differ by" in proof["unproven"]
    assert keras._agreement(proof).startswith("compiled without a proof: in TensorFlow itself")
    runtime = TensorFlow(made / "compiled" / "unsteady" / "saved_model")
    assert runtime.run({"rows": np.ones((2, 4), np.float32)})["out"].tolist() == [[4], [4]]


def test_files_of_keras_2(made):
    runtime = LiteRT(made / "compiled" / "keras2" / "model.tflite")
    (given,), (gives,) = runtime.inputs, runtime.outputs
    got = runtime.run({given.name: np.array([[0, 0.5, -0.5]])})[gives.name]
    logits = np.array([[0.5 + 0.5 * 0.2 - 0.5 * 0.4, 0.5 * 0.3 - 0.5 * 0.5]])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert told(made, "keras2_deep.h5") is None, "Keras 2 wrote groups=1, which Keras 3 refuses"


def test_a_saved_model_with_an_optimizer_of_keras_2(made):
    file = keras.compile_model(made / "with_optimizer", "d" * 64, target="saved_model")
    with np.load(made / "answers" / "with_optimizer.npz") as saved:
        rows, expected = saved["rows"], saved["out"]
    runtime = TensorFlow(file)
    (given,) = runtime.inputs
    np.testing.assert_allclose(runtime.run({given.name: rows})["out"], expected, atol=1e-6)


def test_without_tf_keras_a_file_of_keras_2_names_what_it_needs(made):
    lacking = "import sys; sys.modules['tf_keras'] = None; import runpy; "
    lacking += "runpy.run_module('mlopsdeploy.convert.export_litert', run_name='__main__')"
    arguments = (str(made / "keras2.h5"), str(made / "nowhere"), "h5", "untrusted", "litert")
    ended = subprocess.run(
        [sys.executable, "-c", lacking, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "saved by Keras 2.11.0; reading it needs tf-keras: pip install" in ended.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras2_unweighted.h5", r"saved by Keras 2\.11\.0.*[Ll]ayer"),
        ("own.h5", "'Doubled', which is neither a part of Keras nor in the file.*model.export"),
        ("lost.keras", "answers NaN to whatever it is given"),
        ("beside.keras", "depends on the rows beside it"),
        ("scalar", r"output 'out' has the shape \(\)"),
        ("python", "Python code that isn't in a SavedModel"),
        ("write", "WriteFile.*--trust-model"),
        ("empty", "signature 'serving_default', has none at all"),
        ("cut", "damaged"),
        ("nothing", "holds no graph"),
    ],
)
def test_what_cannot_be_compiled_is_said_in_one_line(made, name, message):
    assert re.search(message, told(made, name)), told(made, name)
    assert "\n" not in told(made, name)
    assert list((made / "compiled" / name.partition(".")[0]).iterdir()) == []
    assert not (made / "written").exists(), "a model wrote a file"


# ---------------------------------------------------------------- once


def test_compiles_once_and_then_needs_no_tensorflow(made, tmp_path, monkeypatch):
    said = []
    file = keras.compile_model(made / "fraud.keras", "a" * 64, log=said.append)
    assert file.parent.parent == tmp_path / "litert"
    assert file.parent.name.startswith("a" * 32 + "-tensorflow-")
    assert file.name == "model.tflite"
    assert [path.name for path in (tmp_path / "litert").iterdir()] == [file.parent.name]
    assert len(said) == 2
    assert said[0] == "compiling fraud.keras to LiteRT, once"
    assert "against Keras on 14 rows: largest difference" in said[1]
    assert "labels changed 0" in said[1]
    monkeypatch.setattr(child, "run", None)
    assert keras.compile_model(made / "fraud.keras", "a" * 64, log=said.append) == file
    monkeypatch.setattr(child, "installed", lambda name: name != "tensorflow")
    assert keras.compile_model(made / "fraud.keras", "a" * 64, log=said.append) == file
    assert len(said) == 2, "later calls have nothing to say"
    with pytest.raises(ModelError, match=r"pip install 'mlopsdeploy\[tensorflow\]'") as raised:
        keras.compile_model(made / "fraud.keras", "b" * 64)
    assert "\n" not in str(raised.value)


def test_another_tensorflow_compiles_anew(made, tmp_path, monkeypatch, no_child):
    (tmp_path / "litert" / f"{'a' * 32}-tensorflow-2.0.0-keras-2.0.0").mkdir(parents=True)
    with pytest.raises(AssertionError, match="a child was started"):
        keras.compile_model(made / "fraud.keras", "a" * 64)


def test_a_text_model_serves_in_tensorflow_and_the_log_says_so(made, tmp_path, monkeypatch):
    said = []
    model = load_model(str(made / "text.keras"), threads=1, log=said.append)
    assert "LiteRT can't take text.keras (it takes text); it runs in TensorFlow" in said
    given, expected = answers_of(made, "text")
    result = model.predict({"text": given[""].astype(object)})
    np.testing.assert_allclose(result["scores"][:, 1], expected[""][:, 0], atol=1e-6)

    source = made / "text.keras"
    digest = find_model(str(source)).weights
    monkeypatch.setattr(child, "run", None)
    again = []
    folder = keras.compile_model(source, digest, log=again.append)
    assert folder.name == "saved_model"
    assert again == said[-1:], "each start says why TensorFlow is loaded"
    assert keras.compile_model(source, digest, target="saved_model") == folder
    with pytest.raises(ModelError, match="LiteRT can't take it .*--runtime tensorflow can"):
        keras.compile_model(source, digest, target="tflite")


def test_a_converter_that_crashes_leaves_the_model_to_tensorflow(made, tmp_path, monkeypatch):
    real, calls = child.run, []

    def run(*arguments, env):
        calls.append(arguments)
        crash = (-6, "its process ended with code -6")
        return crash if len(calls) == 1 else real(*arguments, env=env)

    monkeypatch.setattr(child, "run", run)
    said = []
    folder = keras.compile_model(made / "exported", "c" * 64, log=said.append)
    assert folder.name == "saved_model"
    assert len(calls) == 2
    assert "against the SavedModel" in said[1]
    assert "its converter crashed" in said[2]


# ---------------------------------------------------------------- code in a file


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5", "nested.keras", "nested.h5"])
def test_a_lambda_layer_is_refused_before_anything_is_loaded(made, tmp_path, no_child, name):
    said = "holds a Lambda layer, which runs its author's code; if you trust it: --trust-model"
    with pytest.raises(ModelError) as raised:
        keras.compile_model(made / name, "d" * 64)
    assert str(raised.value) == f"{made / name}: {said}"
    assert not list(tmp_path.rglob("*.tflite"))
    with pytest.raises(AssertionError, match="a child was started"):
        keras.compile_model(made / name, "d" * 64, trust_model=True)


def test_a_trusted_lambda_layer_is_compiled(made):
    assert told(made, "lambda.h5") is None
    assert proof_of(made, "lambda")["not_litert"] is None


def zipped(**files):
    """The bytes of a zip of these files, their names without a suffix's dot."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, held in files.items():
            text = held if isinstance(held, str | bytes) else json.dumps(held)
            archive.writestr(name.replace("_", "."), text)
    return content.getvalue()


def written(folder, config):
    """A .keras file of this config, without a weight."""
    weights = io.BytesIO()
    h5py.File(weights, "w").close()
    file = folder / "model.keras"
    file.write_bytes(zipped(config_json=config, model_weights_h5=weights.getvalue()))
    return file


def layer(name, module="keras.layers", **config):
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


DEEP = "[" * 100_000
HARMLESS = layer("Dense", units=1, kernel_initializer=layer("Zeros", "keras.initializers"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (layer("Lambda"), "Lambda layer.*--trust-model"),
        ({"class_name": "__lambda__", "config": {"value": "4wA="}}, "lambda.*--trust-model"),
        (layer("TFSMLayer", filepath="/tmp/other"), "TFSMLayer.*--trust-model"),
        (layer("TorchModuleWrapper"), "pickled.*--trust-model"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "'/etc/passwd'.*--trust-model"),
        (layer("DenseFeatures", vocabulary_file="/etc/passwd"), "'/etc/passwd'.*--trust-model"),
        (layer("TFOpLambda", function="io.write_file"), "calls 'io.write_file'.*--trust-model"),
        (layer("TFOpLambda", function="load_op_library"), "'load_op_library'.*--trust-model"),
        (layer("SlicingOpLambda", function="math.x.y"), "calls 'math.x.y'.*--trust-model"),
        (layer("ClassMethod", cls_ref="io.gfile", method_name="remove"), "runs.*--trust-model"),
        (layer("function", "keras.utils") | {"config": "get_file"}, "needs 'get_file'"),
        (layer("function", "keras.models") | {"config": "load_model"}, "needs 'load_model'"),
        (layer("function", "os") | {"config": "system"}, "needs 'system'"),
        (layer("Mine", "my_package.layers"), "needs 'Mine'"),
        (layer("Mine", None) | {"registered_name": "Custom>Mine"}, "needs 'Mine'"),
        (layer("Popen", "subprocess"), "needs 'Popen'"),
        (layer("Popen", "keras.src.utils.io_utils"), "needs 'Popen'"),
    ],
)
def test_code_is_found_wherever_it_stands(tmp_path, no_child, part, message):
    for inner in (part, {"deep": [HARMLESS, {"er": [[part]]}]}):
        wrapped = layer("TimeDistributed", layer=inner)
        config = layer("Sequential", "keras", layers=[HARMLESS, wrapped])
        with pytest.raises(ModelError, match=message) as raised:
            keras.compile_model(written(tmp_path, config), "e" * 64)
        assert "\n" not in str(raised.value)


def test_what_trained_a_model_is_no_reason_to_refuse_it(tmp_path, no_child):
    config = layer("Sequential", "keras.src.models.sequential", layers=[HARMLESS])
    config["compile_config"] = {"loss": layer("my_loss", "my_package")}
    config["config"]["layers"].append(layer("Dense", "tf_keras.layers", units=1))
    with pytest.raises(AssertionError, match="a child was started"):
        keras.compile_model(written(tmp_path, config), "e" * 64)


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.keras", lambda good: b"", "is empty"),
        ("a.h5", lambda good: b"", "is empty"),
        ("a.keras", lambda good: b"PK\x03\x04 and no more", "damaged or cut off"),
        ("a.keras", lambda good: good["fraud.keras"][:-200], "damaged or cut off"),
        ("a.h5", lambda good: good["fraud_h5.h5"][:-200], "damaged or cut off"),
        ("a.h5", lambda good: b"\x89HDF\r\n\x1a\n", "damaged or cut off"),
        ("a.keras", lambda good: b"\x80\x04 a pickle", "neither a .keras zip nor HDF5"),
        ("a.h5", lambda good: good["alone.weights.h5"], "weights alone"),
        ("a.keras", lambda good: flipped(good["fraud.keras"]), "damaged"),
        ("a.keras", lambda good: zipped(readme_txt="a zip"), "holds no config.json"),
        ("a.keras", lambda good: zipped(config_json=HARMLESS), "weights are missing"),
        ("a.keras", lambda good: zipped(config_json="{", model_weights_h5=""), "not a model's"),
        ("a.keras", lambda good: zipped(config_json=DEEP, model_weights_h5=""), "not a model's"),
    ],
)
def test_a_damaged_file(made, tmp_path, no_child, name, content, message):
    names = ("fraud.keras", "fraud_h5.h5", "alone.weights.h5")
    file = tmp_path / name
    file.write_bytes(content({name: (made / name).read_bytes() for name in names}))
    with pytest.raises(ModelError, match=message) as raised:
        keras.compile_model(file, "f" * 64)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def flipped(content):
    """A .keras file with one bit of its weights flipped."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.getinfo("model.weights.h5").header_offset + 2000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
