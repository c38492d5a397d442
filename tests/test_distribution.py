"""The wheel and the sdist, built without the index: what is in them, and that it is enough."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlopsdeploy import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "mlopsdeploy"

if not SOURCE.is_dir():  # as in `make test-wheel`, which built them
    pytest.skip("there is no source tree here to build from", allow_module_level=True)


def run(*arguments, **options):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=200,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with both; the wheel is made from the sdist, so that holds what building needs."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY))
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def sdist(dist):
    """The names of the files in it."""
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as opened:
        return {name.partition("/")[2] for name in opened.getnames()}


@pytest.fixture(scope="module")
def metadata(wheel):
    return email.message_from_bytes(wheel.read(f"mlopsdeploy-{__version__}.dist-info/METADATA"))


def test_both_pass_the_checks_of_an_index(dist):
    files = [str(path) for path in dist.iterdir()]
    assert len(files) == 2
    run("-m", "twine", "check", "--strict", *files)
    [made] = [file for file in files if file.endswith(".whl")]
    run("-m", "check_wheel_contents", made, cwd=REPOSITORY)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    for name in (
        "py.typed", "page_look/look.css", "serve/pages/index.html", "edge/pages/preview.html",
        "batch/pages/report.html", "choose/pages/choose.html", "package/templates/Dockerfile.j2",
        "builtin/sentiment/model.onnx", "builtin/sentiment/tokenizer.json",
        "builtin/sentiment-zh/model.onnx", "builtin/sentiment-zh/tokenizer.json",
        "builtin/fraud/model.tflite", "builtin/detector/model.tflite", "builtin/detector/NOTICE",
    ):  # fmt: skip
        assert f"mlopsdeploy/{name}" in held


def test_what_models_ask_to_be_said_of_them_is_among_the_licences(wheel):
    licences = f"mlopsdeploy-{__version__}.dist-info/licenses/"
    held = {name.removeprefix(licences) for name in wheel.namelist() if name.startswith(licences)}
    notices = {path.relative_to(REPOSITORY).as_posix() for path in SOURCE.glob("builtin/*/NOTICE")}
    assert held == {"LICENSE", *notices}


def test_the_wheel_is_enough(wheel, tmp_path):
    """Unpacked before everything else on the path, it runs its own model."""
    wheel.extractall(tmp_path / "wheel")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "wheel")}
    said = run("-c", "import mlopsdeploy; print(mlopsdeploy.__file__)", cwd=tmp_path, env=env)
    assert said.stdout.startswith(str(tmp_path))
    rows = str(REPOSITORY / "examples" / "transactions.csv")
    done = run(
        "-m", "mlopsdeploy", "batch", rows, "--model", "fraud", "--limit", "3", "-o", "out.csv",
        "--json", cwd=tmp_path, env=env,
    )  # fmt: skip
    assert json.loads(done.stdout)["rows"] == 3


def test_the_sdist_holds_what_building_testing_and_reading_need(sdist):
    needed = {
        ".ci/run", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
        "pyproject.toml", "benchmarks/README.md", "configs/batch.yaml", "examples/reviews.csv",
        "recipes/train_sentiment.py",
        "mlopsdeploy/py.typed", "tests/conftest.py",
    }  # fmt: skip
    assert needed <= sdist
    assert not [name for name in sdist if "__pycache__" in name or "/.v" in name or "/.w" in name]
    for page in REPOSITORY.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
            assert any(name.startswith(target.rstrip("/")) for name in sdist), (page.name, target)


def test_the_page_on_an_index_leads_nowhere_that_is_not_there(metadata):
    text = metadata.get_payload()
    assert "# mlopsdeploy" in text
    assert "](docs/" in (REPOSITORY / "README.md").read_text("utf-8")
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", text)
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_every_extra_that_is_asked_for_exists(metadata):
    extras = set(metadata.get_all("Provides-Extra"))
    needs = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    own = [need for need in needs if need.name == "mlopsdeploy"]
    for need in own:
        assert need.extras <= extras
    asked = {name for need in needs for name in re.findall(r'extra == "([^"]+)"', str(need))}
    assert asked == extras
    assert {"batch", "serve", "edge", "package", "report", "all"} <= extras


def test_extras_that_the_docs_name_exist(metadata):
    extras = set(metadata.get_all("Provides-Extra"))
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]:
        for named in re.findall(r"mlopsdeploy\[([a-z0-9,-]+)\]", page.read_text("utf-8")):
            assert set(named.split(",")) <= extras, (page.name, named)
