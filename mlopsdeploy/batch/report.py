"""The report of a run: one HTML file for people, and the same numbers as JSON for scripts.

The page needs no network and no JavaScript. Import this module before a long run that wants a
report: it brings Matplotlib and Jinja, the packages of the extra `report`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from mlopsdeploy import __version__
from mlopsdeploy.batch import plots
from mlopsdeploy.batch.drift import (
    Drift,
    compare,
    counts_objects,
    flat,
    label_text,
    named,
    percent,
    rounded,
)
from mlopsdeploy.batch.languages import language_facts, unread_words
from mlopsdeploy.batch.manifest import read_manifest
from mlopsdeploy.batch.spreads import histogram, long, mean_of, quantile, together
from mlopsdeploy.batch.statistics import OTHER, overall
from mlopsdeploy.core import images
from mlopsdeploy.data.files import whole_file
from mlopsdeploy.data.matching import reading, scored
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import InputError, MlopsDeployError
from mlopsdeploy.page_look import report_environment
from mlopsdeploy.page_look.svg import SERIES

SHOWN = SERIES - 1  # labels with a colour of their own
MANY_DAYS = 62  # more are shown by week
MANY_VALUES = 12  # more categories are shown as one
WITH_PICTURES = 3  # labels whose examples are shown, as they are open on the page
THUMBNAIL = 160  # pixels of the longer side
BEYOND = 0.005  # share of numbers on each side that an axis leaves out
NUMBER_BINS = 40  # of a histogram of numbers without bounds
SAME_AT_LEAST = 20  # rows, from which on it is worth a look that they all have one answer
WORTH_SAYING = 0.01  # share of rows from which truncation and empty rows are worth a look

_PAGES = Path(__file__).parent / "pages"


class Finding(NamedTuple):
    """Something that a person should know first; `where` is the section that says more."""

    words: str
    where: str


def write_report(
    path: str, manifest: Mapping[str, Any], previous: Mapping[str, Any] | None
) -> None:
    """Write the page, and beside it the same numbers: `report.html` and `report.json`.

    Args:
        path: of the page.
        manifest: of the run.
        previous: of the last run, if there was one.

    Raises:
        MlopsDeployError: the disk fails.
    """
    page = Path(path)
    drift = compare(manifest, previous) if previous else None
    found = findings(manifest, drift)
    numbers = {
        "verdict": headline(manifest, found),
        "findings": [finding.words for finding in found],
        "drift": drift.as_dict() if drift else None,
        "manifest": manifest,
    }
    _write(page.with_suffix(".json"), json.dumps(numbers, ensure_ascii=False, indent=1) + "\n")
    _write(page, render(manifest, previous, drift))


def check_report(path: str, protected: Protected) -> None:
    """Whether a report can go there; to be asked before the work, not after it.

    Raises:
        InputError: its folder is not there, or it is named like the JSON file.
        ConfigError: something is there that may not be overwritten.
    """
    page = Path(path)
    if not page.parent.is_dir():
        raise InputError(f"{path}: there is no folder {page.parent}")
    if page.suffix.lower() == ".json" or page.is_dir():
        raise InputError(f"{path}: name an HTML file; the same numbers go beside it as JSON")
    protected.check(page, f"--report {path}")
    numbers = page.with_suffix(".json")
    ours = (read_manifest(numbers) or {}).keys() == {"verdict", "findings", "drift", "manifest"}
    protected.check(numbers, f"--report: {numbers}", ours=ours)


def findings(manifest: Mapping[str, Any], drift: Drift | None) -> list[Finding]:
    """What is worth a look, gravest first."""
    summary, statistics = manifest["summary"], manifest["statistics"]
    thing = _thing(statistics)
    rows, scored = summary["rows"], _scored(statistics)
    part = partial(_part, thing)
    found = []
    if not scored:
        words = "There is nothing to show" if rows else "The input is empty"
        found.append(Finding(words, "errors"))
    if failed := summary.get("failed", 0):
        found.append(Finding(f"{part(failed, rows)} could not be scored", "errors"))
    if drift and drift.level in ("some", "much"):
        found.append(Finding(drift.verdict.rstrip("."), "drift"))
    if drift and drift.unfair:
        what = ", ".join(dict.fromkeys(reason.split(":")[0] for reason in drift.unfair))
        found.append(Finding(f"Not quite comparable with the last run: {what}", "drift"))
    found += _about_reading(manifest) if scored else ()
    empty = summary.get("empty", 0)
    if rows and empty / rows >= WORTH_SAYING:
        found.append(Finding(f"{part(empty, rows)} with nothing in it", "errors"))
    if scored:
        found += _about_answers(statistics)
    return found


def _about_answers(statistics: Mapping[str, Any]) -> Iterator[Finding]:
    """Answers that are all the same, or not there."""
    what = "object" if counts_objects(statistics) else "row"
    for place, answer in enumerate(statistics["answers"]):
        labels, where = answer["labels"], _section("labels", place)
        used = [name for name, label in labels.items() if label["rows"]]
        if not used:
            yield Finding("There is not one object in the pictures", where)
        elif not answer["label"]:
            if answer["scored"] >= SAME_AT_LEAST and labels[""]["least"] == labels[""]["greatest"]:
                number = f"the same {answer['number']}, {rounded(labels['']['least'])}"
                yield Finding(f"Every {what} got {number}", where)
        elif len(used) == 1 and len(labels) > 1 and answer["scored"] >= SAME_AT_LEAST:
            label = f"the same {named(answer, 'label')}, {label_text(used[0])}"
            yield Finding(f"Every {what} got {label}", where)


def _section(name: str, place: int) -> str:
    """The id of a section about one of several answers."""
    return f"{name}-{place + 1}" if place else name


def _about_reading(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Texts that the model could not read, or not to their end."""
    statistics, unread = manifest["statistics"], manifest["summary"].get("unread") or {}
    part, scored = partial(_part, _thing(statistics)), _scored(statistics)
    if (count := sum(unread.values())) / scored >= WORTH_SAYING:
        what = unread_words(unread, _languages_of_model(manifest))
        yield Finding(f"{part(count, scored)} that the model doesn't read: {what}", "made")
    truncated, lost = statistics["truncated"], _lost(statistics)
    if truncated / scored >= WORTH_SAYING or lost >= WORTH_SAYING:
        words = f"{part(truncated, scored)} longer than the model reads"
        words += f"; {percent(lost)} of all tokens not seen" if lost else ""
        yield Finding(words, "lengths")


def headline(manifest: Mapping[str, Any], found: Sequence[Finding]) -> str:
    """How it went, in one sentence."""
    summary, statistics = manifest["summary"], manifest["statistics"]
    scored, thing = _scored(statistics), _thing(statistics)
    if not summary["rows"]:
        return "The input had no rows."
    if not scored:
        return f"None of {_some(summary['rows'], thing)} could be scored."
    done = f"{_some(scored, thing)} scored in {duration(summary['seconds'])}"
    if not found:
        return f"{done}, nothing unusual."
    return f"{done}; {'one thing' if len(found) == 1 else f'{len(found)} things'} to look at."


def _languages_of_model(manifest: Mapping[str, Any]) -> Sequence[str]:
    """The languages that the model reads."""
    languages: Sequence[str] = manifest["model"].get("languages", ())
    return languages


def _part(thing: str, count: int, whole: int) -> str:
    """`12 rows (3.0 %)`."""
    return f"{_some(count, thing)} ({percent(count / whole)})"


def _thing(statistics: Mapping[str, Any]) -> str:
    """What a row is."""
    return "picture" if statistics.get("pictures") else "row"


def _scored(statistics: Mapping[str, Any]) -> int:
    """Rows that have an answer, be it that there is nothing to see."""
    return int(statistics["answered"])


def render(
    manifest: Mapping[str, Any], previous: Mapping[str, Any] | None, drift: Drift | None
) -> str:
    """The page."""
    environment = report_environment(_PAGES)
    environment.filters.update(
        count=lambda value: f"{value:,}",
        percent=percent,
        duration=duration,
        moment=moment,
        label=label_text,
        score=lambda value: "–" if value is None else f"{value:.3f}",
        rounded=lambda value: "–" if value is None else rounded(value),
        number=_number,
        digits=lambda value: f"{value:,.7g}",
        some=_some,
        tied=lambda words: re.sub(r"(?<=\d) (?=(?:s|min|h|%)\b)", "\u00a0", words),
    )
    now = manifest["statistics"]
    # Where nothing can be compared, the last run is not drawn either.
    then = previous["statistics"] if previous and drift and drift.measures else None
    found = findings(manifest, drift)
    return environment.get_template("report.html").render(
        version=__version__,
        manifest=manifest,
        summary=manifest["summary"],
        statistics=now,
        thing=_thing(now),
        text=now["lengths"] is not None,
        scored=scored(manifest["columns"]),
        read=", ".join(reading(manifest["summary"]["read"])),
        counted="object" if counts_objects(now) else _thing(now),
        headline=headline(manifest, found),
        findings=found,
        drift=drift,
        answers=_answers(now, then, str(manifest.get("input", ""))),
        lengths=_lengths(now, then),
        stages=manifest.get("stages") or {},
        settings=flat(manifest.get("settings") or {}),
        languages=list(language_facts(manifest["summary"], _languages_of_model(manifest))),
    )


# ---------------------------------------------------------------- what the sections show


def _answers(
    now: Mapping[str, Any], then: Mapping[str, Any] | None, source: str
) -> list[dict[str, Any]]:
    """For each answer what its sections show, and the ids of these."""
    found = []
    for place, answer in enumerate(now["answers"]):
        before = then["answers"][place] if then else None
        names = _shown(answer)
        others = [(SHOWN, "all others")] if len(names) < len(answer["labels"]) else []
        means = not answer["label"]
        found.append({
            **answer,
            "ids": {
                name: _section(name, place)
                for name in ("labels", "scores", "dates", "categories", "examples")
            },
            "of": f": {answer['name']}" if answer["name"] else "",
            "what": named(answer, "score") if answer["is_probability"] else answer["number"],
            "means": means,
            "mean": overall(answer)["mean"] if answer["number"] else None,
            "table": _labels(answer, before, names) if answer["label"] else None,
            "legend": [] if means else [*enumerate(map(label_text, names)), *others],
            "histograms": _histograms(answer, before, names) if answer["is_probability"] else [],
            "numbers": _numbers(answer, before, names),
            "by_date": (_means_by_date if means else _by_date)(answer, names),
            "by_category": (_means_by_category if means else _by_category)(answer, names),
            "rows_of": _examples(now, answer, source),
        })  # fmt: skip
    return found


def _shown(answer: Mapping[str, Any]) -> list[str]:
    """The labels that get a colour, in the model's order, so that they keep it from run to run."""
    labels = answer["labels"]
    if len(labels) <= SHOWN:
        return list(labels)
    frequent = sorted(labels, key=lambda name: (name == OTHER, -labels[name]["rows"]))[:SHOWN]
    return [name for name in labels if name in frequent]


def _labels(
    now: Mapping[str, Any], then: Mapping[str, Any] | None, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the table of labels: those with a colour, and the others."""
    table: dict[str, list[dict[str, Any]]] = {"shown": [], "others": []}
    for name in _by_rows(now["labels"]):
        label = now["labels"][name]
        before = None
        if then:
            before = then["labels"].get(name, {"rows": 0})["rows"] / max(1, then["scored"])
        table["shown" if name in names else "others"].append({
            "name": name,
            "series": names.index(name) if name in names else SHOWN,
            "rows": label["rows"],
            "share": label["rows"] / max(1, now["scored"]),
            "before": before,
            "mean": label.get("mean"),
        })  # fmt: skip
    return table


def _by_rows(labels: Mapping[str, Any]) -> list[str]:
    return sorted(labels, key=lambda name: -labels[name]["rows"])


def _histograms(
    now: Mapping[str, Any], then: Mapping[str, Any] | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    before = then["labels"] if then else {}
    used = [name for name in names if now["labels"][name]["rows"]]
    seen = [now["labels"][name]["bins"] for name in used]
    seen += [before[name]["bins"] for name in used if name in before]
    low = _floor(np.sum(seen, axis=0)) if seen else 0.0
    drawn = []
    for name in used:
        label = now["labels"][name]
        counts = np.array(label["bins"])
        old = np.array(before[name]["bins"]) if name in before else None
        sure = percent(counts[90:].sum() / label["rows"])
        words = (
            f"Scores of {label_text(name)}: {label['mean']:.3f} on average, "
            f"{sure} of them at 0.9 or more"
        )
        svg = plots.scores(counts, old, names.index(name), low, words)
        drawn.append({"name": name, **label, "sure": sure, "svg": Markup(svg)})  # noqa: S704  # ours
    return drawn


def _numbers(
    now: Mapping[str, Any], then: Mapping[str, Any] | None, names: Sequence[str]
) -> dict[str, Any] | None:
    """Numbers without bounds: a row of the table for all labels' and each one's, and the plots."""
    if now["is_probability"] or not now["number"] or not now["scored"]:
        return None
    old = then["labels"] if then else {}
    used = [name for name in names if now["labels"][name]["rows"]]
    before = together(old.values()) if then and then["scored"] else None
    table = [(now["number"], now["scored"], together(now["labels"].values()), before)]
    if now["label"]:
        table += [
            (label_text(name), label["rows"], label, old.get(name))
            for name in used
            for label in [now["labels"][name]]
        ]
    drawn = table[:1] if not now["label"] else table[1:] or table[:1]
    series = [names.index(name) for name in used] if now["label"] else [0]
    low, high = _range([*[one[2] for one in drawn], *[one[3] for one in drawn if one[3]]])
    plotted = []
    for (name, rows, spread, earlier), color in zip(drawn, series, strict=True):
        inside = histogram(spread, np.linspace(low, high, NUMBER_BINS + 1))
        last = earlier if earlier and earlier["bins"]["at"] else None
        line = None
        if last:
            counts = histogram(last, np.linspace(low, high, NUMBER_BINS + 1))
            line = counts / sum(last["bins"]["rows"])
        words = f"{name}: {rounded(spread['mean'])} on average, median {rounded(spread['median'])}"
        svg = plots.numbers(inside / rows, line, (low, high), color, words)
        beyond = 1 - inside.sum() / rows
        plotted.append({"name": name, "svg": Markup(svg), "beyond": float(beyond)})  # noqa: S704
    return {
        "table": [
            {"name": name, "rows": rows, "before": earlier and earlier["mean"], **spread}
            for name, rows, spread, earlier in table
        ],
        "plots": plotted,
    }


def _range(spreads: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Where the axis begins and ends: all but one in a hundred of each side, a little more room."""
    filled = [spread for spread in spreads if spread["bins"]["at"]]
    ends = [
        (quantile(spread, BEYOND) or 0.0, quantile(spread, 1 - BEYOND) or 0.0) for spread in filled
    ]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    room = (high - low) * 0.02 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _floor(scores: Any) -> float:
    """Where the axis of scores starts: a round number below all but one in a thousand."""
    share = np.cumsum(scores) / max(1, np.sum(scores))
    first = int(np.searchsorted(share, 0.001)) / len(scores)
    return float(min(0.9, np.floor(first * 10) / 10))


def _lengths(now: Mapping[str, Any], then: Mapping[str, Any] | None) -> dict[str, Any] | None:
    known = now["lengths"]
    if not known:
        return None
    old = then["lengths"] if then else None
    comparable = old and old["unit"] == known["unit"] and old["starts"] == known["starts"]
    before = np.array(old["counts"]) if old and comparable else None
    objects = known["unit"] == "objects"
    words = (
        f"{'Objects per picture' if objects else 'Lengths in ' + known['unit']}: "
        f"{known['mean']:.{int(objects)}f} on average, {known['longest']:,} at most"
    )
    svg = plots.lengths(np.array(known["starts"]), np.array(known["counts"]), before, words)
    return {
        **known,
        "svg": Markup(svg),  # noqa: S704  # ours
        "before": old["mean"] if old and comparable else None,
        "truncated": now["truncated"] / max(1, now["answered"]),
        "lost": _lost(now) if known["unit"] == "tokens" else None,
    }


def _lost(statistics: Mapping[str, Any]) -> float:
    """Share of the tokens that the model did not see."""
    lengths = statistics["lengths"]
    tokens = lengths["sum"] if lengths and lengths["unit"] == "tokens" else 0
    return float(statistics["lost_tokens"] / tokens) if tokens else 0.0


def _by_date(now: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    known = now["by_date"]
    if not known or not known["rows"]:
        return None
    rows, period = known["rows"], known["period"]
    if period == "day" and len(rows) > MANY_DAYS:
        rows, period = plots.weekly(rows), "week"
    days = sorted(rows)
    counts = np.array([_by_series(rows[day], names) for day in days])
    if len(names) == len(now["labels"]):
        counts = counts[:, : len(names)]
    words = f"Shares of labels by {known['column']}, {_span(period, days)}"
    table = [
        {"day": day, "rows": sum(row), "shares": _shares(row)}
        for day, row in zip(days, counts.tolist(), strict=True)
    ]
    draw = partial(plots.over_time, days, period, counts, words)
    return {**known, **_over_time(period, days, table, draw)}


def _over_time(
    period: str, days: Sequence[str], table: list[dict[str, Any]], draw: Callable[..., str]
) -> dict[str, Any]:
    """A plot over days for a screen, another for a phone, and what they show as a table."""
    wide, narrow = (draw(width=width) for width in (780, 340))
    return {
        "period": period,
        "first": days[0],
        "last": days[-1],
        "wide": Markup(wide),  # noqa: S704  # ours
        "narrow": Markup(narrow),  # noqa: S704  # ours
        "table": table,
    }


def _span(period: str, days: Sequence[str]) -> str:
    return f"per {period}, {days[0]} to {days[-1]}; the table below has the numbers"


def _means_by_date(now: Mapping[str, Any], _: Sequence[str]) -> dict[str, Any] | None:
    """Of numbers alone: their mean per period."""
    known = now["by_date"]
    if not known or not known["rows"]:
        return None
    rows, period = known["rows"], known["period"]
    sums = {day: {"": long(total)} for day, total in known["sums"].items()}
    if period == "day" and len(rows) > MANY_DAYS:
        rows, period = plots.weekly(rows), "week"
        sums = plots.weekly(sums)
    days = sorted(rows)
    counts = [sum(rows[day].values()) for day in days]
    means = [mean_of(sums[day][""], count) or 0.0 for day, count in zip(days, counts, strict=True)]
    words = f"Mean {now['number']} by {known['column']}, {_span(period, days)}"
    table = [
        {"day": day, "rows": count, "mean": mean}
        for day, count, mean in zip(days, counts, means, strict=True)
    ]
    draw = partial(
        plots.means_over_time, days, period, counts, means, f"mean {now['number']}", words
    )
    return {**known, **_over_time(period, days, table, draw)}


def _means_by_category(now: Mapping[str, Any], _: Sequence[str]) -> list[dict[str, Any]]:
    """Of numbers alone: for each column the mean of its most frequent values."""
    columns = []
    for column, known in now["by_category"].items():
        counts = {value: sum(rows.values()) for value, rows in known["rows"].items()}
        ranked = _ranked(counts)
        rows = [
            {"value": value or "(empty)", "rows": counts[value], "mean": known["means"][value]}
            for value in ranked[0]
        ]
        if rest := ranked[1]:
            total = sum(long(known["sums"][value]) for value in rest)
            count = sum(counts[value] for value in rest)
            rows.append(
                {"value": f"{len(rest)} more", "rows": count, "mean": mean_of(total, count)}
            )
        if rows:
            columns.append({"column": column, "rows": rows})
    return columns


def _ranked(counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The values that are shown, the most frequent first or numbers in order; and all others."""
    ranked = sorted(counts, key=lambda value: (value == OTHER, -counts[value], value))
    shown, rest = ranked[:MANY_VALUES], ranked[MANY_VALUES:]
    if not rest and all(value.isdigit() for value in shown):
        shown.sort(key=int)
    return shown, rest


def _by_category(now: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """For each column its most frequent values, each with the shares of its labels."""
    columns = []
    for column, known in now["by_category"].items():
        values = known["rows"]
        shown, rest = _ranked({value: sum(rows.values()) for value, rows in values.items()})
        counts = [(value or "(empty)", _by_series(values[value], names)) for value in shown]
        if rest:
            more = np.sum([_by_series(values[value], names) for value in rest], axis=0)
            counts.append((f"{len(rest)} more", more.tolist()))
        rows = [{"value": value, "rows": sum(row), "shares": _shares(row)} for value, row in counts]
        if rows:
            columns.append({"column": column, "rows": rows})
    return columns


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _by_series(labels: Mapping[str, int], names: Sequence[str]) -> list[int]:
    """Rows per colour: the labels that have one, then all others together."""
    counts = [labels.get(name, 0) for name in names] + [0] * (SHOWN - len(names))
    return [*counts, sum(labels.values()) - sum(counts)]


def _examples(
    now: Mapping[str, Any], answer: Mapping[str, Any], source: str
) -> list[dict[str, Any]]:
    rows = answer["examples"]["rows"] if answer["examples"] else {}
    names = [name for name in _by_rows(answer["labels"]) if name in rows]
    found = [{"name": name, "rows": answer["labels"][name]["rows"], **rows[name]} for name in names]
    for label in found[:WITH_PICTURES] if now.get("pictures") else ():
        for kind in {"least", "most"} & label.keys():
            label[kind] = [{**row, "image": _thumbnail(row["text"], source)} for row in label[kind]]
    return found


# ---------------------------------------------------------------- words and files


def _some(count: int, thing: str = "row") -> str:
    """`1 row`, `2,000 rows`."""
    return f"1 {thing}" if count == 1 else f"{count:,} {thing}s"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def moment(written: str) -> str:
    """An ISO time for people; as it stands if it is none."""
    with suppress(ValueError):
        known = datetime.fromisoformat(written)
        return f"{known:%Y-%m-%d %H:%M}" + (f" {known.tzname()}" if known.tzinfo else "")
    return written


def _number(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.2f}"
    return str(value)


def _thumbnail(name: str, table: str) -> str | None:
    """A picture as a `data:` address of some 5 kB; None if it can't be had any more.

    Args:
        name: its path, as a run's input has it.
        table: that input, whose folder the path may be relative to.
    """
    import cv2

    for path in (Path(name), Path(table).parent / name):
        try:
            image = images.decode(path.read_bytes()) if path.is_file() else None
        except (OSError, ValueError):
            return None
        if image is not None:
            part = THUMBNAIL / max(image.shape[:2])
            size = (max(round(image.shape[1] * part), 1), max(round(image.shape[0] * part), 1))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
            return "data:image/jpeg;base64," + base64.b64encode(packed.tobytes()).decode()
    return None


def _write(path: Path, text: str) -> None:
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise MlopsDeployError(f"{path}: {error.strerror or error}") from error
