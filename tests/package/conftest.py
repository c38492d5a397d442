"""Plans made by hand, for files; and packages made for real."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlopsdeploy.package import lock, targets
from mlopsdeploy.package.command import run_package
from mlopsdeploy.package.lock import Lock, Package
from mlopsdeploy.package.plan import PackedModel, Plan
from mlopsdeploy.package.sizing import Measured

FRAUD = PackedModel(
    "fraud", "1.0.0", "ab" * 32, "fraud", built_in=True, runtime="litert",
    task="tabular_classification", data="table", bytes=0,
)  # fmt: skip
CHURN = replace(FRAUD, name="churn", version="", source="churn.onnx", built_in=False, bytes=400)
LOCK = Lock(
    (Package("numpy", "2.4.6", ("12" * 32,), 17_000_000, 60_000_000),),
    "mlopsdeploy-0.1.0-py3-none-any.whl", "34" * 32, 26_000_000, ("amd64", "arm64"),
)  # fmt: skip
SETTINGS = {
    "serve": {
        "models": [{"model": "fraud", "name": "fraud"}, {"model": "/app/models/churn"}],
        "host": "0.0.0.0", "port": 8080, "workers": 2, "drain_timeout": 20.0,
    },
    "batch": {"input": "reviews.csv", "output": "scored.csv", "model": "fraud"},
    "edge": {"camera": "0", "model": "detector", "events": "events.jsonl", "window": False},
}  # fmt: skip
MEASURED = Measured(100 << 20, 60 << 20, 1000.0, 0.0004, "one worker, here")


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """`plan("serve", "kubernetes", drain=5)`."""

    def make(strategy: str, target: str, **values: Any) -> Plan:
        models = (FRAUD, CHURN) if strategy == "serve" else (FRAUD,)
        given = {
            "name": f"fraud-{strategy}", "settings": SETTINGS[strategy], "models": models,
            "lock": LOCK, "python": "3.11", "drain": 20.0, **values,
        }  # fmt: skip
        return Plan(strategy=strategy, target=target, **given)

    return make


@pytest.fixture
def written(plan: Callable[..., Plan], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`written("serve", "kubernetes")`: the files by path, YAML parsed; they lie in `tmp_path`."""

    def write(strategy: str, target: str, **values: Any) -> dict[str, Any]:
        files: dict[str, Any] = targets.write_files(plan(strategy, target, **values))
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, "utf-8")
        return {
            path: yaml.safe_load(text) if path.endswith(".yaml") else text
            for path, text in files.items()
        }

    return write


@pytest.fixture(scope="session")
def side_by_side(once: Callable[..., Path], bert: Path) -> list[Path]:
    """A model that reads English and one that reads Chinese, in folders of one name."""

    def make(folder: Path) -> None:
        for language in ("en", "zh"):
            copy = shutil.copytree(bert, folder / language / "bert")
            described = {"version": f"1-{language}", "languages": [language]}
            (copy / "model.yaml").write_text(yaml.safe_dump(described), "utf-8")

    folder = once("bert-side-by-side", make)
    return [folder / language / "bert" for language in ("en", "zh")]


@pytest.fixture(scope="session")
def packaged(
    tmp_path_factory: pytest.TempPathFactory, once: Callable[..., Path]
) -> Iterator[Callable[..., Path]]:
    """`packaged("serve", "docker", models=["fraud"])` packages for real; returns the folder."""
    [wheel] = once("own_wheel", lock._own_wheel).iterdir()

    def make(strategy: str, target: str, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("packaged")
        config, output = folder / "config.yaml", folder / "deploy"
        config.write_text(yaml.safe_dump(settings), "utf-8")
        run_package(strategy, target, config=str(config), output=str(output))
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "_own_wheel", lambda folder: Path(shutil.copy(wheel, folder)))
        yield make
