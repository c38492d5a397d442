"""Whether tonight's rows are like last night's: labels, scores, numbers, lengths of two runs.

Each is compared by the population stability index, PSI = Σ (q - p) ln(q / p) over the shares p and
q of its bins then and now. The rule of thumb (below 0.1 little change, up to 0.25 some, above that
much) says nothing about chance, and small runs exceed it without any change: where nothing has
changed, PSI / (1/n + 1/m) of runs with n and m rows is distributed like χ² with one degree of
freedom less than there are bins (B. Yurdakul and J. Naranjo, Statistical properties of the
population stability index, Journal of Risk Model Validation 14(4), 2020; Yurdakul's dissertation,
Western Michigan University, 2018). So a change is reported if the PSI is above that
distribution's 99 % quantile, and its size is judged by what is above that distribution's mean.

The index hardly moves when a rare label doubles, 0.2 % of fraud to 0.4 %, say. So a label that
became twice or half as frequent, by four standard deviations or more of the difference of two
shares, counts as some change whatever the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mlopsdeploy.batch.spreads import counts_at, edges_of, together
from mlopsdeploy.batch.statistics import FORMAT, OTHER, overall
from mlopsdeploy.columns import Array

SOME, MUCH = 0.1, 0.25  # the rule of thumb
LEVELS = ("little", "some", "much")
_SCORE_BINS = 10  # at most, of about equal shares
_FEWEST = 5  # rows that a bin should have in the smaller run, for χ² to be a fair description
# Settings that say how rows are written, not what is found; and what is compared by itself.
_HARMLESS = {"all scores", "batch size", "format", "prefix", "model", "runtime", "precision"}
_RAREST = 0.002  # share of a label that stands for itself
_Z = 2.326  # the 99 % quantile of the normal distribution


@dataclass(frozen=True)
class Bin:
    """A part of what is compared, with its shares of the rows then and now."""

    name: str
    then: float
    now: float


@dataclass(frozen=True)
class Measure:
    """One comparison.

    Attributes:
        name: labels, scores or what the model's number is called, lengths, languages (what a model
            doesn't read, and all that it does) or models (of several side by side); before the
            first three the name of the answer, where there are several.
        psi: the index, with half a row added to each bin so that none is empty.
        by_chance: its mean where nothing has changed.
        limit: its 99 % quantile where nothing has changed.
        level: `little`, `some` or `much`.
        words: what has changed, for people; empty if little has.
        bins: what was compared.
    """

    name: str
    psi: float
    by_chance: float
    limit: float
    level: str
    words: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Drift:
    """How a run differs from the one before.

    Attributes:
        level: the highest of the measures: `little`, `some`, `much`; or `unknown`.
        verdict: one sentence.
        measures: of each answer labels and numbers and, where both runs know them, lengths,
            languages and models.
        unfair: why the rows are perhaps not what made the difference, one line each.
        rows: of the two runs, then and now.
        since: when the last run started, as its manifest says.
    """

    level: str
    verdict: str
    measures: tuple[Measure, ...] = ()
    unfair: tuple[str, ...] = ()
    rows: tuple[int, int] = (0, 0)
    since: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


def compare(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> Drift:
    """What has changed since the last run.

    Args:
        manifest: this run's; `statistics` is compared, the rest says whether that is fair.
        previous: the last run's.
    """
    now, then = manifest.get("statistics") or {}, previous.get("statistics") or {}
    known = Drift(
        "unknown",
        "The last run can't be compared: another version of mlopsdeploy made it.",
        unfair=tuple(_unfair(manifest, previous)),
        since=str(previous.get("started", "")),
    )
    if now.get("format") != FORMAT or then.get("format") != FORMAT:
        return known
    rows = (_compared(then), _compared(now))
    if not all(rows):
        which = "This run" if not rows[1] else "The last run"
        what = "found no objects" if counts_objects(now) else "scored no rows"
        verdict = f"{which} {what}, so there is nothing to compare."
        return replace(known, verdict=verdict, rows=rows)
    pairs = [
        (one, other) for one in then["answers"] for other in now["answers"] if _same(one, other)
    ]
    if len(pairs) < max(len(then["answers"]), len(now["answers"])):
        verdict = "The two runs have other answers, so there is nothing to compare."
        return replace(known, verdict=verdict, rows=rows)
    measures = [measure for pair in pairs for measure in _of_answer(*pair)]
    before, after = (run["lengths"] or {} for run in (then, now))
    if before and after and all(before[name] == after[name] for name in ("unit", "starts")):
        measures.append(_lengths(before, after))
    for name, counts in (("languages", _languages), ("models", _models)):
        one, other = map(counts, (previous, manifest))
        if one and other and len({*one, *other}) > 1:
            measures.append(_categories(name, one, other))
    if not measures:
        verdict = "The model's outputs are tensors as they are, which are not compared."
        return replace(known, verdict=verdict, rows=rows)
    fewest = f"{min(rows):,} {'objects' if counts_objects(now) else 'rows'}"
    digest = manifest.get("input_digest")
    same = digest and digest == previous.get("input_digest")
    return replace(
        known,
        level=max((measure.level for measure in measures), key=LEVELS.index),
        verdict=_verdict(measures, fewest),
        measures=tuple(measures),
        rows=rows,
        notes=("Both runs read the same data.",) if same else (),
    )


def psi(then: Sequence[int] | Array, now: Sequence[int] | Array) -> tuple[float, float, float]:
    """The index for rows per bin then and now; its mean and 99 % quantile if nothing has changed.

    The quantile of χ² is approximated as E. B. Wilson and M. M. Hilferty did (PNAS 17, 1931).
    """
    one, other = np.asarray(then, np.float64), np.asarray(now, np.float64)
    free = len(one) - 1
    if free < 1:
        return 0.0, 0.0, 0.0
    chance = 1 / one.sum() + 1 / other.sum()
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (one, other))
    part = 2 / (9 * free)
    quantile = free * (1 - part + _Z * part**0.5) ** 3
    return float(((q - p) * np.log(q / p)).sum()), free * chance, float(quantile * chance)


def _measure(name: str, bins: Sequence[str], then: Array, now: Array, words: str) -> Measure:
    value, by_chance, limit = psi(then, now)
    excess = value - by_chance
    level = "little"
    if value > limit and excess >= SOME:
        level = "much" if excess >= MUCH else "some"
    shares = zip(bins, (then / then.sum()).tolist(), (now / now.sum()).tolist(), strict=True)
    words = "" if level == "little" else words
    parts = tuple(Bin(*share) for share in shares)
    return Measure(name, value, by_chance, limit, level, words, parts)


def _compared(statistics: Mapping[str, Any]) -> int:
    """Rows with an answer; of pictures with any number of objects, these."""
    objects = counts_objects(statistics)
    return int(statistics["answers"][0]["scored"] if objects else statistics["answered"])


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs mean the same by an answer."""
    return all(one[key] == other[key] for key in ("name", "label", "number", "is_probability"))


def _of_answer(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Measure]:
    if now["label"]:
        one, other = (
            {name: label["rows"] for name, label in run["labels"].items()} for run in (then, now)
        )
        yield _categories(named(now, "labels"), one, other)
    if now["is_probability"]:
        yield _scores(named(now, "scores"), then, now)
    elif now["number"]:
        yield _numbers(now["number"], then, now)


def named(answer: Mapping[str, Any], what: str) -> str:
    """What a person calls something of an answer: `fraud labels`, where there are several."""
    return f"{answer['name']} {what}" if answer["name"] else what


def _languages(manifest: Mapping[str, Any]) -> Mapping[str, int]:
    """Texts by the languages that the model doesn't read, and all others as one."""
    unread: Mapping[str, int] | None = (manifest.get("summary") or {}).get("unread")
    if unread is None:
        return {}
    return {"read": manifest["statistics"]["answered"] - sum(unread.values()), **unread}


def _models(manifest: Mapping[str, Any]) -> Mapping[str, int]:
    """Texts by which of several models read them."""
    return (manifest.get("summary") or {}).get("read_by") or {}


def _categories(what: str, then: Mapping[str, int], now: Mapping[str, int]) -> Measure:
    names = list(dict.fromkeys([*then, *now]))
    one, other = (np.array([run.get(name, 0) for name in names]) for run in (then, now))
    p, q = one / one.sum(), other / other.sum()
    fewest = max(_RAREST, _FEWEST / min(one.sum(), other.sum()))
    rare = ((p + q) / 2 < fewest) | np.array([name == OTHER for name in names])
    if rare.sum() == 1 and len(names) <= 2:
        rare[:] = False  # one of two labels, however rare, is half of what there is to know
    if len(names) <= 2:  # one says it all: the rarer
        told = [int((p + q).argmin())]
    else:
        told = np.argsort(-np.abs(q - p), kind="stable")[:2].tolist()
    kept = np.flatnonzero(~rare).tolist()
    bins = [label_text(names[place]) for place in kept]
    before, after = one[kept], other[kept]
    if rare.any():
        bins.append("all others")
        before, after = np.append(before, one[rare].sum()), np.append(after, other[rare].sum())
    measure = _measure(what, bins, before, after, _shifted(what, names, p, q, told))
    doubled = np.flatnonzero(_doubled(one, other)).tolist()
    if measure.level == "little" and doubled:
        words = _shifted(what, names, p, q, sorted(doubled, key=lambda place: -q[place])[:2])
        return replace(measure, level="some", words=words)
    return measure


def _shifted(what: str, names: Sequence[str], p: Array, q: Array, places: Sequence[int]) -> str:
    return f"{what} have shifted: " + ", ".join(
        f"{label_text(names[place])} {percent(p[place])} → {percent(q[place])}" for place in places
    )


def _doubled(one: Array, other: Array) -> Array:
    """Labels that are clearly twice or half as frequent now, and not just a handful; bool."""
    n, m = one.sum(), other.sum()
    p, q, pooled = one / n, other / m, (one + other) / (n + m)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    clear = (np.abs(q - p) > 4 * deviation) & (pooled * min(n, m) >= _FEWEST)
    found: Array = clear & (np.maximum(p, q) >= 2 * np.minimum(p, q))
    return found


def _scores(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Measure:
    one, other = (
        np.sum([label["bins"] for label in run["labels"].values()], axis=0) for run in (then, now)
    )
    starts = _merged(one, other)
    bins = [
        f"{low / len(one):.2f} to {high / len(one):.2f}" for low, high in _ranges(starts, len(one))
    ]
    before, after = overall(then)["mean"], overall(now)["mean"]
    digits = 2 if abs(after - before) >= 0.01 else 3
    words = f"{name} are spread otherwise"
    if abs(after - before) >= 0.005:
        direction = "lower" if after < before else "higher"
        words = f"{name} are {direction}: {before:.{digits}f} → {after:.{digits}f} on average"
    return _measure(name, bins, np.add.reduceat(one, starts), np.add.reduceat(other, starts), words)


def _numbers(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Measure:
    """Of numbers without bounds: the bins of both runs, so many to each that they say something."""
    both = [overall(run) for run in (then, now)]
    spreads = [together(run["labels"].values()) for run in (then, now)]
    at = np.unique(np.concatenate([spread["bins"]["at"] for spread in spreads])).astype(np.int64)
    one, other = (counts_at(spread, at) for spread in spreads)
    starts = _merged(one, other)
    low, high = edges_of(at)
    ends = [*(place - 1 for place in starts[1:]), len(at) - 1]
    lowest, highest = min(run["least"] for run in both), max(run["greatest"] for run in both)
    bins = [
        f"{rounded(max(low[start], lowest))} to {rounded(min(high[end], highest))}"
        for start, end in zip(starts, ends, strict=True)
    ]
    before, after = both[0]["mean"], both[1]["mean"]
    words = f"{name} is spread otherwise"
    if rounded(before) != rounded(after):
        direction = "lower" if after < before else "higher"
        words = f"{name} is {direction}: {rounded(before)} → {rounded(after)} on average"
    return _measure(name, bins, np.add.reduceat(one, starts), np.add.reduceat(other, starts), words)


def _lengths(then: Mapping[str, Any], now: Mapping[str, Any]) -> Measure:
    one, other = np.array(then["counts"]), np.array(now["counts"])
    starts = _merged(one, other)
    end = max(then["longest"], now["longest"]) + 1
    ranges = _ranges([then["starts"][start] for start in starts], end)
    bins = [f"{low} to {high - 1}" if high - 1 > low else str(low) for low, high in ranges]
    before, after, fewer = then["mean"], now["mean"], now["mean"] < then["mean"]
    objects = now["unit"] == "objects"
    name = "objects per picture" if objects else "lengths"
    if abs(after - before) < 0.02 * before:
        words = f"{name} are spread otherwise"
    elif objects:
        direction = "fewer" if fewer else "more"
        words = f"there are {direction} objects: {before:.1f} → {after:.1f} a picture on average"
    else:
        direction = "shorter" if fewer else "longer"
        words = f"texts are {direction}: {before:.0f} → {after:.0f} {now['unit']} on average"
    return _measure(name, bins, np.add.reduceat(one, starts), np.add.reduceat(other, starts), words)


def _ranges(starts: Sequence[int], end: int) -> list[tuple[int, int]]:
    """Where each bin starts, and where the next one does."""
    return list(pairwise([*starts, end]))


def counts_objects(statistics: Mapping[str, Any]) -> bool:
    """Whether labels are those of objects, of which a picture may have any number."""
    lengths = statistics.get("lengths") or {}
    return lengths.get("unit") == "objects"


def _merged(one: Array, other: Array) -> list[int]:
    """Where to start each bin, so that each has about a tenth of the rows, then and now together.

    Equal widths would put nearly all rows of a model that is sure of itself into one bin.
    """
    share = (one / one.sum() + other / other.sum()) / 2
    enough = max(1 / _SCORE_BINS, _FEWEST / min(one.sum(), other.sum())) - 1e-9
    starts, filled = [0], 0.0
    for place, part in enumerate(share[:-1].tolist(), 1):
        filled += part
        if filled >= enough and share[place:].sum() >= enough:
            starts.append(place)
            filled = 0.0
    return starts


def _verdict(measures: Sequence[Measure], fewest: str) -> str:
    if changed := "; ".join(measure.words for measure in measures if measure.words):
        return f"{changed[0].upper()}{changed[1:]}."
    *others, last = [measure.name for measure in measures if measure.limit > MUCH] or [""]
    if last:
        blind = f"{', '.join(others)} and {last}" if others else last
        return (
            f"No change that {fewest} could prove; with so few, a change of {blind} could go "
            "unseen."
        )
    return "Much like the last run."


def _unfair(manifest: Mapping[str, Any], previous: Mapping[str, Any]) -> list[str]:
    model, before = manifest.get("model", {}), previous.get("model", {})
    settings, then = flat(manifest.get("settings") or {}), flat(previous.get("settings") or {})
    found = []
    if model.get("digest") != before.get("digest"):
        found.append(f"another model: {_model(before)} then, {_model(model)} now")
    found += [
        f"another {key}: {previous.get(key)} then, {manifest.get(key)} now"
        for key in ("runtime", "precision")
        if manifest.get(key) != previous.get(key)
    ]
    found += [
        f"another setting: {key} was {_shown(then.get(key))}, is {_shown(settings.get(key))}"
        for key in sorted({*settings, *then} - _HARMLESS)
        if settings.get(key) != then.get(key)
    ]
    return found


def _model(model: Mapping[str, Any]) -> str:
    words = [model.get("name"), model.get("version"), f"({str(model.get('digest', ''))[:8]})"]
    return " ".join(str(word) for word in words if word)


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in groups as one table: `{"packages": {"numpy": "2"}}` has `packages numpy`."""
    table: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            table |= {f"{name} {key}": inner for key, inner in flat(value).items()}
        else:
            table[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return table


def _shown(value: object) -> str:
    return "not set" if value is None or value == "" else str(value)


def label_text(label: str) -> str:
    """A label for people, who don't see an empty one."""
    return label or "(no label)"


def rounded(number: float) -> str:
    """A number of any size for people, three digits of it: `31.4`, `1,250,000`, `2.1e-07`."""
    if number == 0 or not 1e-4 <= abs(number) < 1e15:
        return f"{number:.3g}"
    digits = max(2 - math.floor(math.log10(abs(number))), 0)
    found = f"{float(f'{number:.3g}'):,.{digits}f}"
    return found.rstrip("0").rstrip(".") if "." in found else found


def percent(share: float) -> str:
    """0.34 -> `34 %`, with digits where they matter: `0.4 %`, `99.7 %`, `< 0.1 %`."""
    value = 100 * float(share)
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    digits = 0 if value in (0, 100) or 9.95 <= value <= 99 else 1
    return f"{value:.{digits}f} %"
