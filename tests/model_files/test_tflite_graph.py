"""What the operators of a .tflite file tell."""

import pytest

from mlopsdeploy.model_files import find_model, tflite_metadata
from mlopsdeploy.model_files.written import read_written


@pytest.mark.parametrize(
    ("name", "pixels"), [("takes_pixels", (0.0,)), ("zero_to_one", None), ("described", None)]
)
def test_pixels(tflite_models, name, pixels):
    found = tflite_metadata.read(tflite_models / f"{name}.tflite")["graph"].pixels
    assert (found and found[0]) == pixels


def test_a_file_of_somebody_else_s_is_read(tflite_models):
    files = find_model(str(tflite_models / "described.tflite"))
    written = read_written(files, files.graphs["tflite"])
    assert len(written.outputs) == 1
    (made,) = written.outputs.values()
    assert made.source.startswith("its last step, ")


def test_what_is_carried_goes_before(tflite_models, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes((tflite_models / "zero_to_one.tflite").read_bytes())
    tflite_metadata.carry(file, {"written": {"task": "regression", "task_source": "its loss"}})
    assert read_written(find_model(str(file)), file).task == "regression"
