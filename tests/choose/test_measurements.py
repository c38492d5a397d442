"""Tiny real models measured for real, briefly: that figures fit together, never how large."""

import json
import shutil
from pathlib import Path

import pytest

from mlopsdeploy.choose.measurements import _turned, measure
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.errors import ConfigError, MlopsDeployError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def check(found):
    assert found.missing == {}
    assert not found.assumed
    assert found.row_bytes > 0
    for speed in (found.batch, found.serve, found.edge):
        assert speed.how
        assert speed.memory_mb > 10
    assert found.batch.rows_per_second > 0
    assert found.batch.start > 0
    low, high = found.serve.loads
    assert low.rate == pytest.approx(found.serve.capacity * 0.1)
    assert high.rate == pytest.approx(found.serve.capacity * 0.5)
    for load in found.serve.loads:
        assert 0 < load.p50 <= load.p99
        assert load.requests > 0
    assert 0 < found.edge.p50 <= found.edge.p99


def test_a_table(churn_onnx, customers, tmp_path):
    before = sorted(tmp_path.iterdir())
    said = []
    settings = ChooseSettings(model=str(churn_onnx), sample=str(customers), seconds=0.3)
    found = measure(settings, said.append)
    check(found)
    assert found.data == "table"
    assert any("serve" in line for line in said)
    assert sorted(tmp_path.iterdir()) == before  # nothing is left beside the sample


def test_texts_of_models_side_by_side(bert, reviews, tmp_path):
    for language in ("en", "zh"):
        shutil.copytree(bert, tmp_path / language)
        (tmp_path / language / "model.yaml").write_text(f"languages: [{language}]\n", "utf-8")
    sample = tmp_path / "reviews.jsonl"
    texts = [*reviews(10), *(f"很好吃，下次还来 {place}" for place in range(10)), ""]
    rows = [json.dumps({"id": place, "said": text}) for place, text in enumerate(texts)]
    sample.write_text("\n".join(rows), "utf-8")
    model = f"{tmp_path}/en,{tmp_path}/zh"
    settings = ChooseSettings(model=model, sample=str(sample), text_column="said", seconds=0.3)
    found = measure(settings)
    check(found)
    assert found.data == "text"
    assert "from 20 of" in found.batch.how.replace("made from", "from")


def test_pictures():
    settings = ChooseSettings(model="detector", sample=str(EXAMPLES / "street.mp4"), seconds=0.3)
    found = measure(settings)
    check(found)
    assert found.data == "image"
    assert "pictures made from" in found.batch.how


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "fraud"}, "--model needs --sample"),
        ({"model": "no-such-model", "sample": "a.csv"}, "no-such-model"),
        ({"model": "fraud", "sample": "no-such.csv"}, "no-such.csv"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings, message):
    with pytest.raises(MlopsDeployError, match=message) as raised:
        measure(ChooseSettings(**settings))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    assert isinstance(raised.value, ConfigError) or raised.type.__name__ == "CommandError"


def test_texts_are_turned_so_that_no_two_are_equal():
    turned = [_turned("one two three", turn) for turn in range(10)]
    assert len(set(turned)) == 10
    assert turned[0] == "one two three"
    assert turned[1] == "two three one"
