"""`--help` answers at once because nothing heavy is imported; every layer stands where it says."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mlopsdeploy

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = Path(mlopsdeploy.__file__).parent  # installed, or the source tree

# What the help of the command line may load besides the standard library.
ALLOWED = {
    "mlopsdeploy",
    "typer",
    "click",
    "shellingham",
    "typing_extensions",
    "annotated_doc",
    "colorama",
}

HELP = """
import sys
before = set(sys.modules)
from mlopsdeploy.cli import main
sys.argv = {arguments!r}
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print("@", *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        # tflite-runtime has an environment of its own: see runtimes/test_tflite.py.
        if parts[-1] not in ("__main__", "export_onnx", "export_litert", "tflite"):
            yield ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize(
    "arguments", [["-h"], ["batch", "-h"], ["choose", "-h"], ["models", "inspect", "-h"]]
)
def test_help_loads_only_what_is_allowed(arguments):
    script = HELP.replace("{arguments!r}", repr(["mlopsdeploy", *arguments]))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.rpartition("@")[2].split())
    own = {name for name in loaded if name not in sys.stdlib_module_names}
    own = {name for name in own if not name.startswith("_")}
    assert own <= ALLOWED, sorted(own - ALLOWED)
    assert "mlopsdeploy" in own
    assert "Usage" in done.stdout


def test_import_mlopsdeploy_loads_nothing_but_itself():
    script = (
        "import sys; before = set(sys.modules); import mlopsdeploy; mlopsdeploy.__version__;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {"mlopsdeploy"}


@pytest.mark.parametrize("name", list(modules()))
def test_every_module_can_be_imported_by_name(name):
    importlib.import_module(name)


def test_public_names_are_there():
    for name in mlopsdeploy.__all__:
        assert getattr(mlopsdeploy, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mlopsdeploy.no_such_name


def test_import_contracts_name_modules_that_exist():
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    known = set(modules())
    for contract in pyproject["tool"]["importlinter"]["contracts"]:
        named = [
            name.strip()
            for key in ("layers", "source_modules", "forbidden_modules", "modules")
            for entry in contract.get(key, ())
            for name in entry.split("|")
        ]
        assert named
        assert set(named) <= known, contract["name"]


def test_every_part_of_the_package_has_its_place_in_the_layers():
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    placed = {
        ".".join(name.strip().split(".")[:2])
        for contract in contracts
        for key in ("layers", "modules")
        for entry in contract.get(key, ())
        for name in entry.split("|")
    }
    top = {name for name in modules() if name.count(".") == 1}
    assert top == placed


def test_entry_points_lead_to_classes():
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    for group in ("mlopsdeploy.runtimes", "mlopsdeploy.tasks"):
        for name, target in pyproject["project"]["entry-points"][group].items():
            module, _, attribute = target.partition(":")
            assert module.rpartition(".")[2] == name, "a plug-in's module bears its name"
            if name == "tflite":  # has an environment of its own: see runtimes/test_tflite.py
                continue
            assert isinstance(getattr(importlib.import_module(module), attribute), type)


def test_every_runtime_has_an_extra_of_its_name():
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    runtimes = pyproject["project"]["entry-points"]["mlopsdeploy.runtimes"]
    assert set(runtimes) <= set(pyproject["project"]["optional-dependencies"])


def test_a_plain_run_does_not_load_what_writes_folders(tmp_path):
    rows = REPOSITORY / "examples" / "reviews.csv"
    script = (
        "import sys; from mlopsdeploy.batch.command import run_batch;"
        "from mlopsdeploy.settings import BatchSettings;"
        f"run_batch(BatchSettings(input={str(rows)!r}, output='o.csv', limit=3));"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "mlopsdeploy.data.destinations" in loaded
    assert not {"pyarrow.dataset", "mlopsdeploy.data.parquet_folder"} & loaded
