"""What is decided before any file is written: one value that all writers of files read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from mlopsdeploy import __version__
from mlopsdeploy.columns import DataKind
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package.lock import Lock
from mlopsdeploy.package.sizing import MIB, Measured
from mlopsdeploy.settings import BatchSettings, EdgeSettings, Running, ServeSettings

Strategy = Literal["serve", "batch", "edge"]
TARGETS: Mapping[Strategy, tuple[str, ...]] = {
    "serve": ("docker", "compose", "kubernetes", "systemd", "kserve"),
    "batch": ("cron", "systemd", "kubernetes", "airflow", "ray"),
    "edge": ("systemd", "docker"),
}
SETTINGS: Mapping[Strategy, type[Running]] = {
    "serve": ServeSettings,
    "batch": BatchSettings,
    "edge": EdgeSettings,
}
# Run from a folder on a machine; the others run from an image.
ON_MACHINES = {"systemd", "cron", "airflow"}
NIGHTLY = "0 2 * * *"

# Where things are in an image. On a machine all of it is in /opt/NAME.
VENV = "/opt/venv"
CONFIG = "/etc/mlopsdeploy"
DATA = "/data"
USER = 10001
READY = "/readyz"
# Settings that name what is written.
OUTPUTS = ("output", "report", "events", "snapshots", "save", "outbox")

TEMPLATES = Environment(
    loader=PackageLoader("mlopsdeploy.package"),
    autoescape=False,  # noqa: S701 - nothing here is HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.globals |= {
    "version": __version__, "VENV": VENV, "CONFIG": CONFIG, "DATA": DATA,
    "USER": USER, "READY": READY,
}  # fmt: skip


@dataclass(frozen=True)
class PackedModel:
    """A model as the package has it.

    Attributes:
        name: what it is called there, and its folder; of several, their names.
        version: as in its `model.yaml`.
        digest: SHA-256 of what shapes its answers, as `find_model` finds it in the package.
        source: the reference it came from.
        built_in: whether it travels in mlopsdeploy's own wheel.
        runtime: what runs it.
        task: what it is for.
        data: what its rows are.
        bytes: the size of its files.
        parts: of models that stand side by side, each.
    """

    name: str
    version: str
    digest: str
    source: str
    built_in: bool
    runtime: str
    task: str
    data: DataKind
    bytes: int
    parts: tuple[PackedModel, ...] = ()

    @property
    def each(self) -> tuple[PackedModel, ...]:
        """Its parts, or itself."""
        return self.parts or (self,)

    def reference(self, models: str) -> str:
        """As `--model` takes it where the package's models are in that folder."""
        return ",".join(one.source if one.built_in else f"{models}/{one.name}" for one in self.each)


@dataclass(frozen=True)
class Plan:
    """Everything that is decided.

    Attributes:
        strategy: serve, batch or edge.
        target: what it is packaged for.
        name: of the workload, in every name and label; fit for DNS.
        settings: what goes into the packaged YAML.
        models: one, or for serve several; what the YAML has.
        lock: the packages.
        registry_image: what the image is called, where that was given.
        python: "3.11", the version that was used here.
        measured: None where nothing was.
        notes: what the user should know, one line each.
    """

    strategy: Strategy
    target: str
    name: str
    settings: Mapping[str, Any]
    models: tuple[PackedModel, ...]
    lock: Lock
    python: str
    registry_image: str | None = None
    measured: Measured | None = None
    schedule: str = NIGHTLY
    drain: float = 30.0
    notes: tuple[str, ...] = field(default=())

    @property
    def on_machine(self) -> bool:
        """Whether it runs from a folder rather than from an image."""
        return self.target in ON_MACHINES

    @property
    def in_cluster(self) -> bool:
        """Whether Kubernetes runs it."""
        return self.target in ("kubernetes", "kserve", "ray")

    @property
    def home(self) -> str:
        """The folder that holds all of it on a machine."""
        return f"/opt/{self.name}"

    @property
    def models_folder(self) -> str:
        """Where the models are when it runs."""
        return f"{self.home}/models" if self.on_machine else "/app/models"

    @property
    def capacity(self) -> str:
        """`300 MiB, 1,000 requests/s`, where it was measured."""
        unit = "requests/s" if self.strategy == "serve" else "rows/s"
        took = self.measured
        return f"{took.memory / MIB:.0f} MiB, {took.per_second:,.0f} {unit}" if took else ""

    @property
    def config_name(self) -> str:
        """Of the packaged YAML."""
        return f"{self.strategy}.yaml"

    @property
    def config_path(self) -> str:
        """Where the YAML is when it runs."""
        return f"{self.home if self.on_machine else CONFIG}/{self.config_name}"

    @property
    def program(self) -> str:
        """The command's place when it runs."""
        return f"{self.home}/venv/bin/mlopsdeploy" if self.on_machine else "mlopsdeploy"

    @property
    def arguments(self) -> list[str]:
        """What the command is given: no more than the YAML."""
        return [self.strategy, "--config", self.config_path]

    @property
    def image(self) -> str:
        """Its full name."""
        return self.registry_image or f"{self.name}:{self.version}"

    @property
    def port(self) -> int:
        """That a server listens at."""
        return int(self.settings.get("port", 8080))

    @property
    def workers(self) -> int:
        """Of a server; 1 where the machine decides."""
        return int(self.settings.get("workers") or 1)

    @property
    def stop_seconds(self) -> int:
        """From SIGTERM to SIGKILL: requests in work are answered, the processes end."""
        return math.ceil(self.drain) + 5

    @property
    def version(self) -> str:
        """Of the first model, fit for labels and tags; where it has none, its digest's start."""
        version = re.sub(r"[^A-Za-z0-9._-]+", "-", self.models[0].version)[:50].strip("._-")
        return version or self.models[0].digest[:12]

    @property
    def each(self) -> tuple[PackedModel, ...]:
        """The models, those that stand side by side one by one."""
        return tuple(one for model in self.models for one in model.each)

    @property
    def model_list(self) -> str:
        """`fraud 1.0.0, churn`."""
        return ", ".join(f"{model.name} {model.version}".strip() for model in self.each)

    @property
    def device(self) -> str:
        """`/dev/video0` or `/dev/ttyUSB0` where the source is one of this machine, else nothing."""
        camera = self.settings.get("camera", "0" if self.strategy == "edge" else "")
        source = str(self.settings.get("lines", camera))
        if source.isdigit() and "lines" not in self.settings:
            return f"/dev/video{source}"
        return source if source.startswith("/dev/") else ""

    @property
    def device_group(self) -> str:
        """Whose members may open it, on most Linux machines."""
        return "dialout" if "lines" in self.settings else "video"

    @property
    def device_classes(self) -> list[str]:
        """As /proc/devices calls its kind: it may be plugged in again under another name."""
        if "lines" not in self.settings:
            return ["video4linux"]
        kind = re.fullmatch(r"/dev/(tty[A-Za-z]+)\d+", self.device)
        return [kind[1]] if kind else ["ttyUSB", "ttyACM"]  # a link, as in /dev/serial/by-id

    @property
    def output_folders(self) -> list[str]:
        """Where it writes outside of its own folder; only absolute paths lead there."""
        named = [str(self.settings.get(key) or "") for key in OUTPUTS]
        return sorted({str(PurePosixPath(path).parent) for path in named if path.startswith("/")})

    @property
    def static_user(self) -> bool:
        """Whether systemd's user is one that can be given rights to folders."""
        outside = self.strategy == "edge" and self.output_folders
        return self.strategy == "batch" or bool(outside)

    @property
    def lines_folder(self) -> str:
        """The folder of a file of lines: the whole of it, as a rotated file is another one."""
        path = PurePosixPath(str(self.settings.get("lines", "")))
        return "" if self.device or not path.is_absolute() else str(path.parent)

    @property
    def preview_port(self) -> str:
        """Of the page with the live picture, if there is one."""
        return str(self.settings.get("preview") or "").rpartition(":")[2]

    @property
    def secret(self) -> str:
        """Where passwords go, as variables of the environment; they win over the YAML."""
        if self.target == "airflow":
            return "the DAG's env, from a Variable of Airflow"
        if self.target == "docker":
            return "secrets.env next to run.sh"
        return f"/etc/{self.name}.env" if self.on_machine else f"the Secret {self.name}"

    @property
    def packages_models(self) -> bool:
        """Whether there are model files in the package, next to the wheel's own."""
        return not all(model.built_in for model in self.each)

    @cached_property
    def config(self) -> str:
        """The packaged YAML."""
        head = (
            f"# Written by mlopsdeploy {__version__} for {self.target}. The settings are those of "
            f"'mlopsdeploy {self.strategy}'.\n"
        )
        return head + yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True)

    @property
    def config_digest(self) -> str:
        """Changes with the YAML, and with it the pods that read it."""
        return sha256(self.config.encode()).hexdigest()

    def record(self) -> str:
        """`package.json`: what was packaged, for programs and for the next `package`."""
        record = {
            "mlopsdeploy": __version__,
            "strategy": self.strategy,
            "target": self.target,
            "name": self.name,
            "image": None if self.on_machine else self.image,
            "python": self.python,
            "models": [asdict(model) for model in self.models],
            "packages": [vars(package) for package in self.lock.packages],
            "measured": vars(self.measured) if self.measured else None,
        }
        return json.dumps(record, indent=2, default=str) + "\n"


def dns_name(text: str) -> str:
    """A name that Kubernetes, systemd and image registries all take (RFC 1123).

    Raises:
        ConfigError: nothing of it can stay.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-")
    if not name:
        raise ConfigError(f"--name {text!r}: needs letters or digits")
    return name


def check_output(folder: Path, models: Sequence[str] = (), *, overwrite: bool = False) -> None:
    """See that nothing is lost by writing there.

    Raises:
        ConfigError: it holds something that `package` did not write, or that was changed since.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    protected = Protected(models=tuple(models), overwrite=overwrite)
    ours = empty or _recorded(folder) == sums_of(folder)
    protected.check(folder, f"--output {folder}", ours=ours, folder=True)


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a package but its record, which holds them: see `record`."""
    return {
        file.relative_to(folder).as_posix(): sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / "package.json"
    }


def _recorded(folder: Path) -> dict[str, str] | None:
    try:
        record = json.loads((folder / "package.json").read_bytes())
    except (OSError, ValueError):
        return None
    return record.get("files") if isinstance(record, dict) else None


def render(
    template: str, plan: Plan, environment: Environment = TEMPLATES, /, **values: Any
) -> str:
    """A template of the folder `templates`."""
    return environment.get_template(template).render(plan=plan, **values)
