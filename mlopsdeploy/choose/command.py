"""`mlopsdeploy choose`, from settings to a recommendation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.choose import assumptions, configs, show
from mlopsdeploy.choose.decide import decide
from mlopsdeploy.choose.measurements import measure
from mlopsdeploy.choose.questions import interview
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.core.console import progress_log
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError, needs


def run_choose(settings: ChooseSettings, *, ask: bool, quiet: bool = False) -> dict[str, Any]:
    """Ask, measure, decide; write what was asked for, and show the rest unless `quiet`.

    Where there is a terminal and `ask`, what the settings leave open is asked; else defaults hold.
    Returns all of it, ready for JSON; see `show.as_dict`.

    Raises:
        MlopsDeployError: a setting is wrong, or the model can't be measured.
    """
    console = Console(stderr=True, highlight=False)
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        settings = interview(settings, console)
    _check(settings)

    log = progress_log(console)
    found = measure(settings, log) if settings.model else assumptions.measurements(settings.data)
    decision = decide(settings, found)
    why_not = configs.why_not(decision)
    config = why_not or configs.config(settings, found, decision)
    report = {**show.as_dict(settings, found, decision), "config": None if why_not else config}
    # Files first: who reads the output may go away, as `head` does.
    if settings.write_config:
        if why_not:
            log(f"{settings.write_config}: not written: {why_not}")
        else:
            write(settings.write_config, config)
            log(f"run it: mlopsdeploy {decision.recommended} --config {settings.write_config}")
    if settings.report:
        from mlopsdeploy.choose import page  # brings Matplotlib and Jinja

        write(settings.report, page.render(settings, found, decision, config))
        log(f"{settings.report}: the page")
    if not quiet:
        out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        show.show(settings, found, decision, out, config)
    return report


def _check(settings: ChooseSettings) -> None:
    """What would otherwise go wrong after minutes of measuring."""
    protected = Protected(
        (settings.sample,) if settings.sample else (),
        (settings.model,) if settings.model else (),
        settings.overwrite,
    )
    if settings.sample and not settings.model:
        raise ConfigError("--sample: of which model? name it with --model")
    if settings.write_config:
        # Ours or not: whoever ran it may have changed it.
        check_place(settings.write_config, settings.write_config, protected, ours=False)
    if settings.report:
        with needs("--report", "report"):
            from mlopsdeploy.choose import page  # noqa: F401
        check_place(settings.report, f"--report {settings.report}", protected)


def check_place(path: str, shown: str, protected: Protected, *, ours: bool | None = None) -> None:
    """Whether a file can go there; see `Protected.check`.

    Raises:
        InputError: its folder is not there.
        ConfigError: something is there that may not be overwritten.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise InputError(f"{path}: there is no folder {file.parent}")
    protected.check(file, shown, ours=ours)


def write(path: str, text: str) -> None:
    """Write a file.

    Raises:
        MlopsDeployError: the disk fails.
    """
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        raise MlopsDeployError(f"{path}: can't be written ({error.strerror})") from error
