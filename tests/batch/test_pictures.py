"""Pictures by `batch`, with the built-in detector: a folder, one picture, a table of paths."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import onnx
import pyarrow.parquet
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.batch.drift import compare
from mlopsdeploy.batch.report import render
from mlopsdeploy.bench.batch import bench_batch
from mlopsdeploy.core.images import decode
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.data.inputs import default_output
from mlopsdeploy.data.sources import PictureFiles, WithPictures, open_source
from mlopsdeploy.data.sources import image_files as pictures
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.settings import BatchSettings

from .tables import read

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "photos"

COLORS = """
<ir_version: 8, opset_import: ["" : 18]>
colors (float[n,8,8,3] picture) => (float[n,3] p)
{
  axes = Constant<value = int64[2] {1, 2}>()
  mean = ReduceMean<keepdims = 0>(picture, axes)
  twenty = Constant<value = float {20}>()
  sharp = Mul(mean, twenty)
  p = Softmax<axis = 1>(sharp)
}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths are told as the user gives them."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """`photos/` with the three examples."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "photos"))


@pytest.fixture
def many(tmp_path):
    """`many/`: 150 pictures, no two with the same content."""
    folder = tmp_path / "many"
    folder.mkdir()
    contents = [file.read_bytes() for file in sorted(EXAMPLES.iterdir())]
    for number in range(150):
        content = contents[number % 3] + str(number).encode()  # after the end of the picture
        (folder / f"{number:03}.jpg").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """An image classifier: which of red, green and blue there is most of."""
    folder = tmp_path_factory.mktemp("colors")
    onnx.save(onnx.parser.parse_model(COLORS), str(folder / "model.onnx"))
    (folder / "model.yaml").write_text(
        "task: image_classification\nlabels: [red, green, blue]\ninput: {mean: 0, std: 255}\n"
    )
    return folder


def run(path, **settings):
    return command.run_batch(BatchSettings(**{"model": "detector", "input": path, **settings}))


def lines(path):
    return read(Path(path))


def labels(rows):
    return [[found["label"] for found in row["detections"]] for row in rows]


# ---------------------------------------------------------------- a folder


def test_a_folder(photos):
    summary = run("photos/")
    rows = lines("photos.predictions.jsonl")
    assert [row["file"] for row in rows] == [
        "photos/blue_car.jpg", "photos/chair.jpg", "photos/red_car.jpg",
    ]  # fmt: skip
    assert labels(rows) == [["Chair", "Car"], ["Chair"], ["Chair", "Car"]]
    assert [row["objects"] for row in rows] == [2, 1, 2]
    assert summary["rows"] == 3
    assert summary["objects"] == 5
    assert summary["labels"] == {"Chair": 3, "Car": 2}
    scores = [found["score"] for row in rows for found in row["detections"]]
    assert summary["mean_score"] == pytest.approx(np.mean(scores), abs=1e-4)


def test_it_is_what_the_model_says_of_each_picture(photos):
    run("photos/")
    model = load_model("detector", threads=1)
    for row in lines("photos.predictions.jsonl"):
        image = decode(Path(row["file"]).read_bytes())
        found = model.predict({"image": image[None]})
        boxes = [one["relative"] for one in row["detections"]]
        assert boxes == [[round(float(side), 5) for side in box] for box in found["boxes"][0]]
        for one in row["detections"]:
            height, width = image.shape[:2]
            pixels = np.array(one["relative"]) * [width, height, width, height]
            assert one["box"] == pytest.approx(pixels, abs=0.6)


def test_every_output_says_the_same(photos):
    run("photos/")
    expected = lines("photos.predictions.jsonl")
    run("photos/", output="found.parquet")
    assert pyarrow.parquet.read_table("found.parquet").to_pylist() == expected
    run("photos/", output="found/")
    assert pyarrow.parquet.read_table("found").to_pylist() == expected
    for output in ("some.jsonl", "some.parquet"):
        run("photos/", output=output, columns=[])
        rows = lines(output) if "json" in output else pyarrow.parquet.read_table(output).to_pylist()
        assert rows == [{key: row[key] for key in ("objects", "detections")} for row in expected]
    run("photos/", output="all.jsonl", columns=["file"])
    assert lines("all.jsonl") == expected
    run("photos/", output="found.csv")
    with Path("found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["detections"]) for row in rows] == [
        row["detections"] for row in expected
    ]
    assert [row["objects"] for row in rows] == ["2", "1", "2"]


def test_a_database(photos):
    pytest.importorskip("sqlalchemy")
    import sqlite3

    run("photos/", output="sqlite:///found.db#found")
    connection = sqlite3.connect("found.db")
    file, count, found = connection.execute("SELECT * FROM found").fetchone()
    connection.close()
    assert (file, count) == ("photos/blue_car.jpg", 2)
    assert [one["label"] for one in json.loads(found)] == ["Chair", "Car"]


def test_patterns_one_picture_and_prefix(photos, capsys):
    (photos / "2026").mkdir()
    shutil.copy(photos / "chair.jpg", photos / "2026" / "a chair.JPG")
    run("photos/**/*.[jJ]*", output="all.jsonl", prefix="my_")
    rows = lines("all.jsonl")
    assert rows[0]["file"] == "photos/2026/a chair.JPG"
    assert len(rows) == 4
    assert list(rows[0]) == ["file", "my_objects", "my_detections"]
    run("photos/chair.jpg")
    assert labels(lines("photos/chair.predictions.jsonl")) == [["Chair"]]
    run("photos/chair.jpg", output="-")
    assert json.loads(capsys.readouterr().out)["file"] == "photos/chair.jpg"


def test_default_outputs(photos, tmp_path):
    assert default_output("photos/") == "photos.predictions.jsonl"
    assert default_output("photos/chair.jpg") == "photos/chair.predictions.jsonl"
    assert default_output("none.jpg") == "none.predictions.jsonl"
    with pytest.raises(InputError, match="several files"):
        default_output("photos/*.jpg")


def test_a_picture_that_is_turned_is_upright(photos):
    """Its size, and the boxes, are those of the picture as people see it."""
    image = cv2.imread(str(photos / "red_car.jpg"))
    turned = cv2.imencode(".jpg", cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    Path("turned.jpg").write_bytes(turned[:2] + segment + turned[2:])
    run("turned.jpg")
    (row,) = lines("turned.predictions.jsonl")
    assert labels([row]) == [["Chair", "Car"]]
    assert max(row["detections"][0]["box"]) > 400


# ---------------------------------------------------------------- what is wrong


@pytest.fixture
def broken(photos):
    """`photos/` with all that can't be looked at."""
    content = (photos / "chair.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(content[: len(content) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpeg").write_text("not a picture")
    (photos / "folder.jpg").mkdir()
    (photos / ".hidden.jpg").write_bytes(content)
    (photos / "notes.md").write_text("not data")
    return photos


def test_bad_pictures_are_set_aside(broken):
    summary = run("photos/", max_errors="none")
    assert len(lines("photos.predictions.jsonl")) == 3
    assert summary["failed"] == 3
    bad = lines("photos.predictions.jsonl.errors.jsonl")
    assert [(row["file"], row["reason"]) for row in bad] == [
        ("photos/cut.jpg", "the picture is cut off or damaged"),
        ("photos/empty.png", "the picture is empty"),
        ("photos/text.jpeg", "not a picture that can be read"),
    ]
    assert summary["first_failed"].startswith("photos/cut.jpg: ")


def test_too_many_of_them_stop_the_run(broken):
    with pytest.raises(InputError, match="3 of 6 rows are bad"):
        run("photos/")


def test_none_that_can_be_read(tmp_path):
    Path("a.jpg").write_bytes(b"no")
    summary = run("a.jpg")
    assert (summary["rows"], summary["failed"], summary["objects"]) == (1, 1, 0)
    run("a.jpg", output="a.parquet")
    assert Path("a.jpg.errors.jsonl").exists() is False


def test_a_file_that_is_too_large_is_not_read(photos, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 20_000)
    assert run("photos/", max_errors="none")["failed"] == 2
    assert "MB" in lines("photos.predictions.jsonl.errors.jsonl")[0]["reason"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "sentiment"}, "photos/: holds pictures, at which sentiment can't look"),
        ({"model": "fraud"}, "photos/: holds pictures, at which fraud can't look"),
        ({"input": "photos/chair.jpg", "model": "sentiment"}, "is a picture, at which"),
        ({"text_column": "file"}, "--text-column: detector takes pictures"),
        ({"image_column": "name"}, "no column 'name'; there are: 'file'"),
        ({"all_scores": True}, "--all-scores: detector has one score for each object"),
        ({"input": "none/"}, "none/: no such file"),
        ({"input": "none.jpg"}, "none.jpg: no such file"),
        ({"input": "photos/*.gif", "output": "a.jsonl"}, "no picture"),
    ],
)
def test_what_can_not_be(photos, settings, message):
    with pytest.raises(MlopsDeployError, match=message.replace("*", r"\*")) as raised:
        run(settings.pop("input", "photos/"), **settings)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_pictures_in_folders_of_the_folder_are_pointed_at(tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "trip" / "monday")
    with pytest.raises(InputError, match=r"name them with 'trip/\*\*/\*.jpg'"):
        run("trip")


def test_a_folder_with_tables_and_pictures_is_what_the_model_takes(photos):
    (photos / "reviews.csv").write_text("review_text\nvery good\n")
    run("photos/", output="a.jsonl")
    assert len(lines("a.jsonl")) == 3
    run("photos/", model="sentiment", output="b.jsonl")
    assert lines("b.jsonl")[0]["label"] == "POSITIVE"


# ---------------------------------------------------------------- a table that names them

TABLE = "id;Image Path\n1;photos/chair.jpg\n2; photos/red_car.jpg \n3;\n4;photos/none.jpg\n"


def test_a_table(photos, tmp_path, monkeypatch):
    """Paths are relative to the table's folder; rows pass as they are."""
    Path("list.csv").write_text(TABLE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    summary = run("../list.csv", max_errors="none", output="out.csv")
    assert (summary["rows"], summary["empty"], summary["failed"]) == (4, 1, 1)
    assert summary["columns"] == {"image": "Image Path"}
    written = Path("out.csv").read_text().splitlines()
    assert written[0] == "id;Image Path;objects;detections"
    assert [line.split(";")[:3] for line in written[1:]] == [
        ["1", "photos/chair.jpg", "1"], ["2", " photos/red_car.jpg ", "2"], ["3", "", ""],
    ]  # fmt: skip
    (bad,) = lines("out.csv.errors.jsonl")
    assert bad["reason"] == "there is no such picture"
    assert bad["record"] == "4;photos/none.jpg"


def test_tables_of_every_format_and_absolute_paths(photos):
    places = [str(photos / "chair.jpg"), "photos/red_car.jpg"]
    table = pyarrow.table({"number": [1, 2], "what": places})
    pyarrow.parquet.write_table(table, "list.parquet")
    Path("list.jsonl").write_text("".join(json.dumps({"what": p}) + "\n" for p in places))
    run("list.parquet", image_column="what")
    rows = pyarrow.parquet.read_table("list.predictions.parquet").to_pylist()
    assert [row["number"] for row in rows] == [1, 2]
    run("list.jsonl")
    assert labels(lines("list.predictions.jsonl")) == labels(rows) == [["Chair"], ["Chair", "Car"]]


def test_tables_in_folders_name_pictures_beside_them(photos, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(photos, tmp_path / "tables" / name)
        (tmp_path / "tables" / name / "list.csv").write_text("file\nchair.jpg\nred_car.jpg\n")
    (tmp_path / "tables" / "b" / "chair.jpg").unlink()
    summary = run("tables/*/list.csv", output="out.csv", max_errors="none")
    assert (summary["rows"], summary["failed"]) == (4, 1)
    (bad,) = lines("out.csv.errors.jsonl")
    assert (bad["file"], bad["row"]) == ("tables/b/list.csv", 1)


def test_an_output_is_an_input_again(photos):
    run("photos/")
    run("photos.predictions.jsonl", prefix="again_", output="again.jsonl")
    for row in lines("again.jsonl"):
        assert row["again_detections"] == row["detections"]


# ---------------------------------------------------------------- image classifiers


def test_a_classifier_gives_label_and_score(colors, tmp_path):
    for place, name in enumerate(("blue", "green", "red")):
        image = np.zeros((20, 30, 3), np.uint8)
        image[..., place] = 200
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    Path("list.csv").write_text("shot\nred.png\nblue.png\n\ngreen.png\nred.png\n")
    summary = run("list.csv", model=str(colors), all_scores=True, output="o.jsonl", report="r.html")
    rows = lines("o.jsonl")
    assert [(row["shot"], row["label"]) for row in rows] == [
        ("red.png", "red"), ("blue.png", "blue"), ("green.png", "green"), ("red.png", "red"),
    ]  # fmt: skip
    assert all(row["score"] > 0.9 for row in rows)
    assert list(rows[0])[3:] == ["score_red", "score_green", "score_blue"]
    assert summary["duplicates"] == 1
    assert "objects" not in summary
    assert "Pictures to look at" in Path("r.html").read_text("utf-8")


# ---------------------------------------------------------------- real nights


def test_windows_are_small_whatever_the_pictures(photos, monkeypatch):
    def windows(rows):
        source = WithPictures(PictureFiles("p", sorted(map(str, photos.iterdir())) * 100), "file")
        found = []
        while chunk := source.read(rows):
            found.append(chunk.rows)
        return found

    assert windows(8000) == [64, 64, 64, 64, 44]
    assert windows(10)[:2] == [10, 10]
    monkeypatch.setattr(pictures, "MOST_BYTES", 200_000)
    assert set(windows(8000)) <= {16, 12, 8}, "until they are 200 kB"


def test_the_same_picture_is_looked_at_once(photos):
    shutil.copy(photos / "chair.jpg", photos / "copy.jpg")
    summary = run("photos/")
    assert summary["duplicates"] == 1
    rows = {row["file"]: row["detections"] for row in lines("photos.predictions.jsonl")}
    assert rows["photos/copy.jpg"] == rows["photos/chair.jpg"]


def test_only_new_pictures_are_computed(photos):
    run("photos/", incremental=True)
    first = lines("photos.predictions.jsonl")
    (photos / "red_car.jpg").rename(photos / "z.jpg")
    shutil.copy(photos / "chair.jpg", photos / "blue_car.jpg")
    grey = np.full((90, 160, 3), 128, np.uint8)
    cv2.imwrite(str(photos / "new.png"), grey)
    summary = run("photos/", incremental=True)
    assert summary["reused"] == 3  # the chair twice, and the car under another name
    rows = lines("photos.predictions.jsonl")
    assert [row["file"] for row in rows][-1] == "photos/z.jpg"
    assert rows[-1]["detections"] == first[-1]["detections"]
    assert rows[2]["detections"] == []
    assert summary["drift"]["level"]


def test_killed_it_goes_on_and_notices_what_changed(processes, many):
    def batch(name, *more, **how):
        return processes.run(
            many.parent, "many", "-o", name, "--model", "detector", "--json", *more, **how
        )

    assert batch("clean.jsonl").code == 0
    expected = Path("clean.jsonl").read_bytes()
    assert expected.count(b"\n") == 150
    some_done = processes.has_rows(Path("o.jsonl"))
    assert batch("o.jsonl", kill=some_done).code == -signal.SIGKILL
    os.utime(many / "003.jpg", (1, 1))  # the same picture still
    ended = batch("o.jsonl")
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    assert Path("o.jsonl").read_bytes() == expected

    assert batch("o.jsonl", kill=some_done).code == -signal.SIGKILL
    shutil.copy(EXAMPLES / "red_car.jpg", many / "001.jpg")  # it was the chair
    ended = batch("o.jsonl")
    assert "starting over" in ended.said
    rows = lines("o.jsonl")
    assert labels(rows)[1] == ["Chair", "Car"]
    changed = [n for n, line in enumerate(expected.splitlines()) if json.loads(line) != rows[n]]
    assert changed == [1]


def test_the_report_counts_objects(photos):
    (photos / "none.png").write_bytes(cv2.imencode(".png", np.zeros((50, 50, 3)))[1].tobytes())
    summary = run("photos/", report="r.html")
    page = Path("r.html").read_text("utf-8")
    manifest = json.loads(Path("r.json").read_text("utf-8"))["manifest"]
    statistics = manifest["statistics"]
    assert statistics["lengths"]["unit"] == "objects"
    assert statistics["lengths"]["rows"] == 4
    assert statistics["lengths"]["counts"][:3] == [1, 1, 2]
    labels = statistics["answers"][0]["labels"]
    assert {name: one["rows"] for name, one in labels.items() if one["rows"]} == {
        "Chair": 3, "Car": 2,
    }  # fmt: skip
    assert summary["labels"] == {"Chair": 3, "Car": 2}
    for words in ("Objects of each label", "Objects per picture", "Pictures to look at"):
        assert words in page
    assert "photos/chair.jpg" in page
    assert "4 pictures scored" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 10  # 3 chairs and 2 cars, twice
    (photos / "chair.jpg").unlink()
    again = render(manifest, None, None)
    assert again.count("<img ") == 8


def test_drift_of_objects(photos):
    run("photos/")
    before = json.loads(Path("photos.predictions.jsonl.manifest.json").read_text())
    for file in photos.iterdir():
        cv2.imwrite(str(file), np.zeros((50, 50, 3)))
    summary = run("photos/")
    assert "found no objects" in summary["drift"]["verdict"]
    after = json.loads(Path("photos.predictions.jsonl.manifest.json").read_text())
    assert "The last run found no objects" in compare(before, after).verdict


def test_a_dry_run_and_a_bench(photos):
    found = run("photos/", dry_run=True)
    assert found["rows"] == 3
    assert found["precisions"][0]["scored"] == 3
    assert not Path("photos.predictions.jsonl").exists()
    report = bench_batch(BatchSettings(model="detector", input="photos/"), seconds=0.2)
    assert report["job"]["rows"] >= 3
    assert report["stages"]["decode"] > 0
    assert report["limit"]["rows_per_second"] > 0
    assert report["verdict"]


def test_a_dry_run_counts_bad_pictures(broken):
    assert run("photos/", dry_run=True)["sample"]["failed"] == 3


def test_pictures_in_a_store(photos):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for file in photos.iterdir():
        store.pipe(f"/trip/{file.name}", file.read_bytes())
    store.pipe("/trip/list.csv", b"file\nchair.jpg\nnone.jpg\n")
    try:
        run("memory://trip/*.jpg", output="found.jsonl")
        assert labels(lines("found.jsonl")) == [["Chair", "Car"], ["Chair"], ["Chair", "Car"]]
        run("memory://trip/list.csv", output="found.csv", max_errors="none")
        assert Path("found.csv").read_text().splitlines()[1].startswith("chair.jpg,1,")
        assert "nothing of that name" in lines("found.csv.errors.jsonl")[0]["reason"]
    finally:
        store.rm("/trip", recursive=True)


def test_names_that_are_no_text(photos):
    (photos / "chair.jpg").rename(photos / os.fsdecode(b"ch\xe9ir .jpg"))
    run("photos/")
    rows = lines("photos.predictions.jsonl")
    assert rows[1]["file"] == r"photos/ch\udce9ir .jpg"
    assert labels(rows)[1] == ["Chair"]


def test_the_source_is_a_source(photos):
    source = open_source("photos/")
    assert (source.format, source.names, source.path) == ("jsonl", ["file"], "photos/")
    assert source.sample()["file"][0] == "photos/blue_car.jpg"
    assert source.read(2).share == pytest.approx(2 / 3)
    assert source.read(2).rows == 1
    assert source.read(2) is None
    with pytest.raises(ConfigError, match="--query"):
        run("photos/", query="SELECT 1")
