"""Whole runs from and to databases and object stores, and what they leave when they are killed."""

import re
import sqlite3
import uuid
from unittest.mock import Mock

import fsspec
import pyarrow.parquet
import pytest
from filelock import Timeout

from mlopsdeploy.batch import unfinished
from mlopsdeploy.batch.unfinished import UnfinishedRun
from mlopsdeploy.data.files import lock_folder
from mlopsdeploy.data.inputs import default_output
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError

from .tables import read


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that commands are given in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(here, quick_reviews):
    """A database with 300 reviews."""
    with sqlite3.connect(here / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, review_text TEXT, note TEXT)")
        rows = [(number, text, None) for number, text in enumerate(quick_reviews(300))]
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?)", rows)
    connection.close()
    return "sqlite:///shop.db"


def ask(file, sql):
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_table_into_a_table_of_the_same_database(score, shop, bag, here):
    summary = score(f"{shop}#reviews", output=f"{shop}#scored", model=str(bag))
    assert summary["rows"] == 300
    rows = ask("shop.db", "SELECT id, note, label, score, truncated FROM scored ORDER BY id")
    assert [row[0] for row in rows] == list(range(300))
    assert {row[2] for row in rows} == {"NEGATIVE", "POSITIVE"}
    assert all(row[1] is None and 0.5 <= row[3] <= 1 and row[4] == 0 for row in rows)
    names = sorted(path.name for path in here.iterdir())
    assert re.fullmatch(r"scored-[0-9a-f]{8}\.manifest\.json shop\.db", " ".join(names))


def test_a_query_into_a_file_and_on_into_duckdb(score, shop, bag, here):
    sql = "SELECT id, review_text AS words FROM reviews WHERE id < 50 ORDER BY id"
    score(shop, query=sql, output="o.csv", model=str(bag), text_column="words")
    rows = read(here / "o.csv")
    assert [row["id"] for row in rows] == [str(number) for number in range(50)]
    score(
        shop, query=sql, output="few.parquet", model=str(bag), columns=["id"], text_column="words"
    )
    assert pyarrow.parquet.read_table("few.parquet").column_names[:2] == ["id", "label"]
    score("o.csv", output="duckdb:///w.duckdb#lot", model=str(bag), prefix="again_")
    back = score("duckdb:///w.duckdb", query="lot", output="b.jsonl", model=str(bag), prefix="x_")
    assert back["rows"] == 50
    lines = read(here / "b.jsonl")
    assert [line["label"] for line in lines] == [row["label"] for row in rows]
    assert [line["x_label"] for line in lines] == [row["label"] for row in rows]


def test_an_output_that_cannot_be_is_refused_before_the_work(score, shop, bag, here):
    score(f"{shop}#reviews", output=f"{shop}#scored", model=str(bag))
    with pytest.raises(MlopsDeployError, match="scored"):
        score(f"{shop}#reviews", output=f"{shop}#scored", model=str(bag), if_exists="fail")
    with pytest.raises(ConfigError, match="name a table behind a '#'"):
        score(f"{shop}#reviews", output=shop, model=str(bag))
    assert not list(here.glob("*.unfinished/rows"))
    summary = score(f"{shop}#reviews", output=f"{shop}#scored", model=str(bag), if_exists="append")
    assert summary["rows"] == 300
    assert ask("shop.db", "SELECT count(*) FROM scored") == [(600,)]


def change(sql):
    connection = sqlite3.connect("shop.db")
    with connection:
        connection.executescript(sql)
    connection.close()


def test_rows_of_a_table_are_updated_by_their_key(score, shop, bag):
    how = {"output": f"{shop}#known", "model": str(bag), "columns": ["id"]}
    how |= {"if_exists": "upsert", "key": ["id"]}
    score(shop, query="SELECT * FROM reviews WHERE id < 200", **how)
    change("UPDATE known SET label = 'by hand' WHERE id IN (0, 150)")
    score(shop, query="SELECT * FROM reviews WHERE id >= 100", **how)
    rows = ask("shop.db", "SELECT id, label FROM known ORDER BY id")
    assert [row[0] for row in rows] == list(range(300))
    assert [row[0] for row in rows if row[1] == "by hand"] == [0]
    twice = "SELECT * FROM reviews UNION ALL SELECT * FROM reviews WHERE id = 7"
    with pytest.raises(InputError, match="2 rows have the same key, id 7; .*301 rows are kept"):
        score(shop, query=twice, **how)
    assert ask("shop.db", "SELECT id, label FROM known ORDER BY id") == rows


@pytest.mark.parametrize("how", [{"if_exists": "append"}, {"if_exists": "upsert", "key": ["id"]}])
@pytest.mark.parametrize("killed", [False, True])
def test_a_table_of_others_does_not_become_ours(score, shop, bag, how, killed, monkeypatch):
    """What was added to is not replaced another night, unless somebody says so."""
    made = "CREATE TABLE theirs (id INTEGER UNIQUE, note TEXT, label, score, truncated)"
    change(f"{made}; INSERT INTO theirs (id, note) VALUES (-1, 'mine')")
    settings = {"output": f"{shop}#theirs", "model": str(bag), "columns": ["id"]}
    if killed:  # between the load and the run's own note
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(unfinished, "note_of", Mock(side_effect=KeyboardInterrupt))
            score(f"{shop}#reviews", **settings, **how)
    else:
        score(f"{shop}#reviews", **settings, **how)
    assert ask("shop.db", "SELECT count(*), max(note) FROM theirs") == [(301, "mine")]
    with pytest.raises(ConfigError, match="theirs: is there already, and not as mlopsdeploy"):
        score(f"{shop}#reviews", **settings)
    score(f"{shop}#reviews", **settings, overwrite=True)
    assert ask("shop.db", "SELECT count(*) FROM theirs") == [(300,)]
    score(f"{shop}#reviews", **settings)  # now it is


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": ["id"]}, "--if-exists upsert and --key COLUMNS go together"),
        ({"if_exists": "upsert"}, "--if-exists upsert and --key COLUMNS go together"),
        ({"key": ["id"], "if_exists": "append"}, "go together"),
        ({"key": ["id"], "if_exists": "upsert", "output": "o.csv"}, "o.csv is none"),
        ({"key": ["id"], "if_exists": "upsert", "output": "-"}, "--key: is for a database's table"),
        (
            {"key": ["id"], "if_exists": "upsert", "columns": ["note"]},
            "no column 'id' is written; there are: note, label, score, truncated",
        ),
    ],
)
def test_a_key_that_can_not_be(score, shop, bag, here, settings, said):
    with pytest.raises(ConfigError, match=said):
        score(f"{shop}#reviews", **{"output": f"{shop}#scored", "model": str(bag), **settings})
    assert not list(here.glob("*.unfinished/rows"))
    assert ask("shop.db", "SELECT name FROM sqlite_master") == [("reviews",)]


@pytest.mark.parametrize("how", [{}, {"fresh": True}, {"query": "SELECT * FROM reviews"}])
def test_rows_that_a_run_goes_on_with_are_not_fetched_by_another(score, shop, bag, here, how):
    """The one that comes second is turned away before it has changed anything."""
    read = f"{shop}#reviews" if "query" not in how else shop
    with UnfinishedRun(here / "o.csv", "o.csv", {}) as run:
        fetched = run.folder / "input-0123.parquet"
        fetched.touch()
        before = {path.name for path in run.folder.iterdir()}
        with pytest.raises(MlopsDeployError, match=r"o.csv.unfinished: another run is on; wait"):
            score(read, output="o.csv", model=str(bag), **how)
        assert {path.name for path in run.folder.iterdir()} == before
    assert score(read, output="o.csv", model=str(bag), **how)["rows"] == 300


def test_a_run_that_has_only_begun_keeps_its_lock(score, shop, bag, here):
    """Who is turned away takes nothing away, though nothing but the lock is there yet."""
    held = lock_folder(here / "o.csv.unfinished")
    with pytest.raises(MlopsDeployError, match=r"o.csv.unfinished: another run is on; wait"):
        score(f"{shop}#reviews", output="o.csv", model=str(bag))
    with pytest.raises(Timeout):
        lock_folder(here / "o.csv.unfinished")
    held.release()


def test_a_password_is_shown_nowhere(score, here, bag, capsys):
    url = "postgresql://me:s3cret@127.0.0.1:1/shop#reviews"
    with pytest.raises(MlopsDeployError) as raised:
        score(url, output="o.csv", model=str(bag))
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_an_unfinished_run_goes_on_with_the_rows_it_fetched(score, shop, fragile, here, capsys):
    """Rows that are new in the table do not make what is done worthless; --fresh reads them."""
    change("UPDATE reviews SET review_text = 'poison' WHERE id = 250")
    settings = {"output": "o.jsonl", "model": str(fragile), "batch_size": 5, "commit_seconds": 0}
    with pytest.raises(InputError, match="1 of 280 rows are bad"):
        score(f"{shop}#reviews", max_errors="0", **settings)
    change("DELETE FROM reviews WHERE id >= 200")
    summary = score(f"{shop}#reviews", **settings)
    said = capsys.readouterr().err
    fetched = re.search(r"going on with the rows fetched at (.* UTC); --fresh fetches", said)[1]
    assert (summary["rows"], summary["failed"], summary["attempts"]) == (300, 1, 2)
    lines = read(here / "o.jsonl")
    assert [line["id"] for line in lines] == [n for n in range(300) if n != 250]
    (bad,) = read(here / "o.jsonl.errors.jsonl")
    assert bad["record"]["id"] == 250
    assert summary["read"]["fetched"] == fetched
    assert score(f"{shop}#reviews", **settings)["rows"] == 200
    assert not (here / "o.jsonl.unfinished").exists()


@pytest.mark.parametrize("how", [{"fresh": True}, {"unfinished": "discard", "prefix": "new_"}])
def test_a_run_that_starts_over_fetches_the_rows_anew(score, shop, fragile, here, how):
    settings = {"output": "o.jsonl", "model": str(fragile), "batch_size": 5, "commit_seconds": 0}
    change("UPDATE reviews SET review_text = 'poison' WHERE id = 250")
    with pytest.raises(InputError, match="1 of 280 rows are bad"):
        score(f"{shop}#reviews", max_errors="0", **settings)
    change("DELETE FROM reviews WHERE id >= 200")
    summary = score(f"{shop}#reviews", **settings, **how)
    assert (summary["rows"], summary["attempts"]) == (200, 1)
    assert summary["read"]["format"] == "database"
    assert len(read(here / "o.jsonl")) == 200
    assert not (here / "o.jsonl.unfinished").exists()


def test_objects_in_and_out(score, here, bag, quick_reviews):
    bucket = f"memory:///{uuid.uuid4().hex[:8]}"
    texts = quick_reviews(60)
    for part in range(3):
        with fsspec.open(f"{bucket}/in/part-{part}.csv", "w") as file:
            file.write("review_text\n" + "".join(f"{text}\n" for text in texts[part::3]))
    with fsspec.open(f"{bucket}/in/_SUCCESS", "w") as file:
        file.write("")
    summary = score(f"{bucket}/in", output=f"{bucket}/out/scored.parquet", model=str(bag))
    assert summary["rows"] == 60
    with fsspec.open(f"{bucket}/out/scored.parquet", "rb") as file:
        table = pyarrow.parquet.read_table(file)
    assert table.column("review_text").to_pylist() == texts[0::3] + texts[1::3] + texts[2::3]
    (note,) = here.iterdir()
    assert re.fullmatch(r"scored-[0-9a-f]{8}\.parquet\.manifest\.json", note.name)
    score(f"{bucket}/in/part-1.csv", output=f"{bucket}/out/one.csv", model=str(bag))
    with fsspec.open(f"{bucket}/out/one.csv", "r") as file:
        assert len(file.read().splitlines()) == 21


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("-", "-"),
        ("a/r.csv", "a/r.predictions.csv"),
        ("r.tsv.gz", "r.predictions.tsv.gz"),
        ("s3://bucket/day/r.jsonl", "r.predictions.jsonl"),
        ("postgresql://host/db#mart.reviews", "mart.reviews.predictions.parquet"),
    ],
)
def test_where_rows_go_if_nobody_says(path, output):
    assert default_output(path) == output


def test_several_files_have_no_name(here):
    (here / "a-1.csv").write_text("text\nx\n", "utf-8")
    with pytest.raises(InputError, match="name the one to write with --output"):
        default_output("a-*.csv")
    with pytest.raises(ConfigError, match="a query has no name of its own"):
        default_output("sqlite:///x.db")


def test_a_query_of_a_file(score, here, bag):
    (here / "r.csv").write_text("review_text\ngood food\n", "utf-8")
    with pytest.raises(ConfigError, match=r"--query: is asked of a database; r\.csv is none"):
        score("r.csv", query="SELECT 1", model=str(bag))


def test_a_link_to_the_output_stays_one(score, here, bag):
    (here / "r.csv").write_text("review_text\ngood food\n", "utf-8")
    (here / "there").mkdir()
    (here / "there" / "o.csv").write_text("from yesterday", "utf-8")
    (here / "o.csv").symlink_to("there/o.csv")
    with pytest.raises(ConfigError, match=r"o\.csv: is there already.* or say --overwrite"):
        score("r.csv", output="o.csv", model=str(bag))
    score("r.csv", output="o.csv", model=str(bag), overwrite=True)
    assert (here / "o.csv").is_symlink()
    assert (here / "there" / "o.csv").read_text("utf-8").startswith("review_text,label,score")


def test_scores_are_kept_beside_a_file_only(score, here, bag):
    (here / "r.csv").write_text("review_text\ngood food\n", "utf-8")
    with pytest.raises(ConfigError, match="--incremental: keeps its scores beside a file"):
        score("r.csv", output="-", incremental=True, model=str(bag))


def test_a_folder_of_parquet_by_a_column(score, here, bag):
    (here / "r.csv").write_text("review_text,kind\ngood food,a\nbad room,b\ngood,a\n", "utf-8")
    score("r.csv", output="scored/", partition_by="kind", model=str(bag))
    assert sorted(path.name for path in (here / "scored").iterdir()) == [
        "_SUCCESS", "kind=a", "kind=b",
    ]  # fmt: skip
    table = pyarrow.parquet.read_table(here / "scored")
    assert sorted(table.column("review_text").to_pylist()) == ["bad room", "good", "good food"]
    with pytest.raises(InputError, match="the input has no column 'size'"):
        score("r.csv", output="scored/", partition_by="size", model=str(bag))
    with pytest.raises(ConfigError, match="is for a folder of Parquet files"):
        score("r.csv", output="o.csv", partition_by="kind", model=str(bag))
    (here / "r.csv").write_text("text,kind,id\ngood food,a,1\nbad room,b,2\n", "utf-8")
    some = {"output": "some/", "partition_by": "kind", "model": str(bag)}
    with pytest.raises(ConfigError, match="column 'kind' is not written; say --columns id,kind"):
        score("r.csv", columns=["id"], **some)
    score("r.csv", columns=["id", "kind"], **some)
    table = pyarrow.parquet.read_table(here / "some")
    assert set(table.column_names) == {"id", "kind", "label", "score", "truncated"}
    assert table.column("id").to_pylist() == ["1", "2"]
