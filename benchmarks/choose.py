"""Measure again what `choose` assumes where no model is named: `python benchmarks/choose.py`.

Runs `mlopsdeploy choose` on the three built-in models, on a machine that ought to be idle, and
prints `_BUILT_IN` and `_MACHINE` as they go into mlopsdeploy/choose/assumptions.py, with the dates
beside them to be changed by hand. `--seconds 10` measures longer, `fraud` one model alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAMPLES = {"fraud": "transactions.csv", "sentiment": "reviews.csv", "detector": "street.mp4"}
DATA = {"fraud": "table", "sentiment": "text", "detector": "pictures"}


def measured(model: str, seconds: float) -> dict[str, Any]:
    """`choose`'s measurements of one model."""
    sample = str(EXAMPLES / SAMPLES[model])
    command = ["choose", "--model", model, "--sample", sample, "--seconds", f"{seconds:g}"]
    done = subprocess.run(
        [sys.executable, "-m", "mlopsdeploy", *command, "--json", "--yes"],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["measurements"]
    return found


def entry(found: dict[str, Any]) -> str:
    """One value of `_BUILT_IN`; what could not be measured is None, with the reason."""
    lines = [f"{found['data']!r},", f"{_short(found['row_bytes'])},"]
    for name, kind in (("batch", "BatchSpeed"), ("serve", "ServeSpeed"), ("edge", "EdgeSpeed")):
        speed = found[name]
        if speed is None:
            lines.append(f"None,  # {found['missing'].get(name, 'not measured')}")
            continue
        values = ", ".join(_value(key, value) for key, value in speed.items())
        lines.append(f"{kind}({values}),")
    return "(\n" + "".join(f"        {line}\n" for line in lines) + "    )"


def _value(key: str, value: Any) -> str:
    if key == "how":  # said when it is used
        return '""'
    if key == "loads":
        loads = (
            f"Load({_short(one['rate'])}, {_short(one['p50'])}, {_short(one['p99'])}, "
            f"{one['requests']})"
            for one in value
        )
        return f"({', '.join(loads)},)"
    return _short(value)


def _short(value: float | None) -> str:
    """Three digits that count, as Python writes a float."""
    return "None" if value is None else repr(float(f"{value:.3g}"))


def main() -> None:
    """Print the source."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=list(SAMPLES), metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    if unknown := set(asked.models) - set(SAMPLES):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(SAMPLES)}")
    if os.getloadavg()[0] > 0.3:  # before we are at work ourselves
        print("# NOT QUIET: other programs are at work here; measure again when it is idle")
    found = {model: measured(model, asked.seconds) for model in asked.models}
    print(f"_MACHINE = {next(iter(found.values()))['machine']!r}")
    print("_BUILT_IN = {")
    for model, one in found.items():
        print(f'    "{DATA[model]}": {entry(one)},')
    print("}")


if __name__ == "__main__":
    main()
