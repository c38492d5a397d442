"""The result file as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

Json = dict[str, Any]


def save(folder: Path, name: str, results: Json, text: str) -> None:
    """Write results as they are, and as a text that tells of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def spread(values: Sequence[float], digits: int) -> str:
    """`median [min–max]`; the range only where there is one."""
    if not values:
        return "–"
    middle = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} [{min(values):,.{digits}f}–{max(values):,.{digits}f}]"


def _rate_digits(values: Sequence[float]) -> int:
    return 1 if values and median(values) < 100 else 0


def _contestants(results: Json) -> list[str]:
    lines = [
        "## Reviews: CSV to CSV",
        "",
        f"A DistilBERT-shaped checkpoint with random weights, {results['flop_per_row'] / 1e9:.2f} "
        f"GFLOP a row on average; the built-in model does "
        f"{results['builtin_flop_per_row'] / 1e9:.2f}. Median [min–max] of "
        "the rounds; ratios within a round.",
        "",
        "| contestant | precision | rows | rows/s | × the article's loop | peak memory, MB "
        "| cold start, s | share of peak |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["contestants"].items():
        runs = [r["contestants"][name] for r in results["rounds"] if name in r["contestants"]]
        if not runs:
            continue
        rates = [run["rows_per_second"] for run in runs]
        ratios = [run["ratio"] for run in runs if run["ratio"] is not None]
        shares = [100 * run["share_of_peak"] for run in runs if run["share_of_peak"] is not None]
        share = f"{spread(shares, 0)} %" if shares else "–"
        lines.append(
            f"| {row['title']} | {runs[-1]['precision']} | {runs[-1]['rows']:,} "
            f"| {spread(rates, _rate_digits(rates))} | {spread(ratios, 2)} "
            f"| {max(run['peak_mb'] for run in runs):,.0f} "
            f"| {spread([run['cold_start'] for run in runs], 1)} | {share} |"
        )
    failures = results["failures"]
    if failures:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in failures.items()]
    return lines


def _peaks(results: Json) -> list[str]:
    peaks = [r["peaks"] for r in results["rounds"] if r["peaks"]]
    if not peaks:
        return []
    lines = ["", "## The limit: this machine's matrix-multiply peak", ""]
    lines += ["| precision | GFLOP/s |", "| --- | ---: |"]
    lines += [f"| {p} | {spread([x[p] for x in peaks], 0)} |" for p in peaks[0]]
    return lines


def _tabular(results: Json) -> list[str]:
    runs = [r["tabular"] for r in results["rounds"] if r["tabular"]]
    if not runs:
        return []
    rows = (
        ("mlopsdeploy batch, whole process", "ours_wall"),
        ("mlopsdeploy batch, its own clock", "ours_seconds"),
        ("pyarrow read_csv + write_csv, whole process", "floor_wall"),
        ("pyarrow read_csv + write_csv, imports excluded", "floor_seconds"),
        ("of that, reading", "floor_read"),
        ("of that, writing", "floor_write"),
    )
    lines = [
        "",
        f"## A table: {runs[0]['rows']:,} rows, 22 columns, a 20-64-32-1 network",
        "",
        "| what | seconds |",
        "| --- | ---: |",
    ]
    lines += [f"| {title} | {spread([run[key] for run in runs], 2)} |" for title, key in rows]
    ratios = [run["ours_wall"] / run["floor_wall"] for run in runs]
    lines += ["", f"Whole process against whole process: {spread(ratios, 2)} times the bare CSV. "]
    lines[-1] += f"Peak memory {max(run['ours_peak_mb'] for run in runs):,.0f} MB, "
    lines[-1] += f"the bare CSV {max(run['floor_peak_mb'] for run in runs):,.0f} MB."
    return lines


def _memory(results: Json) -> list[str]:
    if not results["memory"]:
        return []
    lines = [
        "",
        "## Memory against the number of rows",
        "",
        "Short texts, a 2-layer 32-wide model.",
        "",
        "| rows | peak memory, MB | seconds |",
        "| ---: | ---: | ---: |",
    ]
    lines += [
        f"| {m['rows']:,} | {m['peak_mb']:,.0f} | {m['wall']:.1f} |" for m in results["memory"]
    ]
    return lines


def markdown(results: Json) -> str:
    machine, versions = results["machine"], results["versions"]
    rounds = len(results["rounds"])
    runs = [run for r in results["rounds"] for run in r["contestants"].values()]
    others = [100 * run["others"] for run in runs]
    lines = [
        "# Batch benchmark",
        "",
        f"{results['date']}, {rounds} round{'s' * (rounds != 1)}. {machine['cpu']}, "
        f"{machine['cores']} cores ({', '.join(machine['flags']) or 'no vector flags known'}), "
        f"{machine['memory_gb']:.0f} GB, {machine['system']}, Python {machine['python']}. "
        f"Other processes took {spread(others, 0)} % of the cores during the runs.",
        "",
        *_contestants(results),
        *_peaks(results),
        *_tabular(results),
        *_memory(results),
        "",
        "## Versions",
        "",
    ]
    lines += [
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
        for name, found in versions.items()
    ]
    return "\n".join(lines) + "\n"
