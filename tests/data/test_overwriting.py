"""What may be overwritten: what a run of ours wrote, and never an input or a model."""

import os
import sqlite3
from pathlib import Path

import fsspec
import pytest

import mlopsdeploy
from mlopsdeploy.data.destinations import destination
from mlopsdeploy.data.files import ERRORS, PUBLISHING, beside, note_of
from mlopsdeploy.data.overwriting import Protected, state_of, write_note, wrote
from mlopsdeploy.errors import ConfigError, InputError

OTHERS = "is there already, and not as mlopsdeploy has written it"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "in/b.csv", "in/c.csv"):
        (tmp_path / name).write_text("id,text\n1,good\n", "utf-8")
    return tmp_path


def ours(output):
    """What a run leaves that wrote it."""
    place = destination(output)
    note_of(place.base).write_text(
        f'{{"written": {{"{place.base.name}": "{state_of(place.base)}"}}}}', "utf-8"
    )


def refused(output, match, **protected):
    """Also with --overwrite, if it is an input or a model."""
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=match):
            destination(output).protect(Protected(**protected, overwrite=overwrite))


def allowed(output, *inputs, **protected):
    destination(output).protect(Protected(inputs, **protected))


def of_others(output, *inputs, named="", **protected):
    """Refused, but with --overwrite."""
    with pytest.raises(ConfigError, match=rf"{named or output}: {OTHERS}"):
        allowed(output, *inputs, **protected)
    allowed(output, *inputs, **protected, overwrite=True)


@pytest.mark.parametrize(
    "output", ["a.csv", "in/../a.csv", "link.csv", "hard.csv", "{here}/a.csv", "./in/.././a.csv"]
)
def test_the_input_by_any_name(here, output):
    Path("link.csv").symlink_to("a.csv")
    os.link("a.csv", "hard.csv")
    ours("a.csv")
    refused(output.format(here=here), "is the input itself", inputs=("a.csv",))
    refused("a.csv", "is (the|one of the) inputs?", inputs=(output.format(here=here),))


@pytest.mark.parametrize("given", ["in", "in/", "in/*.csv", "**/*.csv", "./in/../in"])
def test_one_of_several_inputs(here, given):
    refused("in/b.csv", "is one of the inputs", inputs=(given,))
    allowed("in/new.csv", given)
    ours("in/c.csv")  # its last night's output is not read
    allowed("in/c.csv", given)
    refused("in/", "is the input itself|holds the input", inputs=(given,))


def test_standard_input_from_a_file(here):
    saved = os.dup(0)
    file = os.open("a.csv", os.O_RDONLY)
    try:
        os.dup2(file, 0)
        refused("a.csv", "is the input itself", inputs=("-",))
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(file)


@pytest.mark.parametrize("success", [True, False])
def test_a_folder_of_others_with_a_sign_of_success(here, success):
    """Spark leaves one, too."""
    if success:
        Path("in/_SUCCESS").touch()
    of_others("in/", "a.csv")
    refused("in/", "is the input itself", inputs=("in",))
    refused("in/", "holds the input", inputs=("in/b.csv",))
    refused("in/", "holds the input", inputs=("in/b*.csv",))
    assert Path("in/b.csv").exists()


def test_a_folder_of_ours_until_it_is_changed(here):
    ours("in/")
    allowed("in/", "a.csv")
    Path("in/new").touch()
    of_others("in/", "a.csv")


def test_a_file_of_ours_until_it_is_changed(here):
    Path("o.csv").write_text("scored", "utf-8")
    of_others("o.csv", "a.csv")
    ours("o.csv")
    allowed("o.csv", "a.csv")
    Path("o.csv").write_text("edited", "utf-8")
    os.utime("o.csv", (1, 1))
    of_others("o.csv", "a.csv")


def test_what_a_killed_run_was_publishing_is_its_own(here):
    Path("o.csv").write_text("scored", "utf-8")
    Path("o.csv.unfinished").mkdir()
    (Path("o.csv.unfinished") / PUBLISHING).touch()
    allowed("o.csv", "a.csv")


@pytest.mark.parametrize("name", [ERRORS, "manifest.json"])
def test_files_next_to_the_output(here, name):
    beside(Path("o.csv"), name).write_text("mine", "utf-8")
    of_others("o.csv", "a.csv", named=rf"o\.csv\.{name}")


def test_what_is_no_file(here):
    os.mkfifo("fifo.csv")
    refused("fifo.csv", "is no regular file")
    Path("device.csv").symlink_to("/dev/null")
    refused("device.csv", "is no regular file")
    Path("in.csv").mkdir()
    refused("in.csv", "is a folder; name a file")
    refused("a.csv/", "is a file; name a folder")
    with pytest.raises(InputError, match="the folder none does not exist"):
        destination("none/o.csv").protect(Protected())


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no mount point is known here")
def test_a_mount_point_is_refused_before_the_work(here):
    refused("/dev/shm/", "is a mount point")
    Path("link").symlink_to("/dev/shm")
    refused("link/", "is a mount point")


@pytest.mark.parametrize(
    "output",
    ["m/model.csv", "m/deep/labels.csv", "./m/../m/model.csv", "to/model.csv", "hard.csv"],
)
def test_what_is_in_the_folder_of_a_model(here, output):
    Path("m/deep").mkdir(parents=True)
    for name in ("m/model.csv", "m/deep/labels.csv"):
        Path(name).write_text("weights", "utf-8")
    Path("to").symlink_to("m")
    os.link("m/model.csv", "hard.csv")
    if output == "hard.csv":
        of_others(output, models=("m",))
        return
    refused(output, "belongs to the model m", models=("m",))
    refused("m/", "belongs to the model", models=("m",))
    allowed("m/new.csv", models=("m",))
    Path("m/new.csv").write_text("scored", "utf-8")
    ours("m/new.csv")
    allowed("m/new.csv", models=("m",))


CARD = Path(mlopsdeploy.__file__).parent / "builtin" / "fraud" / "MODEL_CARD.md"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("d.tflite", "d.tflite"),
        ("d.tflite", "d.yaml"),
        ("d.tflite", "coco.txt"),
        ("d.tflite", "d.txt"),
        ("fraud", CARD),
        ("./en, d.tflite", "d.tflite"),
        ("./en,fraud", CARD),
        ("d.tflite,./en", "en/model.onnx"),
        ("a,b.tflite", "a,b.tflite"),
    ],
)
def test_the_files_of_a_model(here, model, name):
    """Of several side by side, those of each."""
    Path("en").mkdir()
    for file in ("d.tflite", "coco.txt", "d.txt", "other.txt", "en/model.onnx", "a,b.tflite"):
        Path(file).write_text("x", "utf-8")
    Path("d.yaml").write_text("labels: coco.txt\n", "utf-8")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"--events .*: belongs to the model") as refusal:
            Protected(models=(model,), overwrite=overwrite).check(name, f"--events {name}")
        assert str(refusal.value).rpartition("model ")[2].removesuffix("; name another") in model
    Protected(models=(model,), overwrite=True).check("other.txt", "--events other.txt")


def test_by_what_is_in_it(here):
    for name, content, expected in [
        ("page.html", '<html><meta name="generator" content="mlopsdeploy 1.0">', True),
        ("theirs.html", '<html><meta name="generator" content="Hugo">', False),
        ("e.jsonl", '{"event": "connected", "time": "2026-11-22"}\n{"ev', True),
        ("data.jsonl", '{"event": "concert"}\n', False),
        ("text.txt", "[1, 2]\n", False),
    ]:
        Path(name).write_text(content, "utf-8")
        assert wrote(Path(name)) is expected, name


def test_a_file_that_a_crash_left_unfinished_is_ours_until_another_takes_its_name(here):
    video = Path("v.mp4")
    video.write_bytes(b"frames")
    write_note(video, finished=False)
    with video.open("ab") as file:
        file.write(b"more frames")
    assert wrote(video)
    write_note(video)
    assert wrote(video)
    Path("theirs.mp4").write_bytes(b"theirs")
    Path("theirs.mp4").replace(video)
    assert not wrote(video)


# ---------------------------------------------------------------- tables and objects


@pytest.fixture
def shop(here):
    with sqlite3.connect("shop.db") as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, text TEXT)")
        connection.execute("CREATE TABLE theirs (id INTEGER)")
        connection.execute("CREATE VIEW recent AS SELECT * FROM reviews")
        connection.execute("CREATE VIEW newest AS SELECT * FROM recent")
    connection.close()
    return here


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("sqlite:///shop.db#reviews", None),
        ("sqlite:///shop.db#REVIEWS", None),
        ("sqlite:///{here}/in/../shop.db#reviews", None),
        ("sqlite+pysqlite:///./shop.db#reviews", None),
        ("sqlite:///link.db#reviews", None),
        ("sqlite:///shop.db", "SELECT * FROM reviews WHERE id > 1"),
        ("sqlite:///shop.db", 'SELECT t.id FROM theirs t JOIN "reviews" r ON r.id = t.id'),
        ("sqlite:///shop.db", "SELECT * FROM (SELECT * FROM main.reviews)"),
        ("sqlite:///shop.db", "reviews"),
        ("sqlite:///shop.db#recent", None),
        ("sqlite:///shop.db", "SELECT * FROM newest"),
    ],
)
def test_the_table_that_is_read(shop, given, query):
    Path("link.db").symlink_to("shop.db")
    inputs = (given.format(here=shop),)
    refused("sqlite:///shop.db#reviews", "is the input itself", inputs=inputs, query=query)


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("sqlite:///other.db#reviews", None),
        ("sqlite:///shop.db#theirs", None),
        ("sqlite:///shop.db", "SELECT id AS reviews FROM theirs WHERE 'reviews' <> '' -- reviews"),
        ("a.csv", None),
    ],
)
def test_another_table_is_replaced_if_it_is_ours_or_with_overwrite(shop, given, query):
    sqlite3.connect("other.db").execute("CREATE TABLE reviews (id INTEGER)").connection.close()
    of_others("sqlite:///shop.db#reviews", given, query=query)
    allowed("sqlite:///shop.db#new", given, query=query)
    destination("sqlite:///shop.db#reviews", if_exists="append").protect(
        Protected((given,), query=query)
    )


def test_runs_to_tables_and_objects_of_one_name_are_kept_apart(here):
    names = [
        destination(output).base.name
        for output in (
            "s3://a/x.csv", "s3://b/x.csv", "memory://a/x.csv", "sqlite:///a.db#x.csv",
            "sqlite:///b.db#x.csv", "x.csv",
        )
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert destination("s3://a/x.csv.gz").path.endswith(".csv.gz")


def test_objects(here):
    for name in ("in/a.csv", "in/b.csv", "theirs.csv"):
        with fsspec.open(f"memory://bucket/{name}", "w") as file:
            file.write("text\ngood\n")
    for given in ("memory://bucket/in/a.csv", "memory:///bucket/in", "memory://bucket/in/*.csv"):
        refused("memory://bucket/in/a.csv", "is the input itself", inputs=(given,))
        refused("memory:///bucket/in/a.csv", "is the input itself", inputs=(given,))
    of_others("memory://bucket/theirs.csv", "a.csv")
    allowed("memory://bucket/new.csv", "memory://bucket/in")
