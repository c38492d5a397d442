"""Figures that stand for measurements where the decision is tested, not the measuring."""

import pytest

from mlopsdeploy.choose.measurements import BatchSpeed, EdgeSpeed, Load, Measurements, ServeSpeed


@pytest.fixture(scope="session")
def found() -> Measurements:
    """A text model: 100 rows/s in batch, 200 requests/s served, 90 rows/s on a device."""
    return Measurements(
        model="reviews",
        data="text",
        machine="2 cores",
        cores=2,
        row_bytes=500,
        batch=BatchSpeed(100.0, 3.0, 300.0, "a run"),
        serve=ServeSpeed(
            200.0, (Load(20.0, 0.01, 0.02, 100), Load(100.0, 0.02, 0.05, 500)), 2.0, 250.0, "served"
        ),
        edge=EdgeSpeed(90.0, 0.01, 0.012, 100.0, "alone"),
    )
