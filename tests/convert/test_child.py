"""A compiler's process of its own: its failures are one line, and it ends with its parent."""

import os
import subprocess
import sys

import pytest

from mlopsdeploy.convert import child


def script(folder, text):
    file = folder / "script.py"
    file.write_text(text, "utf-8")
    return str(file)


def test_a_script_gets_its_arguments_and_environment(tmp_path):
    text = "import os, sys; sys.exit(f'{sys.argv[1:]} {os.getenv(chr(79))} {__name__}')"
    found = child.run(script(tmp_path, text), "a", tmp_path, env={"O": "value"})
    assert found == (1, f"['a', '{tmp_path}'] value __main__")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 0", (1, "ZeroDivisionError: division by zero")),
        ("import os; os.abort()", (-6, "its process ended with code -6")),
        ("import sys; sys.exit(3)", (3, "its process ended with code 3")),
        ("import parity", (1, "ModuleNotFoundError: No module named 'parity'")),
    ],
)
def test_why_it_failed_is_one_line(tmp_path, text, expected):
    assert child.run(script(tmp_path, text), env={}) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_when_its_parent_is_killed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "import signal, sys; f = open(sys.argv[1], 'w'); f.write('x'); f.flush(); signal.pause()"
    run = "import sys; from mlopsdeploy.convert import child; child.run(*sys.argv[1:], env={})"
    with subprocess.Popen([sys.executable, "-c", run, script(tmp_path, text), pipe]) as parent:
        with pipe.open() as written:
            assert written.read(1) == "x"
            parent.kill()
            assert written.read() == "", "it came to its end"
