"""Docs are tests: every command in README.md runs, every file in configs/ validates and runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlopsdeploy.config import BatchSettings, load

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
NEEDS = ("pip", "network", "GPU", "hub", "your")


def commands():
    """Lines of README.md's bash blocks, continued lines joined."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line.strip() for line in lines if line.strip().startswith("mlopsdeploy ")]
    return found


RUN = [line for line in commands() if "# not run" not in line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with examples/ and configs/, and `mlopsdeploy` on the path."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("examples", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "examples" / "reviews.csv", folder)
    program = folder / "bin" / "mlopsdeploy"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mlopsdeploy "$@"\n', "utf-8"
    )
    program.chmod(0o755)
    return folder


def shell(folder, line):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def test_the_readme_has_commands():
    assert any(line.startswith("mlopsdeploy batch") for line in RUN)


@pytest.mark.parametrize("line", list(dict.fromkeys(RUN)))
def test_a_command_of_the_readme(clone, line):
    done = shell(clone, line)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", [line for line in commands() if "# not run" in line])
def test_what_is_not_run_at_least_names_flags_that_exist(clone, line):
    helped = shell(clone, "mlopsdeploy batch --help").stdout
    for flag in re.findall(r"(?<= )--[a-z-]+", line):
        assert flag in helped, line


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_a_config_validates_and_runs(clone, config):
    load(BatchSettings, str(config), {}, {})
    done = shell(clone, f"mlopsdeploy batch --config configs/{config.name} --limit 30")
    assert done.returncode == 0, done.stderr


def test_the_batch_config_shows_every_setting():
    text = (REPOSITORY / "configs" / "batch.yaml").read_text("utf-8")
    for name in BatchSettings.model_fields:
        assert re.search(rf"^#? ?{name}:", text, re.MULTILINE), name
    assert isinstance(yaml.safe_load(text), dict)


def test_files_the_readme_links_to_exist():
    text = (REPOSITORY / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (REPOSITORY / target).exists(), target
