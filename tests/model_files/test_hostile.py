"""No model reads, writes or inflates anything untrusted; what it lies in stays as it was."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.convert import child, from_keras, keras_file
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model, tflite_metadata
from mlopsdeploy.model_files.cache import cache_folder
from mlopsdeploy.model_files.folder import write_folder
from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime

from .external import with_weights_in

MEMORY = "*/_ORT_MEM_ADDR_/*"


@pytest.fixture(scope="module")
def made(once_by):
    """The SavedModels that hostile_models.py makes."""
    return once_by(Path(__file__).with_name("hostile_models.py"))


def state_of(folder):
    """Every file and folder in it, with its content and when it was written."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def refused(act, *arguments, **more):
    """The one line of what is refused."""
    with pytest.raises(ModelError) as raised:
        act(*arguments, **more)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- SavedModels


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("write", "the operator WriteFile"),
        ("branch", "the operator WriteFile"),
        ("read", "the operator ReadFile"),
        ("records", "the operator TensorDataset"),
        ("lines", "Dataset"),
        ("summary", "the operator SummaryWriter"),
        ("debug", "the operator DebugIdentityV2"),
        ("print", "writes files (PrintV2)"),
        ("save", "reads or writes files (SaveV2)"),
        ("saver", "reads or writes files (SaveV2)"),
        ("restore", "reads or writes files (RestoreV2)"),
        ("merge", "reads or writes files (MergeV2Checkpoints)"),
        ("vocabulary", "isn't one of its assets (InitializeTableFromTextFileV2)"),
        ("graph_in_answer", "isn't one of its assets (InitializeTableFromTextFileV2)"),
        ("asset_above", "a file outside of its folder, '../../secret.txt'"),
        ("asset_elsewhere", "a file outside of its folder, '/"),
        ("asset_remote", "a file outside of its folder, 'gs://bucket/words.txt'"),
        ("twice", "has two nodes called"),
    ],
)
def test_a_graph_that_does_more_than_compute(made, name, reason):
    from mlopsdeploy.runtimes.tensorflow import TensorFlow

    before = state_of(made)
    line = refused(TensorFlow, made / name)
    assert reason in line
    assert line.endswith("if you trust its author: --trust-model")
    assert state_of(made) == before


def test_an_operator_that_tensorflow_lacks_is_named(made):
    from mlopsdeploy.runtimes.tensorflow import TensorFlow

    for trusted in (False, True):
        line = refused(TensorFlow, made / "unknown", trusted=trusted)
        assert "needs the operator SimpleMLInferenceOp, which TensorFlow" in line


@pytest.mark.parametrize("name", ["screen", "random", "texts", "loop"])
def test_a_graph_that_computes_runs(made, name, capfd):
    from mlopsdeploy.runtimes.tensorflow import TensorFlow

    got = TensorFlow(made / name).run({"x": np.ones((2, 4), np.float32)})
    np.testing.assert_allclose(got["y"], 1 / (1 + np.exp(-0.4)) * np.ones((2, 1)), rtol=1e-5)


def test_a_vocabulary_that_is_an_asset_is_read(made):
    from mlopsdeploy.runtimes.tensorflow import TensorFlow

    got = TensorFlow(made / "table").run({"word": objects(["two", "three"])})
    assert got["number"].tolist() == [1, -1]
    TensorFlow(made / "graph").run({"x": np.ones((2, 1), np.float32)})


def test_an_asset_may_not_be_a_link_out_of_the_folder(made, tmp_path):
    folder = tmp_path / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes((made / "table" / "saved_model.pb").read_bytes())
    (folder / "assets" / "words.txt").symlink_to(made / "secret.txt")
    assert "leads to a file outside of the model's folder" in refused(find_model, str(folder))


def test_no_command_runs_one(made, mlopsdeploy, tmp_path):
    before = state_of(made)
    rows = tmp_path / "rows.csv"
    rows.write_text("x1,x2,x3,x4\n1,2,3,4\n", "utf-8")
    for arguments in (
        ("models", "inspect", made / "write"),
        ("batch", rows, "--model", made / "write"),
        ("serve", "--model", made / "write", "--port", "0"),
    ):
        done = mlopsdeploy(*arguments)
        assert done.code != 0
        assert "holds the operator WriteFile" in done.lines[-1]
        assert "Traceback" not in done.err
    assert state_of(made) == before


# ---------------------------------------------------------------- Keras


def h5(change):
    """An HDF5 file that `change` fills."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        change(file)
    return content.getvalue()


def elsewhere(file):
    file.create_dataset("kernel", (4,), "f4", external=[("secret.bin", 0, 16)])


def linked(file):
    file["layer"] = h5py.ExternalLink("other.h5", "/kernel")


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (4,))
    file.create_virtual_dataset("kernel", layout)


def vast(file):
    file.create_dataset("kernel", (1 << 40,), "f4", chunks=(1 << 10,))


CONFIG = {"module": "keras", "class_name": "Sequential", "config": {"layers": []}}


def keras_zip(path, weights=None, files=None):
    """A .keras file; a number stands for a member of so many MiB of nothing."""
    held = {"config.json": json.dumps(CONFIG), "model.weights.h5": weights or h5(lambda _: 0)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**held, **(files or {})}.items():
            if isinstance(content, int):
                with archive.open(name, "w") as member:
                    for _ in range(content):
                        member.write(bytes(1 << 20))
            else:
                archive.writestr(name, content)
    return path


@pytest.mark.parametrize("form", ["h5", "keras"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (elsewhere, "keeps '/model_weights/kernel' in another file of this machine"),
        (virtual, "keeps '/model_weights/kernel' in another file of this machine"),
        (linked, "links to another file of this machine, 'other.h5'"),
        (vast, "MB that would become 4,398,047 MB"),
    ],
)
def test_weights_that_are_not_in_the_file(tmp_path, form, change, reason):
    def filled(file):
        file.attrs["model_config"] = json.dumps(CONFIG)
        change(file.create_group("model_weights"))

    path = tmp_path / f"model.{form}"
    if form == "keras":
        keras_zip(path, h5(filled))
    else:
        path.write_bytes(h5(filled))
    before = state_of(tmp_path)
    line = refused(keras_file.check, path, trusted=False)
    assert reason in line
    assert line.endswith("--trust-model")
    assert state_of(tmp_path) == before


def test_groups_that_hold_each_other_are_no_reason(tmp_path):
    def circle(file):
        file.attrs["model_config"] = json.dumps(CONFIG)
        file.create_group("model_weights")["self"] = file["/"]
        file["soft"] = h5py.SoftLink("/nowhere")

    (tmp_path / "model.h5").write_bytes(h5(circle))
    assert keras_file.check(tmp_path / "model.h5", trusted=False) == "h5"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": 65}, "config.json is larger than 64 MiB"),
        ({"model.weights.h5": 300}, "that would become 315 MB"),
        ({"assets/a": 150, "assets/b": 150}, "that would become 315 MB"),
        ({"../out": b"x"}, "would be unpacked elsewhere, '../out'"),
        ({"/out": b"x"}, "would be unpacked elsewhere, '/out'"),
        ({"a/..\\..\\out": b"x"}, "would be unpacked elsewhere"),
        ({"C:/out": b"x"}, "would be unpacked elsewhere"),
        ({"config.json": "[" * 200_000 + "]" * 200_000}, "its config is not a model's"),
    ],
)
def test_a_zip_that_is_not_what_it_seems(tmp_path, files, reason):
    path = keras_zip(tmp_path / "model.keras", files=files)
    before = state_of(tmp_path)
    assert reason in refused(keras_file.check, path, trusted=False)
    assert state_of(tmp_path) == before


def test_what_was_compiled_on_trust_is_found_on_trust_alone(tmp_path, monkeypatch):
    def run(*arguments, env):
        raise AssertionError("a child was started")

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    code = {"class_name": "Lambda", "module": "keras.layers", "config": {}}
    config = {**CONFIG, "config": {"layers": [code]}}
    file = keras_zip(tmp_path / "a.keras", files={"config.json": json.dumps(config)})
    entry = cache_folder() / "litert" / f"{'a' * 32}-{from_keras._tools()}-trusted"
    entry.mkdir(parents=True)
    (entry / "model.tflite").write_bytes(b"")
    assert from_keras.compile_model(file, "a" * 64, trust_model=True) == entry / "model.tflite"
    assert "Lambda" in refused(from_keras.compile_model, file, "a" * 64)


# ---------------------------------------------------------------- ONNX


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", MEMORY])
def test_weights_outside_of_the_folder(tmp_path, where, location):
    folder = tmp_path / "model"
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with_weights_in(location, folder, where=where)
    before = state_of(tmp_path)
    line = refused(find_model, str(folder / "model.onnx"))
    assert f"has weights in {location!r}, outside of its folder" in line
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("location", ["model.onnx_data", "parts/weights.bin"])
def test_weights_in_the_folder(tmp_path, location):
    weights = with_weights_in(location, tmp_path)
    got = OnnxRuntime(tmp_path / "model.onnx").run({"x": np.eye(4, dtype=np.float32)})["y"]
    np.testing.assert_allclose(got.ravel(), [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    weights.unlink()
    line = refused(find_model, str(tmp_path / "model.onnx"))
    assert line == f"{weights}: missing; model.onnx has weights in it"


def test_a_copy_has_its_weights_where_the_graph_names_them(tmp_path):
    graph = tmp_path / "from" / "other.onnx"
    with_weights_in("parts/weights.bin", graph.parent, graph.name)
    files = find_model(str(graph))
    written = write_folder(tmp_path / "to", files, "onnx", graph, {})
    assert tmp_path / "to" / "parts" / "weights.bin" in written
    copy = find_model(str(tmp_path / "to"))
    assert copy.weights == files.weights
    assert copy.yaml.sha256.keys() == {"model.onnx", "parts/weights.bin"}
    floating = tmp_path / "float" / "float.onnx"
    with_weights_in("parts/weights.bin", floating.parent, floating.name).write_bytes(bytes(16))
    line = refused(write_folder, tmp_path / "two", files, "onnx", graph, {}, floating=floating)
    assert "the model has two files called parts/weights.bin" in line
    assert not (tmp_path / "two").exists()


def test_links_of_the_hubs_cache_lead_to_the_models_own_files(tmp_path):
    apart, snapshot = tmp_path / "apart", tmp_path / "models--a--b" / "snapshots" / "1f" / "onnx"
    with_weights_in("model.onnx_data", apart)
    blobs = snapshot.parents[2] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (apart / name).rename(blobs / f"blob-of-{name}")
        (snapshot / name).symlink_to(Path("../../../blobs") / f"blob-of-{name}")
    covered = find_model(str(snapshot / "model.onnx")).digest_covers["files"]
    assert covered.keys() == {"model.onnx", "onnx:model.onnx_data"}
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to("../../../../secret.bin")
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    assert "outside of its folder" in refused(find_model, str(snapshot / "model.onnx"))


@pytest.mark.parametrize(
    "content", [b"", b"location", b"\x3a\xff\x01location", b"\x80" * 10_000 + b"location"]
)
def test_what_is_no_onnx_file(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert "not an ONNX file, or cut off" in refused(find_model, str(tmp_path / "model.onnx"))


# ---------------------------------------------------------------- what stands beside a model


@pytest.mark.parametrize(
    "key",
    ["labels: {}", "float32: {}", "sha256: {{{}: " + "0" * 64 + "}}", "example: {}"],
)
@pytest.mark.parametrize("place", ["../secret", "link"])
def test_a_yaml_names_files_of_its_own_folder_alone(tmp_path, key, place):
    folder = tmp_path / "model"
    folder.mkdir()
    suffix = {"float32": ".onnx", "example": ".png"}.get(key.partition(":")[0], ".txt")
    (tmp_path / f"secret{suffix}").write_bytes(b"secret")
    (folder / f"link{suffix}").symlink_to(tmp_path / f"secret{suffix}")
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "model.yaml").write_text(f"{key.format(place + suffix)}\n", "utf-8")
    line = refused(find_model, str(folder))
    if key.startswith("example") and place != "link":  # its name counts alone
        assert line.startswith(f"{folder / 'secret.png'}: can't be read")
    else:
        assert f"{place}{suffix}, which lies outside of its folder" in line


def test_labels_beside_a_model_are_no_link_out_of_its_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret\n", "utf-8")
    (folder / "labels.txt").symlink_to(tmp_path / "secret")
    assert tflite_metadata.find_labels(folder / "a.tflite") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"0 a\n99999999999 b\n", "it numbers a class 99999999999"),
        (b"item { id: 99999999999 name: 'b' }", "it numbers a class 99999999999"),
        (b"a" * (17 << 20), "it is too large"),
    ],
)
def test_labels_that_would_inflate(tmp_path, content, reason):
    (tmp_path / "labels.txt").write_bytes(content)
    assert reason in refused(tflite_metadata.read_labels, tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 200_000, "nested too deep"),
        (" " * (65 << 20), "larger than 64 MiB"),
        ('{"num_labels": 999999999999}', "is no number of labels"),
    ],
)
def test_a_configuration_that_would_inflate(tmp_path, content, reason):
    (tmp_path / "config.json").write_text(content, "utf-8")
    (tmp_path / "model.onnx").write_bytes(b"weights")
    assert reason in refused(find_model, str(tmp_path))


def test_shards_are_in_the_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    index = {"weight_map": {"a": "../other.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert "names ../other.safetensors, which lies" in refused(find_model, str(tmp_path))
