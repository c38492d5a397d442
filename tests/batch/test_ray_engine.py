"""The same job by a real Ray: two nodes on this machine, with a core each."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.batch.loading import load_for
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError, ModelError
from mlopsdeploy.settings import BatchSettings

from . import tables

ray_engine = pytest.importorskip("mlopsdeploy.batch.ray_engine")

# Ray's own code uses what Ray has deprecated, and leaves files open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNTS = (
    "rows", "labels", "truncated", "tokens", "lost_tokens", "duplicates", "empty", "failed",
    "unread", "read_by",
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes():
    """Nothing of a job is on the second node but the model."""
    ray = ray_engine.ray
    from ray.cluster_utils import Cluster

    room = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
    cluster.add_node(**room)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import it
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del cluster
    gc.collect()  # while what it says is ignored


@pytest.fixture
def on_ray(nodes, score, monkeypatch):
    """`on_ray(path, ray_actors="2")` is `score`, computed by Ray."""

    def run(path, loaded=None, progress=None, **settings):
        with monkeypatch.context() as patch:
            if loaded:
                patch.setattr(ray_engine, "load_for", loaded)
            if progress:
                patch.setattr(command, "progress_of", lambda *_: nullcontext(progress))
            return score(path, engine="ray", **{"ray_actors": "1", **settings})

    return run


@pytest.fixture
def both(score, on_ray, tmp_path):
    """`both(path)`: outputs, set-aside rows, manifests of the local engine and of Ray's."""

    def run(path, suffix=".csv", actors="1", **settings):
        done = []
        for name, engine in (("local", score), ("ray", partial(on_ray, ray_actors=actors))):
            output = tmp_path / "out" / f"{name}{suffix}"
            output.parent.mkdir(exist_ok=True)
            summary = engine(path, output=str(output), batch_size=10, **settings)
            errors = output.with_name(f"{output.name}.errors.jsonl")
            manifest = json.loads(output.with_name(f"{output.name}.manifest.json").read_bytes())
            bad = errors.read_bytes() if errors.exists() else b""
            done.append((output, bad, manifest, summary))
        return done

    return run


@pytest.fixture
def locally(score, tmp_path):
    """`locally(path)`: what the local engine writes."""

    def run(path, **settings):
        output = tmp_path / "locally.csv"
        score(path, output=str(output), batch_size=10, **settings)
        return output.read_bytes()

    return run


def write(path, texts):
    return tables.write(path, enumerate(texts))


def assert_same(local, ray):
    assert local[0].read_bytes() == ray[0].read_bytes()
    assert local[1] == ray[1]
    for name in COUNTS:
        assert local[3][name] == ray[3][name], name
    for name in ("statistics", "errors", "input_digest", "settings_digest", "model"):
        assert local[2][name] == ray[2][name], name
    assert local[3]["mean_score"] == pytest.approx(ray[3]["mean_score"])


def test_csv_is_the_same_byte_for_byte(both, tmp_path, reviews):
    """By two actors; with rows of each kind, those set aside and a report's examples among them."""
    path = write(tmp_path / "in.csv", [*reviews(500), "", "good " * 300, "good " * 300])
    lines = path.read_text("utf-8").splitlines()
    lines[50] += ",one,too,many"
    lines[170] = "just one field"
    path.write_text("\n".join([*lines, ""]), "utf-8")
    report = str(tmp_path / "r.html")
    local, ray = both(path, max_errors="2", report=report, actors="2")
    assert_same(local, ray)
    assert [json.loads(line)["line"] for line in ray[1].splitlines()] == [51, 171]
    assert ray[2]["statistics"]["answers"][0]["examples"]
    assert ray[3]["truncated"] == 2
    assert ray[3]["lost_tokens"] > 0
    assert ray[3]["empty"] == 1
    assert ray[3]["duplicates"] == 1
    assert set(ray[3]["stages"]) == {"read", "parse", "encode", "model", "write"}


def test_several_files_of_json_are_one_input(both, tmp_path, reviews):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        lines = [json.dumps({"review_text": text, "n": [1]}) for text in reviews(130, seed)]
        lines[7] = "{broken"
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    local, ray = both(folder, suffix=".jsonl", max_errors="10")
    assert_same(local, ray)
    assert ray[3]["failed"] == 3
    local, ray = both(folder, suffix=".jsonl", max_errors="10", columns=["n"], fresh=True)
    assert_same(local, ray)
    assert json.loads(ray[0].read_bytes().partition(b"\n")[0]).keys() - {"label", "score"} == {
        "n", "truncated",
    }  # fmt: skip


def test_parquet_keeps_its_types(both, tmp_path, reviews):
    texts = reviews(300)
    table = pa.table({"review_text": texts, "stars": pa.array(range(300), pa.int16())})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=70)
    local, ray = both(tmp_path / "in.parquet", suffix=".parquet")
    assert_same(local, ray)
    rows = pyarrow.parquet.read_table(ray[0])
    assert rows["review_text"].to_pylist() == texts
    assert rows.schema.field("stars").type == pa.int16()


def test_a_tabular_model(both, customers, churn_onnx):
    local, ray = both(customers, model=str(churn_onnx), actors="1-2")
    assert_same(local, ray)
    assert ray[3]["rows"] == 50


def test_texts_of_several_languages(both, tmp_path, side_by_side, mixed_reviews, monkeypatch):
    """By models whose paths mean something only in this folder."""
    path = write(tmp_path / "in.csv", mixed_reviews(300))
    folder = Path(side_by_side["en"]).parent
    monkeypatch.chdir(folder)
    local, ray = both(path, model=f"en,{side_by_side['zh']}", precision="auto", actors="2")
    assert_same(local, ray)
    assert ray[3]["unread"] == {"de": 30}
    assert ray[3]["read_by"] == {"en": 180, "zh": 120}


def test_two_calls_at_a_time_in_an_actor_of_two_cores(locally, on_ray, tmp_path, reviews, nodes):
    path = write(tmp_path / "in.csv", reviews(300))
    wide = nodes.add_node(num_cpus=2, object_store_memory=80 << 20)
    local = locally(path)
    output = tmp_path / "wide.csv"
    on_ray(path, ray_cpus=2, output=str(output), batch_size=10)
    assert output.read_bytes() == local
    nodes.remove_node(wide)


def test_a_killed_worker_costs_no_row(locally, on_ray, tmp_path, reviews):
    path = write(tmp_path / "in.csv", reviews(1500))
    local = locally(path)
    killed = []

    def kill(rows, share):
        if len(killed) < 2 and (found := workers()):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    output = tmp_path / "killed.csv"
    summary = on_ray(path, ray_actors="2", output=str(output), batch_size=10, progress=kill)
    assert len(killed) == 2
    assert output.read_bytes() == local
    assert summary["rows"] == 1500


def workers():
    """Processes that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker(MapBatches(_Scorer))" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def dies_over_rows(settings, precision):
    model = load_for(settings, precision)
    return replace(model, float32=None, task=Deadly(model.task))


class Deadly:
    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        return getattr(self._task, name)

    def collate(self, encoded):
        os.kill(os.getpid(), signal.SIGKILL)


def dies_early(settings, precision):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (dies_over_rows, "rows 1 to 80: 4 workers died over them"),
        (dies_early, "workers die while they load the model"),
    ],
)
def test_what_kills_every_worker_ends_the_run(on_ray, tmp_path, reviews, load, told):
    path = write(tmp_path / "in.csv", reviews(100))
    with pytest.raises(MlopsDeployError, match=told):
        on_ray(path, loaded=load, batch_size=10)


def test_too_many_bad_rows_end_the_run_and_it_goes_on(locally, on_ray, tmp_path, reviews):
    path = write(tmp_path / "in.csv", reviews(600))
    lines = path.read_text("utf-8").splitlines()
    lines[400] = "just one field"
    path.write_text("\n".join([*lines, ""]), "utf-8")
    local = locally(path, max_errors="1")
    output = tmp_path / "stopped.csv"
    settings = {"output": str(output), "batch_size": 10, "commit_seconds": 0}
    with pytest.raises(MlopsDeployError, match="1 of .* rows are bad"):
        on_ray(path, max_errors="0", **settings)
    assert not output.exists()
    summary = on_ray(path, max_errors="1", **settings)
    assert summary["attempts"] == 2
    assert output.read_bytes() == local


def test_what_ray_prints_is_not_on_standard_output(on_ray, tmp_path, reviews, monkeypatch, capsys):
    from ray._private import utils, worker

    path = write(tmp_path / "in.csv", reviews(20))
    printed = threading.Event()
    by_ray = worker.print_to_stdstream

    def noted(*arguments, **options):
        by_ray(*arguments, **options)
        printed.set()

    monkeypatch.setattr(worker, "print_to_stdstream", noted)

    def warn(rows, share):
        utils.push_error_to_driver(worker.global_worker, "test", "a warning of the cluster's")
        assert printed.wait(30)

    on_ray(path, progress=warn)
    assert capsys.readouterr().out == ""


def test_a_changed_input_starts_over(locally, on_ray, tmp_path, reviews):
    path = write(tmp_path / "in.csv", reviews(400))
    output = tmp_path / "changed.csv"
    settings = {"output": str(output), "batch_size": 10, "commit_seconds": 0}

    def stop(rows, share):
        raise MlopsDeployError("stopped")

    with pytest.raises(MlopsDeployError, match="rows are kept"):
        on_ray(path, progress=stop, **settings)
    write(path, reviews(400, seed=9))
    local = locally(path)
    summary = on_ray(path, **settings)
    assert summary["rows"] == 400
    assert output.read_bytes() == local


def test_another_model_on_a_node_is_noticed(on_ray, three_class_bert, tmp_path, reviews):
    path = write(tmp_path / "in.csv", reviews(20))

    def loads(reference):
        return lambda settings, precision: load_for(settings.replace(model=reference), precision)

    with pytest.raises(ModelError, match="the digest of .* every node needs the same files"):
        on_ray(path, loaded=loads(str(three_class_bert)))
    with pytest.raises(ModelError, match="nowhere"):
        on_ray(path, loaded=loads(str(tmp_path / "nowhere.onnx")))


def test_a_run_that_ended_before_its_last_step_takes_it(locally, on_ray, tmp_path, reviews):
    path = write(tmp_path / "in.csv", reviews(160))
    local = locally(path)
    seen = []

    def stop(rows, share):
        seen.append(rows)
        if sum(seen) == 160:
            raise MlopsDeployError("stopped")

    output = tmp_path / "ended.csv"
    with pytest.raises(MlopsDeployError, match="160 rows are kept"):
        on_ray(path, progress=stop, output=str(output), batch_size=10)
    on_ray(path, output=str(output), batch_size=10)
    assert output.read_bytes() == local


def test_threads_of_rays_are_waited_for(on_ray, tmp_path, reviews):
    """In the middle of a run, as after an interrupt: they are there, and then they are not."""
    path = write(tmp_path / "in.csv", reviews(300))
    seen = []

    def stop(rows, share):
        seen.extend(readers())
        raise MlopsDeployError("stopped")

    with pytest.raises(MlopsDeployError, match="rows are kept"):
        on_ray(path, progress=stop, batch_size=10, commit_seconds=0)
    ray_engine._join_readers()
    assert {name.partition("-")[0] for name in seen} == set(ray_engine._READERS)
    assert readers() == []


def readers():
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(ray_engine._READERS)]


def test_an_input_that_breaks_off_is_told_in_a_line(on_ray, bert, tmp_path, reviews):
    import gzip

    path = tmp_path / "in.csv.gz"
    plain = write(tmp_path / "plain.csv", reviews(30_000, seed=4)).read_bytes()
    path.write_bytes(gzip.compress(plain)[:-20_000])
    with pytest.raises(InputError, match="can't be read .*ended before"):
        on_ray(path, batch_size=10_000)


def test_what_no_cluster_has_is_not_waited_for(nodes):
    check = partial(ray_engine._check_room, log=print)
    with pytest.raises(ConfigError, match="1 actors of 1 GPUs each"):
        check(ray_engine.Cluster(gpus=1))
    with pytest.raises(ConfigError, match="9 actors of 1 CPUs each"):
        check(ray_engine.Cluster(actors=(9, 9)))
    said = []
    ray_engine._check_room(ray_engine.Cluster(address="auto", gpus=1), said.append)
    assert "waiting" in said[0]


# ---------------------------------------------------------------- in a process, on its own Ray


def start(folder, bert, path, *more):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "mlopsdeploy", "batch", path.name, "--model", str(bert)),
            *("--runtime", "onnxruntime", "--precision", "float32", "--batch-size", "100"),
            *("--commit-seconds", "0", "--engine", "ray", *more),
        ],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_ctrl_c_keeps_what_is_done(bert, tmp_path, reviews):
    """And a Ray of its own writes nothing on a run's streams."""
    path = write(tmp_path / "in.csv", reviews(10_000, seed=5))
    process = start(tmp_path, bert, path)
    manifest = tmp_path / "in.predictions.csv.unfinished" / "manifest.json"
    end = time.monotonic() + 120
    while not manifest.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "rows are kept" in err
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "in.predictions.csv").exists()
    again = start(tmp_path, bert, path)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out == ""
    known = ("scored ", "read as ", "rows ", "time ", "labels ", " ", "mean ", "truncated ")
    known += ("duplicates ", "empty ", "bad rows ", "model ", "written to ")
    others = [line for line in err.splitlines() if not line.startswith(known)]
    (resumed,) = [line for line in others if "rows/s" not in line]
    assert "going on after" in resumed
    rows = tables.read(tmp_path / "in.predictions.csv")
    assert [row["id"] for row in rows] == [str(number) for number in range(10_000)]


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("127.0.0.1:1", 1, "no cluster at 127.0.0.1:1"),
        ("ray://x:10001", 2, "ray job submit"),
    ],
)
def test_a_cluster_that_is_not_there(bert, tmp_path, reviews, address, code, told):
    path = write(tmp_path / "in.csv", reviews(50))
    process = start(tmp_path, bert, path, "--ray-address", address)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert told in err
    assert len(err.splitlines()) == 1, err


def test_standard_input_is_read_by_no_task(tmp_path):
    with pytest.raises(ConfigError, match="can't read standard input"):
        command.run_batch(BatchSettings(input="-", output=str(tmp_path / "o.csv"), engine="ray"))


def test_pictures(nodes, tmp_path, monkeypatch):
    """They travel with their windows: no worker needs to see their files."""
    monkeypatch.chdir(tmp_path)
    examples = Path(__file__).resolve().parents[2] / "examples" / "photos"
    (tmp_path / "photos").mkdir()
    for file in examples.iterdir():
        (tmp_path / "photos" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "photos" / "cut.jpg").write_bytes(file.read_bytes()[:5000])
    settings = {"model": "detector", "input": "photos", "max_errors": "none"}
    here = command.run_batch(BatchSettings(**settings, output="here.jsonl"))
    there = command.run_batch(
        BatchSettings(**settings, output="there.jsonl", engine="ray", ray_actors="1")
    )
    for end in ("", ".errors.jsonl"):
        made = [(tmp_path / f"{name}.jsonl{end}").read_bytes() for name in ("here", "there")]
        assert made[0] == made[1]
    for name in ("rows", "objects", "labels", "mean_score", "failed"):
        assert here[name] == pytest.approx(there[name])


TAKEN = """
import os, runpy, signal, threading, time

def terminate():
    while not getattr(signal.getsignal(signal.SIGTERM), "__module__", "").startswith("ray"):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=terminate, daemon=True).start()
runpy.run_module("mlopsdeploy", run_name="__main__")
"""


def test_sigterm_while_ray_starts(bert, tmp_path, reviews):
    """It then has a handler of its own, which would end the run with code 15 and no word."""
    path = write(tmp_path / "in.csv", reviews(10))
    done = subprocess.run(
        [sys.executable, "-c", TAKEN, "batch", path, "--model", bert, "--engine", "ray"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 143
    assert done.stderr == "mlopsdeploy: terminated; nothing was written\n"
