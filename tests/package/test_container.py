"""What a container would run, run without one: see container.py for what that covers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from mlopsdeploy.bench import processes
from mlopsdeploy.core import machine

from . import container

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def port():
    return machine.free_port()


@pytest.fixture(scope="module")
def built(packaged, tmp_path_factory):
    """`built("edge", "docker", camera="0")`: the image of a package."""

    def make(strategy, target, **settings):
        container.needed()
        folder = packaged(strategy, target, **settings)
        container.hashed(folder)
        return container.build(folder, tmp_path_factory.mktemp("image"))

    return make


@pytest.fixture(scope="module")
def image(built, churn_onnx, port):
    """A server of a built-in model and of a user's own file."""
    models = ["fraud", f"churn={churn_onnx}"]
    return built("serve", "docker", models=models, port=port, drain_timeout=10)


@pytest.fixture
def running(image, port, tmp_path):
    with processes.start(image.command(), tmp_path) as server:
        ready = f"http://127.0.0.1:{port}/readyz"
        server.wait_until(lambda: processes.answers(ready), 90, "the container")
        yield server


@pytest.fixture
def volume(customers):
    """A folder with the rows, of the image's user."""
    os.chown(customers.parent, 10001, 10001)
    return customers.parent


def test_it_serves_without_rights_on_a_read_only_root_and_drains(image, running, port):
    status = Path(f"/proc/{running.pid}/status").read_text("ascii")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(facts["Uid"].split()) == {"10001"}
    assert facts["CapEff"] == facts["CapBnd"] == "0" * 16
    assert facts["NoNewPrivs"] == "1"
    assert os.statvfs(f"/proc/{running.pid}/root").f_flag & os.ST_RDONLY
    assert image.healthy()

    row = json.dumps({"instances": [{"age": 40, "visits": 2, "spend": 100}]})
    url, headers = f"http://127.0.0.1:{port}", {"Content-Type": "application/json"}
    asked = Request(f"{url}/v1/models/churn:predict", row.encode(), headers)
    with urlopen(asked, timeout=30) as answer:
        assert json.load(answer)["predictions"]
    assert processes.answers(f"{url}/v2/models/fraud/ready")

    # A request whose body is still on its way when SIGTERM comes is answered.
    slow = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v1/models/churn:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(row)}\r\n"
    slow.sendall(f"{head}Content-Type: application/json\r\n\r\n{row[:10]}".encode())
    time.sleep(0.5)
    os.kill(running.pid, signal.SIGTERM)
    threading.Timer(0.5, slow.sendall, [row[10:].encode()]).start()
    answer = slow.recv(4096)
    slow.close()
    assert answer.startswith(b"HTTP/1.1 200"), running.last_line
    running.wait(30)  # which raises but for an exit code of 0


def test_there_is_no_pip_and_no_training_framework(image):
    packages = image.root.inside("/opt/venv/lib")
    names = {path.name.partition("-")[0].lower() for path in packages.rglob("*.dist-info")}
    assert {"flask", "httptools", "ai_edge_litert", "onnxruntime", "mlopsdeploy"} <= names
    assert not names & {"pip", "torch", "tensorflow", "keras", "openvino", "pandas", "pyarrow"}


def test_another_model_than_the_pinned_one_is_refused(image, port, tmp_path):
    model = image.root.inside("/app/models/churn/model.onnx")
    content = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(content + b"\0")
    try:
        done = container.ran(image.command())
    finally:
        model.write_bytes(content)
    assert done.returncode == 2
    assert "model.onnx: its SHA-256 is not the one in model.yaml" in done.stderr


@pytest.fixture(scope="module")
def batch_image(built, churn_onnx):
    paths = {"model": str(churn_onnx), "input": "customers.csv", "output": "scored.csv"}
    return built("batch", "kubernetes", **paths, commit_seconds=0)


def test_a_batch_runs_on_its_volume_with_no_network(batch_image, volume):
    done = container.ran(batch_image.command(volumes={"/data": volume}, network=False))
    assert done.returncode == 0, done.stderr
    scored = (volume / "scored.csv").read_text("utf-8").splitlines()
    assert len(scored) == 51
    assert scored[0] == "name,age,visits,spend,label,score"
    assert (volume / "scored.csv").stat().st_uid == 10001
    made = yaml.safe_load(batch_image.root.inside("/etc/mlopsdeploy/batch.yaml").read_text())
    assert (made["model"], "schedule" in made) == ("/app/models/churn", False)
    assert made["runtime"] in ("onnxruntime", "openvino")


def test_a_killed_pod_is_followed_by_one_that_goes_on(batch_image, customers, volume):
    header, *rows = customers.read_text("utf-8").splitlines()
    customers.write_text("\n".join([header, *rows * 20_000, ""]), "utf-8")
    command = batch_image.command(volumes={"/data": volume}, network=False)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    growing = volume / "scored.csv.unfinished"
    end = time.monotonic() + 60
    while not (growing / "manifest.json").exists():
        assert first.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    assert first.wait(30) == -signal.SIGKILL
    assert not (volume / "scored.csv").exists()
    second = container.ran(command)
    assert second.returncode == 0, second.stderr
    assert "going on" in second.stderr
    with (volume / "scored.csv").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == 1_000_001


@pytest.mark.with_all  # a third image takes twenty seconds; what is in it, test_targets.py knows
def test_a_device_watches_without_a_window_or_a_network(built, volume):
    image = built("edge", "docker", camera="street.mp4", events="events.jsonl", limit=20)
    shutil.copyfile(REPOSITORY / "examples" / "street.mp4", volume / "street.mp4")
    done = container.ran(image.command(volumes={"/data": volume}, network=False))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (volume / "events.jsonl").read_text().splitlines()]
    assert "connected" in {event["event"] for event in events}
