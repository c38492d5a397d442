import contextlib
import datetime as dt
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("sqlalchemy")

import sqlalchemy as sa

from mlopsdeploy.data.databases import Query, check_table, load_table
from mlopsdeploy.data.databases import table as tables
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError

PASSWORD = "s3cret pw"
QUOTED = "s3cret%20pw"
UTC = dt.UTC
NASTY = pa.table(
    {
        "id": pa.array([2**53 + 1, -(2**63), None, 4], pa.int64()),
        "review": ["He said \"no\",\nthen 'yes'; --", "", None, "naïve 😀 \\N \t\r\n end\\"],
        "score": pa.array([0.1, math.nan, None, 1e300], pa.float64()),
        "select": pa.array([True, False, None, True]),
        "Order By": pa.array([b"\x00\xff", b"", None, b'"'], pa.binary()),
        "day": pa.array([dt.date(1, 1, 1), dt.date(2026, 2, 28), None, dt.date(9999, 12, 31)]),
        "at": pa.array(
            [dt.datetime(2026, 3, 29, 1, 30, 0, 123456, UTC), None, None, None],
            pa.timestamp("us", "UTC"),
        ),
        "local": pa.array(
            [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), None, None, None], pa.timestamp("us")
        ),
        "price": pa.array([Decimal("12345678901234567890.12"), None, None, Decimal("-0.10")]),
        "nothing": pa.array([None] * 4, pa.null()),
    }
)


def _postgresql_programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found += [Path(path) for path in [shutil.which("postgres")] if path]
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """A real server on a port of its own, made for these tests and gone after them."""
    pytest.importorskip("psycopg")
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    root = Path("/tmp") / f"mlopsdeploy-postgresql-{os.getpid()}"  # sockets need a short path
    root.mkdir(mode=0o755)
    run = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres" if _has_user("postgres") else "nobody"
        shutil.chown(root, user)
        run = {"user": user, "extra_groups": []}
    (root / "password").write_text(PASSWORD)
    (root / "password").chmod(0o644)
    try:
        initdb = [programs / "initdb", "-D", root / "data", "-U", "tester", "-E", "UTF8"]
        initdb += ["--locale=C", "-A", "scram-sha-256", "--no-sync", f"--pwfile={root}/password"]
        made = subprocess.run(initdb, capture_output=True, text=True, check=False, cwd=root, **run)
        if made.returncode:
            pytest.skip(f"PostgreSQL can't start here: {made.stderr.strip()[-200:]}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [programs / "pg_ctl", "-D", root / "data", "-w"]
        started = subprocess.run(
            [*control, "-o", options, "-l", root / "log", "start"],
            stdout=subprocess.DEVNULL, check=False, cwd=root, **run,
        )  # fmt: skip
        if started.returncode:
            pytest.skip(f"PostgreSQL can't start here: {(root / 'log').read_text()[-200:]}")
        try:
            yield f"postgresql://tester:{QUOTED}@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, stdout=subprocess.DEVNULL, check=False, cwd=root, **run)
    finally:
        shutil.rmtree(root)


def _has_user(name):
    import pwd

    return any(user.pw_name == name for user in pwd.getpwall())


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def url(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        with _connected(server) as connection:
            connection.exec_driver_sql("DROP SCHEMA IF EXISTS mart CASCADE")
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        return server
    if request.param == "duckdb":
        pytest.importorskip("duckdb_engine")
    return f"{request.param}:///{tmp_path}/shop.db"


@contextlib.contextmanager
def _connected(url):
    engine = sa.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool
    )
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _run(url, *statements):
    with _connected(url) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def _load(url, rows, table="scored", **options):
    load_table(url, table, rows.to_batches(2), schema=rows.schema, **options)


def _read(url, query="scored", **options):
    with Query(url, query, **options) as rows:
        return pa.Table.from_batches(rows.batches(), rows.schema)


def _ids(url, query="scored"):
    return _read(url, query).column("id").to_pylist()


def _small(*ids):
    return pa.table({"id": pa.array(ids, pa.int64())})


# --- out and in again ---


def test_nasty_values_come_back(url):
    _load(url, NASTY)
    there = _read(url)
    assert there.column_names == NASTY.column_names
    sqlite = url.startswith("sqlite")
    for name in NASTY.column_names:
        want, have = NASTY.column(name).to_pylist(), there.column(name).to_pylist()
        if sqlite:  # it has neither times nor decimals, no bool, and takes NaN for NULL
            want = [_as_sqlite(value) for value in want]
        assert [repr(value) for value in have] == [repr(value) for value in want], name
    if not sqlite:
        assert there.schema.field("at").type == pa.timestamp("us", "UTC")
        assert there.schema.field("price").type == NASTY.schema.field("price").type


def _as_sqlite(value):
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    if isinstance(value, dt.date | Decimal):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def test_types_that_databases_lack_are_stored_as_the_nearest(url):
    rows = pa.table(
        {
            "kind": pa.array(["a", None, "a"]).dictionary_encode(),
            "tags": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
            "big": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "exact": pa.array([1_700_000_000_123_456_789, None, 0], pa.timestamp("ns")),
            "half": pa.array([0.5, None, 1.0], pa.float32()),
            "large": pa.array(["x", None, "y"], pa.large_string()),
        }
    )
    _load(url, rows)
    there = _read(url).to_pydict()
    assert there["kind"] == ["a", None, "a"]
    assert there["tags"] == ["[1, 2]", None, "[]"]
    assert [str(value) for value in there["big"]] == [str(2**64 - 1), "0", "None"]
    assert str(there["exact"][0]).startswith("2023-11-14 22:13:20.123456")
    assert there["half"] == [0.5, None, 1.0]
    assert there["large"] == ["x", None, "y"]


def test_postgresql_has_no_character_0(postgresql):
    _load(postgresql, pa.table({"review": ["a\0b", "c"]}), "with_nul")
    assert _read(postgresql, "with_nul").column("review").to_pylist() == ["a\ufffdb", "c"]


# --- the input ---


def test_a_column_that_starts_with_nulls(url):
    rows = pa.table(
        {
            "id": range(100),
            "late": pa.array([None] * 99 + [1.5], pa.float64()),
            "text": pa.array([None] * 99 + ["x"], pa.string()),
            "never": pa.array([None] * 100, pa.string()),
        }
    )
    _load(url, rows)
    there = _read(url, "SELECT * FROM scored ORDER BY id", window=10)
    assert there.to_pydict() == rows.to_pydict()


def test_batches_are_windows(url):
    _load(url, _small(*range(50)))
    with Query(f"{url}#scored", window=20) as query:
        assert query.schema.names == ["id"]
        assert [batch.num_rows for batch in query.batches()] == [20, 20, 10]


def test_to_parquet_takes_the_rows_out(url, tmp_path):
    _load(url, NASTY)
    target = tmp_path / "input.parquet"
    for limit, rows in ((None, 4), (3, 3)):
        with Query(url, "scored", window=2) as query:
            query.to_parquet(target, limit=limit)
        there = pyarrow.parquet.read_table(target)
        assert (there.schema, there.num_rows) == (query.schema, rows)
    assert not list(tmp_path.glob(".*.part"))


def test_a_query_may_hold_anything_that_sql_may(url):
    _load(url, NASTY)
    sql = "SELECT id AS n, '100%s :x %' AS q, 7 % 4 AS m FROM scored -- a note;\nWHERE id = 4;"
    assert _read(url, sql).to_pylist() == [{"n": 4, "q": "100%s :x %", "m": 3}]
    assert _ids(url, "WITH a AS (SELECT * FROM scored) SELECT id FROM a WHERE id = 4") == [4]


def test_postgresql_types_without_one_in_arrow_are_text(postgresql):
    _run(
        postgresql,
        "DROP TABLE IF EXISTS odd",
        "CREATE TABLE odd AS SELECT '{\"b\": [1]}'::jsonb AS js, ARRAY[1, 2] AS arr, "
        "INTERVAL '1 day' AS gap, 'infinity'::numeric AS n, 1.50::numeric(4, 2) AS fixed, "
        "'NaN'::numeric(4, 2) AS nan, '10.0.0.1'::inet AS ip, TIME '10:00' AS t",
    )
    row = _read(postgresql, "odd").to_pylist()[0]
    assert row == {
        "js": '{"b": [1]}', "arr": "{1,2}", "gap": "1 day", "n": "Infinity",
        "fixed": Decimal("1.50"), "nan": None, "ip": "10.0.0.1", "t": dt.time(10),
    }  # fmt: skip


def test_sqlite_columns_of_mixed_values(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    _run(
        url,
        "CREATE TABLE t (a, b, c, d)",
        "INSERT INTO t VALUES (1, 1, NULL, NULL), (2.5, 'x', x'00', NULL)",
        "INSERT INTO t VALUES (NULL, NULL, NULL, NULL)",
    )
    there = _read(url, "t")
    assert there.to_pydict() == {
        "a": [1.0, 2.5, None], "b": ["1", "x", None], "c": [None, b"\0", None], "d": [None] * 3,
    }  # fmt: skip
    assert there.schema.field("d").type == pa.string()


def test_rows_are_those_of_one_moment(url, tmp_path):
    if url.startswith("duckdb"):
        pytest.skip("DuckDB lets nobody write to a file that is read")
    if url.startswith("sqlite"):
        _run(url, "PRAGMA journal_mode = wal")
    _load(url, _small(*range(100)))
    with Query(url, "scored", window=10) as query:
        rows = query.batches()
        next(rows)
        _run(url, "DELETE FROM scored WHERE id > 50", "INSERT INTO scored VALUES (1000)")
        assert sum(batch.num_rows for batch in rows) == 90


# --- the output ---


def test_replace_append_fail(url):
    _load(url, _small(1, 2))
    assert _ids(url) == [1, 2]
    _load(url, _small(3))
    assert _ids(url) == [3]
    _load(url, _small(4), if_exists="append")
    assert sorted(_ids(url)) == [3, 4]
    with pytest.raises(ConfigError, match="#scored: the table is there already"):
        _load(url, _small(5), if_exists="fail")
    assert sorted(_ids(url)) == [3, 4]
    for table, if_exists in (("other", "append"), ("third", "fail")):
        _load(url, _small(6), table, if_exists=if_exists)
        assert _ids(url, table) == [6]
    assert _tables(url) == {"scored", "other", "third"}


def _tables(url):
    names = "SELECT name FROM sqlite_master WHERE type = 'table'"
    if not url.startswith("sqlite"):
        names = (
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema IN ('public', 'main')"
        )
    with _connected(url) as connection:
        return set(connection.execute(sa.text(names)).scalars())


def test_other_columns_replace_the_table(url):
    _load(url, _small(1))
    _load(url, pa.table({"label": ["POSITIVE"], "id": ["now a text"]}))
    assert _read(url).to_pydict() == {"label": ["POSITIVE"], "id": ["now a text"]}
    assert _tables(url) == {"scored"}


def test_replacing_keeps_views_and_indexes(url):
    _load(url, _small(1))
    _run(url, "CREATE VIEW seen AS SELECT * FROM scored", "CREATE INDEX by_id ON scored (id)")
    _load(url, _small(2, 3))
    assert _ids(url, "seen") == [2, 3]


# --- rows by their key ---


def _labels(**labels):
    """`_labels(n1="good")`: a row with the id 1 and that label."""
    ids = [int(name[1:]) for name in labels]
    return pa.table({"id": pa.array(ids, pa.int64()), "label": list(labels.values())})


def _upsert(url, rows, *key, **options):
    _load(url, rows, if_exists="upsert", key=key or ("id",), **options)


def _rows(url, columns="*", table="scored"):
    with _connected(url) as connection:
        found = connection.execute(sa.text(f"SELECT {columns} FROM {table}"))
        return sorted(tuple(row) for row in found)


def test_upsert_makes_a_table_and_is_the_same_twice(url):
    for _ in range(2):
        _upsert(url, _labels(n1="a", n2="b", n3="c"))
        assert _rows(url) == [(1, "a"), (2, "b"), (3, "c")]
    _upsert(url, _labels(n2="B", n4="d"))
    assert _rows(url) == [(1, "a"), (2, "B"), (3, "c"), (4, "d")]
    assert _tables(url) == {"scored"}
    with pytest.raises(MlopsDeployError, match=r"(?i)unique|duplicate"):
        _load(url, _labels(n1="again"), if_exists="append")  # it has a primary key


def test_upsert_leaves_what_it_does_not_write(url):
    """Also a column that can't be NULL and has no default, which only a new row needs."""
    _run(
        url,
        "CREATE TABLE scored (note TEXT NOT NULL, label TEXT, id BIGINT PRIMARY KEY)",
        "INSERT INTO scored VALUES ('mine', 'old', 1), ('yours', 'kept', 2)",
    )
    _upsert(url, _labels(n1="new"))
    assert _rows(url) == [("mine", "new", 1), ("yours", "kept", 2)]
    with pytest.raises(MlopsDeployError, match=r"(?i)not[ -]null.*note|note.*not[ -]null"):
        _upsert(url, _labels(n2="lost", n3="lost"))
    assert _rows(url) == [("mine", "new", 1), ("yours", "kept", 2)]


def test_upsert_by_several_columns_of_any_name(url):
    rows = pa.table({"Order By": ["a", "a", "b"], "50% off": [1, 2, 1], "label": ["x", "y", "z"]})
    _upsert(url, rows, "50% off", "Order By")
    _upsert(url, rows.slice(1, 1).set_column(2, "label", [["Y"]]), "Order By", "50% off")
    assert _rows(url) == [("a", 1, "x"), ("a", 2, "Y"), ("b", 1, "z")]
    if not url.startswith("sqlite"):
        _run(url, "CREATE SCHEMA mart")
        for label in ("x", "y"):
            _upsert(url, _labels(n1=label), table="mart.scored")
        assert _rows(url, table="mart.scored") == [(1, "y")]
    _upsert(url, rows.select([0]).slice(1), "Order By", table="keys_only")
    _upsert(url, rows.select([0]).slice(1), "Order By", table="keys_only")
    assert _rows(url, table="keys_only") == [("a",), ("b",)]


def test_upsert_takes_the_types_of_the_table(url):
    """An id out of a CSV file is text; what it means, the table says."""
    _run(url, "CREATE TABLE scored (id INTEGER, label TEXT)")
    _run(url, "CREATE UNIQUE INDEX by_id ON scored (id)", "INSERT INTO scored VALUES (7, 'old')")
    _upsert(url, pa.table({"id": ["7", "08"], "label": ["new", "other"]}))
    assert _rows(url) == [(7, "new"), (8, "other")]
    with pytest.raises(InputError, match="2 rows have the same key, id 9; nothing was written"):
        _upsert(url, pa.table({"id": ["9", "09"], "label": ["x", "y"]}))


@pytest.mark.parametrize(
    ("rows", "key", "said"),
    [
        (_labels(n3="x"), ["nr"], "--key: no column 'nr' is written; there are: id, label"),
        (
            _labels(n3="x"),
            ["label"],
            "has no primary key or unique index of --key label; make one: CREATE",
        ),
        (_labels(n3="x"), ["id", "label"], "no primary key or unique index of --key id,label"),
        (pa.table({"id": [3], "new": ["x"]}), ["id"], "the table has no column 'new'"),
    ],
)
def test_upsert_is_refused_before_the_work(url, rows, key, said):
    _upsert(url, _labels(n1="a"))
    for load in (check_table, partial(load_table, batches=rows.to_batches())):
        with pytest.raises(ConfigError, match=said) as caught:
            load(url, "scored", schema=rows.schema, if_exists="upsert", key=key)
        _is_one_safe_line(caught.value)
    assert _rows(url) == [(1, "a")]
    check_table(url, "scored", schema=_labels().schema, if_exists="upsert", key=["id"])
    check_table(url, "other", schema=_labels().schema, if_exists="upsert", key=["id"])
    assert _tables(url) == {"scored"}


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([5, 1, 5, 2], "2 rows have the same key, id 5, shop 's'; nothing was written"),
        ([5, None, None], "rows without id or shop, which is their --key: 2; nothing was written"),
    ],
)
def test_rows_that_a_key_does_not_tell_apart(url, ids, said, there):
    rows = pa.table(
        {"id": pa.array(ids, pa.int64()), "shop": ["s"] * len(ids), "label": ["x"] * len(ids)}
    )
    if there:
        _upsert(url, rows.slice(1, 0), "id", "shop")
    with pytest.raises(InputError, match=said):
        _upsert(url, rows, "id", "shop")
    assert _tables(url) == ({"scored"} if there else set())
    assert not there or _rows(url) == []


def test_keys_are_the_same_if_the_table_says_so(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    _run(url, "CREATE TABLE scored (id TEXT COLLATE NOCASE PRIMARY KEY, label TEXT)")
    _upsert(url, pa.table({"id": ["Ulm"], "label": ["old"]}))
    with pytest.raises(InputError, match="2 rows have the same key, id 'Ulm'; nothing was written"):
        _upsert(url, pa.table({"id": ["ULM", "ulm"], "label": ["x", "y"]}))
    _upsert(url, pa.table({"id": ["ULM"], "label": ["new"]}))
    assert _rows(url) == [("Ulm", "new")]


def test_upserts_side_by_side(postgresql):
    """Of the same keys, in any order: one waits for the other, and no key is there twice."""
    _run(postgresql, "DROP TABLE IF EXISTS scored")
    _upsert(postgresql, _labels(n0="old"))
    labels = {f"n{number}": "x" for number in range(500)}
    forth = _labels(**labels)
    back = forth.take(list(range(499, -1, -1))).set_column(1, "label", [["y"] * 500])
    with ThreadPoolExecutor(2) as jobs:
        for done in [jobs.submit(_upsert, postgresql, rows) for rows in [forth, back] * 3]:
            done.result()
    assert [row[0] for row in _rows(postgresql)] == list(range(500))
    assert len({row[1] for row in _rows(postgresql)}) == 1


def test_upsert_into_other_databases_is_refused(monkeypatch):
    mysql = sa.create_mock_engine("mysql+pymysql://", print)
    monkeypatch.setattr(tables, "connect_to", lambda _: mysql)  # its driver is not here
    with pytest.raises(ConfigError, match="upsert is for SQLite, PostgreSQL and DuckDB"):
        _upsert("mysql://h/shop", _labels(n1="x"))


def test_no_rows_make_an_empty_table(url):
    load_table(url, "scored", [], schema=_small().schema)
    assert _tables(url) == {"scored"}
    with pytest.raises(InputError, match="the query gives no rows"):
        _ids(url)


@pytest.mark.parametrize("name", ['"odd.na""me; --"', "select", "Größe", '"with space"'])
def test_odd_names(url, name):
    _load(url, _small(1), name)
    _load(url, _small(2), name)
    assert _ids(f"{url}#{name}", None) == [2]


def test_schemas(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has none")
    with pytest.raises(MlopsDeployError, match=r"(?i)schema .*mart"):
        check_table(url, "mart.scored", schema=_small().schema)
    _run(url, "CREATE SCHEMA mart")
    _load(url, _small(1), "mart.scored")
    _load(url, pa.table({"id": [2], "more": ["x"]}), "mart.scored")
    assert _ids(url, "mart.scored") == [2]
    with pytest.raises(InputError, match="scored"):
        _ids(url, "scored")


def test_check_table_leaves_no_trace(url):
    schema = _small().schema
    check_table(url, "scored", schema=schema)
    assert _tables(url) == set()
    _load(url, _small(1))
    check_table(url, "scored", schema=schema)
    check_table(url, "scored", schema=NASTY.schema)
    check_table(url, "scored", schema=schema, if_exists="append")
    with pytest.raises(ConfigError, match="the table has no column 'review'"):
        check_table(url, "scored", schema=NASTY.schema, if_exists="append")
    with pytest.raises(ConfigError, match="is there already"):
        check_table(url, "scored", schema=schema, if_exists="fail")
    assert _ids(url) == [1]
    assert _tables(url) == {"scored"}


def test_a_failure_on_the_way_leaves_the_old_table(url):
    def batches():
        yield _small(7).to_batches()[0]
        raise InputError("the rows end here")

    _load(url, _small(1))
    with pytest.raises(InputError, match="the rows end here"):
        load_table(url, "scored", batches(), schema=_small().schema)
    assert _ids(url) == [1]


KILLED = """
import sys, time
import pyarrow as pa
from mlopsdeploy.data.databases import load_table

def batches():
    for start in range(0, 200_000, 10_000):
        yield pa.record_batch({"id": pa.array(range(start, start + 10_000)), **EXTRA})
    print("in the middle", flush=True)
    time.sleep(60)

EXTRA = {"new": pa.array(["x"] * 10_000)} if sys.argv[2] == "other" else {}
schema = pa.schema([("id", pa.int64())] + [("new", pa.string())] * len(EXTRA))
how = {"if_exists": "upsert", "key": ["id"]} if sys.argv[2] == "upsert" else {}
load_table(sys.argv[1], "scored", batches(), schema=schema, **how)
"""


@pytest.mark.parametrize("columns", ["same", "other", "upsert"])
def test_kill_9_in_the_middle_leaves_the_old_table(url, columns):
    how = {"if_exists": "upsert", "key": ["id"]} if columns == "upsert" else {}
    _load(url, _small(1, 2, 3), **how)
    child = subprocess.Popen([sys.executable, "-c", KILLED, url, columns], stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"in the middle\n"
        if url.startswith("postgresql"):  # readers see the old rows while the new ones come
            assert _ids(url) == [1, 2, 3]
        child.send_signal(signal.SIGKILL)
    assert _ids(url) == [1, 2, 3]
    assert _tables(url) == {"scored"}
    _load(url, _small(4))
    assert _ids(url) == [4]


def test_input_and_output_in_one_database(url):
    _load(url, _small(1, 2), "reviews")
    _load(url, _read(url, "reviews"))
    assert _ids(url) == [1, 2]


def test_rows_may_be_read_in_another_thread(url):
    _load(url, _small(*range(50)))
    query = Query(url, "scored", window=10)
    with ThreadPoolExecutor(1) as reader:
        assert len(reader.submit(lambda: list(query.batches())).result()) == 5
    query.close()


def test_dates_that_python_does_not_know(postgresql):
    far = pa.table({"at": pa.array([2**62], pa.timestamp("us"))})
    with pytest.raises(InputError, match="column 'at' can't be stored"):
        _load(postgresql, far, "far")
    with pytest.raises(MlopsDeployError, match="too large") as caught:
        _read(postgresql, "SELECT 'infinity'::timestamp AS at")
    _is_one_safe_line(caught.value)


def test_jobs_side_by_side(postgresql):
    """Two to one table: the later one's rows stay. Another table is not held up."""
    for table in ("shared", "apart"):
        _run(postgresql, f"DROP TABLE IF EXISTS {table}")
        _load(postgresql, _small(0), table)
    held, other = threading.Event(), pa.table({"id": [2], "more": ["x"]})

    def batches():
        yield _small(1).to_batches()[0]
        held.wait(30)

    with ThreadPoolExecutor(2) as jobs:
        first = jobs.submit(load_table, postgresql, "shared", batches(), schema=_small().schema)
        second = jobs.submit(_load, postgresql, other, "shared")
        _load(postgresql, other, "apart")
        held.set()
        first.result()
        second.result()
    assert _ids(postgresql, "apart") == [2]
    assert _ids(postgresql, "shared") in ([1], [2])  # whichever came first


def test_duckdb_reads_files(tmp_path):
    pytest.importorskip("duckdb_engine")
    pyarrow.parquet.write_table(_small(1, 2), tmp_path / "a.parquet")
    there = _read("duckdb:///:memory:", f"SELECT id FROM '{tmp_path}/*.parquet' ORDER BY id DESC")
    assert there.to_pydict() == {"id": [2, 1]}


# --- what can go wrong ---


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("nowhere", r"nowhere.*; check the names of tables and columns"),
        ("locked_permissions", r"; check the names of tables and columns"),
        ("hidden", r"; check the names of tables and columns"),
        ("SELECT nothing FROM scored", r"nothing"),
        ("SELECT id FROM scored WHERE id < 0", r"the query gives no rows"),
        ("SELECT id, id FROM scored", r"column '\w+' is there twice|ambiguous"),
        ("SELECT id FROM FROM scored", r"(?i)syntax error"),
    ],
)
def test_a_query_that_is_wrong(url, query, line):
    _load(url, _small(1))
    hidden = _small(1)  # noqa: F841  # DuckDB would find it
    with pytest.raises(InputError, match=line) as caught:
        _ids(url, query)
    _is_one_safe_line(caught.value)


@pytest.mark.parametrize(
    ("query", "error", "line"),
    [
        ("DELETE FROM scored", ConfigError, "only a SELECT"),
        ("drop table scored", ConfigError, "only a SELECT"),
        ("/* SELECT */ UPDATE scored SET id = 2", ConfigError, "only a SELECT"),
        ("  ", ConfigError, "only a SELECT"),
        ("WITH a AS (SELECT 1) DELETE FROM scored", MlopsDeployError, r"^[a-z]+://\S+: ."),
        ("SELECT 1 AS id; DELETE FROM scored", MlopsDeployError, r"^[a-z]+://\S+: ."),
        (
            "WITH a AS (DELETE FROM scored RETURNING id) SELECT id FROM a",
            MlopsDeployError,
            r"^[a-z]+://\S+: .",
        ),
    ],
)
def test_only_reading_is_allowed(url, query, error, line):
    _load(url, _small(1))
    with pytest.raises(error, match=line) as caught:
        _ids(url, query)
    _is_one_safe_line(caught.value)
    assert _ids(url) == [1]


def _is_one_safe_line(error):
    line = str(error)
    assert "\n" not in line
    assert "sqlalche.me" not in line
    assert PASSWORD not in line
    assert QUOTED not in line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sqlite:///a.db#t", "name a table .* or give a query, one of the two"),
        ("postgresql://me:pw@127.0.0.1:1/db", "is the server up"),
        ("postgresq://h/db", "did you mean 'postgresql'"),
        ("s4://bucket/a.csv", "SQLAlchemy knows no 's4'; install its dialect"),
        ("postgresql://h:port/db", "not a database URL"),
        ("sqlite:////nowhere/a.db", "there is no file /nowhere/a.db"),
        ("duckdb:///nowhere.db", "there is no file nowhere.db"),
        ("oracle+oracledb://h/db", "needs the package 'oracledb': pip install oracledb"),
    ],
)
def test_a_database_that_is_not_there(url, line):
    with pytest.raises(MlopsDeployError, match=line) as caught:
        Query(url, "t")
    _is_one_safe_line(caught.value)
    assert ":pw@" not in str(caught.value)


def test_neither_a_table_nor_a_query():
    with pytest.raises(ConfigError, match="name a table .* or give a query"):
        Query("sqlite:///a.db")


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'mlopsdeploy\[postgresql\]'"):
        Query("postgresql://h/db", "t")


def test_a_file_that_is_no_database(tmp_path):
    with pytest.raises(ConfigError, match="is its folder there"):
        check_table(f"sqlite:///{tmp_path}/no/a.db", "t", schema=_small().schema)
    (tmp_path / "a.db").write_text("id,review\n1,good\n" * 100)
    for kind in ("sqlite", "duckdb"):
        with pytest.raises(MlopsDeployError, match=r"(?i)not a (valid DuckDB )?database") as caught:
            Query(f"{kind}:///{tmp_path}/a.db", "t")
        _is_one_safe_line(caught.value)


def test_postgresql_says_no(postgresql):
    wrong = postgresql.replace(QUOTED, "wr0ng-pw")
    with pytest.raises(ConfigError, match="check user and password") as caught:
        Query(wrong, "t")
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(ConfigError, match='database "nowhere" does not exist; check the URL'):
        Query(postgresql.replace("/postgres", "/nowhere"), "t")
    _run(
        postgresql,
        "DROP TABLE IF EXISTS closed",
        "CREATE TABLE closed (id bigint)",
        f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'",
        "GRANT USAGE ON SCHEMA public TO guest",
    )
    guest = postgresql.replace("tester", "guest")
    with pytest.raises(ConfigError, match="permission denied for table closed; ask its owner"):
        Query(guest, "closed")
    with pytest.raises(ConfigError, match="permission denied for schema public; ask its owner"):
        check_table(guest, "scored", schema=_small().schema)


def test_a_password_from_the_environment(postgresql, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    bare = postgresql.replace(f":{QUOTED}", "")
    assert _read(bare, "SELECT 1 AS id").to_pydict() == {"id": [1]}


def test_views_of_a_table_with_other_columns(postgresql):
    _run(postgresql, "DROP TABLE IF EXISTS viewed CASCADE")
    _load(postgresql, _small(1), "viewed")
    _run(postgresql, "CREATE VIEW seen_of AS SELECT * FROM viewed")
    with pytest.raises(ConfigError, match="drop its views first"):
        check_table(postgresql, "viewed", schema=NASTY.schema)
    _load(postgresql, _small(2), "viewed")
    assert _ids(postgresql, "seen_of") == [2]


def _end_all_others(url):
    _run(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'",
    )


def test_a_lost_connection(postgresql):
    query = Query(postgresql, "SELECT i AS id FROM generate_series(1, 100000) i", window=100)
    rows = query.batches()
    next(rows)
    _end_all_others(postgresql)
    with pytest.raises(MlopsDeployError, match="the connection was lost; run it again"):
        list(rows)
    query.close()


def test_a_connection_lost_while_writing(postgresql):
    def batches():
        yield _small(7).to_batches()[0]
        _end_all_others(postgresql)
        yield _small(8).to_batches()[0]

    _load(postgresql, _small(1), "held")
    with pytest.raises(MlopsDeployError, match="the connection was lost; run it again"):
        load_table(postgresql, "held", batches(), schema=_small().schema)
    assert _ids(postgresql, "held") == [1]


def test_a_table_that_does_not_fit(postgresql):
    _run(postgresql, "DROP TABLE IF EXISTS strict", "CREATE TABLE strict (id smallint NOT NULL)")
    with pytest.raises(MlopsDeployError, match="out of range") as caught:
        _load(postgresql, _small(100_000), "strict", if_exists="append")
    _is_one_safe_line(caught.value)
    with pytest.raises(ConfigError, match="is longer than the 63 bytes"):
        _load(postgresql, _small(1), "t" * 64)


def test_a_locked_file(tmp_path, url):
    if url.startswith("postgresql"):
        pytest.skip("PostgreSQL locks no files")
    _load(url, _small(1))
    holder = (
        "import sys, sqlalchemy as sa\n"
        "c = sa.create_engine(sys.argv[1]).connect()\n"
        "c.exec_driver_sql('BEGIN EXCLUSIVE' if 'sqlite' in sys.argv[1] else 'SELECT 1')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", holder, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(MlopsDeployError, match="something else has the file open"):
            Query(url + ("?timeout=0.2" if "sqlite" in url else ""), "scored")


NO_ROOM = """
import resource, signal, sys
import pyarrow as pa
from mlopsdeploy.data.databases import load_table
from mlopsdeploy.errors import MlopsDeployError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))  # no file may grow past 2 MiB
rows = pa.table({"id": range(600_000), "text": [f"{n * 7919:x}" for n in range(600_000)]})
try:
    load_table(sys.argv[1], "scored", rows.to_batches(50_000), schema=rows.schema)
except MlopsDeployError as error:
    print(error)
"""


def test_no_room(url):
    if url.startswith("postgresql"):
        pytest.skip("its server is not ours to limit")
    _load(url, _small(1))
    said = subprocess.run(
        [sys.executable, "-c", NO_ROOM, url], capture_output=True, text=True, check=True
    )
    assert "make room and run it again" in said.stdout, said.stdout
    assert said.stdout.count("\n") == 1
    assert _ids(url) == [1]


@pytest.mark.parametrize(
    ("package", "module", "extra"),
    [("sqlalchemy", "databases", "sql"), ("fsspec", "object_stores", "s3")],
)
def test_a_missing_library_names_the_extra(package, module, extra):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from mlopsdeploy.errors import ConfigError\n"
        f"try: import mlopsdeploy.data.{module}\n"
        "except ConfigError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'mlopsdeploy[{extra}]'" in said.stdout
