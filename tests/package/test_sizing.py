"""A short run of each kind. Speeds are looked at for being there, and for nothing else."""

import pytest

from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.package import sizing


@pytest.fixture(autouse=True)
def shorter(monkeypatch):
    monkeypatch.setattr(sizing, "SECONDS", 0.3)


def test_a_server_is_asked_for_rows_of_its_first_model(tmp_path):
    config = {"models": [{"model": "fraud", "name": "cards"}], "threads": 1}
    took = sizing.measure_server(config, "cards", tmp_path)
    assert took.per_second > 0
    assert 0 < took.latency < 10
    assert took.memory > took.worker > 10 * sizing.MIB


def test_a_batch_scores_its_first_rows(customers, churn_onnx, tmp_path):
    config = {"model": str(churn_onnx), "input": "customers.csv", "output": "never.csv"}
    took = sizing.measure_batch(config, tmp_path)
    assert took.per_second > 0
    assert took.memory > 10 * sizing.MIB
    assert took.how.startswith("the first 50 rows")
    assert not (tmp_path / "never.csv").exists()


def test_what_does_not_run_is_not_measured(tmp_path):
    with pytest.raises(MlopsDeployError, match="the run of a sample failed"):
        sizing.measure_batch({"model": "fraud", "input": "none.csv"}, tmp_path)
