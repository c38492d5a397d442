"""`mlopsdeploy package`, from settings to a folder of checked files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cronsim import CronSim, CronSimError
from rich.console import Console

from mlopsdeploy.core.console import progress_log
from mlopsdeploy.data.cameras import has_secret, without_secret
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files.cache import appearing
from mlopsdeploy.package import checks, sizing, targets
from mlopsdeploy.package.checks import Check
from mlopsdeploy.package.lock import make_lock
from mlopsdeploy.package.packing import pack
from mlopsdeploy.package.plan import (
    DATA,
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
from mlopsdeploy.settings import (
    DEFAULT_MODEL,
    BatchSettings,
    EdgeSettings,
    Running,
    ServedModel,
    ServeSettings,
    Settings,
    load,
)

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
    with appearing(folder.resolve(), replace=True) as building:
        building.chmod(0o755)
        plan = _plan(
            strategy, target, settings, building, name=name, image=image, measured=measured,
            log=progress_log(console),
        )  # fmt: skip
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
        try:
            next(CronSim(settings.schedule or NIGHTLY, datetime.now(UTC)))
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
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    schedule: str | None = getattr(settings, "schedule", None)
    notes: list[str] = []
    if schedule is None and strategy == "batch" and target != "ray":
        notes.append(f"The YAML has no 'schedule', so it runs every night at two: '{NIGHTLY}'.")
    # To read lines, nothing is installed but the model's runtime and what its task needs.
    extra = "" if getattr(settings, "lines", None) is not None else strategy
    lock = make_lock(
        extra, {model.runtime for model in models}, {model.task for model in models}, folder,
        python=python, extras=_extras(settings, target),
    )  # fmt: skip
    first = models[0].name if strategy == "serve" else models[0].each[0].name
    workload = first if strategy == "serve" else f"{first}-{strategy}"
    draft = Plan(
        strategy, target, name=dns_name(name or workload), settings={}, models=models, lock=lock,
        python=python, registry_image=image, schedule=schedule or NIGHTLY,
        drain=getattr(settings, "drain_timeout", 60.0),
    )  # fmt: skip
    packaged = _packaged(settings, draft, notes)
    took = _measure(settings, packaged, draft, folder, log) if measured else None
    return replace(draft, settings=packaged, measured=took, notes=tuple(notes))


def _extras(settings: Running, target: str) -> list[str]:
    mqtt = getattr(settings, "mqtt", None) is not None
    return ["ray"] * (target == "ray") + ["mqtt"] * mqtt


def _pack(settings: Running, folder: Path, log: Callable[[str], None]) -> tuple[PackedModel, ...]:
    models = folder / "models"
    if isinstance(settings, ServeSettings):
        taken = [one.called for one in settings.models]
        packed: list[PackedModel] = []
        for one in settings.models:
            running = settings.running(one)
            packed.append(pack(one.model, one.called, running, models, log, one.features, taken))
            taken += [part.name for part in packed[-1].parts]
        return tuple(packed)
    assert isinstance(settings, Settings)
    name = ServedModel(model=settings.model).called
    return (pack(settings.model, name, settings, models, log, getattr(settings, "features", ())),)


# ---------------------------------------------------------------- settings, as packaged


def _packaged(settings: Running, plan: Plan, notes: list[str]) -> dict[str, Any]:
    """What the YAML sets, with the models pinned and paths as they are over there."""
    packaged = settings.as_dict(only_given=True)
    if isinstance(settings, ServeSettings):
        packaged["models"] = [
            {**one.as_dict(only_given=True), "name": model.name, **_pinned(model, plan)}
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
    if packaged["model"] == DEFAULT_MODEL and "model" not in settings.given:
        del packaged["model"]  # only one that nobody named refuses texts that it does not read
        notes.append(
            f"The YAML names no model: the default, {DEFAULT_MODEL}, refuses an input most of "
            f"which it does not read; with 'model: {DEFAULT_MODEL}' it scores it all the same."
        )
    for setting in ("input", "output", "camera", "mqtt"):
        address = str(packaged.get(setting, ""))
        bare = without_secret(address) if setting == "camera" else _PASSWORD.sub(r"\1", address)
        if has_secret(address) if setting == "camera" else bare != address:
            packaged[setting] = bare
            notes.append(
                f"{setting}: its password is not in these files; put MLOPSDEPLOY_"
                f"{setting.upper()}, with all of the address, into {plan.secret}."
            )
    if isinstance(settings, EdgeSettings):
        return _edge(settings, packaged, plan, notes)
    return _batch(packaged, plan, notes)


def _pinned(model: PackedModel, plan: Plan) -> dict[str, Any]:
    place = model.reference(plan.models_folder)
    return {"model": place, "runtime": model.runtime, "digest": model.digest}


def _edge(
    settings: EdgeSettings, packaged: dict[str, Any], plan: Plan, notes: list[str]
) -> dict[str, Any]:
    for one in sorted(packaged.keys() & {"sinks", "webhook", "webhook_token"}):
        del packaged[one]
        notes.append(
            f"'{one}' is a secret and not in these files; put MLOPSDEPLOY_{one.upper()} into "
            f"{plan.secret}."
        )
    if not plan.on_machine:
        packaged.setdefault("watchdog", 60)  # on a machine systemd watches
        _on_volume(packaged, ("events", "snapshots", "save", "outbox"), notes)
    if settings.lines is not None:
        return packaged
    packaged.setdefault("camera", settings.camera)
    packaged["window"] = False
    if settings.preview and settings.preview.isdigit() and not plan.on_machine:
        # The port is published to loopback only.
        packaged["preview"] = f"0.0.0.0:{settings.preview}"
    return packaged


def _on_volume(packaged: dict[str, Any], names: Iterable[str], notes: list[str]) -> None:
    """Absolute paths as they are in a container, which may write nowhere else."""
    for name in names:
        path = packaged.get(name)
        if path and PurePosixPath(path).is_absolute():
            packaged[name] = f"{DATA}/{PurePosixPath(path).name}"
            notes.append(f"{name}: {path} is {packaged[name]} there, on the volume.")


def _batch(packaged: dict[str, Any], plan: Plan, notes: list[str]) -> dict[str, Any]:
    for one in ("schedule", "retries"):  # the target has them
        packaged.pop(one, None)
    for one in sorted(packaged.keys() & {"notify_failure", "notify_success"}):
        del packaged[one]
        notes.append(f"'{one}' is a secret and was left out; {plan.target} has alerts of its own.")
    for one in sorted(packaged.keys() & {"dry_run", "limit", "fresh"}):
        del packaged[one]
        notes.append(f"'{one}' is for trying out and was left out of the YAML.")
    if plan.target == "ray":
        packaged["engine"] = "ray"
    else:
        packaged.setdefault("unfinished", "discard")  # nobody is there to ask
    if not plan.on_machine:
        if plan.target != "ray":  # as a server's workers
            packaged.setdefault("threads", 2)
        _on_volume(packaged, _PATHS, notes)
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

    def here(one: Mapping[str, Any], model: PackedModel) -> dict[str, Any]:
        return {**one, "model": model.reference(str(folder.resolve() / "models"))}

    if isinstance(settings, ServeSettings):
        pairs = zip(packaged["models"], plan.models, strict=True)
        config = {**packaged, "models": [here(*pair) for pair in pairs]}
        return sizing.measure_server(config, plan.models[0].name, folder)
    assert isinstance(settings, BatchSettings)
    config = {**here(packaged, plan.models[0]), "input": settings.input}
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
        line("measured", f"{plan.capacity} ({plan.measured.how})")
    for one in sorted(checked, key=lambda one: not one.done):
        label, style = ("checked", "") if one.done else ("not checked", "yellow")
        line(label, f"{one.what}: {one.by}", style)
    for note in plan.notes:
        line("note", note)
    line("next", f"{folder}/README.md")
