"""Rows as a folder of Parquet files."""

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from mlopsdeploy.data.parquet_folder import write_folder
from mlopsdeploy.errors import InputError


def tables(rows=2500, step=100):
    for first in range(0, rows, step):
        numbers = list(range(first, first + step))
        yield pa.table({"n": numbers, "label": [f"l{number % 3}" for number in numbers]})


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_hold_the_rows_in_their_order(tmp_path):
    write_folder(tables(), tmp_path / "out", rows=200)
    files = [f"part-{number:05}.parquet" for number in range(13)]
    assert names(tmp_path / "out") == ["_SUCCESS", *files]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    read = [pyarrow.parquet.read_table(tmp_path / "out" / name)["n"].to_pylist() for name in files]
    assert [number for part in read for number in part] == list(range(2500))
    assert pyarrow.parquet.read_table(tmp_path / "out")["n"].to_pylist() == list(range(2500))


def test_a_column_makes_folders(tmp_path):
    write_folder(tables(), tmp_path / "out", partition_by="label")
    assert names(tmp_path / "out") == [
        "_SUCCESS",
        *(f"label=l{number}/part-00000.parquet" for number in range(3)),
    ]
    read = pyarrow.dataset.dataset(tmp_path / "out" / "label=l1").to_table()
    assert read["n"].to_pylist() == list(range(1, 2500, 3))
    whole = pyarrow.dataset.dataset(tmp_path / "out", partitioning="hive").to_table()
    assert sorted(whole["n"].to_pylist()) == list(range(2500))


def test_a_later_run_replaces_all_of_it(tmp_path):
    write_folder(tables(), tmp_path / "out", rows=200)
    write_folder(tables(300), tmp_path / "out", rows=200)
    assert names(tmp_path / "out") == ["_SUCCESS", "part-00000.parquet", "part-00001.parquet"]


def test_what_fails_leaves_what_was_there(tmp_path):
    def broken():
        yield from tables(200)
        raise OSError("disk full")

    write_folder(tables(300), tmp_path / "out")
    before = names(tmp_path / "out")
    with pytest.raises(OSError, match="disk full"):
        write_folder(broken(), tmp_path / "out")
    assert names(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_column_that_can_not_partition(tmp_path):
    with pytest.raises(InputError, match="no column 'city' to partition by; there are n, label"):
        write_folder(tables(), tmp_path / "out", partition_by="city")
    with pytest.raises(InputError, match="'n' has more than 1,024 values"):
        write_folder(tables(step=2500), tmp_path / "out", partition_by="n")
    assert not list(tmp_path.iterdir())


def test_no_rows_are_a_folder_too(tmp_path):
    write_folder(iter([]), tmp_path / "out")
    assert names(tmp_path / "out") == ["_SUCCESS"]
