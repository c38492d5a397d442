"""Texts in languages that a model reads, and in others: by the built-in models, and quick ones."""

import html
import io
import json
import re
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mlopsdeploy import score_file
from mlopsdeploy.batch import command
from mlopsdeploy.core import loading
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import BatchSettings

from .tables import read, write

ENGLISH = [
    "Arrived in two days and works like a charm.",
    "The battery died after a week, a waste of money.",
    "I love it, the sound is great for the price!",
    "Terrible service, nobody ever answered my mails.",
    "ok",
    "EASE OF USE, GREAT PHOTOS",
    "😍😍",
]
CHINESE = [
    "很好吃，下次还来",
    "太差了，再也不买了",
    "送货很快，包装也好，五星好评",
    "难吃，服务态度也不好",
]
GERMAN = [
    "Das Gerät war nach zwei Tagen kaputt.",
    "Sehr gute Qualität, ich bin wirklich zufrieden.",
    "Leider passt die Größe überhaupt nicht, schade.",
]
ARABIC = ["المنتج ممتاز ووصل بسرعة", "سيء جدا ولا أنصح به", "التوصيل كان متأخرا"]


def rows_of(path, **settings):
    """The rows that a run writes, and its summary."""
    output = path.with_name("o.csv")
    done = score_file(path, output, overwrite=True, fresh=True, **settings)
    return read(output), done.summary


def test_each_row_of_a_mixed_file_is_as_its_own_model_has_it(tmp_path):
    """By the built-in models, which are the default."""
    texts = [text for pair in zip(ENGLISH * 4, CHINESE * 7, strict=True) for text in pair]
    mixed, summary = rows_of(write(tmp_path / "r.csv", enumerate(texts)))
    assert summary["read_by"] == {"sentiment": 28, "sentiment-zh": 28}
    for start, name, own in ((0, "sentiment", ENGLISH * 4), (1, "sentiment-zh", CHINESE * 7)):
        alone, told = rows_of(write(tmp_path / "r.csv", enumerate(own)), model=name)
        assert told["read_by"] == {}
        for row, expected in zip(mixed[start::2], alone, strict=True):
            assert row["label"] == expected["label"]
            assert float(row["score"]) == pytest.approx(float(expected["score"]), abs=0.05)
    assert {row["label"] for row in mixed[1::2]} == {"POSITIVE", "NEGATIVE"}
    assert (mixed[1]["label"], mixed[3]["label"]) == ("POSITIVE", "NEGATIVE")


def test_an_english_file_is_scored_as_by_the_english_model_byte_for_byte(tmp_path):
    texts = [*ENGLISH, *(f"{text} {len(text)}" for text in ENGLISH), *ENGLISH]
    path = write(tmp_path / "r.csv", enumerate(texts))
    written = []
    for settings in ({}, {"model": "sentiment"}):
        rows_of(path, **settings)
        written.append((tmp_path / "o.csv").read_bytes())
    assert written[0] == written[1]


# ---------------------------------------------------------------- quick models


@pytest.fixture
def by_default(side_by_side, monkeypatch):
    """Two quick models, of English and Chinese, are the default."""
    monkeypatch.setattr(loading, "DEFAULT_MODEL", side_by_side["both"])


@pytest.mark.parametrize(
    ("how", "texts", "said"),
    [
        ("file", ARABIC, "3 of 3 texts (100%) | 3 ar"),
        ("file", [*GERMAN, "good food", "", " "], "3 of 4 texts (75%) | 3 de"),
        ("dry run", GERMAN, "3 of 3 texts (100%) | 3 de"),
        ("ray", GERMAN, "3 of 3 texts (100%) | 3 de"),
        ("database", GERMAN, "3 of 3 texts (100%) | 3 de"),
        ("standard input", GERMAN, "3 of 3 texts (100%) | 3 de"),
        ("two columns", GERMAN, "3 of 3 texts (100%) | 3 de"),
    ],
)
def test_texts_that_the_default_does_not_read_are_asked_about(
    tmp_path, by_default, monkeypatch, how, texts, said
):
    """Before anything is computed or written, however the rows come."""
    path = str(write(tmp_path / "r.csv", enumerate(texts)))
    column, settings = "review_text", {"output": str(tmp_path / "o.csv")}
    if how == "dry run":
        settings["dry_run"] = True
    elif how == "ray":
        settings["engine"] = "ray"
    elif how == "two columns":
        column = settings["text_column"] = "review_text,id"
    elif how == "database":
        path = f"sqlite:///{tmp_path}/r.db#r"
        with closing(sqlite3.connect(tmp_path / "r.db")) as database:
            pd.DataFrame({"review_text": texts}).to_sql("r", database)
    elif how == "standard input":
        content = io.BufferedReader(io.BytesIO(Path(path).read_bytes()))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, "utf-8"))
        path = "-"
    with pytest.raises(InputError) as caught:
        command.run_batch(BatchSettings(input=path, **settings))
    counts, _, language = said.partition(" | ")
    assert str(caught.value).partition(": ")[2] == (
        f"the first rows of '{column}': {counts} are in languages that the default model doesn't "
        f"read: {language}; it reads en, zh; name one that does with --model, or --model en,zh to "
        "score them all the same"
    )
    assert not (tmp_path / "o.csv").exists()


def test_languages_are_asked_about_with_all_else(tmp_path, by_default):
    path = write(tmp_path / "r.csv", [("x", GERMAN[0])], ("label", "review_text"))
    with pytest.raises(InputError, match=r"1 of 1 texts.*; and it already has 'label'.*--prefix"):
        command.run_batch(BatchSettings(input=str(path)))


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_model_that_was_named_goes_on_and_says_so(tmp_path, side_by_side, dry_run):
    texts = [*GERMAN, *ARABIC, *ARABIC, *["good food"] * 10, "a 1 2 3", ""]
    path, report = write(tmp_path / "r.csv", enumerate(texts)), tmp_path / "r.html"
    said = io.StringIO()
    settings = BatchSettings(
        input=str(path), model=side_by_side["en"], dry_run=dry_run, report=str(report)
    )
    summary = command.run_batch(settings, Console(file=said, width=200))
    unread = {"ar": 6, "de": 3, "unknown": 1}
    line = "6 ar, 3 de (the model reads en); 1 mostly of unknown tokens"
    assert (summary["sample"] if dry_run else summary)["unread"] == unread
    assert re.search(rf"^unread +{re.escape(line)} *$", said.getvalue(), re.MULTILINE)
    assert "read by" not in said.getvalue()
    if not dry_run:
        manifest = json.loads((tmp_path / "r.predictions.csv.manifest.json").read_bytes())
        assert manifest["summary"]["unread"] == unread
        assert manifest["model"]["languages"] == ["en"]
        page = html.unescape(report.read_text("utf-8"))
        assert f"10 rows (50 %) that the model doesn't read: {line}" in page


def test_of_several_models_each_says_what_it_read(tmp_path, by_default, mixed_reviews):
    path, said = write(tmp_path / "r.csv", enumerate(mixed_reviews(100))), io.StringIO()
    for dry_run in (False, True):
        settings = BatchSettings(input=str(path), dry_run=dry_run)
        summary = command.run_batch(settings, Console(file=said, width=200))
        told = summary["sample"] if dry_run else summary
        assert (told["read_by"], told["unread"]) == ({"en": 60, "zh": 40}, {"de": 10})
    assert len(re.findall(r"^read by +60 en, 40 zh *$", said.getvalue(), re.MULTILINE)) == 2


def test_a_mixed_file_goes_on_after_a_kill(tmp_path, processes, side_by_side, mixed_reviews):
    path = write(tmp_path / "r.csv", enumerate(mixed_reviews(3000)))

    def batch(**how):
        model = ("--model", side_by_side["both"], "--runtime", "onnxruntime", "--batch-size", "20")
        return processes.run(tmp_path, path, "-o", "o.csv", *model, **how)

    def made():
        manifest = json.loads((tmp_path / "o.csv.manifest.json").read_bytes())
        counts = {name: manifest["summary"][name] for name in ("rows", "unread", "read_by")}
        return (tmp_path / "o.csv").read_bytes(), counts, manifest["statistics"]

    assert batch().code == 0
    expected = made()
    assert expected[1] == {"rows": 3000, "unread": {"de": 300}, "read_by": {"en": 1800, "zh": 1200}}
    for path_left in tmp_path.glob("o.csv*"):
        path_left.unlink()
    for rows in (200, 1000):
        ended = batch(kill=processes.has_rows(tmp_path / "o.csv", rows))
        assert ended.code == -signal.SIGKILL, ended.said
    ended = batch()
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    assert made() == expected


def test_a_model_that_is_read_is_not_written_over(tmp_path, side_by_side):
    """Each of several, as of one."""
    model = tmp_path / "zh"
    shutil.copytree(side_by_side["zh"], model)
    path, there = write(tmp_path / "r.csv", [(1, "good")]), write(model / "words.csv", [(1, "x")])
    with pytest.raises(ConfigError, match=r"words\.csv: belongs to the model .*zh; name another"):
        score_file(path, there, model=f"{side_by_side['en']},{model}", overwrite=True)
