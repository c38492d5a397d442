"""A server under Docker Compose."""

from __future__ import annotations

import math

from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.images import image_files
from mlopsdeploy.package.plan import Plan
from mlopsdeploy.package.sizing import MIB


def compose(plan: Plan) -> dict[str, str]:
    """The image and `compose.yaml`. Its health check is the image's."""
    requested, limit = kubernetes.memory(plan)
    server = {
        "image": plan.image,
        "build": {"context": "."},
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp:size=256m"],  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ports": [f"127.0.0.1:{plan.port}:{plan.port}"],
        "volumes": [f"./{plan.config_name}:{plan.config_path}:ro"],
        "stop_grace_period": f"{math.ceil(plan.drain) + kubernetes.MARGIN}s",
        "deploy": {
            "resources": {
                "limits": {"cpus": str(plan.workers), "memory": f"{limit // MIB}M", "pids": 512},
                "reservations": {"memory": f"{requested // MIB}M"},
            }
        },
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    head = kubernetes.resources_head(plan) + (
        "\nOnly this machine reaches the port; put a proxy with TLS and a login in front."
    )
    document = {"name": plan.name, "services": {"serve": server}}
    return {**image_files(plan), "compose.yaml": kubernetes.dump(document, head=head)}
