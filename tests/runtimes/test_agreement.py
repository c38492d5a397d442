"""The same rows through every runtime agree, and no precision loses the model."""

import numpy as np
import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError

ARCHITECTURES = ("Bert", "DistilBert", "Roberta")


@pytest.fixture(scope="module")
def columns(reviews):
    texts = [*reviews(60, seed=4), "x", "好 好", " ".join(["great"] * 300)]
    return {"text": objects(texts)}


@pytest.fixture
def folder(request, checkpoints, onnx_folders):
    """A BERT for the `runtime` of a test: a checkpoint for PyTorch, ONNX for the others."""
    kind = checkpoints if request.getfixturevalue("runtime") == "torch" else onnx_folders
    return kind["Bert"]


def predicted(folder, columns, **options):
    return load_model(str(folder), threads=2, **options).predict(columns)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_three_runtimes_agree_in_float32(checkpoints, onnx_folders, columns, architecture):
    results = {
        runtime: predicted(kind[architecture], columns, runtime=runtime, precision="float32")
        for runtime, kind in (
            ("torch", checkpoints),
            ("openvino", onnx_folders),
            ("onnxruntime", onnx_folders),
        )
    }
    reference = results["torch"]
    assert len(set(reference["label"])) == 2
    assert np.ptp(reference["scores"][:, 1]) > 0.3, "the rows are to differ"
    for name, result in results.items():
        np.testing.assert_allclose(result["scores"], reference["scores"], atol=1e-4, err_msg=name)
        assert (result["label"] == reference["label"]).all(), name
        assert (result["truncated"] == reference["truncated"]).all(), name
    assert reference["truncated"].tolist() == [False] * 62 + [True]


def has_bfloat16():
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precisions_are_near_float(folder, onnx_folders, columns, runtime, precision):
    if precision == "bfloat16" and not has_bfloat16():
        if runtime == "openvino":
            with pytest.raises(ConfigError, match="this CPU lacks it"):
                load_model(str(folder), runtime=runtime, precision=precision)
        pytest.skip("no bfloat16 in this CPU")
    if (runtime, precision) == ("torch", "int8"):
        with pytest.raises(ConfigError, match="torch runs float32 or bfloat16"):
            load_model(str(folder), runtime=runtime, precision=precision)
        return
    model = load_model(str(folder), runtime=runtime, precision=precision, threads=1)
    assert model.runtime.precision == precision
    low = model.predict(columns)
    exact = predicted(onnx_folders["Bert"], columns, runtime="onnxruntime")
    difference = np.abs(low["scores"] - exact["scores"])
    assert difference.max() > 0, "the precision asked for is not used"
    assert difference.mean() < 0.05
    sure = np.abs(exact["scores"][:, 1] - 0.5) > 0.2
    assert (low["label"] == exact["label"])[sure].all()


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch"])
def test_a_row_alone_is_the_row_in_a_batch(folder, columns, runtime):
    model = load_model(str(folder), runtime=runtime, precision="float32", threads=1)
    together = model.predict(columns)
    for row in range(0, 63, 9):
        alone = model.predict({"text": columns["text"][row : row + 1]})
        assert alone["label"][0] == together["label"][row]
        np.testing.assert_allclose(alone["scores"][0], together["scores"][row], atol=1e-5)


def test_no_rows(onnx_folders):
    model = load_model(str(onnx_folders["Bert"]), runtime="onnxruntime", threads=1)
    assert {len(array) for array in model.predict({"text": objects([])}).values()} == {0}


def test_runtimes_agree_on_rows_of_numbers(churn_onnx, per_feature_onnx, labelled_onnx):
    generator = np.random.default_rng(0)
    highest = {"age": 60, "visits": 9, "spend": 300}
    columns = {name: generator.integers(0, most, 500) * 1.0 for name, most in highest.items()}
    for path, features in ((churn_onnx, ("age", "visits", "spend")), (per_feature_onnx, ())):
        results = [
            load_model(str(path), runtime=runtime, precision="float32", features=features).predict(
                columns
            )
            for runtime in ("onnxruntime", "openvino")
        ]
        np.testing.assert_allclose(results[0]["scores"], results[1]["scores"], atol=1e-6)
        clear = np.abs(results[0]["scores"][:, 1] - 0.5) > 1e-5  # not a coin toss
        assert clear.sum() > 480
        labels = [result["label"][clear].tolist() for result in results]
        assert labels[0] == labels[1]
        assert len(set(results[0]["label"])) == 2, path


def test_threads_may_call_at_the_same_time(onnx_folders, columns):
    from concurrent.futures import ThreadPoolExecutor

    for runtime in ("openvino", "onnxruntime"):
        model = load_model(
            str(onnx_folders["Bert"]), runtime=runtime, precision="float32", threads=2
        )
        expected = model.predict(columns)["scores"]
        with ThreadPoolExecutor(4) as pool:
            for result in pool.map(lambda _, m=model: m.predict(columns)["scores"], range(12)):
                np.testing.assert_array_equal(result, expected)


def test_torch_does_not_make_up_weights_that_are_missing(
    onnx_folders, checkpoints, tmp_path, columns
):
    """An exported file names some weights only: the rest must not be drawn at random."""
    try:
        model = load_model(str(onnx_folders["Bert"]), runtime="torch", precision="float32")
    except ModelError as error:
        assert "\n" not in str(error)
        return
    expected = predicted(checkpoints["Bert"], columns, runtime="torch", precision="float32")
    np.testing.assert_allclose(model.predict(columns)["scores"], expected["scores"], atol=1e-4)


def _without_head(checkpoint, folder):
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    state = load_file(checkpoint / "model.safetensors")
    rest = {name: value for name, value in state.items() if not name.startswith("classifier")}
    assert len(rest) < len(state)
    save_file(rest, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_checkpoint_without_a_head_is_no_classifier(bert_checkpoint, tmp_path, runtime):
    folder = _without_head(bert_checkpoint, tmp_path / "headless")
    with pytest.raises(ModelError, match="classifier"):
        load_model(str(folder), runtime=runtime, precision="float32")


def test_a_checkpoint_that_is_cut_off(bert_checkpoint, tmp_path):
    folder = _without_head(bert_checkpoint, tmp_path / "cut")
    (folder / "model.safetensors").write_bytes(
        (bert_checkpoint / "model.safetensors").read_bytes()[:-500]
    )
    for runtime in ("torch", "openvino"):
        with pytest.raises(ModelError) as raised:
            load_model(str(folder), runtime=runtime, precision="float32")
        assert "\n" not in str(raised.value)
