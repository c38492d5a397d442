"""The report: complete, safe with whatever rows hold, the same in a real browser."""

import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By

from mlopsdeploy.batch.breakdowns import DateColumn
from mlopsdeploy.batch.report import check_report, duration, moment, write_report
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.columns import objects
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import InputError, MlopsDeployError

from ..answering import classifier

TASK = classifier()
EVIL = (
    "<script>document.title = 'taken'</script><img src=http://evil.example/x.png onerror=alert(1)>"
)

LABELS = ["NEGATIVE", "POSITIVE"]


def statistics_of(rows, *, labels=LABELS, negative=0.3, seed=0, text=EVIL, used=None):
    random = np.random.default_rng(seed)
    statistics = Statistics(
        classifier(*labels).answers,
        by_date=DateColumn("date <i>", "year-month-day"),
        by_category=["shop"],
        examples=2,
    )
    others = (used or len(labels)) - 1
    shares = [negative] + [(1 - negative) / others] * others
    places = random.choice(len(shares), rows, p=shares)
    columns = {
        "text": objects([f"{text} Здравствуйте, مرحبا, 好 {row}" for row in range(rows)]),
        "date <i>": objects([f"2026-03-{row % 28 + 1:02d}" for row in range(rows)]),
        "shop": objects([["Nord", "<b>Süd</b>", ""][row % 3] for row in range(rows)]),
    }
    tokens = random.integers(3, 90, rows)
    predictions = {
        "label": objects([labels[place] for place in places]),
        "score": random.beta(8, 1, rows),
        "truncated": tokens > 80,
        "tokens": tokens,
        "lost_tokens": np.maximum(tokens - 80, 0),
    }
    statistics.add(TASK, np.arange(1, rows + 1), columns, predictions, text="text")
    return statistics.as_dict()


def manifest_of(statistics, *, errors=(), **more):
    errors, (answer,) = dict(errors), statistics["answers"]
    labels = answer["labels"]
    total = sum(label["sum"] for label in labels.values()) / 2**30
    return {
        "mlopsdeploy": "0.1.0",
        "started": "2026-11-22T02:00:03+00:00",
        "finished": "2026-11-22T02:03:41+00:00",
        "input": "reviews & more.csv",
        "output": "reviews.predictions.csv",
        "columns": {"text": "review & more"},
        "model": {"name": "sentiment", "version": "1.0", "digest": "d1" * 32},
        "runtime": "openvino",
        "precision": "bfloat16",
        "settings": {"long_text": "head", "threshold": None},
        "settings_digest": "5e" * 32,
        "input_digest": "1d" * 32,
        "summary": {
            "rows": statistics["rows"] + sum(errors.values()),
            "seconds": 218.4,
            "labels": {name: label["rows"] for name, label in labels.items()},
            "mean_score": total / answer["scored"] if answer["scored"] else None,
            "truncated": statistics["truncated"],
            "failed": sum(errors.values()),
            "rows_per_second": 4.6,
            "read": {"format": "csv", "delimiter": ";", "encoding": "utf-8"},
        },
        "stages": {"read": 0.5, "parse": 1.5, "encode": 20.0, "model": 400.0, "write": 1.0},
        "errors": errors,
        "statistics": statistics,
        **more,
    }


@pytest.fixture
def written(tmp_path):
    """`written(manifest, previous)` is the page and the JSON."""

    def write(manifest, previous=None):
        path = tmp_path / "report.html"
        write_report(str(path), manifest, previous)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]
        return path.read_text(encoding="utf-8"), json.loads((tmp_path / "report.json").read_text())

    return write


class Outline(HTMLParser):
    """Headings in order, texts, and what a page would load."""

    def __init__(self, page):
        super().__init__()
        self.headings, self.tags, self.loads, self.ids, self.texts = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        loads = ("src", "href", "xlink:href", "action", "data", "poster")
        self.loads += [attributes[name] for name in loads if name in attributes]
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_everything_that_was_asked_for_is_there(written):
    now = manifest_of(statistics_of(900), errors={"not a number in 'age'": 4})
    page, numbers = written(now, manifest_of(statistics_of(800, seed=1)))
    outline = Outline(page)
    for words in (
        "900 rows scored in 3 min 38 s; 2 things to look at.", "4 rows (0.4 %) could not be scored",
        "Labels", "Scores", "at 0.9 or more", "Compared with the last run", "PSI",
        "Lengths and truncation", "Not seen by the model", "Over time", "read as year-month-day",
        "By category", "Nord", "<b>Süd</b>", "(empty)", "Least certain", "Most certain",
        "not a number in 'age'", "Where the time went", "400", "d1" * 32, "5e" * 32, "1d" * 32,
        "openvino, bfloat16",
    ):  # fmt: skip
        assert words in outline.text.replace("\u00a0", " "), words
    assert numbers["manifest"] == json.loads(json.dumps(now))
    assert numbers["verdict"].startswith("900 rows scored")
    assert [measure["name"] for measure in numbers["drift"]["measures"]] == [
        "labels",
        "scores",
        "lengths",
    ]


def test_a_change_is_said_first(written):
    page, numbers = written(
        manifest_of(statistics_of(900, negative=0.6)),
        manifest_of(statistics_of(900, seed=1), precision="float32"),
    )
    assert numbers["findings"][0].startswith("Labels have shifted: ")
    assert "another precision: float32 then, bfloat16 now" in page
    first_screen = page[: page.index('id="labels"')]
    assert "Labels have shifted" in first_screen
    assert "Have a look" in first_screen


def test_all_well(written):
    statistics = statistics_of(900)
    statistics["truncated"] = statistics["lost_tokens"] = 0
    page, numbers = written(manifest_of(statistics), manifest_of(statistics))
    assert numbers["findings"] == []
    assert "All well" in page
    assert "Both runs read the same data." in page


def test_nothing_is_loaded_and_nothing_of_the_rows_is_markup(written):
    labels = [EVIL, "b"]
    page, _ = written(
        manifest_of(statistics_of(200, labels=labels), errors={EVIL: 1}, input=EVIL),
        manifest_of(statistics_of(200, labels=labels), settings={EVIL: EVIL}),
    )
    outline = Outline(page)
    assert {tag for tag, _ in outline.tags} & {"script", "img", "iframe", "object"} == set()
    assert all(load.startswith(("#", "data:")) for load in outline.loads)
    assert not re.search(r"url\((?!#)|@import", page)
    policy = next(each["content"] for tag, each in outline.tags if "http-equiv" in each)
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


def test_the_page_is_in_order(written):
    page, _ = written(manifest_of(statistics_of(900)), manifest_of(statistics_of(900, seed=1)))
    outline = Outline(page)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    steps = zip(outline.headings, outline.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    assert len(outline.ids) == len(set(outline.ids))
    referred = {load[1:] for load in outline.loads if load.startswith("#")}
    referred |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert referred <= set(outline.ids)
    plots = [each for tag, each in outline.tags if tag == "svg" and "aria-hidden" not in each]
    assert len(plots) == 5, "two of scores, one of lengths, one over time for each width"
    assert all(each["role"] == "img" and each["aria-label"] for each in plots)
    assert page.count("<table") == page.count("<caption>")
    heads = [each for tag, each in outline.tags if tag == "th"]
    assert all(each.get("scope") in ("row", "col") for each in heads)
    assert not re.search(r"#0[1-4]0\w{3}", page), "each colour is a variable of the page"


def test_the_same_run_gives_the_same_page(written):
    now, then = manifest_of(statistics_of(300)), manifest_of(statistics_of(300, seed=1))
    assert written(now, then) == written(now, then)


def test_a_hundred_labels(written):
    labels = [f"label {place}" for place in range(99)] + ["a long name " * 15]
    page, _ = written(manifest_of(statistics_of(3000, labels=labels, negative=0.05, used=90)))
    assert "92 others" in page
    assert "a long name" in page
    assert page.count("at 0.9 or more</span>") == 8
    assert "all others" in page


def test_many_days_become_weeks(written):
    statistics = statistics_of(100)
    days = np.datetime64("2026-01-01") + np.arange(200)
    by_date = statistics["answers"][0]["by_date"]
    by_date["rows"] = {str(day): {"NEGATIVE": 1, "POSITIVE": 2} for day in days}
    page, _ = written(manifest_of(statistics))
    assert "per week, 2025-12-29 to" in page
    assert re.search(r'2026-01-05</th><td class="n">21</td>', page)


@pytest.mark.parametrize(
    ("period", "days"),
    [
        ("day", ["2026-03-01"]),
        ("day", ["2026-03-01", "2026-03-09"]),
        ("month", ["2026-01-01", "2026-02-01", "2026-05-01", "2026-12-01"]),
        ("year", [f"{year}-01-01" for year in range(1990, 2027)]),
    ],
)
def test_periods(written, period, days):
    statistics = statistics_of(100)
    rows = {day: {"NEGATIVE": 1} for day in days}
    statistics["answers"][0]["by_date"] |= {"period": period, "rows": rows}
    page, _ = written(manifest_of(statistics))
    plot = page[page.index('<figure class="broad">') : page.index('<figure class="narrow">')]
    ticks = [text for text in re.findall(r"<text[^>]*>([^<]+)", plot) if "%" not in text]
    assert not any(":" in tick for tick in ticks), "no times of day"
    assert (days[0] in ticks) == (len(days) <= 3)
    # A bar of one colour for each period in both panels, as wide as the period is long.
    widths = [float(end) - float(start) for start, end in re.findall(
        r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \nL [^z]*\nz', plot)]  # fmt: skip
    bars = widths[: len(days)]
    assert len(widths) >= 2 * len(days)
    assert max(bars) / min(bars) < 1.12, "gaps between periods are not filled"


def test_features_instead_of_texts(written):
    statistics = Statistics(classifier(*["legitimate", "fraud"]).answers, examples=2)
    columns = {"Amount": np.array([12.5, np.nan, 1e6]), "V1": np.array([1.0, 2.0, 3.0])}
    predictions = {"label": objects(["legitimate"] * 3), "score": np.array([0.9, 0.8, 0.7])}
    statistics.add(TASK, np.array([1, 2, 3]), columns, predictions)
    page, _ = written(manifest_of(statistics.as_dict()))
    assert "<dt>Amount</dt><dd>1,000,000.00</dd>" in page
    assert "Lengths and truncation" not in page
    assert "Truncated" not in page
    assert "There is no earlier run to compare with." in page


@pytest.mark.parametrize("failed", [0, 3])
def test_a_run_without_a_label(written, failed):
    statistics = Statistics(classifier(*LABELS).answers, examples=2).as_dict()
    manifest = manifest_of(statistics, errors={"unreadable": failed} if failed else {})
    page, numbers = written(manifest, manifest_of(statistics_of(50)))
    expected = "None of 3 rows could be scored." if failed else "The input had no rows."
    assert numbers["verdict"] == expected
    assert "Have a look" in page
    assert "so there is nothing to compare" in page


def test_one_label_for_every_row(written):
    _, numbers = written(manifest_of(statistics_of(50, negative=1.0)))
    assert "Every row got the same label, NEGATIVE" in numbers["findings"]


def test_where_it_can_not_go(tmp_path, monkeypatch):
    manifest = manifest_of(statistics_of(50))
    with pytest.raises(InputError, match="there is no folder"):
        check_report(str(tmp_path / "none" / "report.html"), Protected())
    for name in ("report.json", ""):
        with pytest.raises(InputError, match="name an HTML file"):
            check_report(str(tmp_path / name), Protected())

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MlopsDeployError, match=r"report\.json: No space left on device"):
        write_report(str(tmp_path / "report.html"), manifest, None)
    assert list(tmp_path.iterdir()) == []


def test_words():
    seconds = [0.0312, 0.44, 9.96, 59.7, 3599.6, 7512]
    assert [duration(each) for each in seconds] == [
        "0.031 s",
        "0.4 s",
        "10 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 5 min",
    ]
    assert moment("2026-11-22T02:00:03+00:00") == "2026-11-22 02:00 UTC"
    assert moment("yesterday") == "yesterday"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(chromium, written, tmp_path, width, scheme):
    labels = [EVIL, "POSITIVE", *(f"label-with-a-long-name-{place}" * 4 for place in range(20))]
    written(
        manifest_of(statistics_of(900, labels=labels), input="folder/" * 40, errors={EVIL * 3: 1}),
        manifest_of(statistics_of(900, labels=labels, seed=1), precision="float32"),
    )
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chromium.get((tmp_path / "report.html").as_uri())
    run = chromium.execute_script
    assert chromium.title.startswith("900 rows scored")
    run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert run("return document.documentElement.scrollWidth") <= width
    messages = [json.loads(line["message"])["message"] for line in chromium.get_log("performance")]
    asked = {
        each["params"]["request"]["url"].split(":")[0]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert chromium.get_log("browser") == []
    bar = chromium.find_element(By.CSS_SELECTOR, "#labels .track span")
    share = bar.size["width"] / bar.find_element(By.XPATH, "..").size["width"]
    assert share == pytest.approx(0.3, abs=0.06)
    assert bar.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"
    shown = [plot for plot in chromium.find_elements(By.TAG_NAME, "svg") if plot.is_displayed()]
    assert len(shown) == 1 + 8 + 1 + 1, "the logo, scores of eight labels, lengths, over time"
    ink = run("return getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == ("rgb(91, 99, 115)" if scheme == "light" else "rgb(160, 168, 184)")
