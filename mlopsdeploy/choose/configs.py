"""The config that matches a decision: `mlopsdeploy batch|serve|edge --config FILE` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.choose.assumptions import MODELS
from mlopsdeploy.choose.decide import Decision
from mlopsdeploy.choose.factors import FACTORS
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.core.images import SUFFIXES
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import DEFAULT_MODEL

# What a config names where nobody named a model: what the strategies run then.
DEFAULTS = {**MODELS, "text": DEFAULT_MODEL}


def why_not(decision: Decision) -> str:
    """Why there is no config; empty if there is one."""
    return "none of the three fits" if decision.recommended is None else ""


def config(answers: ChooseSettings, found: Measurements, decision: Decision) -> str:
    """YAML with the reasons as comments.

    Raises:
        ConfigError: see `why_not`.
    """
    if why := why_not(decision):
        raise ConfigError(f"no config to write: {why}")
    strategy = decision.recommended
    option = decision.option(strategy)  # type: ignore[arg-type]  # not None: see why_not
    lines = [f"# {strategy}: chosen by mlopsdeploy choose.", "#"]
    lines += [f"# {factor}: {option.cells[factor].arithmetic}" for factor in FACTORS]
    model = answers.model or DEFAULTS[answers.data]
    settings: dict[str, Any] = {"model": model}
    running = {"trust_model": True} if answers.trust_model else {}
    features = {"features": list(answers.features)} if answers.features else {}
    if strategy == "batch":
        settings = {"input": _input(answers, found), **settings, **features, **running}
        lines.append("#\n# input: put your own data here.")
        if answers.text_column:
            settings["text_column"] = answers.text_column
        assert option.every is not None
        settings["schedule"] = cron(option.every)
        if answers.price_per_hour:
            settings["price_per_hour"] = answers.price_per_hour
    elif strategy == "serve":
        settings = {"models": [{**settings, **features}], "port": 8080, **running}
    elif found.data == "image":
        camera = answers.sample or "0"
        settings = {**settings, "camera": camera, "events": "events.jsonl", **running}
    else:
        lines.append("#\n# lines: - is standard input; put a file, a FIFO or a serial device here.")
        settings = {**settings, "lines": "-", **features, "events": "events.jsonl", **running}
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, "", body])


def _input(answers: ChooseSettings, found: Measurements) -> str:
    """The sample, or where `batch` can't read it, as a video, a name for what it could."""
    if found.data != "image":
        return answers.sample or "data.csv"
    sample = Path(answers.sample or "")
    readable = answers.sample and (sample.is_dir() or sample.suffix.lower() in SUFFIXES)
    return str(answers.sample) if readable else "photos/"


def cron(seconds: float) -> str:
    """An interval of `factors.INTERVALS` in cron's words; a day is at two in the night."""
    minutes = round(seconds / 60)
    if minutes == 1440:
        return "0 2 * * *"
    if minutes >= 60:
        return "0 * * * *" if minutes == 60 else f"0 */{minutes // 60} * * *"
    return "* * * * *" if minutes == 1 else f"*/{minutes} * * * *"
