"""Which files a strategy has for a target, and the README that an operator reads first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.images import compose, device, docker, image_files, lines_folder
from mlopsdeploy.package.machines import airflow, cron, systemd
from mlopsdeploy.package.plan import DATA, USER, Plan, render
from mlopsdeploy.package.sizing import MIB


def _cluster(plan: Plan) -> dict[str, str]:
    return {**image_files(plan), **kubernetes.manifests(plan)}


_WRITERS: Mapping[str, Callable[[Plan], dict[str, str]]] = {
    "docker": docker,
    "compose": compose,
    "kubernetes": _cluster,
    "systemd": systemd,
    "kserve": _cluster,
    "cron": cron,
    "airflow": airflow,
    "ray": _cluster,
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
        **_WRITERS[plan.target](plan),
        "package.json": plan.record(),
    }
    files["README.md"] = readme(plan, list(files))
    return files


def readme(plan: Plan, paths: Sequence[str]) -> str:
    """What an operator reads first."""
    everything = [*paths, *[plan.lock.wheel] * bool(plan.lock.wheel)]
    everything += ["models"] * plan.packages_models
    described = [(f"`{path}`", _what(path, plan)) for path in sorted(everything)]
    return render(
        "README.md.j2",
        plan,
        size=size_line(plan),
        steps="\n".join(steps(plan)),
        changes=changes(plan),
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


def steps(plan: Plan) -> list[str]:
    """At most three commands."""
    build = [f"docker build --tag {plan.image} .", f"docker push {plan.image}"]
    return {
        "docker": ["./run.sh", f"docker logs --follow {plan.name}"],
        "compose": ["docker compose up --build --detach --wait"],
        "kubernetes": [*build, "kubectl apply --filename kubernetes/"],
        "kserve": [*build, "kubectl apply --filename kserve/"],
        "ray": [*build, "kubectl apply --filename ray/"],
        "systemd": [
            "sudo ./install.sh",
            f"systemctl status {plan.name}{'.timer' if plan.strategy == 'batch' else ''}",
            f"journalctl --unit {plan.name} --follow",
        ],
        "cron": ["sudo ./install.sh", f"sudo -u {plan.name} {plan.home}/run.sh"],
        "airflow": [
            "sudo ./install.sh",
            f'cp dags/{plan.name.replace("-", "_")}.py "$AIRFLOW_HOME/dags/"',
            f"airflow dags unpause {plan.name}",
        ],
    }[plan.target]


def changes(plan: Plan) -> list[str]:
    """What an operator most likely wants otherwise."""
    lines = [f"Settings: `{plan.config_name}`" + _also(plan)]
    if not plan.on_machine:
        lines.append(
            "The base image is pinned by its tag. To pin it by digest, build with "
            "`--build-arg PYTHON_IMAGE=python@sha256:…`, as `docker buildx imagetools inspect` "
            "shows it."
        )
    if plan.target in ("kubernetes", "kserve", "ray"):
        lines.append(
            f"The image's name is `{plan.image}`; `--image registry/name:tag` of "
            "`mlopsdeploy package` writes your registry's into all files."
        )
        requested, limit = kubernetes.memory(plan)
        lines.append(
            f"Memory: {requested // MIB} MiB requested, {limit // MIB} MiB allowed. "
            + " ".join(kubernetes.resources_head(plan).splitlines())
        )
    if plan.strategy == "serve":
        lines.append(
            "There is no TLS and no login here: put a proxy or an ingress with both in front."
        )
    if plan.strategy == "batch":
        where = f"/var/lib/{plan.name}" if plan.on_machine else f"{DATA}, on the volume"
        lines.append(f"Relative paths in the settings begin at {where}.")
        zone = "UTC" if plan.target in ("kubernetes", "airflow") else "the machine's own time"
        if plan.target != "ray":
            lines.append(f"When: `{plan.schedule}`, in {zone}.")
        lines.append(f"Passwords of databases and stores: as KEY=value in {secret(plan)}.")
    if plan.strategy == "edge" and device(plan):
        what = "device of the lines" if "lines" in plan.settings else "camera"
        lines.append(f"The {what} is {device(plan)}.")
    if lines_folder(plan):
        who = "the unit's user" if plan.on_machine else f"user {USER} of the image"
        lines.append(
            f"Lines are read from {plan.settings['lines']}, which {who} must be able to read."
        )
    return lines


def secret(plan: Plan) -> str:
    """Where passwords go, as variables of the environment; they win over the YAML."""
    if plan.target == "airflow":
        return "the DAG's env, from a Variable of Airflow"
    if plan.target == "docker":
        return "secrets.env next to run.sh"
    return f"/etc/{plan.name}.env" if plan.on_machine else f"the Secret {plan.name}"


def _also(plan: Plan) -> str:
    if plan.target in ("kubernetes", "kserve", "ray"):
        return (
            "; package again after a change, so that the ConfigMap and the pods follow. "
            "'digest' pins each model: another one is refused at the start"
            if any("digest" in one for one in _model_settings(plan))
            else "; package again after a change, so that the ConfigMap and the pods follow."
        )
    return "."


def _model_settings(plan: Plan) -> Sequence[Mapping[str, object]]:
    models: Sequence[Mapping[str, object]] = plan.settings.get("models", (plan.settings,))
    return models
