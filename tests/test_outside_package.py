"""A runtime, tasks and an output from a package that is not ours, installed by pip."""

import importlib.util
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "tests" / "outside_package"
ROWS = 300

_spec = importlib.util.spec_from_file_location(
    "how_docs_run", Path(__file__).with_name("test_docs.py")
)
docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs)
clone = docs.clone


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip leaves it, and the environment in which it is found."""
    folder = tmp_path_factory.mktemp("outside")
    source = shutil.copytree(PACKAGE, folder / "source")  # building writes beside the sources
    site = folder / "site"
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
            "--no-build-isolation", "--target", str(site), str(source),
        ],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"env": {"PYTHONPATH": os.pathsep.join(paths)}}


@pytest.fixture
def pump(tmp_path):
    """pump.npz, which whitens two columns that move together, pump.csv, and each row's distance."""
    draw = np.random.default_rng(0)
    rows = draw.multivariate_normal([20, 5], [[4, 1.5], [1.5, 1]], ROWS)
    rows[7] = [30, 0]
    variances, directions = np.linalg.eigh(np.cov(rows.T))
    weights = directions / np.sqrt(variances)
    names = ["temperature", "vibration"]
    np.savez(tmp_path / "pump.npz", center=rows.mean(0), weights=weights, columns=names)
    (tmp_path / "pump.yaml").write_text("task: anomaly\n", "utf-8")
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "pump.csv", index=False)
    return np.linalg.norm((rows - rows.mean(0)) @ weights, axis=1)


def test_each_of_its_files_is_under_sixty_lines():
    files = sorted((PACKAGE / "mlopsdeploy_example").glob("*.py"))
    assert [path.stem for path in files] == [
        "__init__", "anomaly", "collector", "forecast", "latest", "linear",
    ]  # fmt: skip
    assert all(len(path.read_text("utf-8").splitlines()) < 60 for path in files)
    said = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(said["entry-points"]) == {
        f"mlopsdeploy.{kind}" for kind in ("runtimes", "tasks", "sinks")
    }


def test_batch(mlopsdeploy, installed, pump, tmp_path):
    """Also a column that no built-in task has."""
    done = mlopsdeploy("batch", "pump.csv", "--model", "pump.npz", **installed)
    assert done.code == 0, done
    assert "linear float32" in done.err
    scored = pd.read_csv(tmp_path / "pump.predictions.csv")
    assert list(scored)[2:] == ["label", "score", "distance"]
    np.testing.assert_allclose(scored["distance"], pump, atol=1e-4)
    assert scored["label"][7] == "unusual"
    assert (scored["label"] == "unusual").sum() < ROWS / 20


def test_batch_knows_rows_of_before(mlopsdeploy, installed, pump, tmp_path):
    for _ in range(2):
        done = mlopsdeploy(
            "batch", "pump.csv", "--model", "pump.npz", "--incremental", "-o", "a.csv", **installed
        )
        assert done.code == 0, done
    assert f"{ROWS} from earlier runs" in done.err
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["distance"], pump, atol=1e-4)


def test_serve(installed, pump, clone, tmp_path, monkeypatch):
    """By the default answer, and by one that asks for what only this task gives."""
    (tmp_path / "serve.yaml").write_text(
        "models:\n- pump.npz\n- {model: pump.npz, name: check, route: /check, input: rows, "
        "answer: {broken: label == unusual, distance: distance}}\n", "utf-8"
    )  # fmt: skip
    (tmp_path / "bin").symlink_to(clone / "bin")
    monkeypatch.setenv("PYTHONPATH", installed["env"]["PYTHONPATH"])
    port = docs.free_port()
    with docs.running(tmp_path, f"mlopsdeploy serve -c serve.yaml --port {port}", port):
        url = f"http://127.0.0.1:{port}"
        for row in ([30, 0], {"temperature": 30, "vibration": 0}):
            answer = docs.post(f"{url}/v1/models/pump:predict", json.dumps({"instances": row}))
            assert answer == {"label": "unusual", "score": pytest.approx(1, abs=1e-3)}
        answer = docs.post(f"{url}/check", json.dumps({"rows": [[30, 0]]}))["predictions"][0]
        assert answer == {"broken": True, "distance": pytest.approx(pump[7], abs=1e-3)}


def test_edge(mlopsdeploy, installed, pump, tmp_path):
    lines = (tmp_path / "pump.csv").read_bytes()
    done = mlopsdeploy("edge", "--model", "pump.npz", "--lines", "-", stdin=lines, **installed)
    assert done.code == 0, done
    answers = [json.loads(line) for line in done.out.splitlines()]
    labels = [answer["label"] for answer in answers if answer["event"] == "line"]
    assert len(labels) == ROWS
    assert labels[7] == "unusual"


def test_an_output_of_its_own_has_what_the_others_have(mlopsdeploy, installed, pump, tmp_path):
    done = mlopsdeploy(
        "edge", "--model", "pump.npz", "--lines", "pump.csv", "--events", "e.jsonl",
        "--sink", "latest=latest.json", **installed,
    )  # fmt: skip
    assert done.code == 0, done
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text("utf-8").splitlines()]
    last = [line for line in lines if line["event"] == "line"][-1]
    assert last["line"] == ROWS + 1
    assert json.loads((tmp_path / "latest.json").read_text("utf-8")) == last


def test_of_a_camera_too(mlopsdeploy, installed, tmp_path):
    done = mlopsdeploy(
        "edge", "--camera", REPOSITORY / "examples" / "street.mp4", "--limit", "3", "--no-window",
        "--threads", "1", env={**installed["env"], "MLOPSDEPLOY_SINKS": "latest=latest.json"},
    )  # fmt: skip
    assert done.code == 0, done
    assert json.loads((tmp_path / "latest.json").read_text("utf-8"))["frame"] == 2


class Collecting(socketserver.StreamRequestHandler):
    """Takes lines; leaves after the third, once, and wants none of the ninth kind."""

    def handle(self):
        for line in self.rfile:
            if len(self.server.taken) == 3 and not self.server.left:
                self.server.left = True
                return
            event = json.loads(line)["data"]
            refused = event.get("line") == 9
            if not refused:
                self.server.taken.append(event)
            self.wfile.write(b"not nine\n" if refused else b"ok\n")


def test_a_destination_of_its_own_is_fed_from_the_outbox(mlopsdeploy, installed, pump, tmp_path):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Collecting) as server:
        server.daemon_threads, server.taken, server.left = True, [], False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        done = mlopsdeploy(
            "edge", "--model", "pump.npz", "--lines", "pump.csv", "--events", "e.jsonl", "--json",
            "--sink", f"collector=127.0.0.1:{server.server_address[1]}", "--send", "all",
            **installed,
        )  # fmt: skip
        server.shutdown()
    assert done.code == 0, done
    lines = [event["line"] for event in server.taken if event["event"] == "line"]
    assert lines == [number for number in range(2, ROWS + 2) if number != 9]
    sent = json.loads(done.out)["sent"]["collector"]
    assert (sent["refused"], sent["discarded"]) == (1, 0)
    assert "--collector: the collector has left; trying again, events wait" in done.err


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ("latest=none/a.json", "--sink latest=none/a.json: there is no folder none"),
        ("lates=a", "no sink called 'lates'; did you mean 'latest'?"),
        ("save=a.mp4", "--sink save: has a setting of its own, --save"),
        ("a.json", "--sink: expected NAME=VALUE"),
    ],
)
def test_an_output_that_can_not_be_opened_is_one_line(mlopsdeploy, installed, pump, sink, message):
    done = mlopsdeploy(
        "edge", "--model", "pump.npz", "--lines", "pump.csv", "--sink", sink, **installed
    )
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


# ---------------------------------------------------------------- an answer without a label


@pytest.fixture
def sales(tmp_path):
    """sales.npz, which sees the last rise go on for three days, sales.csv, and what must come."""
    days = ["monday", "tuesday"]
    weights = np.array([[-1, -2, -3], [2, 3, 4]])
    np.savez(tmp_path / "sales.npz", center=np.zeros(2), weights=weights, columns=days)
    said = "task: forecast\nserve: {answer: {forecast: forecast, total: total}}\n"
    (tmp_path / "sales.yaml").write_text(said, "utf-8")
    rows = pd.DataFrame([[10, 12], [5, 4], [0, 7]], columns=days)
    rows.to_csv(tmp_path / "sales.csv", index=False)
    return [[14, 16, 18], [3, 2, 1], [14, 21, 28]]


def test_a_forecast_under_batch(mlopsdeploy, installed, sales, tmp_path):
    done = mlopsdeploy("batch", "sales.csv", "--model", "sales.npz", "-o", "f.jsonl", **installed)
    assert done.code == 0, done
    assert "label" not in done.err
    answers = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text("utf-8").splitlines()]
    assert [answer["forecast"] for answer in answers] == sales
    assert [answer["total"] for answer in answers] == [48, 6, 63]
    assert not {"label", "score"} & set(answers[0])


def test_a_forecast_under_serve(installed, sales, clone, tmp_path, monkeypatch):
    (tmp_path / "bin").symlink_to(clone / "bin")
    monkeypatch.setenv("PYTHONPATH", installed["env"]["PYTHONPATH"])
    port = docs.free_port()
    with docs.running(tmp_path, f"mlopsdeploy serve --model sales.npz --port {port}", port):
        url = f"http://127.0.0.1:{port}/v1/models/sales:predict"
        answer = docs.post(url, json.dumps({"instances": [10, 12]}))
        assert answer == {"forecast": [14, 16, 18], "total": 48}


def test_a_forecast_under_edge(mlopsdeploy, installed, sales):
    done = mlopsdeploy(
        "edge", "--model", "sales.npz", "--lines", "-", stdin=b"10,12\n5,4\n", **installed
    )
    assert done.code == 0, done
    answers = [json.loads(line) for line in done.out.splitlines()]
    lines = [answer for answer in answers if answer["event"] == "line"]
    assert [line["forecast"] for line in lines] == sales[:2]


def test_a_doubt_of_its_own_is_a_question(mlopsdeploy, installed, sales, tmp_path):
    np.savez(
        tmp_path / "sales.npz", center=np.zeros(2), weights=np.ones((2, 1)), columns=["a", "b"]
    )
    done = mlopsdeploy("batch", "sales.csv", "--model", "sales.npz", **installed)
    assert done.code == 2
    assert "sales: forecasts one step only: a value (task: tabular_regression) or" in done.err


# ---------------------------------------------------------------- what goes wrong


def test_inspect_tells_of_both(mlopsdeploy, installed, pump):
    done = mlopsdeploy("models", "inspect", "pump.npz", "--json", "--no-speed", **installed)
    said = json.loads(done.out)
    assert (said["task"], said["runtime"]) == ("anomaly", "linear")
    assert [field["name"] for field in said["inputs"]] == ["temperature", "vibration"]


def test_without_the_package_its_files_are_of_an_unknown_kind(mlopsdeploy, pump):
    done = mlopsdeploy("batch", "pump.csv", "--model", "pump.npz")
    assert done.code == 2
    assert "pump.npz: not a model file that can be run; expected .onnx" in done.err


def test_a_damaged_file_is_one_line(mlopsdeploy, installed, pump, tmp_path):
    (tmp_path / "pump.npz").write_bytes(b"no zip")
    done = mlopsdeploy("batch", "pump.csv", "--model", "pump.npz", **installed)
    assert done.code == 2
    assert "pump.npz: not a linear map in .npz" in done.err
    assert "Traceback" not in done.err


def test_what_the_plug_in_needs_is_named(installed, pump, tmp_path):
    """Not mlopsdeploy's extras: it has none for a package of somebody else's."""
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "from mlopsdeploy.core import plugins\n"
        "from mlopsdeploy.errors import ConfigError\n"
        "try: plugins.load('runtimes', 'linear')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **installed["env"]},
    )  # fmt: skip
    assert "runtime 'linear' needs the package 'numpy', which mlopsdeploy_example" in done.stdout
