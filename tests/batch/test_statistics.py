"""The counts of a run: right, the same however the rows come, bounded."""

import json

import numpy as np
import pytest

from mlopsdeploy.batch.breakdowns import DateColumn
from mlopsdeploy.batch.statistics import (
    LENGTH_EDGES,
    MOST_LABELS,
    MOST_PERIODS,
    MOST_VALUES,
    OTHER,
    Statistics,
)
from mlopsdeploy.columns import objects, take
from mlopsdeploy.errors import InputError

from ..answering import REGRESSION, classifier

TASK = classifier()


LABELS = ["NEGATIVE", "POSITIVE"]
WANTED = {
    "by_date": DateColumn("date", "year-month-day"),
    "by_category": ["country"],
    "examples": 3,
}


def rows(count, seed=0, labels=LABELS):
    random = np.random.default_rng(seed)
    score = random.beta(4, 1, count).astype(np.float32)
    label = objects([labels[place] for place in random.integers(0, len(labels), count)])
    missing = random.random(count) < 0.05
    score[missing], label[missing] = np.nan, ""
    tokens = np.exp(random.normal(3, 1, count)).astype(np.int64)
    days = np.datetime64("2026-01-01") + random.integers(0, 40, count)
    columns = {
        "text": objects([f"text {value}" for value in random.integers(0, count // 2, count)]),
        "date": objects([str(day) if day.item().day != 13 else "?" for day in days]),
        "country": objects(
            [["FR", "DE", "日本", ""][value] for value in random.integers(0, 4, count)]
        ),
    }
    predictions = {
        "label": label,
        "score": score,
        "truncated": tokens > 60,
        "tokens": tokens,
        "lost_tokens": np.maximum(tokens - 60, 0),
    }
    return np.arange(1, count + 1), columns, predictions


def add(statistics, data, part=slice(None)):
    numbers, columns, predictions = data
    statistics.add(TASK, numbers[part], take(columns, part), take(predictions, part), text="text")


def test_counts_are_what_a_plain_count_gives():
    data = _numbers, columns, predictions = rows(500)
    statistics = Statistics(classifier(*LABELS).answers, **WANTED)
    add(statistics, data)
    known = statistics.as_dict()
    scored = np.isfinite(predictions["score"])
    assert (known["rows"], known["answered"]) == (500, int(scored.sum()))
    for name in LABELS:
        mine = predictions["label"] == name
        assert known["answers"][0]["labels"][name]["rows"] == mine.sum()
        assert known["answers"][0]["labels"][name]["mean"] == pytest.approx(
            predictions["score"][mine].mean(), abs=1e-6
        )
        expected = np.histogram(predictions["score"][mine].astype(float), 100, (0, 1))[0]
        assert known["answers"][0]["labels"][name]["bins"] == expected.tolist()
    assert known["truncated"] == predictions["truncated"].sum()
    assert known["lost_tokens"] == predictions["lost_tokens"].sum()
    lengths, tokens = known["lengths"], predictions["tokens"][scored]
    assert (lengths["unit"], lengths["sum"], lengths["longest"]) == (
        "tokens",
        tokens.sum(),
        tokens.max(),
    )
    assert lengths["counts"][:-1] == np.histogram(tokens, LENGTH_EDGES)[0].tolist()
    by_date = known["answers"][0]["by_date"]
    by_country = known["answers"][0]["by_category"]["country"]["rows"]
    here = scored & (columns["date"] == "2026-01-05")
    assert sum(by_date["rows"]["2026-01-05"].values()) == here.sum()
    assert by_date["undated"] == (scored & (columns["date"] == "?")).sum() > 0
    japan = scored & (columns["country"] == "日本") & (predictions["label"] == "NEGATIVE")
    assert by_country["日本"]["NEGATIVE"] == japan.sum()
    assert set(by_country) == {"FR", "DE", "日本", ""}


def test_examples_are_the_extremes_and_no_text_comes_twice():
    _numbers, columns, predictions = data = rows(800)
    statistics = Statistics(classifier(*LABELS).answers, **WANTED)
    add(statistics, data)
    found = statistics.as_dict()["answers"][0]["examples"]["rows"]
    for name in LABELS:
        mine = np.flatnonzero(predictions["label"] == name)
        for kind, sign in (("most", -1), ("least", 1)):
            best = {}
            for row in sorted(mine, key=lambda row: (sign * predictions["score"][row], row)):
                best.setdefault(columns["text"][row], row)
            expected = list(best.items())[:3]
            assert [(each["text"], each["row"] - 1) for each in found[name][kind]] == expected
            assert [each["score"] for each in found[name][kind]] == [
                float(predictions["score"][row]) for _, row in expected
            ]


def test_nothing_of_the_rows_is_kept_unless_asked():
    statistics = Statistics(classifier(*LABELS).answers)
    numbers, columns, predictions = rows(50)
    columns["text"][:] = "a secret"
    statistics.add(TASK, numbers, columns, predictions, text="text")
    assert "secret" not in json.dumps(statistics.as_dict())


@pytest.mark.parametrize("cut", [1, 7, 250, 999])
def test_a_restart_from_the_manifest_changes_nothing(cut):
    data = rows(1000)
    whole = Statistics(classifier(*LABELS).answers, **WANTED)
    add(whole, data)
    first = Statistics(classifier(*LABELS).answers, **WANTED)
    add(first, data, slice(0, cut))
    written = json.dumps(first.as_dict())
    second = Statistics.from_dict(json.loads(written))
    assert json.dumps(second.as_dict()) == written
    for start in range(cut, 1000, 173):
        add(second, data, slice(start, min(start + 173, 1000)))
    assert json.dumps(second.as_dict()) == json.dumps(whole.as_dict())


def test_parts_merge_in_any_order():
    data = rows(1000)
    whole = Statistics(classifier(*LABELS).answers, **WANTED)
    add(whole, data)
    parts = []
    for start in (600, 0, 300):
        part = Statistics(classifier(*LABELS).answers, **WANTED)
        add(part, data, slice(start, {600: 1000, 0: 300, 300: 600}[start]))
        parts.append(part)
    merged = Statistics(classifier(*LABELS).answers, **WANTED)
    for part in parts:
        merged.merge(part)
    found, expected = merged.as_dict(), whole.as_dict()
    assert found == expected  # dicts: the order of the countries may differ


def test_labels_that_the_model_did_not_name():
    one, other = Statistics(classifier(*["a"]).answers), Statistics(classifier(*["a"]).answers)
    predictions = {"label": objects(["b", "a", "c", ""]), "score": np.array([0.5, 1.0, 0.25, 0.1])}
    one.add(TASK, np.arange(4), {}, predictions)
    other.add(TASK, np.arange(4), {}, {**predictions, "label": objects(["c", "c", "d", "b"])})
    one.merge(other)
    counts = {name: label["rows"] for name, label in one.as_dict()["answers"][0]["labels"].items()}
    assert counts == {"a": 1, "b": 2, "c": 3, "": 1, "d": 1}
    assert one.as_dict()["answers"][0]["labels"]["c"]["mean"] == (0.25 + 0.5 + 1.0) / 3


def test_scores_at_and_beyond_the_edges():
    statistics = Statistics(classifier(*["a"]).answers)
    score = np.array([0.0, 1.0, 1.5, -1.0, np.inf, 0.999])
    statistics.add(TASK, np.arange(6), {}, {"label": objects(["a"] * 6), "score": score})
    counts = statistics.as_dict()["answers"][0]["labels"]["a"]["bins"]
    assert (counts[0], counts[99], sum(counts)) == (2, 3, 5)


def test_an_empty_run():
    statistics = Statistics(classifier(*LABELS).answers, **WANTED)
    add(statistics, rows(10), slice(0, 0))
    known = json.loads(json.dumps(statistics.as_dict()))
    assert (known["rows"], known["lengths"]) == (0, None)
    assert known["answers"][0]["by_date"]["rows"] == {}
    assert known["answers"][0]["labels"]["NEGATIVE"]["mean"] is None
    assert Statistics.from_dict(known).as_dict() == known


def test_lengths_in_characters_where_there_are_no_tokens():
    statistics = Statistics(classifier(*LABELS).answers)
    columns = {"text": objects(["", "né", "x" * 5_000_000])}
    predictions = {"label": objects(LABELS + LABELS[:1]), "score": np.full(3, 0.9)}
    statistics.add(TASK, np.arange(3), columns, predictions, text="text")
    lengths = statistics.as_dict()["lengths"]
    assert (lengths["unit"], lengths["longest"], lengths["sum"]) == (
        "characters",
        5_000_000,
        5_000_002,
    )
    assert (lengths["counts"][0], lengths["counts"][2], lengths["counts"][-1]) == (1, 1, 1)


def test_features_as_examples():
    statistics = Statistics(classifier(*["no", "yes"]).answers, by_category=["shop"], examples=2)
    columns = {
        "amount": np.array([1.5, np.nan, 3.0], np.float32),
        "count": np.array([1, 2, 3]),
        "shop": objects(["a", "b", "a"]),
    }
    predictions = {"label": objects(["no"] * 3), "score": np.array([0.9, 0.8, 0.7])}
    statistics.add(TASK, np.array([11, 12, 13]), columns, predictions)
    known = json.loads(json.dumps(statistics.as_dict(), allow_nan=False))
    assert known["answers"][0]["examples"]["rows"]["no"]["most"] == [
        {"row": 11, "score": 0.9, "features": {"amount": 1.5, "count": 1}},
        {"row": 12, "score": 0.8, "features": {"amount": None, "count": 2}},
    ]
    assert Statistics.from_dict(known).as_dict() == known


def test_excerpts_are_short():
    statistics = Statistics(classifier(*["a"]).answers, examples=1)
    columns = {"text": objects(["long\n\n text " * 1000])}
    statistics.add(
        TASK, np.array([1]), columns, {"label": objects(["a"]), "score": np.ones(1)}, text="text"
    )
    (example,) = statistics.as_dict()["answers"][0]["examples"]["rows"]["a"]["most"]
    assert example["text"].startswith("long text long text")
    assert len(example["text"]) <= 300
    assert example["text"].endswith("…")


def test_memory_is_bounded():
    count = 3000
    statistics = Statistics(
        classifier(*["a"]).answers,
        by_date=DateColumn("date", "year-month-day"),
        by_category=["city"],
    )
    days = np.datetime64("1990-01-01") + np.arange(count)
    columns = {
        "date": objects([str(day) for day in days]),
        "city": objects([f"city {row} " + "x" * 500 for row in range(count)]),
    }
    label = objects([f"label {row}" for row in range(count)])
    statistics.add(TASK, np.arange(count), columns, {"label": label, "score": np.ones(count)})
    known = statistics.as_dict()
    assert len(known["answers"][0]["labels"]) == MOST_LABELS + 1
    others = known["answers"][0]["labels"][OTHER]["rows"]
    assert others == count - (MOST_LABELS - 1)  # "a" has a place
    cities = known["answers"][0]["by_category"]["city"]["rows"]
    assert len(cities) == MOST_VALUES + 1
    assert sum(cities[OTHER].values()) == count - MOST_VALUES
    assert max(map(len, cities)) <= 80
    assert known["answers"][0]["by_date"]["period"] == "month"
    assert len(known["answers"][0]["by_date"]["rows"]) == 99 <= MOST_PERIODS
    assert sum(known["answers"][0]["by_date"]["rows"]["1990-02-01"].values()) == 28
    again = Statistics.from_dict(json.loads(json.dumps(known)))
    assert again.as_dict() == known
    again.merge(statistics)
    assert again.as_dict()["answers"][0]["labels"][OTHER]["rows"] == 2 * (count - MOST_LABELS + 1)


def test_when_days_become_months_does_not_matter():
    """Day by day, or all at once."""
    days = [str(np.datetime64("2000-01-01") + 3 * day) for day in range(900)]
    data = ({"label": objects(["a"]), "score": np.ones(1)},)
    wanted = {"by_date": DateColumn("date", "year-month-day")}
    slow, fast = (
        Statistics(classifier(*["a"]).answers, **wanted),
        Statistics(classifier(*["a"]).answers, **wanted),
    )
    for day in reversed(days):
        slow.add(TASK, np.ones(1), {"date": objects([day])}, *data)
    all_ = {"label": objects(["a"] * 900), "score": np.ones(900)}
    fast.add(TASK, np.arange(900), {"date": objects(days)}, all_)
    assert slow.as_dict() == fast.as_dict()


def test_another_format_is_not_guessed():
    with pytest.raises(InputError, match="another version"):
        Statistics.from_dict({"format": 0})


def test_means_of_numbers_per_day_and_category():
    """Exact, in any order, and after a restart."""
    random = np.random.default_rng(2)
    value = random.normal(1e5, 1e5, 600).astype(np.float32)
    value[::50] = np.nan
    days = np.datetime64("2026-01-01") + random.integers(0, 1500, 600)
    columns = {
        "date": objects([str(day) for day in days]),
        "country": objects(random.choice(["FR", "DE"], 600).tolist()),
    }

    def count(*parts):
        made = Statistics(REGRESSION.answers, **WANTED)
        for part in parts:
            some = {"value": value[part]}, take(columns, part)
            made.add(REGRESSION, part + 1, some[1], some[0])
            made = Statistics.from_dict(json.loads(json.dumps(made.as_dict())))
        return made.as_dict()["answers"][0]

    order = random.permutation(600)
    whole = count(np.arange(600))
    parted = count(order[:100], order[100:])
    for one in (whole, parted):
        one["by_category"]["country"]["rows"] = dict(
            sorted(one["by_category"]["country"]["rows"].items())
        )
    assert parted == whole
    mine = np.isfinite(value) & (columns["country"] == "FR")
    mean = np.mean(value[mine], dtype=np.float64)
    assert whole["by_category"]["country"]["means"]["FR"] == pytest.approx(mean, rel=1e-12)
    january = np.isfinite(value) & (days < np.datetime64("2026-02-01"))
    assert whole["by_date"]["period"] == "month"
    mean = np.mean(value[january], dtype=np.float64)
    assert whole["by_date"]["means"]["2026-01-01"] == pytest.approx(mean, rel=1e-12)
    lowest = [each["score"] for each in whole["examples"]["rows"][""]["least"]]
    assert lowest == [np.nanmin(value)]  # of rows with the same content
