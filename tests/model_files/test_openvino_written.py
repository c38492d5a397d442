"""What is read in OpenVINO's `.xml`: the same as in the graph that it was made from."""

import numpy as np
import openvino as ov
import pytest
import yaml
from openvino import opset13 as ops

from mlopsdeploy import load_model
from mlopsdeploy.columns import Made
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model, openvino_written
from mlopsdeploy.model_files.folder import write_folder

W = np.ones((3, 2), np.float32)


def saved(folder, end, *, metadata=(), half=False):
    """A layer of two numbers with an end, as a file."""
    x = ops.parameter([-1, 3], np.float32, name="x")
    outputs = end(ops.matmul(x, ops.constant(W), False, False))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    for place, output in enumerate(outputs):
        output.output(0).tensor.set_names({f"y{place}", f"also_y{place}"})
    model = ov.Model([ops.result(output) for output in outputs], [x])
    for key, value in metadata:
        model.set_rt_info(value, ["framework", key])
    ov.save_model(model, folder / "m.xml", compress_to_fp16=half)
    return folder / "m.xml"


def logs(x):
    return ops.log_softmax(x, 1)


ENDS = {
    "softmax": lambda h: ops.softmax(h, 1),
    "sigmoid": ops.sigmoid,
    "linear": lambda h: ops.add(h, ops.constant(W[:1])),
    "values": ops.relu,
    "logits": logs,
}


ENDS_PICKED = {
    "the second class": ("sigmoid", 1, 1), "the first class": ("", 0, 1),
    "the first row": ("softmax", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS_PICKED)
def test_a_column_of_a_softmax(tmp_path, name):
    kind, place, axis = ENDS_PICKED[name]
    numbers = ops.constant(np.int64(place)), ops.constant(np.int64(axis))
    file = saved(tmp_path, lambda h: ops.gather(ops.softmax(h, -1), *numbers))
    assert openvino_written.read(file).outputs["also_y0"].kind == kind


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_ends(tmp_path, kind, half):
    written = openvino_written.read(saved(tmp_path, ENDS[kind], half=half))
    assert {name: made.kind for name, made in written.outputs.items()} == {"also_y0": kind}


def test_outputs_have_the_names_that_the_runtime_gives_them(tmp_path):
    from mlopsdeploy.runtimes.openvino import OpenVino

    file = saved(tmp_path, lambda h: [ops.softmax(h, 1), ops.relu(h)])
    runtime = OpenVino(file, precision="float32")
    assert [field.name for field in runtime.outputs] == list(openvino_written.read(file).outputs)
    assert set(runtime.run({"x": np.ones((2, 3), np.float32)})) == {"also_y0", "also_y1"}


def test_one_value_given_twice(tmp_path):
    x = ops.parameter([-1, 3], np.float32, name="x")
    y = ops.softmax(x, 1)
    y.output(0).tensor.set_names({"p"})
    ov.save_model(ov.Model([ops.result(y), ops.result(y)], [x]), tmp_path / "m.xml")
    made = Made("softmax", "the last operator, Softmax")
    assert openvino_written.read(tmp_path / "m.xml").outputs == {"p": made}


def test_the_place_of_the_largest_is_a_label(tmp_path):
    x = ops.parameter([-1, 3], np.float32, name="x")
    top = ops.topk(x, ops.constant(np.int64(1)), 1, "max", "none")
    top.output(1).tensor.set_names({"label"})
    ov.save_model(ov.Model([top.output(1)], [x]), tmp_path / "m.xml")
    written = openvino_written.read(tmp_path / "m.xml")
    assert written.outputs == {"label": Made("label", "the last operator, ArgMax")}


def test_names_that_the_author_wrote_beside(tmp_path):
    names = [("classes", '["cat", "dog"]'), ("feature_names", "a,b, c")]
    written = openvino_written.read(saved(tmp_path, ENDS["softmax"], metadata=names))
    assert written.classes == {"also_y0": ("cat", "dog")}
    assert written.features == ("a", "b", "c")


def exported(folder, task, end=ENDS["softmax"], **more):
    """A file as Ultralytics exports it, with its description beside it."""
    said = {
        "description": "Ultralytics YOLOv8n model", "author": "Ultralytics", "version": "8.3.0",
        "stride": 32, "task": task, "batch": 1, "imgsz": [640, 480],
        "names": {0: "cat", 1: "dog"}, "args": {"batch": 1, "half": False}, **more,
    }  # fmt: skip
    (folder / "metadata.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    return saved(folder, end)


def test_exports_of_ultralytics(tmp_path):
    file = exported(tmp_path, "detect")
    files = find_model(str(file))
    assert (files.task, files.labels) == ("object_detection", ("cat", "dog"))
    assert files.labels_from == "metadata.yaml next to the model"
    assert (files.metadata["size"], files.metadata["objectness"]) == ((640, 480), False)
    exported(tmp_path, "detect", imgsz=[640, 640])
    assert find_model(str(file)).digest != files.digest


def test_names_beside_an_export_are_the_labels(tmp_path):
    odds = np.float32([[1, -1]])
    file = exported(tmp_path, "classify", lambda h: ops.softmax(ops.add(h, ops.constant(odds)), 1))
    (tmp_path / "m.yaml").write_text("task: tabular_classification\n")
    rows = np.float32([[1, 2, 3]])
    found = load_model(str(file), threads=1, precision="float32").predict(rows)
    right = ov.Core().compile_model(file, "CPU")(rows)[0]
    np.testing.assert_allclose(found["scores"], right, rtol=1e-5)
    assert found["label"][0] == ("cat", "dog")[right.argmax()]


@pytest.mark.parametrize("task", ["obb", "pose", "segment"])
def test_other_tasks_of_ultralytics_are_named(tmp_path, task):
    file = exported(tmp_path, task)
    with pytest.raises(ModelError, match=f"Ultralytics' task '{task}'.*'task: tensors'"):
        load_model(str(file), threads=1)
    if task == "obb":  # whose boxes would be read without their angle
        with pytest.raises(ModelError, match="Ultralytics' task 'obb'.*'task: tensors'"):
            load_model(str(file), threads=1, task="object_detection")
    (tmp_path / "m.yaml").write_text("task: tensors\n")
    assert load_model(str(file), threads=1).predict(np.ones((1, 3), np.float32))


def test_what_was_exported_keeps_its_description_when_it_is_written_again(tmp_path):
    (tmp_path / "from").mkdir()
    files = find_model(str(exported(tmp_path / "from", "obb")))
    write_folder(tmp_path / "to", files, "openvino", files.graphs["openvino"], {})
    assert (tmp_path / "to" / "metadata.yaml").is_file()
    with pytest.raises(ModelError, match="Ultralytics' task 'obb'"):
        load_model(str(tmp_path / "to"), threads=1)


def test_descriptions_that_are_none(tmp_path):
    file = exported(tmp_path, "obb", names="cat")
    with pytest.raises(ModelError, match=r"metadata.yaml: damaged"):
        find_model(str(file))
    (tmp_path / "metadata.yaml").write_text("names: [cat, dog]\ntask: obb\n")  # somebody else's
    assert find_model(str(file)).metadata == {}


def test_files_that_are_none(tmp_path):
    file = saved(tmp_path, ENDS["linear"])
    whole = file.read_text()
    broken = [
        "",
        "<net",
        "<annotation/>",
        whole[: len(whole) // 2],
        whole.replace("to-layer", "to"),
    ]
    broken.append(f"<!DOCTYPE net [<!ENTITY a 'b'>]>{whole[whole.index('<net') :]}")
    for content in broken:
        file.write_text(content)
        with pytest.raises(
            ModelError, match=r"m\.xml: no OpenVINO model, or cut off; fetch it again"
        ):
            openvino_written.read(file)
    file.write_text(whole)
    file.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"m\.bin: missing or can't be read; m\.xml needs it"):
        openvino_written.read(file)
