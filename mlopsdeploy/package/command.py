"""`mlopsdeploy package`, from settings to a folder of checked files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cronsim import CronSim, CronSimError
from rich.console import Console

from mlopsdeploy.core.console import progress_log
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files.cache import appearing
from mlopsdeploy.model_files.hub import is_hub_id
from mlopsdeploy.package import checks, sizing, targets
from mlopsdeploy.package.checks import Check
from mlopsdeploy.package.lock import make_lock
from mlopsdeploy.package.packing import pack
from mlopsdeploy.package.plan import (
    DATA,
    MODELS,
    NIGHTLY,
    SETTINGS,
    TARGETS,
    PackedModel,
    Plan,
    Strategy,
    check_output,
    dns_name,
    sums_of,
)
from mlopsdeploy.settings import BatchSettings, EdgeSettings, Running, ServeSettings, Settings, load

_PASSWORD = re.compile(r"(://[^:/@?#]*):[^/]*(?=@)")
# Of a batch: paths of data. In an image they are on its volume.
_PATHS = ("input", "output", "report")


def run_package(
    strategy: Strategy,
    target: str,
    *,
    config: str | None,
    output: str,
    overwrite: bool = False,
    name: str | None = None,
    image: str | None = None,
    measured: bool = False,
    model: str | None = None,
) -> dict[str, Any]:
    """Write a package into the folder `output` and check it; the report, shown on standard error.

    Args:
        strategy: serve, batch or edge.
        target: what for; see `plan.TARGETS`.
        config: the YAML that runs here.
        output: a new folder, or one that an earlier `package` wrote.
        overwrite: replace it also if it holds other files.
        name: of the workload; by default made from the model's.
        image: its full name in a registry.
        measured: whether to run it here for memory and capacity.
        model: in place of the YAML's; of a server the only one.

    Raises:
        ConfigError: a setting can't be packaged, or `output` holds something else.
        ModelError: a model can't be found, loaded or compiled.
        MlopsDeployError: mlopsdeploy's wheel can't be built, or a checker refuses a file.
    """
    if target not in TARGETS[strategy]:
        raise ConfigError(f"--to {target}: {strategy} goes to {', '.join(TARGETS[strategy])}")
    folder = Path(output)
    flags = {"models": [model] if model else None} if strategy == "serve" else {"model": model}
    settings = load(SETTINGS[strategy], config, flags)
    models = [one.model for one in settings.models] if isinstance(settings, ServeSettings) else []
    models += [settings.model] if isinstance(settings, Settings) else []
    check_output(folder, models, overwrite=overwrite)
    _check(settings, measured=measured)
    console = Console(stderr=True, highlight=False)

    log = progress_log(console)
    with appearing(folder.resolve(), replace=True) as building:
        building.chmod(0o755)
        plan = _plan(
            strategy, target, settings, building, name=name, image=image, measured=measured, log=log
        )
        for path, text in targets.write_files(plan).items():
            place = building / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")
            place.chmod(0o755 if place.suffix == ".sh" else 0o644)
        checked = checks.check(building, strategy)
        record = building / "package.json"
        contents = {**json.loads(record.read_bytes()), "files": sums_of(building)}
        record.write_text(json.dumps(contents, indent=2) + "\n", "utf-8")
    _show(console, plan, folder, checked)
    return {
        "folder": str(folder),
        "name": plan.name,
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()),
        "download_bytes": plan.lock.bytes,
        "checks": [vars(one) for one in checked],
        "notes": list(plan.notes),
    }


def _check(settings: Running, *, measured: bool) -> None:
    """See that the settings can be packaged, before anything takes time."""
    if isinstance(settings, ServeSettings) and 0 < settings.port < 1024:
        raise ConfigError(f"port {settings.port}: needs root; take one from 1024 on")
    if isinstance(settings, EdgeSettings) and measured:
        raise ConfigError("--measure: 'mlopsdeploy bench edge' measures a camera, where it is")
    if isinstance(settings, EdgeSettings) and settings.lines == "-":
        raise ConfigError("lines: name a file, a FIFO or a device; nobody is there to pipe")
    if isinstance(settings, BatchSettings):
        if settings.input in (None, "-") or settings.output == "-":
            raise ConfigError(
                "input, output: name files, tables or objects; nobody is there to pipe"
            )
        if settings.schedule:
            try:
                next(CronSim(settings.schedule, datetime.now(UTC)))
            except (CronSimError, StopIteration) as error:
                raise ConfigError(
                    f"schedule {settings.schedule!r}: not one of cron's ({error})"
                ) from error


def _plan(
    strategy: Strategy,
    target: str,
    settings: Running,
    folder: Path,
    *,
    name: str | None,
    image: str | None,
    measured: bool,
    log: Callable[[str], None],
) -> Plan:
    """All decisions; the models and our own wheel are in `folder` after it."""
    models = _pack(settings, folder, log)
    own_name = dns_name(name or "-".join([models[0].name, *[strategy] * (strategy != "serve")]))
    notes: list[str] = []
    draft = Plan(
        strategy=strategy,
        target=target,
        name=own_name,
        settings={},
        models=models,
        lock=make_lock(
            _extra(strategy, settings),
            {model.runtime for model in models},
            {model.task for model in models},
            folder,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            extras=["ray"] if target == "ray" else [],
        ),
        registry_image=image,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        schedule=_schedule(settings, target, notes),
        drain=getattr(settings, "drain_timeout", 60.0),
    )
    packaged = _packaged(settings, draft, notes)
    took = _measure(settings, packaged, draft, folder, log) if measured else None
    return replace(draft, settings=packaged, measured=took, notes=tuple(notes))


def _pack(settings: Running, folder: Path, log: Callable[[str], None]) -> tuple[PackedModel, ...]:
    models = folder / "models"
    if isinstance(settings, ServeSettings):
        return tuple(
            pack(one.model, one.called, settings.running(one), models, log, one.features)
            for one in settings.models
        )
    assert isinstance(settings, Settings)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.model.rstrip("/")).stem)
    if is_hub_id(settings.model) and not Path(settings.model).exists():
        name = settings.model.partition("@")[0].rpartition("/")[2]
    return (pack(settings.model, name, settings, models, log, getattr(settings, "features", ())),)


def _schedule(settings: Running, target: str, notes: list[str]) -> str:
    schedule: str | None = getattr(settings, "schedule", None)
    if schedule is None and isinstance(settings, BatchSettings) and target != "ray":
        notes.append(f"The YAML has no 'schedule', so it runs every night at two: '{NIGHTLY}'.")
    return schedule or NIGHTLY


# ---------------------------------------------------------------- settings, as packaged


def _packaged(settings: Running, plan: Plan, notes: list[str]) -> dict[str, Any]:
    """What the YAML sets, with the models pinned and paths as they are over there."""
    packaged = settings.as_dict(only_given=True)
    if isinstance(settings, ServeSettings):
        packaged["models"] = [
            {
                **one.as_dict(only_given=True),
                "name": model.name,
                **_pinned(model, plan),
            }
            for one, model in zip(settings.models, plan.models, strict=True)
        ]
        packaged.pop("runtime", None)
        packaged["port"] = settings.port or 8080
        packaged["log_format"] = settings.log_format if settings.log_format != "auto" else "json"
        if not plan.on_machine:
            # A container sees all cores of its node, whatever its share of them.
            packaged.update(host="0.0.0.0", workers=settings.workers or 1)  # noqa: S104
            packaged.setdefault("threads", 1)
            if not settings.workers:
                notes.append("One worker on one core for each container; 'workers' says otherwise.")
        return packaged
    packaged.update(_pinned(plan.models[0], plan))
    for setting in ("input", "output", "camera"):
        if _PASSWORD.search(str(packaged.get(setting, ""))):
            packaged[setting] = _PASSWORD.sub(r"\1", packaged[setting])
            notes.append(
                f"{setting}: its password is not in these files; put MLOPSDEPLOY_"
                f"{setting.upper()}, with all of the address, into {targets.secret(plan)}."
            )
    if isinstance(settings, EdgeSettings):
        return _edge(settings, packaged, plan)
    return _batch(packaged, plan, notes)


def _pinned(model: PackedModel, plan: Plan) -> dict[str, Any]:
    place = f"{plan.home}/models" if plan.on_machine else MODELS
    return {
        "model": model.source if model.built_in else f"{place}/{model.name}",
        "runtime": model.runtime,
        "digest": model.digest,
    }


def _extra(strategy: Strategy, settings: Running) -> str:
    """What is installed next to the model's runtime and task; nothing more to read lines."""
    return "" if isinstance(settings, EdgeSettings) and settings.lines is not None else strategy


def _edge(settings: EdgeSettings, packaged: dict[str, Any], plan: Plan) -> dict[str, Any]:
    if settings.lines is not None:
        return packaged
    packaged.setdefault("camera", settings.camera)
    packaged["window"] = False
    if settings.preview and settings.preview.isdigit() and not plan.on_machine:
        packaged["preview"] = (
            f"0.0.0.0:{settings.preview}"  # the port is published to loopback only
        )
    return packaged


def _batch(packaged: dict[str, Any], plan: Plan, notes: list[str]) -> dict[str, Any]:
    packaged.pop("schedule", None)  # the target has it
    tried = sorted(packaged.keys() & {"dry_run", "limit", "fresh"})
    notes += [f"'{one}' is for trying out and was left out of the YAML." for one in tried]
    packaged = {key: value for key, value in packaged.items() if key not in tried}
    if plan.target == "ray":
        packaged["engine"] = "ray"
    if not plan.on_machine:
        if plan.target != "ray":  # as a server's workers
            packaged.setdefault("threads", 2)
        for setting in _PATHS:
            path = packaged.get(setting)
            if path and PurePosixPath(path).is_absolute():
                packaged[setting] = f"{DATA}/{PurePosixPath(path).name}"
                notes.append(f"{setting}: {path} is {packaged[setting]} there, on the volume.")
    return packaged


# ---------------------------------------------------------------- a run here


def _measure(
    settings: Running,
    packaged: Mapping[str, Any],
    plan: Plan,
    folder: Path,
    log: Callable[[str], None],
) -> sizing.Measured:
    """Run what was packaged, with the models where they are now."""
    log(f"measuring: {plan.strategy} runs for a few seconds")
    place = f"{plan.home}/models" if plan.on_machine else MODELS

    def here(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(place + "/"):
            return str(folder.resolve() / "models" / value[len(place) + 1 :])
        return value

    if isinstance(settings, ServeSettings):
        models = [{key: here(value) for key, value in one.items()} for one in packaged["models"]]
        return sizing.measure_server({**packaged, "models": models}, plan.models[0].name, folder)
    assert isinstance(settings, BatchSettings)
    config = {**packaged, "model": here(packaged["model"]), "input": settings.input}
    config.pop("engine", None)
    return sizing.measure_batch(config, Path.cwd())


# ---------------------------------------------------------------- what a person sees


def _show(console: Console, plan: Plan, folder: Path, checked: list[Check]) -> None:
    def line(label: str, text: str, style: str = "") -> None:
        console.print(f"{label:12} {text}", style=style, soft_wrap=True, markup=False)

    line("packaged", f"{plan.name}: {plan.strategy} for {plan.target}, in {folder}/")
    for model in plan.models:
        line("model", f"{model.name} {model.version} on {model.runtime}, {model.digest[:12]}")
    line("wheels", targets.size_line(plan))
    if plan.measured:
        unit = "requests/s" if plan.strategy == "serve" else "rows/s"
        line(
            "measured",
            f"{plan.measured.memory / sizing.MIB:.0f} MiB, {plan.measured.per_second:,.0f} {unit} "
            f"({plan.measured.how})",
        )
    for one in checked:
        if one.done:
            line("checked", f"{one.what}: {one.by}")
    for one in checked:
        if not one.done:
            line("not checked", f"{one.what}: {one.by}", "yellow")
    for note in plan.notes:
        line("note", note)
    line("next", f"{folder}/README.md")
