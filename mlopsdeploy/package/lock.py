"""Exact versions, with hashes, of the few wheels that one strategy needs with one runtime.

`uv pip compile` resolves for the image's Python and platform, with the versions that are installed
here as constraints: what was tried here is what runs there. Where the index can't be reached the
installed versions are written down as they are, without hashes, and the lock says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlopsdeploy.core import plugins
from mlopsdeploy.errors import ConfigError, MlopsDeployError, needs

# glibc of the base image, and older: Debian 12 has 2.36.
PLATFORMS = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}
# Nothing that is packaged shows a window; both have `cv2`.
_WINDOWED, _HEADLESS = "opencv-python", "opencv-python-headless"


@dataclass(frozen=True)
class Package:
    """One wheel.

    Attributes:
        name: canonical.
        version: exact.
        hashes: SHA-256 of its wheel for each platform; none where the index wasn't asked.
        bytes: of the wheel for amd64, as it is downloaded; 0 where unknown.
        installed: bytes on disk, as far as the same version is installed here.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    bytes: int = 0
    installed: int = 0


@dataclass(frozen=True)
class Lock:
    """Everything that gets installed.

    Attributes:
        packages: sorted by name.
        wheel: mlopsdeploy's own, a file of the package, unless it comes from the index.
        wheel_digest: its SHA-256.
        wheel_bytes: its size.
        platforms: that all packages have wheels for; empty where nobody asked.
        why_bare: why there are no hashes; empty where there are.
    """

    packages: tuple[Package, ...]
    wheel: str = ""
    wheel_digest: str = ""
    wheel_bytes: int = 0
    platforms: tuple[str, ...] = ()
    why_bare: str = ""

    @property
    def hashed(self) -> bool:
        """Whether pip can be told to `--require-hashes`."""
        return not self.why_bare

    @property
    def bytes(self) -> int:
        """What is downloaded for amd64, mlopsdeploy's own wheel included."""
        return sum(package.bytes for package in self.packages) + self.wheel_bytes

    def text(self) -> str:
        """`requirements.lock`, for pip."""
        lines = ["# Written by 'mlopsdeploy package'. Install it with:"]
        check = " --require-hashes" if self.hashed else ""
        lines.append(f"#   pip install --only-binary :all:{check} -r requirements.lock")
        if not self.hashed:
            lines.append(f"# Without hashes: {self.why_bare}.")
        lines.extend(_pinned(f"{one.name}=={one.version}", one.hashes) for one in self.packages)
        if self.wheel:
            hashes = (self.wheel_digest,) if self.hashed else ()
            lines.append(_pinned(f"./{self.wheel}", hashes))
        return "\n".join(lines) + "\n"


def _pinned(what: str, hashes: Sequence[str]) -> str:
    return " \\\n    ".join([what, *(f"--hash=sha256:{one}" for one in sorted(hashes))])


def make_lock(
    strategy: str,
    runtimes: set[str],
    tasks: set[str],
    folder: Path,
    *,
    python: str,
    extras: Sequence[str] = (),
) -> Lock:
    """The lock of a strategy with these runtimes and tasks; its own wheel goes into `folder`.

    Args:
        strategy: an extra's name.
        runtimes: that run the models.
        tasks: that the models are for.
        folder: the package's.
        python: "3.11".
        extras: more of mlopsdeploy's.

    Raises:
        ConfigError: uv is missing, or the packages don't go together.
    """
    wheel = _own_wheel(folder)
    needed = _requirements(_declared(wheel), strategy, runtimes, tasks, extras, python)
    own = f"mlopsdeploy=={metadata.version('mlopsdeploy')}"
    sources = [str(requirement) for requirement in needed] + ([] if wheel else [own])
    try:
        packages, platforms, why = *_resolved(sources, python), ""
    except _OfflineError as error:
        packages, platforms, why = _installed(sources), (), str(error)
    if wheel is None:
        return Lock(packages, platforms=platforms, why_bare=why)
    content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Lock(packages, wheel.name, digest, len(content), platforms, why)


# ---------------------------------------------------------------- what is needed


def _requirements(
    declared: Sequence[Requirement],
    strategy: str,
    runtimes: set[str],
    tasks: set[str],
    extras: Sequence[str],
    python: str,
) -> Iterator[Requirement]:
    """Of mlopsdeploy's own requirements those that apply; no runtime but the chosen ones."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}

    def of(*chosen: str) -> list[Requirement]:
        environments = [{**linux, "python_version": python, "extra": extra} for extra in chosen]
        return [
            one
            for environment in environments
            for one in declared
            if one.marker and one.marker.evaluate(environment)
        ]

    def names(requirements: Sequence[Requirement]) -> set[str]:
        return {canonicalize_name(one.name) for one in requirements}

    asked = of(*runtimes, *extras)
    others = names(of(*(set(plugins.names("runtimes")) - runtimes))) - names(asked)
    of_tasks = [plugins.EXTRAS[task] for task in sorted(tasks & plugins.EXTRAS.keys())]
    main = [one for one in of(strategy, *of_tasks) if not names([one]) & others]
    always = [one for one in declared if not one.marker]
    wanted = [*always, *of(""), *main, *asked]
    for one in {str(one): one for one in wanted}.values():
        bare = Requirement(str(one))
        bare.marker = None
        bare.name = _HEADLESS if names([one]) == {_WINDOWED} else one.name
        yield bare


def _declared(wheel: Path | None) -> list[Requirement]:
    """From the wheel that is shipped: an editable installation's own may be out of date."""
    if wheel is None:
        found = metadata.distribution("mlopsdeploy")
    else:
        [found] = metadata.distributions(path=[str(wheel)])
    return [Requirement(line) for line in found.requires or ()]


# ---------------------------------------------------------------- mlopsdeploy itself


def _own_wheel(folder: Path) -> Path | None:
    """Our own wheel in `folder`, where we run from sources or were installed from a file."""
    origin = metadata.distribution("mlopsdeploy").read_text("direct_url.json")
    if not origin:
        return None
    address = urlsplit(json.loads(origin)["url"])
    source = Path(unquote(address.path))
    if address.scheme != "file" or not source.exists():
        return None
    if source.is_file():
        return Path(shutil.copy(source, folder)) if source.suffix == ".whl" else None
    done = _uv("build", "--wheel", "--no-create-gitignore", "--out-dir", str(folder), str(source))
    if done.returncode:
        reason = _last_line(done.stderr)
        raise MlopsDeployError(f"{source}: can't build mlopsdeploy's own wheel ({reason})")
    return next(folder.glob("mlopsdeploy-*.whl"))


# ---------------------------------------------------------------- which versions


class _OfflineError(Exception):
    """The index can't be reached."""


def _resolved(
    requirements: Sequence[str], python: str
) -> tuple[tuple[Package, ...], tuple[str, ...]]:
    """The versions with the hash of their wheel for each platform that all of them have."""
    found = {"amd64": _compile(requirements, _constraints(), python, PLATFORMS["amd64"])}
    versions = [f"{one['name']}=={one['version']}" for one in found["amd64"]]
    with suppress(ConfigError):  # a package without a wheel for arm64, which is reported
        found["arm64"] = _compile(versions, [], python, PLATFORMS["arm64"])
    hashes: dict[str, dict[str, None]] = {}
    for one in chain.from_iterable(found.values()):
        sums = {wheel["hashes"]["sha256"]: None for wheel in one["wheels"]}
        hashes[one["name"]] = hashes.get(one["name"], {}) | sums
    packages = tuple(
        Package(
            one["name"], one["version"], tuple(hashes[one["name"]]),
            bytes=sum(wheel.get("size", 0) for wheel in one["wheels"]),
            installed=_installed_bytes(one["name"], one["version"]),
        )
        for one in found["amd64"]
    )  # fmt: skip
    return packages, tuple(found)


def _compile(
    requirements: Sequence[str], constraints: Sequence[str], python: str, platform: str
) -> list[dict[str, Any]]:
    """The resolution as the `packages` of a PEP 751 lock: each has the one wheel that fits."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "requirements.in").write_text("\n".join(requirements) + "\n", "utf-8")
        (folder / "constraints.txt").write_text("\n".join(constraints) + "\n", "utf-8")
        done = _uv(
            "pip", "compile", str(folder / "requirements.in"),
            "--constraint", str(folder / "constraints.txt"),
            "--format", "pylock.toml",
            "--output-file", str(folder / "pylock.toml"),
            "--python-version", python,
            "--python-platform", platform,
            "--only-binary", ":all:",
            "--quiet",
        )  # fmt: skip
        if done.returncode:
            if re.search(r"error sending request|dns error|failed to fetch", done.stderr.lower()):
                raise _OfflineError("the package index could not be reached")
            raise ConfigError(f"the packages don't go together: {_last_line(done.stderr)}")
        lock = tomllib.loads((folder / "pylock.toml").read_text("utf-8"))
    packages: list[dict[str, Any]] = lock["packages"]
    return packages


def _constraints() -> list[str]:
    """What is installed here, as far as an index can have it."""
    installed = {
        canonicalize_name(one.metadata["Name"]): one.version
        for one in metadata.distributions()
        if one.metadata["Name"] and "+" not in one.version
    }
    installed.pop(canonicalize_name("mlopsdeploy"), None)
    if (windowed := canonicalize_name(_WINDOWED)) in installed:
        installed.setdefault(canonicalize_name(_HEADLESS), installed[windowed])
    return [f"{name}=={version}" for name, version in sorted(installed.items())]


def _installed_bytes(name: str, version: str) -> int:
    try:
        known = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return 0
    same = known.version.partition("+")[0] == version
    return sum(file.size or 0 for file in known.files or ()) if same else 0


def _installed(requirements: Sequence[str]) -> tuple[Package, ...]:
    """The versions that are installed here, followed from requirement to requirement."""
    found: dict[str, Package] = {}
    pending = [Requirement(line) for line in requirements]
    while pending:
        wanted = pending.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            known = metadata.distribution(_WINDOWED if name == _HEADLESS else name)
        except metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"the package index can't be reached, and {name} is not installed here either"
            ) from error
        version = known.version.partition("+")[0]
        found[name] = Package(name, version, installed=_installed_bytes(name, version))
        for line in known.requires or ():
            one = Requirement(line)
            if one.marker is None or any(
                one.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})
            ):
                pending.append(one)
    return tuple(found[name] for name in sorted(found))


def _uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    with needs("package", "package"):
        from uv import find_uv_bin
    return subprocess.run(
        [find_uv_bin(), *arguments, "--python", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
