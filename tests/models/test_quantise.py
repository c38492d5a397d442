"""int8 as a folder, with the proof of that very folder."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, InputError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.models.quantise import quantise_model, show_quantised
from mlopsdeploy.models.verify import verify_model


@pytest.fixture(scope="module")
def made(bert, reviews, tmp_path_factory):
    """The report of a folder that was quantised, and the folder."""
    place = tmp_path_factory.mktemp("quantised")
    data = place / "reviews.csv"
    pd.DataFrame({"review_text": reviews(400)}).to_csv(data, index=False)
    found = quantise_model(str(bert), data=str(data), max_flips=0.2, output=str(place / "made"))
    return found, place / "made"


def test_the_folder_is_int8_and_its_proof_is_its_own(bert, made, shown):
    found, folder = made
    said = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert said["precision"] == "int8"
    assert said["proof"] == found["proof"]
    assert 0 <= said["proof"]["flip_share"] <= 0.2
    assert said["proof"]["rows"] >= 100
    model = load_model(str(folder), threads=1)
    assert model.runtime.precision == "int8"
    assert model.digest != load_model(str(bert), threads=1).digest
    text = shown(show_quantised, found)
    assert "labels differ from float32's" in text
    assert "close calls" in text
    with pytest.raises(ConfigError, match="is int8 as it is"):
        quantise_model(str(folder), data="none.csv")


def test_close_calls_are_decided_by_the_float_graph(bert, made, reviews):
    columns = {"text": objects(reviews(200, seed=9))}
    model = load_model(str(made[1]), threads=1)
    exact = load_model(str(bert), runtime="openvino", precision="float32", threads=1)
    got, alone, expected = (
        one.predict(columns) for one in (model, replace(model, float32=None), exact)
    )
    looked = (got["scores"] != alone["scores"]).any(axis=1)
    assert 0 < looked.sum() < 200
    gap = np.abs(alone["scores"] - expected["scores"])[looked].max()
    assert np.abs(got["scores"] - expected["scores"])[looked].max() < gap / 3
    float32 = load_model(str(made[1]), precision="float32", threads=1).predict(columns)
    np.testing.assert_allclose(float32["scores"][looked], got["scores"][looked], atol=1e-5)
    assert (got["scores"][~looked] == alone["scores"][~looked]).all()


def test_digest_and_sums_cover_the_float_graph(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made[1], folder)
    weights = bytearray((folder / "float32.bin").read_bytes())
    weights[0] ^= 1
    (folder / "float32.bin").write_bytes(weights)
    assert not verify_model(str(folder))["ok"]
    said = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    del said["sha256"]
    (folder / "model.yaml").write_text(yaml.safe_dump(said), "utf-8")
    assert find_model(str(folder)).digest != find_model(str(made[1])).digest
    (folder / "float32.xml").unlink()
    with pytest.raises(ModelError, match=r"float32.xml: missing; model.yaml names it"):
        find_model(str(folder))


def test_verify_looks_at_close_calls(made):
    found = verify_model(str(made[1]))
    checks = {check["what"]: check for check in found["checks"]}
    assert checks["sha256"]["detail"].startswith("7 files")
    assert checks["close calls"]["result"] == "ok"
    assert "float32.xml" in checks["close calls"]["detail"]


def test_too_few_rows_are_refused(three_class_bert, write_rows, reviews, tmp_path):
    data = write_rows("few.csv", review_text=reviews(50))
    with pytest.raises(InputError, match="at least 200 different texts"):
        quantise_model(str(three_class_bert), data=data, output=str(tmp_path / "made"))


def test_where_it_does_not_apply_it_says_so(tflite_models):
    for model, message in (
        ("sentiment", "is int8 as it is"),
        ("sentiment,sentiment-zh", "is 2 models; quantise each by itself"),
        ("fraud", "nothing would be gained"),
        (tflite_models / "described.tflite", "of pictures are quantised when they are made"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantise_model(str(model), data="none.csv")
