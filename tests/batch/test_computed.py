"""Batches of windows that are not written yet: saved, found again, never taken for others."""

import json
import os

import numpy as np
import pytest

from mlopsdeploy.batch.computed import OfWindow, SavedBatches
from mlopsdeploy.columns import objects
from mlopsdeploy.core.model import Predicted

TEXTS = {
    "label": objects(["good", "", "a\0", "好"]),
    "score": np.array([1 / 3, np.nan, np.inf, 1e-38], np.float32),
    "truncated": np.array([True, False, True, False]),
    "tokens": np.arange(4, dtype=np.int64),
    "scores": np.arange(8, dtype=np.float32).reshape(4, 2) / 7,
}
OBJECTS = {
    "label": objects([objects(["chair", "dog"]), objects([]), objects(["dog", "dog"])]),
    "score": objects([np.array([0.1, 0.2], np.float32), np.zeros(0, np.float32), np.ones(2, "f4")]),
    "boxes": objects([np.ones((2, 4), "f4") / 3, np.zeros((0, 4), "f4"), np.ones((2, 4), "f4")]),
    "size": np.array([[480, 640]] * 3),
}


def predicted(columns, **more):
    return Predicted(np.arange(len(columns["label"]), dtype=np.intp) * 2, columns, **more)


def assert_same(one, other):
    assert one.dtype == other.dtype
    if one.dtype != object:
        np.testing.assert_array_equal(one, other)
        return
    for value, same in zip(one, other, strict=True):
        if isinstance(value, np.ndarray):
            assert_same(value, same)
        else:
            assert value == same


@pytest.mark.parametrize("columns", [TEXTS, OBJECTS, {"label": objects([]), "score": np.zeros(0)}])
def test_what_is_found_is_what_was_saved(tmp_path, columns):
    said = {3: predicted(columns, failed={1: "nø"}), 0: predicted(columns)}
    SavedBatches(tmp_path).save(OfWindow(41, "key", said))
    saved = SavedBatches(tmp_path)
    saved.open()
    assert saved.rows == 2 * len(columns["label"])
    found = saved.of(41, "key")
    assert found.keys() == said.keys()
    for place, part in found.items():
        assert part.failed == said[place].failed
        assert part.predictions.keys() == columns.keys()
        assert_same(part.rows, said[place].rows)
        for name, array in part.predictions.items():
            assert_same(array, columns[name])


def test_another_window_is_not_taken_for_it(tmp_path):
    saved = SavedBatches(tmp_path)
    saved.save(OfWindow(1, "key", {0: predicted(TEXTS)}))
    saved.save(OfWindow(1, "key", {5: predicted(TEXTS)}))
    saved.save(OfWindow(9, "other", {0: predicted(TEXTS)}))
    saved = SavedBatches(tmp_path)
    saved.open()
    assert saved.of(9, "key") == {}
    assert saved.rows == 8, "nobody takes those of a window that has changed"
    assert len([*tmp_path.iterdir()]) == 2
    assert saved.of(1, "key").keys() == {0, 5}
    assert saved.of(1, "key") == {}, "asked for once"


def test_what_is_written_is_dropped(tmp_path):
    saved = SavedBatches(tmp_path)
    for first in (1, 9, 17):
        saved.save(OfWindow(first, "key", {0: predicted(TEXTS)}))
    saved.drop(16)
    assert saved.rows == 4
    assert [path.name for path in tmp_path.iterdir()] == ["computed-17-0.npz"]
    saved.drop()
    assert saved.rows == 0
    assert list(tmp_path.iterdir()) == []


def damaged(arrays):
    """Files that are no longer what a run saved, in part put there by somebody, by their damage."""
    said = json.loads(arrays["json"].tobytes())
    yield "no list of batches", {"json": as_json({**said, "batches": []})}
    yield "deep", {"json": np.frombuffer(b"[" * 100_000, np.uint8)}
    yield "infinite", {"json": as_json({**said, "first": np.inf})}
    yield "pickle", {"json": objects([print])}
    yield "a row less", {**arrays, "0.score": arrays["0.score"][1:]}
    yield "no array", {**arrays, "0.score": np.float32(1)}
    yield "a name less", {name: array for name, array in arrays.items() if name != "0.score"}


def as_json(value):
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def test_a_file_that_can_t_be_read_is_none(tmp_path):
    saved = SavedBatches(tmp_path)
    saved.save(OfWindow(1, "key", {0: predicted(TEXTS)}))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    files = {"empty": b"", "cut": content[:-40], "other": b"no zip"}
    for kind, more in damaged(arrays):
        np.savez(path, **more)
        files[kind] = path.read_bytes()
    files["huge"] = content.replace(b"'shape': (4,), ", b"'shape': (4" + b"0" * 13 + b",), ")
    np.savez_compressed(path, **arrays)
    packed = bytearray(path.read_bytes())
    packed[packed.index(b"json.npy") + 40] ^= 0xFF
    files["packed"] = bytes(packed)
    for kind, damaged_one in files.items():
        path.write_bytes(damaged_one)
        saved = SavedBatches(tmp_path)
        saved.open()
        assert saved.of(1, "key") == {}, kind
        assert saved.rows == 0, kind
        assert list(tmp_path.iterdir()) == [], kind


def test_what_is_no_file_is_left_alone(tmp_path):
    """A pipe of that name would be waited for."""
    (tmp_path / "computed-1-0.npz").mkdir()
    os.mkfifo(tmp_path / "computed-2-0.npz")
    saved = SavedBatches(tmp_path)
    saved.open()
    saved.drop()
    assert saved.rows == 0
    assert len([*tmp_path.iterdir()]) == 2
