"""Docs are tests: every command in them runs, every file in configs/ validates and runs.

The guides in docs/guides have tests of their own: test_guides.py.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import mlopsdeploy
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings, load

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = Path(mlopsdeploy.__file__).parent
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CHINESE = REPOSITORY / "README.zh-CN.md"


def blocks(pages=PAGES):
    """The bash blocks as lists of lines, continued lines joined."""
    for page in pages:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            lines = (line.strip() for line in block.replace("\\\n", " ").splitlines())
            yield [line for line in lines if line]


def commands():
    """All lines that call us."""
    pages = [*PAGES, CHINESE]
    return [line for block in blocks(pages) for line in block if line.startswith("mlopsdeploy ")]


# A server runs until it is stopped: its block, and what follows it in the block, is a test of its
# own.
SERVED = [block for block in blocks() if block[0].startswith("mlopsdeploy serve")]
NOT_HERE = [
    line for line in dict.fromkeys(commands()) if re.search(r"# not run|--camera (0|rtsp)\b", line)
]
RUN = [
    line for line in commands() if line not in NOT_HERE and not line.startswith("mlopsdeploy serve")
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, forks):
    """A folder with examples/ and configs/, and `mlopsdeploy` on the path."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("examples", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "examples" / "reviews.csv", folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "mlopsdeploy").symlink_to(forks.program())
    return folder


def shell(folder, line):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # `choose` may measure for a shorter time than a reader would want.
    environment = {**os.environ, "PATH": path, "MLOPSDEPLOY_SECONDS": "0.3"}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(folder, command, port):
    """A server that is ready, and is stopped as an operator would."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        shlex.split(command), cwd=folder, env={**os.environ, "PATH": path},
        executable=str(folder / "bin" / "mlopsdeploy"),
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, "not ready in a minute"
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said


def post(url, body):
    request = urllib.request.Request(
        url, body.encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_the_docs_have_commands():
    assert any(line.startswith("mlopsdeploy batch") for line in RUN)
    assert SERVED


def test_the_chinese_readme_has_the_same_commands():
    """Word for word, but for comments, and that its reviews are in Chinese."""

    def bare(pages):
        return [
            [
                re.sub(r"\s+# .*", "", line).replace("reviews.zh.csv", "reviews.csv")
                for line in block
            ]
            for block in blocks(pages)
        ]

    assert bare([CHINESE]) == bare(PAGES[:1])


# Nor need `bench` measure for long.
@pytest.mark.parametrize(
    "line", list(dict.fromkeys(re.sub(r"--seconds [\d.]+", "--seconds 0.2", line) for line in RUN))
)
def test_a_command_of_the_docs(clone, line):
    done = shell(clone, line)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "block", [block for block in SERVED if "# not run" not in block[0]], ids=lambda block: block[0]
)
def test_a_server_of_the_docs_and_its_callers(clone, block):
    port = free_port()
    lines = (re.sub(r"\s+# .*", "", line) for line in block)
    command, *callers = (re.sub(r"\b8080\b", str(port), line) for line in lines)
    if "--port" not in command:
        command += f" --port {port}"
    with running(clone, command.rstrip(" &"), port):
        for line in callers:
            done = shell(clone, line)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert "urn:mlopsdeploy:problem" not in done.stdout, done.stdout


@pytest.mark.parametrize("line", NOT_HERE)
def test_what_is_not_run_at_least_names_flags_that_exist(clone, line):
    words = line.split()
    command = words[: 3 if words[1] in ("models", "bench", "package") else 2]
    helped = shell(clone, f"{' '.join(command)} --help").stdout
    for flag in re.findall(r"(?<= )--[a-z-]+", line):
        assert flag in helped, line


def test_the_batch_config_runs(clone):
    load(BatchSettings, str(REPOSITORY / "configs" / "batch.yaml"), {}, {})
    done = shell(clone, "mlopsdeploy batch --config configs/batch.yaml --limit 30")
    assert done.returncode == 0, done.stderr


def test_the_config_of_pictures_runs(clone):
    load(BatchSettings, str(REPOSITORY / "configs" / "batch-pictures.yaml"), {}, {})
    done = shell(clone, "mlopsdeploy batch --config configs/batch-pictures.yaml --json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 3
    assert found["labels"] == {"Chair": 3, "Car": 2}


def test_the_serve_config_runs(clone):
    settings = load(ServeSettings, str(REPOSITORY / "configs" / "serve.yaml"), {}, {})
    assert {"fraud", "sentiment"} == {served.called for served in settings.models}
    port = free_port()
    with running(clone, f"mlopsdeploy serve -c configs/serve.yaml --port {port}", port):
        body = json.dumps({"reviews": ["Works like a charm.", "Broke on day two."]})
        answer = post(f"http://127.0.0.1:{port}/sentiment", body)
        assert [one["label"] for one in answer["predictions"]] == ["POSITIVE", "NEGATIVE"]
        transaction = (clone / "examples" / "transaction.json").read_text("utf-8")
        answer = post(f"http://127.0.0.1:{port}/detect_fraud", transaction)
        assert list(answer) == ["is_fraud", "score", "threshold", "model", "version"]


def test_the_config_of_a_server_of_pictures_runs(clone):
    load(ServeSettings, str(REPOSITORY / "configs" / "serve-pictures.yaml"), {}, {})
    picture = Path(mlopsdeploy.__file__).parent / "builtin" / "detector" / "example.jpg"
    port = free_port()
    with running(clone, f"mlopsdeploy serve -c configs/serve-pictures.yaml --port {port}", port):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/objects", picture.read_bytes(), {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    assert answer["people"] is False
    assert {one["label"] for one in answer["detections"]} == {"Car", "Chair"}
    assert (answer["width"], answer["height"]) == (640, 360)


def test_the_edge_config_runs(clone):
    load(EdgeSettings, str(REPOSITORY / "configs" / "edge.yaml"), {}, {})
    line = (
        "mlopsdeploy edge -c configs/edge.yaml --camera examples/street.mp4 --limit 9 --no-window"
    )
    done = shell(clone, line)
    assert done.returncode == 0, done.stderr
    assert (clone / "events.jsonl").read_text("utf-8").count('"event": "frame"') == 9


def test_the_edge_counting_config_runs(clone):
    """A car goes out of the clip to the right, and one comes back."""
    load(EdgeSettings, str(REPOSITORY / "configs" / "edge-counting.yaml"), {}, {})
    line = (
        "mlopsdeploy edge -c configs/edge-counting.yaml --camera examples/street.mp4 --no-window "
        "--json"
    )
    done = shell(clone, line)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["gates"] == {"middle": {"Car": {"in": 1, "out": 1}}}
    assert summary["zones"]["left lane"]["Car"]["entered"] == 2
    events = map(json.loads, (clone / "counts.jsonl").read_text("utf-8").splitlines())
    kinds = [event["event"] for event in events if "direction" in event or "zone" in event]
    assert sorted(kinds) == ["crossed", "crossed", "entered", "entered", "left", "left"]


def test_the_edge_lines_config_runs(clone):
    load(EdgeSettings, str(REPOSITORY / "configs" / "edge-lines.yaml"), {}, {})
    (clone / "chat.log").write_text("Works like a charm.\nBroke on day two.\n", "utf-8")
    done = shell(clone, "mlopsdeploy edge -c configs/edge-lines.yaml --limit 2")
    assert done.returncode == 0, done.stderr
    events = map(json.loads, (clone / "answers.jsonl").read_text("utf-8").splitlines())
    labels = [event["label"] for event in events if event["event"] == "line"]
    assert labels == ["POSITIVE", "NEGATIVE"]


def test_the_choose_config_runs(clone):
    load(ChooseSettings, str(REPOSITORY / "configs" / "choose.yaml"), {}, {})
    done = shell(clone, "mlopsdeploy choose -c configs/choose.yaml --yes --seconds 0.3 --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_every_config_has_a_test():
    assert sorted(path.stem for path in CONFIGS) == [
        "batch", "batch-pictures", "choose", "edge", "edge-counting", "edge-lines", "serve",
        "serve-pictures",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("batch", BatchSettings),
        ("choose", ChooseSettings),
        ("edge", EdgeSettings),
        ("serve", ServeSettings),
    ],
)
def test_a_config_shows_every_setting(name, settings):
    text = (REPOSITORY / "configs" / f"{name}.yaml").read_text("utf-8")
    for setting in settings.declared():
        assert re.search(rf"^#? ?{setting}:", text, re.MULTILINE), setting
    assert isinstance(yaml.safe_load(text), dict)


def is_there(page, target):
    """Here, or in the package where that is installed apart from its source."""
    path = (page.parent / target).resolve()
    return path.exists() or (PACKAGE.parent / path.relative_to(REPOSITORY)).exists()


@pytest.mark.parametrize("page", [*PAGES, CHINESE], ids=lambda page: page.name)
def test_files_that_docs_link_to_exist(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
        assert is_there(page, target), target


@pytest.mark.with_all  # takes twenty seconds
def test_the_table_of_files_is_what_runs_on_them_give():
    made = runpy.run_path(str(REPOSITORY / "docs" / "files.py"))
    assert made["PAGE"].read_text("utf-8") == made["page"](), "run python docs/files.py"


def test_the_reference_is_as_it_would_be_written():
    for name, page in runpy.run_path(str(REPOSITORY / "docs" / "reference.py"))["PAGES"].items():
        written = (REPOSITORY / "docs" / "reference" / name).read_text("utf-8")
        assert written == page(), f"{name}: run python docs/reference.py"
