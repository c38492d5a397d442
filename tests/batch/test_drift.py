"""Whether a run is like the last one: silent about chance, plain about changes."""

import json

import numpy as np
import pytest

from mlopsdeploy.batch.drift import compare, percent, psi
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.columns import objects

from ..answering import classifier

TASK = classifier()


def run(rows, seed, *, negative=0.2, labels=("NEGATIVE", "POSITIVE"), sure=8, length=3.5, **more):
    """The manifest of a run whose rows come by chance from these shares, scores and lengths."""
    random = np.random.default_rng(seed)
    rest = (1 - negative) / (len(labels) - 1)
    shares = [negative] + [rest] * (len(labels) - 1)
    statistics = Statistics(classifier(*labels).answers)
    predictions = {
        "label": objects([labels[place] for place in random.choice(len(labels), rows, p=shares)]),
        "score": random.beta(sure, 1, rows),
    }
    if length:
        predictions["tokens"] = np.exp(random.normal(length, 0.8, rows)).astype(np.int64)
    statistics.add(TASK, np.arange(rows), {}, predictions)
    known = {
        "started": "2026-11-21T02:00:00+00:00",
        "model": {"name": "m", "version": "1", "digest": "d" * 64},
        "runtime": "openvino",
        "precision": "float32",
        "settings": {"long_text": "head"},
        "statistics": json.loads(json.dumps(statistics.as_dict())),
    }
    return known | more


def levels(drift):
    return {measure.name: measure.level for measure in drift.measures}


@pytest.mark.parametrize(
    ("then", "now", "expected", "words"),
    [
        ({}, {}, {}, "Much like the last run."),
        (None, {"de": 900}, {}, "Much like the last run."),
        ({"de": 30}, {"de": 33}, {"languages": "little"}, "Much like the last run."),
        ({}, {"de": 900}, {"languages": "much"}, "Languages have shifted: de 0 % → 30 %."),
        ({"de": 6}, {"de": 60}, {"languages": "some"}, "Languages have shifted: de 0.2 % → 2.0 %."),
    ],
)  # fmt: skip
def test_languages_that_the_model_does_not_read(then, now, expected, words):
    """They are compared where both runs have counted them."""

    def summary(unread):
        more = {} if unread is None else {"unread": unread}
        return {"labels": {"NEGATIVE": 600, "POSITIVE": 2400}, **more}

    drift = compare(run(3000, 1, summary=summary(now)), run(3000, 2, summary=summary(then)))
    same = {"labels": "little", "scores": "little", "lengths": "little"}
    assert (levels(drift), drift.verdict) == ({**same, **expected}, words)


def test_which_of_several_models_read_the_texts():
    then, now = ({"read_by": {"sentiment": 3000 - zh, "sentiment-zh": zh}} for zh in (300, 1500))
    drift = compare(run(3000, 1, summary=now), run(3000, 2, summary=then))
    assert drift.verdict == "Models have shifted: sentiment-zh 10 % → 50 %."


def test_psi_is_its_formula():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    value, by_chance, limit = psi(p * 1e7, q * 1e7)
    assert value == pytest.approx(0.1 * np.log(0.5 / 0.4) + 0.1 * np.log(0.4 / 0.3), rel=1e-4)
    assert by_chance == pytest.approx(2 * 2e-7)
    assert limit == pytest.approx(9.210 * 2e-7, rel=0.01), "the 99 % quantile of χ² with 2"
    assert psi([10], [20]) == (0, 0, 0)
    assert np.isfinite(psi([10, 0], [0, 10])).all()


@pytest.mark.parametrize(("rows", "then"), [(30, 30), (50, 5000), (2000, 2000)])
@pytest.mark.parametrize("labels", [2, 30])
def test_chance_is_rarely_taken_for_a_change(rows, then, labels):
    """Three comparisons of 60 pairs of runs, each alone wrong in 1 of 100 cases."""
    names = tuple(f"label {place}" for place in range(labels))
    alarms = sum(
        compare(
            run(rows, seed, labels=names, negative=1 / labels),
            run(then, seed + 1000, labels=names, negative=1 / labels),
        ).level
        != "little"
        for seed in range(60)
    )
    assert alarms <= 8


def test_much_like_the_last_run():
    drift = compare(run(5000, 1), run(4000, 2))
    assert levels(drift) == {"labels": "little", "scores": "little", "lengths": "little"}
    assert (drift.level, drift.verdict) == ("little", "Much like the last run.")
    assert drift.rows == (4000, 5000)
    assert drift.unfair == ()
    json.dumps(drift.as_dict(), allow_nan=False)


def test_what_has_changed_is_said():
    before = run(5000, 2)
    drift = compare(run(5000, 1, negative=0.45), before)
    assert levels(drift) == {"labels": "much", "scores": "little", "lengths": "little"}
    assert drift.verdict.startswith("Labels have shifted: NEGATIVE 2")
    assert drift.verdict.count("→") == 1, "of two labels, one says it all"
    drift = compare(run(5000, 1, sure=3, length=4.5), before)
    assert levels(drift) == {"labels": "little", "scores": "much", "lengths": "much"}
    assert drift.verdict == (
        "Scores are lower: 0.89 → 0.75 on average; texts are longer: 46 → 123 tokens on average."
    )
    assert sum(each.now for each in drift.measures[1].bins) == pytest.approx(1)


def test_a_large_change_shows_in_few_rows():
    drift = compare(run(60, 1, negative=0.9), run(60, 2))
    assert drift.level == "much"


def test_few_rows_prove_little():
    drift = compare(run(20, 1), run(20, 2))
    assert drift.level == "little"
    assert "with so few" in drift.verdict


def test_a_rare_label_that_doubles():
    labels = ("fraud", "legitimate")
    before = run(100_000, 2, labels=labels, negative=0.002, length=None)
    drift = compare(run(100_000, 1, labels=labels, negative=0.006, length=None), before)
    assert drift.measures[0].psi < 0.1
    assert levels(drift) == {"labels": "some", "scores": "little"}
    assert drift.verdict.startswith("Labels have shifted: fraud 0.2 % → 0.6 %")
    same = compare(run(100_000, 3, labels=labels, negative=0.002, length=None), before)
    assert same.level == "little"


def test_a_label_that_is_new():
    before = run(1000, 2)
    drift = compare(run(1000, 1, labels=("NEGATIVE", "POSITIVE", "NEUTRAL")), before)
    assert drift.level == "much"
    assert "NEUTRAL 0 % → 4" in drift.verdict


def test_scores_that_all_sat_in_one_place():
    before = run(1000, 2, sure=10_000)
    assert compare(run(1000, 3, sure=10_000), before).level == "little"
    assert levels(compare(run(1000, 1, sure=4), before))["scores"] == "much"


def test_what_makes_a_comparison_unfair():
    other = {
        "model": {"name": "m", "version": "2", "digest": "e" * 64},
        "precision": "bfloat16",
        "settings": {
            "long_text": "chunks",
            "threshold": 0.7,
            "packages": {"numpy": "2"},
            "prefix": "p",
        },
    }
    drift = compare(run(1000, 1, **other), run(1000, 2))
    assert drift.unfair == (
        "another model: m 1 (dddddddd) then, m 2 (eeeeeeee) now",
        "another precision: float32 then, bfloat16 now",
        "another setting: long_text was head, is chunks",
        "another setting: packages numpy was not set, is 2",
        "another setting: threshold was not set, is 0.7",
    )


def test_the_same_data():
    twice = run(1000, 1, input_digest="abc")
    assert compare(twice, twice).notes == ("Both runs read the same data.",)
    assert all(measure.psi == 0 for measure in compare(twice, twice).measures)


def test_lengths_in_other_units_are_not_compared():
    characters = run(1000, 2)
    characters["statistics"]["lengths"]["unit"] = "characters"
    assert "lengths" not in levels(compare(run(1000, 1), characters))


@pytest.mark.parametrize(
    ("previous", "words"),
    [
        ({}, "another version"),
        ({"statistics": {"format": 0}}, "another version"),
        (run(0, 1), "scored no rows"),
    ],
)
def test_nothing_to_compare_with(previous, words):
    drift = compare(run(100, 1), previous)
    assert (drift.level, drift.measures) == ("unknown", ())
    assert words in drift.verdict


def test_percent():
    shares = [0, 0.0004, 0.002, 0.0999, 0.1, 0.345, 0.9951, 0.99999, 1]
    expected = ["0 %", "< 0.1 %", "0.2 %", "10 %", "10 %", "34 %", "99.5 %", "> 99.9 %", "100 %"]
    assert [percent(share) for share in shares] == expected
