"""int8 is calibrated on the user's rows once, and used only within the bound."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlopsdeploy.columns import objects, take
from mlopsdeploy.convert import child, quantize
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import RECHECK_MARGIN
from mlopsdeploy.errors import ConfigError, InputError, ModelError

ROWS = 700


def refuse_to_calibrate():
    raise AssertionError("it is calibrated again")


@pytest.fixture(scope="module")
def columns(reviews):
    return {"text": objects(reviews(ROWS, seed=11))}


@pytest.fixture(scope="module")
def said():
    """What was said while `quick` was made."""
    return []


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("int8_cache")
        patch.setenv("MLOPSDEPLOY_CACHE", str(folder))
        yield folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))


def load(folder, calibrate=None, **options):
    options = {"runtime": "openvino", "precision": "int8", "threads": 1, **options}
    return load_model(str(folder), calibrate=calibrate, **options)


@pytest.fixture(scope="module")
def quick(bert, columns, said, own_cache):
    return load(bert, lambda: columns, max_flips=0.02, log=said.append)


@pytest.fixture(scope="module")
def exact(bert):
    return load(bert, precision="float32")


# ---------------------------------------------------------------- the proof


def test_the_proof_is_of_other_rows_against_float32(quick, exact, columns, said):
    assert quick.runtime.precision == "int8"
    assert quick.digest != exact.digest, "a resumed job would not notice"
    assert len(quick.digest) == 64
    calibration, held_out = quantize.split(quick.task, columns)
    proof = quick.proof
    assert proof["calibration_rows"] == len(calibration["text"]) == ROWS // 4
    assert proof["rows"] == len(held_out["text"]) == ROWS - ROWS // 4
    expected = exact.predict(held_out)
    for model, figures in (
        (quick, proof),
        (replace(quick, float32=None), proof["without_second_look"]),
    ):
        got = model.predict(held_out)
        change = np.abs(got["scores"] - expected["scores"]).max(axis=1)
        assert figures["label_flips"] == (got["label"] != expected["label"]).sum()
        assert figures["flip_share"] == figures["label_flips"] / len(change)
        assert figures["largest_change"] == pytest.approx(change.max(), abs=1e-6)
        assert figures["mean_change"] == pytest.approx(change.mean(), abs=1e-6)
    assert len(set(expected["label"])) == 2
    alone = proof["without_second_look"]
    assert alone["largest_change"] > 0, "int8 is not used"
    assert proof["label_flips"] < alone["label_flips"], "close calls get no second look"
    assert 0 < proof["second_looks"] < proof["rows"] / 2
    assert len(said) == 2
    assert f"on {proof['calibration_rows']} rows and comparing {proof['rows']} others" in said[0]
    assert f"{proof['label_flips']} of {proof['rows']} labels differ from float32's" in said[1]


def test_its_scales_are_fixed(bert, quick, own_cache):
    """Not the kind that is computed anew for each row."""
    import openvino as ov

    file = next(own_cache.glob("int8/*/model.xml"))
    kinds = [node.get_type_name() for node in ov.Core().read_model(str(file)).get_ops()]
    assert kinds.count("FakeQuantize") > 10
    dynamic = load(bert, threshold=0.5)  # for which nothing was calibrated
    assert not dynamic.proof
    rows = {"text": objects(["good room", "it was not very clean"])}
    scores = [replace(model, float32=None).predict(rows)["scores"] for model in (dynamic, quick)]
    assert np.abs(scores[0] - scores[1]).max() > 0


@pytest.mark.parametrize("folder", ["three_class_bert", "multi_label_bert"])
def test_other_kinds_of_labels(folder, columns, request):
    model = load(request.getfixturevalue(folder), lambda: columns, max_flips=0.05)
    assert model.proof["rows"] == ROWS - ROWS // 4
    assert model.proof["flip_share"] <= 0.05
    assert 0 < model.proof["mean_change"] < 0.05


def test_long_texts_in_windows(bert, reviews):
    """Calibrated on all windows of a text, and proven on their mean."""
    texts = [*reviews(250, seed=2), *(" ".join(reviews(60, seed=seed)) for seed in range(6))]
    rows = {"text": objects(texts)}
    model = load(bert, lambda: rows, long_text="chunks", max_flips=0.05)
    expected = load(bert, precision="float32", long_text="chunks").predict(rows)
    assert not expected["truncated"].any()
    change = np.abs(model.predict(rows)["scores"] - expected["scores"]).max(axis=1)
    assert 0 < change[250:].max() < 0.1


# ---------------------------------------------------------------- neighbours


def test_a_row_does_not_depend_on_its_neighbours(quick, columns):
    """Alone, among its like, and padded to the length of a text that is far longer."""
    rows = take(columns, slice(60))
    encoded = quick.task.encode(rows)
    unaided = replace(quick, float32=None)
    for model, bound in ((unaided, RECHECK_MARGIN["int8"] / 10), (quick, None)):
        alone = [model.predict(take(rows, slice(row, row + 1))) for row in range(60)]
        scores = np.concatenate([result["scores"] for result in alone])
        labels = np.concatenate([result["label"] for result in alone])
        generator = np.random.default_rng(5)
        for size in (2, 7, 60):
            order = generator.permutation(60)
            for start in range(0, 60, size):
                chosen = order[start : start + size]
                together = model.predict_batch(encoded, chosen)
                if bound:
                    assert np.abs(together["scores"] - scores[chosen]).max() < bound
                else:
                    assert (together["label"] == labels[chosen]).all()
    assert len(set(labels)) == 2


def test_the_proof_looks_at_neighbours(quick):
    among = quick.proof["among_other_rows"]
    assert among["rows"] == quick.proof["rows"]
    assert among["label_flips"] == 0
    swayed = {**quick.proof, "among_other_rows": {**among, "label_flips": 2}}
    refused = quantize.Quantized(Path("model.xml"), "", swayed)
    assert "2 labels depend on the rows beside theirs" in refused.refusal(1.0)


# ---------------------------------------------------------------- the second night


def test_calibrates_once_whatever_the_rows(bert, quick, own_cache, monkeypatch):
    monkeypatch.setattr(child, "installed", lambda package: False)  # nor is NNCF needed
    said = []
    again = load(bert, refuse_to_calibrate, max_flips=0.02, log=said.append)
    assert again.digest == quick.digest
    assert again.proof == quick.proof
    assert len(said) == 1
    assert quick.proof["made"][:10] in said[0]
    serving = load(bert, max_flips=0.02, log=said.append)
    assert serving.digest == quick.digest


def test_the_same_rows_give_the_same_model(bert, quick, columns, empty_cache):
    """In any order, so that a lost cache changes nothing."""
    backwards = take(columns, np.arange(ROWS)[::-1])
    assert load(bert, lambda: backwards, max_flips=0.02).digest == quick.digest


def test_the_proof_is_kept_and_nothing_of_the_rows(quick, own_cache):
    kept = {path.name for path in own_cache.glob("int8/*/*")}
    assert kept == {"model.bin", "model.xml", "proof.json", "used.json"}
    notes = [json.loads(file.read_text("utf-8")) for file in own_cache.glob("int8/*/used.json")]
    proofs = [json.loads(file.read_text("utf-8")) for file in own_cache.glob("int8/*/proof.json")]
    (proof,) = (proof for proof in proofs if proof["digest"] == quick.proof["digest"])
    assert proof == quick.proof
    assert {"made", "nncf", "openvino", "calibration_seconds"} <= set(proof)
    assert {frozenset(note) for note in notes} == {frozenset({"name", "reference"})}
    assert not list(own_cache.glob("int8/.*")), "something half-made is left"


def test_another_threshold_is_proven_anew():
    options = [{"threshold": None}, {"threshold": 0.9}, {"threshold": 0.9, "long_text": "chunks"}]
    assert len({quantize.place("a" * 64, option) for option in options}) == 3


# ---------------------------------------------------------------- refusals


def test_too_many_flips_are_refused_and_remembered(bert, quick):
    assert quick.proof["label_flips"] > 0, "the bound of this test can't be exceeded"
    with pytest.raises(ModelError) as refused:
        load(bert, refuse_to_calibrate, max_flips=0)
    message = str(refused.value)
    assert "int8 is refused" in message
    assert f"{quick.proof['label_flips']} of {quick.proof['rows']} labels differ" in message
    assert "--precision auto" in message
    assert "--max-flips" in message
    assert "\n" not in message
    said = []
    serving = load(bert, max_flips=0, log=said.append)
    assert not serving.proof, "serve runs a model that was refused"
    assert "int8 is not proven" in said[0]


def test_a_refusal_costs_one_calibration(bert, columns, empty_cache):
    calls = []

    def calibrate():
        calls.append(1)
        return columns

    for _ in range(2):
        with pytest.raises(ModelError, match="int8 is refused"):
            load(bert, calibrate, max_flips=0)
    assert len(calls) == 1
    assert load(bert, calibrate, max_flips=0.02).proof
    assert len(calls) == 1, "a bound that is raised calibrates again"


def test_few_rows(bert, reviews, tmp_path, empty_cache):
    texts = [*reviews(150), *reviews(150), "", "  "]
    with pytest.raises(InputError, match="at least 200 different texts, and there are 150: use"):
        load(bert, lambda: {"text": objects(texts)})
    assert [path.name for path in tmp_path.rglob("*")] == ["int8"], "an empty folder"


def test_without_nncf(bert, columns, empty_cache, monkeypatch):
    installed = child.installed
    monkeypatch.setattr(child, "installed", lambda name: name != "nncf" and installed(name))
    with pytest.raises(ConfigError, match=r"pip install 'mlopsdeploy\[int8\]'"):
        load(bert, refuse_to_calibrate)
    said = []
    assert load(bert, log=said.append).runtime.precision == "int8"  # serve, as ever
    assert "int8 is not proven" in said[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_runtimes_without_int8_say_so(bert, checkpoints, runtime):
    folder = checkpoints["Bert"] if runtime == "torch" else bert
    said = []
    with pytest.raises(ConfigError, match="openvino"):
        load(folder, refuse_to_calibrate, runtime=runtime, log=said.append)
    assert not said


def test_what_is_proven_by_its_makers_is_not_calibrated():
    assert load("sentiment", refuse_to_calibrate).runtime.precision == "int8"


def test_a_graph_that_cannot_be_quantised(quick, columns, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ModelError, match="can't be quantised to int8") as failed:
        quantize.int8_model(
            tmp_path / "int8" / "it",
            graph,
            lambda: columns,
            name="it",
            max_flips=1,
            floating=lambda: quick,
            quick=lambda file: (quick, quick),
        )
    assert "\n" not in str(failed.value)
    assert not list((tmp_path / "int8").iterdir())


# ---------------------------------------------------------------- the parts


def test_rows_are_split_by_what_they_say(quick, reviews):
    texts = reviews(400, seed=3)
    rows = {"text": objects([*texts, *texts[:50], "", " "])}
    calibration, held_out = (set(part["text"]) for part in quantize.split(quick.task, rows))
    assert not calibration & held_out
    assert calibration | held_out == set(texts)
    assert len(calibration) == 100
    shuffled = {"text": objects([*reversed(texts)])}
    again = quantize.split(quick.task, shuffled)
    assert [set(part["text"]) for part in again] == [calibration, held_out]


def test_long_texts_are_fewer(quick, reviews):
    """So that it does not take an hour."""
    short = {"text": objects(reviews(2000))}
    long = {"text": objects([f"{text} {'room service ' * 60}" for text in reviews(2000)])}
    sizes = [len(part["text"]) for part in quantize.split(quick.task, short)]
    assert sizes == [quantize.CALIBRATION_ROWS, quantize.PROOF_ROWS]
    fewer = quantize.split(quick.task, long)
    tokens = [int(quick.task.cost(quick.task.encode(part)).sum()) for part in fewer]
    assert tokens[0] <= quantize.CALIBRATION_COST
    assert tokens[1] <= quantize.PROOF_COST
    assert all(len(part["text"]) >= quantize.LEAST_ROWS for part in fewer)


def test_no_connection_is_tried(bert, quick, columns, tmp_path):
    """OpenVINO and NNCF report their use unless they are kept from it."""
    record = tmp_path / "connections"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        f"        open({str(record)!r}, 'a').write(f'{{event}} {{arguments}}\\n')\n"
        "sys.addaudithook(watch)\n",
        "utf-8",
    )
    watched = {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "CI": "", "NNCF_CI": ""}

    def python(code):
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **watched}, check=True)
        return record.exists()

    assert python("import socket; socket.getaddrinfo('localhost', 80)"), "the watch does not work"
    record.unlink()
    assert not python("import mlopsdeploy.runtimes.openvino, time; time.sleep(0.3)")
    encoded = quick.task.encode(take(columns, slice(4)))
    batch = quick.task.collate(encoded)
    np.savez(tmp_path / "batches.npz", **{f"0.{name}": array for name, array in batch.items()})
    code, reason = child.run(
        "quantize_openvino.py",
        bert / "onnx" / "model.onnx",
        tmp_path / "batches.npz",
        tmp_path,
        env=watched,
    )
    assert code == 0, reason
    assert (tmp_path / "model.xml").exists()
    assert not record.exists(), record.read_text("utf-8")
