"""What a shell gets when Tab is pressed, asked as the shells' scripts ask."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import typer

from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.cli import app, completion
from mlopsdeploy.core import plugins
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.models import convert as compiling
from mlopsdeploy.package.plan import TARGETS
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings

PROGRAM = Path(sys.executable).with_name("mlopsdeploy")


@pytest.fixture
def shop(tmp_path):
    """A folder to complete names in."""
    (tmp_path / "models" / "churn").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    for name in ("models/a.onnx", "models/notes.txt", "configs/night.yaml", "my model.onnx"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def tab(shop):
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
        done = subprocess.run(
            [sys.executable, *python, str(PROGRAM)], cwd=shop, env={**os.environ, **asked},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done
        if not python:
            assert done.stderr == ""
        return done if python or shell != "bash" else done.stdout.split()

    return press


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("", ["batch", "serve", "edge", "choose", "package", "models", "bench"]),
        ("models qu", ["quantise"]),
        ("batch --text", ["--text-column"]),
        ("batch --model s", ["sentiment"]),
        ("batch -m ", ["detector", "fraud", "sentiment", "configs/", "models/"]),
        ("batch -m models/", ["models/a.onnx", "models/churn/"]),
        ("models inspect mod", ["models/", "models/a.onnx", "models/churn/"]),
        ("models compare fraud f", ["fraud"]),
        ("serve -c configs/", ["configs/night.yaml"]),
        ("serve --server ", ["granian", "gunicorn"]),
        ("choose --server ", ["cloud", "own", "none"]),
        ("package edge --to ", ["systemd", "docker"]),
        ("edge --precision b", ["bfloat16"]),
        ("batch --runtime open", ["openvino"]),
        # The shell's own completion of files, which also quotes.
        ("batch ", []),
        ("batch -m my", []),
        ("batch -m none/", []),
        ("models compare fraud sentiment --data ", []),
    ],
)
def test_bash(tab, line, offered):
    assert tab(line) == offered


def test_zsh_and_fish_show_help_beside_it(tab):
    assert '"quantise":"Make a text classifier int8' in tab("models qu", "zsh").stdout
    assert "quantise\tMake a text classifier int8" in tab("models qu", "fish").stdout
    assert tab("batch ", "zsh").stdout.strip() == "_files"


@pytest.mark.parametrize("line", ["batch --model s", "edge --runtime ", "package serve --to "])
def test_it_loads_nothing_heavy(tab, line):
    said = tab(line, python=("-X", "importtime")).stderr
    loaded = {row.rpartition("|")[2].strip().partition(".")[0] for row in said.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"numpy", "yaml", "rich", "pandas", "flask", "onnx", "openvino"}
    assert "mlopsdeploy.settings" not in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell):
    done = subprocess.run(
        [str(PROGRAM)], env={**os.environ, "_MLOPSDEPLOY_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"complete_{shell}" in done.stdout
    assert "mlopsdeploy" in done.stdout


# ---------------------------------------------------------------- the words are the settings'


def offered(command, name):
    """What is offered for a parameter with nothing typed yet."""
    chosen = completion._OFFERED.get(f"{command} {name}", completion._OFFERED.get(name))
    return set(chosen("")) if chosen else set()


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("batch", BatchSettings),
        ("serve", ServeSettings),
        ("edge", EdgeSettings),
        ("choose", ChooseSettings),
    ],
)
def test_a_setting_of_a_few_words_offers_these(command, settings):
    for name, field in settings.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        words = {word for part in parts if get_origin(part) is Literal for word in get_args(part)}
        if words:
            assert offered(command, name) == words, name


def test_other_words_are_those_that_there_are():
    for strategy, targets in TARGETS.items():
        assert offered(f"package_{strategy}", "to") == set(targets)
    assert offered("models_compile", "to") == set(compiling.TARGETS)
    assert offered("batch", "runtime") == {"auto", *plugins.names("runtimes")}
    assert set(built_in()) <= offered("batch", "model")


def test_all_that_is_offered_is_a_parameter_of_a_command():
    commands = typer.main.get_command(app).commands
    functions = {
        sub.callback.__name__: {param.name for param in sub.params}
        for command in commands.values()
        for sub in getattr(command, "commands", {"": command}).values()
    }
    everything = set().union(*functions.values())
    for key in completion._OFFERED:
        function, _, name = key.rpartition(" ")
        assert name in (functions[function] if function else everything), key
