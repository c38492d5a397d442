"""What `docker build` and `docker run` do with our Dockerfiles, without Docker.

There is no daemon to be had where these tests run, so the Dockerfile's own instructions are
carried out in a root of their own: this machine's /usr, read-only, with this Python in
/usr/local, stands in for the base image, and a mount namespace for the container. What runs has
the image's command line, user, environment and working directory, a read-only root, an empty
/tmp, no capabilities and no way to gain any.

Not tried that way: the base image itself, seccomp, cgroup limits, other platforms.
"""

from __future__ import annotations

import ensurepip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Where a package index is, for pip alone.
PASSED = ("PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def ran(
    command: list[str], timeout: float = 120, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that came to its end, whichever."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, env=env
    )


def needed() -> None:
    """Skip where it can't be done."""
    if os.geteuid():
        pytest.skip("only root can give a process a root of its own")
    if not (Path(sys.base_prefix) / "bin" / "python").exists():
        pytest.skip("this Python is the system's own, and can't stand in for the base image's")
    tried = ran(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
    if tried.returncode:
        pytest.skip(f"no mounts here: {tried.stderr.strip()}")


def index() -> dict[str, str]:
    """What tells pip where the package index is."""
    return {name: v for name, v in os.environ.items() if name.upper().startswith(PASSED)}


def hashed(folder: Path) -> None:
    """Skip where the package was made without the index."""
    if "--hash" not in (folder / "requirements.lock").read_text("utf-8"):
        pytest.skip("the package index can't be reached")


@dataclass
class Root:
    """A root file system: this machine's /usr, a copy of its /etc, and folders of its own."""

    path: Path

    def __post_init__(self) -> None:
        for name in (sys.base_prefix[1:], "usr", "dev", "proc", "tmp", "opt", "var/lib", "run"):
            (self.path / name).mkdir(parents=True)
        subprocess.run(["cp", "-a", "/etc", str(self.path / "etc")], check=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                (self.path / name).symlink_to(Path("/", name).readlink())
        (self.path / "tmp").chmod(0o1777)

    def inside(self, path: str) -> Path:
        """Where a path of the container is on this machine."""
        return self.path / path.lstrip("/")

    def command(
        self,
        command: list[str],
        *,
        env: dict[str, str],
        cwd: str = "/",
        user: str = "0:0",
        read_only: bool = False,
        volumes: dict[str, Path] | None = None,
        network: bool = True,
    ) -> list[str]:
        """The command line that runs `command` in there; its process becomes the command's."""
        root = shlex.quote(str(self.path))
        lines = [
            "set -e",
            f"mount --bind {root} {root}",
            f"mount --rbind -o ro /usr {root}/usr && mount -o remount,bind,ro {root}/usr",
            # Twice: its modules may name libraries at the place that it was built for.
            *(
                f"mount --bind {shlex.quote(sys.base_prefix)} {root}{place}"
                f" && mount -o remount,bind,ro {root}{place}"
                for place in ("/usr/local", shlex.quote(sys.base_prefix))
            ),
            f"mount --rbind /dev {root}/dev && mount --rbind /proc {root}/proc",
        ]
        if read_only:
            lines += [
                f"mount -o remount,bind,ro {root}",
                f"mount -t tmpfs -o mode=1777,size=256m none {root}/tmp",
            ]
        for place, source in (volumes or {}).items():
            lines.append(f"mount --bind {shlex.quote(str(source))} {root}{place}")
        uid, _, gid = user.partition(":")
        rights = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        if uid != "0":
            rights += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        variables = ["env", "-i", *(f"{name}={value}" for name, value in env.items())]
        inner = f"cd {shlex.quote(cwd)} && exec {shlex.join([*rights, *variables, *command])}"
        lines.append(f"exec chroot {root} /bin/sh -c {shlex.quote(inner)}")
        namespaces = ["--mount", *(() if network else ("--net",))]
        return ["unshare", *namespaces, "/bin/sh", "-c", "\n".join(lines)]


@dataclass
class Image:
    """What a Dockerfile makes."""

    root: Root
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str = "0:0"
    commands: dict[str, list[str]] = field(default_factory=dict)  # ENTRYPOINT, CMD, HEALTHCHECK

    def command(self, **options) -> list[str]:
        """Runs the container."""
        command = [*self.commands["ENTRYPOINT"], *self.commands["CMD"]]
        return self.root.command(
            command, env=self.env, cwd=self.cwd, user=self.user, read_only=True, **options
        )

    def healthy(self) -> bool:
        """What HEALTHCHECK says."""
        health = self.commands["HEALTHCHECK"]
        command = self.root.command(health, env=self.env, user=self.user, read_only=True)
        return not ran(command).returncode


def build(context: Path, roots: Path) -> Image:
    """Carry out the Dockerfile of `context`; instructions it does not know are an error."""
    stages: dict[str, Image] = {}
    image = Image(Root(roots / "none"))
    for line in _instructions(context / "Dockerfile"):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "final"
            path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
            image = stages[name] = Image(Root(roots / name), env=path)
        elif word == "WORKDIR":
            image.cwd = rest
            image.root.inside(rest).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            for name, value in (part.split("=", 1) for part in shlex.split(rest)):
                image.env[name] = value.replace("$PATH", image.env["PATH"])
        elif word == "COPY":
            _copy(image, stages, context, rest)
        elif word == "RUN":
            env = {**image.env, **index(), "PYTHONPATH": _pip(image.root)}
            command = image.root.command(["/bin/sh", "-c", rest], env=env, cwd=image.cwd)
            done = ran(command, timeout=280)
            assert done.returncode == 0, done.stderr[-2000:]
        elif word == "USER":
            image.user = rest
        elif word in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):
            image.commands[word] = json.loads(rest.rpartition("CMD ")[2])
        else:
            assert word in ("ARG", "LABEL", "EXPOSE"), line
    return image


def _pip(root: Root) -> str:
    """The base image has pip; ours may not, but every Python brings one along for its venvs."""
    place = root.inside("/opt/pip")
    if not place.exists():
        wheel = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
        zipfile.ZipFile(wheel).extractall(place)
    return "/opt/pip"


def _instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"(?m)^#.*\n", "", dockerfile.read_text("utf-8"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip()]


def _copy(image: Image, stages: dict[str, Image], context: Path, rest: str) -> None:
    options = dict(re.findall(r"--(\w+)=(\S+)", rest))
    *sources, target = [part for part in rest.split() if not part.startswith("--")]
    for source in sources:
        stage = stages.get(options.get("from", ""))
        start = stage.root.inside(source) if stage else context / source
        end = image.root.inside(target if target.startswith("/") else f"{image.cwd}/{target}")
        if target.endswith("/"):
            end /= Path(source).name
        end.parent.mkdir(parents=True, exist_ok=True)
        if start.is_dir():
            shutil.copytree(start, end, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copyfile(start, end)
        if "chmod" in options:
            subprocess.run(["chmod", "-R", options["chmod"], str(end)], check=True)
