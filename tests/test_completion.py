"""What a shell gets when Tab is pressed, asked as the shells' scripts ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mlopsdeploy.cli import app
from mlopsdeploy.cli.commands import all_commands
from mlopsdeploy.core import plugins
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.models import convert as compiling
from mlopsdeploy.package.plan import TARGETS

PROGRAM = Path(sys.executable).with_name("mlopsdeploy")
FILES = ["the shell's own completion of files, which also quotes"]


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
        words = f"mlopsdeploy {line}".split(" ")
        asked = {
            "_MLOPSDEPLOY_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
        }
        done = subprocess.run(
            [sys.executable, *python, str(PROGRAM)], cwd=shop, env={**os.environ, **asked},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done
        if python or shell != "bash":
            return done
        assert done.stderr == ""
        offered = [row.split(",", 1) for row in done.stdout.split()]
        return FILES if offered[0][0] == "file" else [word for _, word in offered]

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
        ("batch ", FILES),
        ("batch -m my", FILES),
        ("batch -m none/", FILES),
        ("models compare fraud sentiment --data ", FILES),
    ],
)
def test_bash(tab, line, offered):
    assert tab(line) == offered


def test_zsh_and_fish_show_help_as_well(tab):
    assert "quantise\nMake a text classifier int8" in tab("models qu", "zsh").stdout
    assert "quantise\tMake a text classifier int8" in tab("models qu", "fish").stdout
    assert tab("batch ", "zsh").stdout.split() == ["file", "_"]


@pytest.mark.parametrize("line", ["batch --model s", "edge --runtime ", "package serve --to "])
def test_it_loads_nothing_heavy(tab, line):
    imported = tab(line, python=("-X", "importtime")).stderr
    loaded = {row.rpartition("|")[2].strip().partition(".")[0] for row in imported.splitlines()}
    assert "click" in loaded
    assert not loaded & {"numpy", "yaml", "rich", "pandas", "flask", "onnx", "openvino", "pydantic"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_is_shown_and_installed(shell, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [str(PROGRAM), *arguments], env={**os.environ, "HOME": str(tmp_path), "SHELL": shell},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip

    start_up = tmp_path / f".{shell}rc"
    start_up.write_text("# mine\n", "utf-8")
    shown = run("--show-completion", shell)
    assert f"_MLOPSDEPLOY_COMPLETE={shell}_complete" in shown
    script = Path(run("--install-completion").partition(":")[0])
    assert run("--install-completion", shell)
    assert script.read_text("utf-8").strip() == shown.strip()
    assert tmp_path in script.parents
    if shell != "fish":  # which looks into that folder by itself
        assert start_up.read_text("utf-8").startswith("# mine\n\n")
        assert len(start_up.read_text("utf-8").splitlines()) == 3, "installed once"


def test_a_shell_that_has_no_script():
    done = subprocess.run(
        [str(PROGRAM), "--install-completion"], env={**os.environ, "SHELL": "/bin/csh"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mlopsdeploy: which shell? name one of bash, zsh, fish\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_itself_completes_with_the_script(shop):
    line = (
        f'PATH="{PROGRAM.parent}:$PATH"; eval "$(mlopsdeploy --show-completion bash)";'
        "COMP_WORDS=(mlopsdeploy serve --server g); COMP_CWORD=3;"
        '_mlopsdeploy_completion mlopsdeploy; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=shop, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["granian", "gunicorn"]


# ---------------------------------------------------------------- words that others know as well


def offered(command, name):
    """What is offered for a parameter with nothing typed yet."""
    made = dict(all_commands(app))[command]
    (parameter,) = [one for one in made.params if one.name == name]
    context = click.Context(made)
    return {item.value for item in parameter.shell_complete(context, "")}


def test_words_are_those_that_there_are():
    for strategy, targets in TARGETS.items():
        assert offered(f"package {strategy}", "to") == set(targets)
    assert offered("models compile", "to") == set(compiling.TARGETS)
    assert offered("batch", "runtime") == {"auto", *plugins.names("runtimes")}
    assert offered("batch", "if_exists") == {"replace", "append", "fail"}
    assert set(built_in()) <= offered("batch", "model")
