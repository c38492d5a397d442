"""Rows with labels, and what a report looks like on a terminal."""

from __future__ import annotations

import csv
import io
import shutil
from importlib import resources
from pathlib import Path

import pytest
import yaml
from rich.console import Console


@pytest.fixture(scope="session")
def fraud_folder(tmp_path_factory) -> Path:
    """The built-in model without its Keras file, so that nothing here waits for TensorFlow."""
    home = Path(str(resources.files("mlopsdeploy"))) / "builtin" / "fraud"
    folder = tmp_path_factory.mktemp("models") / "fraud"
    folder.mkdir()
    for name in ("model.tflite", "MODEL_CARD.md"):
        shutil.copy(home / name, folder)
    said = yaml.safe_load((home / "model.yaml").read_text("utf-8"))
    del said["sha256"]["model.keras"]
    (folder / "model.yaml").write_text(yaml.safe_dump(said), "utf-8")
    return folder


@pytest.fixture
def shown():
    """`shown(show, report)`: the text of a report at 80 columns."""

    def text(show, report, width=80):
        console = Console(width=width, record=True, file=io.StringIO())
        show(report, console)
        return console.export_text()

    return text


@pytest.fixture
def write_rows(tmp_path):
    """`write_rows("a.csv", text=[…], rating=[…])` gives the path."""

    def write(name, **columns):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return str(path)

    return write
