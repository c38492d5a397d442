"""The models of reviews that travel in the wheel, in English and in Chinese."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlopsdeploy
from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.resolve import built_in

BUILT_IN = Path(mlopsdeploy.__file__).parent / "builtin"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
REVIEWS = {"sentiment": EXAMPLES / "reviews.csv", "sentiment-zh": EXAMPLES / "reviews.zh.csv"}
NAMES = pytest.mark.parametrize("name", list(REVIEWS))

ENGLISH = {
    "I love it, works perfectly.": "POSITIVE",
    "Best purchase I have made this year.": "POSITIVE",
    "The food was delicious and the staff were friendly.": "POSITIVE",
    "Great value for money, highly recommended.": "POSITIVE",
    "A wonderful, moving film.": "POSITIVE",
    "Arrived early, well packed, and exactly as described.": "POSITIVE",
    "Not bad at all, I would buy it again.": "POSITIVE",
    "Terrible. It broke after one day.": "NEGATIVE",
    "A complete waste of money.": "NEGATIVE",
    "The service was slow and the food was cold.": "NEGATIVE",
    "I want my money back.": "NEGATIVE",
    "Boring, far too long and badly acted.": "NEGATIVE",
    "It is not good.": "NEGATIVE",
    "The worst hotel I have ever stayed in.": "NEGATIVE",
}
CHINESE = {
    "很好用，第二天就到了": "POSITIVE",
    "味道不错，下次还来": "POSITIVE",
    "東西很好，店員也很親切": "POSITIVE",
    "屏幕很nice，非常满意👍": "POSITIVE",
    "一点都不油腻，孩子很喜欢": "POSITIVE",
    "😍😍👍": "POSITIVE",
    "用了两天就坏了，垃圾": "NEGATIVE",
    "送得太慢了，饭都凉了": "NEGATIVE",
    "品質很差，不會再買了": "NEGATIVE",
    "质量so bad，完全是智商税": "NEGATIVE",
    "不好吃": "NEGATIVE",
    "😡👎": "NEGATIVE",
}
PLAIN = {"sentiment": ENGLISH, "sentiment-zh": CHINESE}


@pytest.fixture(scope="module", params=list(REVIEWS))
def examples(request):
    """A model's name, its example reviews, and their predictions by ONNX Runtime in float32."""
    with REVIEWS[request.param].open(encoding="utf-8", newline="") as file:
        texts = [row["review_text"] for row in csv.DictReader(file)]
    columns = {"text": objects([text for text in texts if text.strip()])}
    exact = load_model(request.param, runtime="onnxruntime", precision="float32")
    return request.param, columns, exact.predict_columns(columns)


@pytest.mark.parametrize(("name", "most"), [("sentiment", 30 << 20), ("sentiment-zh", 10 << 20)])
def test_it_is_there_and_small_enough(name, most):
    assert name in built_in()
    size = sum(path.stat().st_size for path in (BUILT_IN / name).rglob("*") if path.is_file())
    assert 1 << 20 < size < most
    assert (BUILT_IN / name / "MODEL_CARD.md").is_file()
    assert (BUILT_IN / name / "NOTICE").is_file()


@NAMES
def test_every_file_that_shapes_answers_has_a_true_checksum(name):
    folder = BUILT_IN / name
    written = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    for file, expected in written["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected, file
    shaping = {path.name for path in folder.iterdir() if path.suffix in (".onnx", ".json")}
    assert shaping <= set(written["sha256"])
    files = find_model(name)
    assert files.labels == ("NEGATIVE", "POSITIVE")
    assert files.version


@pytest.mark.parametrize("precision", ["auto", "float32"])
@NAMES
def test_plain_sentences(name, precision):
    model = load_model(name, precision=precision)
    result = model.predict({"text": objects(list(PLAIN[name]))})
    assert dict(zip(PLAIN[name], result["label"], strict=True)) == PLAIN[name]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_runtimes_agree_in_float32(examples, runtime):
    name, columns, exact = examples
    if (name, runtime) == ("sentiment-zh", "torch"):
        with pytest.raises(ModelError, match="its weights do not bear the checkpoint's names"):
            load_model(name, runtime=runtime)
        return
    result = load_model(name, runtime=runtime, precision="float32").predict_columns(columns)
    np.testing.assert_allclose(result["scores"], exact["scores"], atol=1e-4)
    assert result["label"].tolist() == exact["label"].tolist()


@pytest.mark.parametrize("precision", ["auto", "int8", "bfloat16"])
def test_low_precisions_flip_hardly_a_label(examples, precision):
    from mlopsdeploy.errors import ConfigError

    name, columns, exact = examples
    try:
        model = load_model(name, runtime="openvino", precision=precision)
    except ConfigError as error:
        pytest.skip(str(error))
    result = model.predict_columns(columns)
    flips = (result["label"] != exact["label"]).mean()
    assert flips <= 0.005


def test_traditional_characters_mean_what_simplified_ones_do():
    model = load_model("sentiment-zh")
    texts = ["质量很好，包装也结实，还会再来买", "质量很差，钱没有退回来，别买"]
    in_traditional = ["質量很好，包裝也結實，還會再來買", "質量很差，錢沒有退回來，別買"]
    scores = model.predict([*texts, *in_traditional])["scores"]
    np.testing.assert_allclose(scores[:2], scores[2:], atol=1e-6)


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "config.json"])
@NAMES
def test_a_damaged_copy_is_refused(tmp_path, name, file):
    copy = tmp_path / "copy"
    shutil.copytree(BUILT_IN / name, copy)
    assert find_model(str(copy)).digest == find_model(name).digest
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    with pytest.raises(ModelError, match=rf"{file}: its SHA-256 is not the one in model.yaml"):
        find_model(str(copy))


@NAMES
def test_the_example_from_the_outside(mlopsdeploy, tmp_path, name):
    shutil.copy(REVIEWS[name], tmp_path / "reviews.csv")
    done = mlopsdeploy("batch", "reviews.csv", "--json")
    assert done.code == 0, done
    summary = json.loads(done.out)
    assert set(summary["labels"]) <= {"NEGATIVE", "POSITIVE"}
    assert summary["failed"] == 0
    assert summary["model"]["name"] == "sentiment,sentiment-zh"
    with (tmp_path / "reviews.predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # The stars are not what the model sees, but most of them should be what it says.
    clear = [row for row in rows if row["rating"] in "15" and row["rating"] and row["label"]]
    right = sum((row["rating"] == "5") == (row["label"] == "POSITIVE") for row in clear)
    assert right / len(clear) > 0.7
