"""What a shell gets when Tab is pressed, asked as the shells' scripts ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mlopsdeploy.cli import app
from mlopsdeploy.cli.commands import all_commands
from mlopsdeploy.core import plugins
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.models import convert as compiling
from mlopsdeploy.package.plan import TARGETS

PROGRAM = Path(sys.executable).with_name("mlopsdeploy")
FILES = []  # the shell's own completion of files, which also quotes


@pytest.fixture
def shop(tmp_path):
    """A folder to complete names in."""
    (tmp_path / "models" / "churn").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    for name in ("models/a.onnx", "models/notes.txt", "configs/night.yaml", "my model.onnx"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def tab(mlopsdeploy, shop):
    """`tab("batch --mo")`: what bash offers there; `shell="zsh"` gives the answer as it is."""

    def press(line, shell="bash", python=()):
        words = f"mlopsdeploy {line}"
        asked = {
            "_MLOPSDEPLOY_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "\n".join(words.split(" ")),
            "COMP_CWORD": str(words.count(" ")),
            "_TYPER_COMPLETE_ARGS": words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        done = mlopsdeploy(python=python, cwd=shop, env=asked)
        assert done.code == 0, done
        if python:
            return done.err
        assert done.err == ""
        return done.out.decode() if shell != "bash" else done.out.decode().split()

    return press


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("", ["batch", "serve", "edge", "choose", "package", "models", "bench"]),
        ("models qu", ["quantise"]),
        ("batch --text", ["--text-column"]),
        ("batch --model s", ["sentiment", "sentiment-zh"]),
        ("batch --model sentiment,sentiment-", ["sentiment,sentiment-zh"]),
        ("batch --model sentiment,models/a", ["sentiment,models/a.onnx"]),
        (
            "batch -m ",
            [
                "detector",
                "detector-fast",
                "fraud",
                "sentiment",
                "sentiment-zh",
                "configs/",
                "models/",
            ],
        ),
        ("batch -m models/", ["models/a.onnx", "models/churn/"]),
        ("models inspect mod", ["models/", "models/a.onnx", "models/churn/"]),
        ("models compare fraud f", ["fraud"]),
        ("serve -c configs/", ["configs/night.yaml"]),
        ("serve --server ", ["asyncio", "gunicorn"]),
        ("choose --server ", ["cloud", "own", "none"]),
        ("package edge --to ", ["systemd", "docker"]),
        ("edge --precision b", ["bfloat16"]),
        ("batch --runtime open", ["openvino"]),
        ("batch ", FILES),
        ("batch -m my", FILES),
        ("batch -m none/", FILES),
        ("models compare fraud sentiment --data ", FILES),
    ],
)
def test_bash(tab, line, offered):
    assert tab(line) == offered


def test_zsh_and_fish_show_help_as_well(tab):
    assert '"quantise":"Make a text classifier int8' in tab("models qu", "zsh")
    assert "quantise\tMake a text classifier int8" in tab("models qu", "fish")
    assert tab("batch ", "zsh").strip() == "_files"


@pytest.mark.parametrize("line", ["batch --model s", "edge --runtime ", "package serve --to "])
def test_it_loads_nothing_heavy(tab, line):
    imported = tab(line, python=("-X", "importtime"))
    loaded = {row.rpartition("|")[2].strip().partition(".")[0] for row in imported.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"numpy", "yaml", "rich", "pandas", "flask", "onnx", "openvino"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell):
    done = subprocess.run(
        [str(PROGRAM)], env={**os.environ, "_MLOPSDEPLOY_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"complete_{shell}" in done.stdout
    assert "mlopsdeploy" in done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_itself_completes_with_the_script(shop):
    line = (
        f'PATH="{PROGRAM.parent}:$PATH"; eval "$(_MLOPSDEPLOY_COMPLETE=source_bash mlopsdeploy)";'
        "COMP_WORDS=(mlopsdeploy serve --server gun); COMP_CWORD=3;"
        '_mlopsdeploy_completion mlopsdeploy; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=shop, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["gunicorn"]


# ---------------------------------------------------------------- words that others know as well


def offered(command, name):
    """What is offered for a parameter with nothing typed yet."""
    made = dict(all_commands(app))[command]
    (parameter,) = [one for one in made.params if one.name == name]
    context = typer.Context(made)
    return {item.value for item in parameter.shell_complete(context, "")}


def test_words_are_those_that_there_are():
    for strategy, targets in TARGETS.items():
        assert offered(f"package {strategy}", "to") == set(targets)
    assert offered("models compile", "to") == set(compiling.TARGETS)
    assert offered("batch", "runtime") == {"auto", *plugins.names("runtimes")}
    assert offered("batch", "if_exists") == {"replace", "append", "upsert", "fail"}
    assert set(built_in()) <= offered("batch", "model")
