"""The image, and how it is built and run: by hand, or by Docker Compose."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.plan import DATA, MODELS, USER, VENV, Plan, render
from mlopsdeploy.package.sizing import MIB

# The release of Debian decides glibc, which `lock.PLATFORMS` counts on.
DEBIAN = "bookworm"


def image_files(plan: Plan) -> dict[str, str]:
    """What `docker build` needs: from these and no other files an image is made."""
    kept = ["requirements.lock", plan.config_name]
    kept += [plan.lock.wheel] * bool(plan.lock.wheel) + ["models"] * plan.packages_models
    return {
        "Dockerfile": render(
            "Dockerfile.j2",
            plan,
            base=f"python:{plan.python}-slim-{DEBIAN}",
            venv=VENV,
            models_folder=MODELS,
            models=model_list(plan),
            image_version=plan.version,
            data=DATA,
            user=USER,
            ready=kubernetes.READY,
        ),
        ".dockerignore": "*\n" + "".join(f"!{name}\n" for name in kept),
    }


def docker(plan: Plan) -> dict[str, str]:
    """The image and a script that builds and runs it."""
    return {
        **image_files(plan),
        "run.sh": render(
            "run.sh.j2",
            plan,
            data=DATA,
            memory=kubernetes.memory(plan)[1] // MIB,
            device=device(plan),
            group=device_group(plan),
            lines_folder=lines_folder(plan),
            preview_port=preview_port(plan),
        ),
    }


def compose(plan: Plan) -> dict[str, str]:
    """The image and `compose.yaml`."""
    head = kubernetes.resources_head(plan) + (
        "\nOnly this machine reaches the port; put a proxy with TLS and a login in front."
    )
    document = kubernetes.filled("compose.yaml.j2", plan)
    return {**image_files(plan), "compose.yaml": kubernetes.dump(document, head)}


def model_list(plan: Plan) -> str:
    """`fraud 1.0.0, churn`."""
    return ", ".join(f"{model.name} {model.version}".strip() for model in plan.models)


def device(plan: Plan) -> str:
    """`/dev/video0` or `/dev/ttyUSB0` where the source is one of this machine, else nothing."""
    if "lines" in plan.settings:
        lines = str(plan.settings["lines"])
        return lines if lines.startswith("/dev/") else ""
    camera = str(plan.settings.get("camera", "0")) if plan.strategy == "edge" else ""
    if camera.isdigit():
        return f"/dev/video{camera}"
    return camera if camera.startswith("/dev/") else ""


def device_group(plan: Plan) -> str:
    """Whose members may open it, on most Linux machines."""
    return "dialout" if "lines" in plan.settings else "video"


def device_classes(plan: Plan) -> list[str]:
    """The device as /proc/devices calls its kind: it may be plugged in again under another name."""
    if "lines" not in plan.settings:
        return ["video4linux"]
    kind = re.fullmatch(r"/dev/(tty[A-Za-z]+)\d+", device(plan))
    return [kind[1]] if kind else ["ttyUSB", "ttyACM"]  # a link, as in /dev/serial/by-id


def lines_folder(plan: Plan) -> str:
    """The folder of a file of lines: the whole of it, as a rotated file is another one."""
    path = PurePosixPath(str(plan.settings.get("lines", "")))
    return "" if device(plan) or not path.is_absolute() else str(path.parent)


def preview_port(plan: Plan) -> str:
    """Of the page with the live picture, if there is one."""
    return str(plan.settings.get("preview") or "").rpartition(":")[2]
