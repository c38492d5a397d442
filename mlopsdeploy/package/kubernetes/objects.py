"""What all objects share: labels, the YAML in a ConfigMap, a container and its pod."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import yaml

from mlopsdeploy import __version__
from mlopsdeploy.package.kubernetes.resources import resources
from mlopsdeploy.package.plan import CONFIG, USER, Plan

Object = dict[str, Any]


def dump(*objects: Object, head: str = "") -> str:
    """YAML documents under a few lines of comment."""
    lines = [part for line in head.splitlines() for part in wrap(line, 98)]
    comment = "".join(f"# {line}\n" for line in lines)
    said = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)
    return comment + said


class _Plain(yaml.SafeDumper):
    """Without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def labels(plan: Plan) -> dict[str, str]:
    """The recommended ones (kubernetes.io/docs, "Recommended Labels")."""
    return {
        **selector(plan),
        "app.kubernetes.io/version": plan.version,
        "app.kubernetes.io/component": plan.strategy,
        "app.kubernetes.io/part-of": "mlopsdeploy",
        "app.kubernetes.io/managed-by": "mlopsdeploy",
    }


def selector(plan: Plan) -> dict[str, str]:
    """What never changes."""
    return {"app.kubernetes.io/name": plan.name, "app.kubernetes.io/instance": plan.name}


def pins(plan: Plan) -> dict[str, str]:
    """The pinned models; and the YAML's digest, so that a new YAML means new pods."""
    digests = {f"mlopsdeploy/model.{model.name[:50]}": model.digest for model in plan.models}
    return {"mlopsdeploy/version": __version__, "checksum/config": plan.config_digest, **digests}


def metadata(plan: Plan, suffix: str = "") -> Object:
    """Name and labels of an object."""
    return {"name": plan.name + suffix, "labels": labels(plan)}


def config_map(plan: Plan) -> Object:
    """The very YAML."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan),
        "data": {plan.config_name: plan.config},
    }


def container(plan: Plan, name: str) -> Object:
    """The container, without what only a server or only a batch has."""
    return {
        "name": name,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": plan.arguments,
        "resources": resources(plan),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


def pod(plan: Plan, containers: list[Object], **more: Any) -> Object:
    """A pod that meets the restricted Pod Security Standard."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **more,
        "containers": containers,
        "volumes": [
            {"name": "config", "configMap": {"name": plan.name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *more.get("volumes", ()),
        ],
    }
