"""Every format that is read, packed or not: the labels are those of the same rows as CSV."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy import score_file
from mlopsdeploy.errors import InputError

from .tables import read

TEXT = "text"


@pytest.fixture
def rows(quick_reviews):
    """40 rows; the model that is fragile fails over one of them."""
    texts = quick_reviews(40)
    texts[30] = "poison"
    return [{"id": place, TEXT: text} for place, text in enumerate(texts)]


def csv_of(rows):
    return "".join([f"id,{TEXT}\n", *(f"{row['id']},{row[TEXT]}\n" for row in rows)]).encode()


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet_of(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def excel_of(rows):
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in [[], ["id", TEXT], [], *(list(row.values()) for row in rows), []]:
        book.active.append([None, *row])
    book.save(file)
    return file.getvalue()


def zip_of(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.md", "what it is")
        archive.writestr(f"__MACOSX/._{name}", "\0")
        archive.writestr(name, content)
    return file.getvalue()


FORMATS = {
    "r.csv": csv_of,
    "r.jsonl": lines_of,
    "r.json": lines_of,
    "array.json": lambda rows: json.dumps(rows).encode(),
    "pretty.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "within.json": lambda rows: json.dumps({"n": 1, "data": {"all": rows}}, indent=1).encode(),
    "objects.json": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(),
    "utf16.json": lambda rows: json.dumps(rows).encode("utf-16"),
    "r.parquet": parquet_of,
    "r.xlsx": excel_of,
    "r.csv.gz": lambda rows: gzip.compress(csv_of(rows)),
    "members.csv.gz": lambda rows: b"".join(
        gzip.compress(part) for part in csv_of(rows).splitlines(keepends=True)
    ),
    "twice.csv.gz": lambda rows: gzip.compress(gzip.compress(csv_of(rows))),
    "not.csv.gz": csv_of,
    "packed.csv": lambda rows: gzip.compress(csv_of(rows)),
    "lines.csv": lines_of,
    "table.csv": parquet_of,
    "book.csv": excel_of,
    "r.csv.bz2": lambda rows: bz2.compress(csv_of(rows)),
    "r.csv.xz": lambda rows: lzma.compress(csv_of(rows)),
    "r.csv.zst": lambda rows: pa.compress(csv_of(rows), codec="zstd", asbytes=True),
    "r.csv.zip": lambda rows: zip_of("inner.csv", csv_of(rows)),
    "r.zip": lambda rows: zip_of("inner.xlsx", excel_of(rows)),
    "r.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "r.jsonl.zst": lambda rows: pa.compress(lines_of(rows), codec="zstd", asbytes=True),
    "r.parquet.gz": lambda rows: gzip.compress(parquet_of(rows)),
    "unnamed": lambda rows: json.dumps(rows).encode(),
}
OUTPUTS = {
    "r.json": "r.predictions.jsonl", "r.xlsx": "r.predictions.csv", "r.zip": "r.predictions.csv",
    "r.csv.zip": "r.predictions.csv", "r.json.gz": "r.predictions.jsonl.gz",
    "r.csv.zst": "r.predictions.csv.zst", "r.parquet.gz": "r.predictions.parquet",
    "unnamed": "unnamed.predictions.jsonl",
}  # fmt: skip


UNPACK = {
    ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress,
    ".zst": lambda content: pa.CompressedInputStream(io.BytesIO(content), "zstd").read(),
}  # fmt: skip


def written(output):
    """The rows of an output."""
    path = Path(output)
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if unpack := UNPACK.get(path.suffix):
        content = unpack(path.read_bytes())
        path = path.with_suffix("")
        path.write_bytes(content)
    return read(path)


def labels(output):
    """The label of each row of an output, by its id."""
    return {str(row["id"]): row["label"] for row in written(output)}


@pytest.mark.parametrize("name", FORMATS)
def test_some_columns_of_every_format(tmp_path, bag, rows, name):
    (tmp_path / name).write_bytes(FORMATS[name](rows))
    done = score_file(
        tmp_path / name, model=bag, columns=["id"], text_column=TEXT, runtime="onnxruntime"
    )
    found = written(done.output)
    assert [str(row["id"]) for row in found] == [str(row["id"]) for row in rows]
    assert {*found[0]} == {"id", "label", "score", "truncated"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_labels_in_one_go_and_in_two(tmp_path, bag, fragile, rows, name):
    plain, path = tmp_path / "plain" / "r.csv", tmp_path / name
    plain.parent.mkdir()
    plain.write_bytes(csv_of(rows))
    path.write_bytes(FORMATS[name](rows))
    common = {"text_column": TEXT, "runtime": "onnxruntime", "batch_size": 1}
    expected = labels(score_file(plain, model=bag, **common).output)
    done = score_file(path, model=bag, **common)
    assert done.output == str(tmp_path / OUTPUTS.get(name, Path(done.output).name))
    assert labels(done.output) == expected
    cut = {**common, "model": fragile, "commit_seconds": 0, "output": tmp_path / "o.jsonl"}
    with pytest.raises(InputError, match="1 of 32 rows are bad"):
        score_file(path, max_errors="0", **cut)
    done = score_file(path, max_errors="1", **cut)
    assert (done.rows, done.bad_rows, done.summary["attempts"]) == (40, 1, 2)
    del expected["30"]
    assert labels(done.output) == expected
