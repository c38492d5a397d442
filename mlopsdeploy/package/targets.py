"""Which files a strategy has for a target, and the README that an operator reads first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.machines import airflow, cron, systemd
from mlopsdeploy.package.plan import Plan, render
from mlopsdeploy.package.sizing import MIB

# The release of Debian decides glibc, which `lock.PLATFORMS` counts on.
DEBIAN = "bookworm"


def image_files(plan: Plan) -> dict[str, str]:
    """What `docker build` needs: from these and no other files an image is made."""
    kept = ["requirements.lock", plan.config_name]
    kept += [plan.lock.wheel] * bool(plan.lock.wheel) + ["models"] * plan.packages_models
    return {
        "Dockerfile": render("Dockerfile.j2", plan, base=f"python:{plan.python}-slim-{DEBIAN}"),
        ".dockerignore": "*\n" + "".join(f"!{name}\n" for name in kept),
    }


def docker(plan: Plan) -> dict[str, str]:
    """A script that builds the image and runs it."""
    return {"run.sh": render("run.sh.j2", plan, memory=kubernetes.memory(plan)[1] // MIB)}


def compose(plan: Plan) -> dict[str, str]:
    """What runs the image on this machine, next to others."""
    head = kubernetes.resources_head(plan) + (
        "\nOnly this machine reaches the port; put a proxy with TLS and a login in front."
    )
    return {"compose.yaml": kubernetes.dump(kubernetes.filled("compose.yaml.j2", plan), head)}


_WRITERS: Mapping[str, Callable[[Plan], dict[str, str]]] = {
    "docker": docker,
    "compose": compose,
    "kubernetes": kubernetes.manifests,
    "systemd": systemd,
    "kserve": kubernetes.manifests,
    "cron": cron,
    "airflow": airflow,
    "ray": kubernetes.manifests,
}
_WHAT = {
    "Dockerfile": "the image: two stages, a user without rights, no pip and no training framework",
    ".dockerignore": "nothing else gets into the build",
    "requirements.lock": "exact versions of all packages",
    "compose.yaml": "the server, read-only, with limits and a log that does not grow",
    "install.sh": "installs it on this machine; run it again after a change",
    "run.sh": "starts it",
    "configmap.yaml": "the YAML, in the cluster",
    "deployment.yaml": "the pods, with probes and the time to drain",
    "service.yaml": "its name in the cluster",
    "pdb.yaml": "drained nodes take one pod at a time",
    "hpa.yaml": "as many pods as the CPU asks for",
    "networkpolicy.yaml": "in through one port, out to nowhere",
    "keda.yaml": "as many pods as requests ask for; in place of hpa.yaml",
    "servicemonitor.yaml": "for the Prometheus operator",
    "pvc.yaml": "the volume of input and output",
    "cronjob.yaml": "the run; one at a time, resumed where a pod was killed",
    "inferenceservice.yaml": "the server, under KServe",
    "rayjob.yaml": "the run, on a cluster that lives as long as it does",
    "package.json": "what was packaged, for programs",
    "models": "the models, with their sums",
}
_SUFFIXES = {
    ".service": "the unit",
    ".timer": "when it runs; a missed time is made up for",
    ".cron": "when it runs",
    ".whl": "mlopsdeploy itself",
    ".py": "the DAG",
}


def write_files(plan: Plan) -> dict[str, str]:
    """Text by path within the package."""
    files = {
        plan.config_name: plan.config,
        "requirements.lock": plan.lock.text(),
        **({} if plan.on_machine else image_files(plan)),
        **_WRITERS[plan.target](plan),
        "package.json": plan.record(),
    }
    files["README.md"] = readme(plan, list(files))
    return files


def readme(plan: Plan, paths: Sequence[str]) -> str:
    """What an operator reads first."""
    everything = [*paths, *[plan.lock.wheel] * bool(plan.lock.wheel)]
    everything += ["models"] * plan.packages_models
    requested, limit = kubernetes.memory(plan)
    described = [(f"`{path}`", _what(path, plan)) for path in sorted(everything)]
    return render(
        "README.md.j2",
        plan,
        size=size_line(plan),
        sizes=kubernetes.resources_head(plan),
        requested=requested // MIB,
        limit=limit // MIB,
        described=described,
    )


def _what(path: str, plan: Plan) -> str:
    name = path.rpartition("/")[2]
    if name == plan.config_name:
        return f"settings; 'mlopsdeploy {plan.strategy} --config {name}' takes the same"
    suffix = "." + name.rpartition(".")[2]
    return _WHAT.get(name) or _SUFFIXES[suffix]


def size_line(plan: Plan) -> str:
    """What the wheels add up to."""
    lock = plan.lock
    count = len(lock.packages) + bool(lock.wheel)
    if not lock.hashed:
        return f"{count} packages, without hashes: {lock.why_bare}."
    installed = sum(package.installed for package in lock.packages)
    unknown = [package.name for package in lock.packages if not package.installed]
    text = f"{count} wheels, {lock.bytes / 1e6:.0f} MB to download"
    if installed:
        text += f", {installed / 1e6:.0f} MB installed"
        text += f" (without {', '.join(unknown)})" if unknown else ""
    text += "; no training framework. Each has its SHA-256 in requirements.lock"
    if "arm64" not in lock.platforms:
        return text + ". Only for amd64: not all of them have a wheel for arm64."
    return text + ", for amd64 and arm64."
