"""int8 as a folder, with the proof of that very folder."""

import pytest
import yaml

from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.model import load_model
from mlopsdeploy.models_command.quantise import quantise_model, show_quantised


def test_the_folder_is_int8_and_its_proof_is_its_own(bert, write_rows, reviews, tmp_path, shown):
    data = write_rows("reviews.csv", review_text=reviews(400))
    found = quantise_model(str(bert), data=data, max_flips=0.2, output=str(tmp_path / "made"))
    said = yaml.safe_load((tmp_path / "made" / "model.yaml").read_text("utf-8"))
    assert said["precision"] == "int8"
    assert said["proof"] == found["proof"]
    assert 0 <= said["proof"]["flip_share"] <= 0.2
    assert said["proof"]["rows"] >= 100
    model = load_model(str(tmp_path / "made"), threads=1)
    assert model.runtime.precision == "int8"
    assert model.digest != load_model(str(bert), threads=1).digest
    assert "labels differ from float32's" in shown(show_quantised, found)
    with pytest.raises(ConfigError, match="is int8 as it is"):
        quantise_model(str(tmp_path / "made"), data=data)


def test_too_few_rows_are_refused(three_class_bert, write_rows, reviews, tmp_path):
    data = write_rows("few.csv", review_text=reviews(50))
    with pytest.raises(InputError, match="at least 200 different texts"):
        quantise_model(str(three_class_bert), data=data, output=str(tmp_path / "made"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("sentiment", "is int8 as it is"),
        ("fraud", "nothing would be gained"),
    ],
)
def test_where_it_does_not_apply_it_says_so(model, message):
    with pytest.raises(ConfigError, match=message):
        quantise_model(model, data="none.csv")


def test_pictures_are_told_where_to_turn(tflite_models):
    with pytest.raises(ConfigError, match="models of pictures are quantised when they are made"):
        quantise_model(str(tflite_models / "described.tflite"), data="none.csv")
