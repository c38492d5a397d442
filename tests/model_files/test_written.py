"""What is written of a model survives being written down."""

import json
from pathlib import Path

import pytest

from mlopsdeploy.columns import Made, Written
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.written import from_json, to_json


def test_as_json_and_back():
    written = Written(
        outputs={"a": Made("softmax", "its last step"), "b": Made("", "unknown")},
        classes={"a": ("no", "yes")},
        parts={"c": ("a", "b")},
        task="classification",
        task_source="its loss",
        pixels=((0.0,), (255.0,), "its first steps"),
        sizes={"ids": 100},
        changing="it draws random numbers",
        features=("age", "amount"),
    )
    assert from_json(json.loads(json.dumps(to_json(written))), Path("x")) == written
    assert to_json(Written()) == {}
    assert from_json({}, Path("x")) == Written()


@pytest.mark.parametrize(
    "document",
    [[], "text", {"outputs": {"a": ["surely", ""]}}, {"pixels": [1]}, {"sizes": {"a": "b"}}],
)
def test_something_else_is_said(document):
    with pytest.raises(ModelError, match=r"x\.tflite: .*compile it again"):
        from_json(document, Path("x.tflite"))
