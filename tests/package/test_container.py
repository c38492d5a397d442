"""What a container would run, run without one: see container.py for what that covers."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml

from . import container

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def image(packaged, churn_onnx, port, tmp_path_factory):
    """A server of a built-in model and of a user's own file."""
    container.needed()
    folder = packaged(
        "serve", "docker", models=["fraud", f"churn={churn_onnx}"], port=port, drain_timeout=10
    )
    container.hashed(folder)
    return container.build(folder, tmp_path_factory.mktemp("image"))


class Running:
    def __init__(self, image, port, log):
        self.port = port
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(image.command(), stdout=file, stderr=file)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def until_ready(self):
        end = time.monotonic() + 90
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def running(image, port, tmp_path):
    server = Running(image, port, tmp_path / "log")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def test_it_serves_without_rights_on_a_read_only_root_and_drains(image, running):
    running.until_ready()
    status = Path(f"/proc/{running.process.pid}/status").read_text("ascii")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(facts["Uid"].split()) == {"10001"}
    assert facts["CapEff"] == facts["CapBnd"] == "0" * 16
    assert facts["NoNewPrivs"] == "1"
    root = f"/proc/{running.process.pid}/root"
    assert os.statvfs(root).f_flag & os.ST_RDONLY
    assert image.healthy()

    row = json.dumps({"instances": [{"age": 40, "visits": 2, "spend": 100}]})
    code, body = running.call("POST", "/v1/models/churn:predict", row)
    assert code == 200, body
    assert json.loads(body)["predictions"]
    assert running.call("GET", "/v2/models/fraud/ready")[0] == 200

    # A request whose body is still on its way when SIGTERM comes is answered.
    slow = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    head = f"POST /v1/models/churn:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(row)}\r\n"
    slow.sendall(f"{head}Content-Type: application/json\r\n\r\n{row[:10]}".encode())
    time.sleep(0.5)
    running.process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, slow.sendall, [row[10:].encode()]).start()
    answer = slow.recv(4096)
    slow.close()
    assert answer.startswith(b"HTTP/1.1 200"), running.log.read_text()
    assert running.process.wait(30) == 0, running.log.read_text()


def test_there_is_no_pip_and_no_training_framework(image):
    packages = image.root.inside("/opt/venv/lib")
    names = {path.name.partition("-")[0].lower() for path in packages.rglob("*.dist-info")}
    assert {"flask", "granian", "ai_edge_litert", "onnxruntime", "mlopsdeploy"} <= names
    assert not names & {"pip", "torch", "tensorflow", "keras", "openvino", "pandas", "pyarrow"}


def test_another_model_than_the_pinned_one_is_refused(image, port, tmp_path):
    model = image.root.inside("/app/models/churn/model.onnx")
    content = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(content + b"\0")
    try:
        done = subprocess.run(
            image.command(), capture_output=True, text=True, check=False, timeout=90
        )
    finally:
        model.write_bytes(content)
    assert done.returncode == 2
    assert "model.onnx: its SHA-256 is not the one in model.yaml" in done.stderr


@pytest.fixture(scope="module")
def batch_image(packaged, churn_onnx, tmp_path_factory):
    container.needed()
    folder = packaged(
        "batch", "kubernetes", model=str(churn_onnx), input="customers.csv", output="scored.csv",
        commit_seconds=0,
    )  # fmt: skip
    container.hashed(folder)
    return container.build(folder, tmp_path_factory.mktemp("batch_image"))


def test_a_batch_runs_on_its_volume_with_no_network(batch_image, customers):
    volume = customers.parent
    os.chown(volume, 10001, 10001)
    command = batch_image.command(volumes={"/data": volume}, network=False)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    scored = (volume / "scored.csv").read_text("utf-8").splitlines()
    assert len(scored) == 51
    assert scored[0] == "name,age,visits,spend,label,score"
    assert (volume / "scored.csv").stat().st_uid == 10001


def test_a_killed_pod_is_followed_by_one_that_goes_on(batch_image, customers):
    volume = customers.parent
    os.chown(volume, 10001, 10001)
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
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert second.returncode == 0, second.stderr
    assert "going on" in second.stderr
    with (volume / "scored.csv").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == 1_000_001


def test_a_device_watches_without_a_window_or_a_network(packaged, tmp_path_factory):
    container.needed()
    folder = packaged("edge", "docker", camera="street.mp4", events="events.jsonl", limit=20)
    container.hashed(folder)
    image = container.build(folder, tmp_path_factory.mktemp("edge_image"))
    volume = tmp_path_factory.mktemp("volume")
    os.chown(volume, 10001, 10001)
    shutil.copyfile(REPOSITORY / "examples" / "street.mp4", volume / "street.mp4")
    command = image.command(volumes={"/data": volume}, network=False)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (volume / "events.jsonl").read_text().splitlines()]
    assert "connected" in {event["event"] for event in events}


def test_the_packaged_yaml_is_the_one_that_ran(batch_image):
    said = yaml.safe_load(batch_image.root.inside("/etc/mlopsdeploy/batch.yaml").read_text())
    assert said["model"] == "/app/models/churn"
    assert said["runtime"] in ("onnxruntime", "openvino")
    assert "schedule" not in said
