"""Objects of Kubernetes as Python dicts, and the files that hold them.

Written for 1.30 and later: `preStop.sleep` needs no shell in the image. Pods meet the restricted
Pod Security Standard.
"""

from __future__ import annotations

from mlopsdeploy.package.kubernetes.nightly import batch_pod, cron_job, shortest_gap, volume_claim
from mlopsdeploy.package.kubernetes.objects import Object, config_map, dump, labels, metadata, pins
from mlopsdeploy.package.kubernetes.resources import memory, resources_head
from mlopsdeploy.package.kubernetes.scaling import TARGET_CPU, autoscaler, keda_head, scaled_object
from mlopsdeploy.package.kubernetes.server import (
    MARGIN,
    READY,
    deployment,
    disruption_budget,
    network_policy,
    server_container,
    server_pod,
    service,
    service_monitor,
)
from mlopsdeploy.package.plan import DATA, Plan

__all__ = [
    "MARGIN",
    "READY",
    "TARGET_CPU",
    "Object",
    "batch",
    "batch_pod",
    "config_map",
    "dump",
    "labels",
    "memory",
    "metadata",
    "pins",
    "resources_head",
    "scaled_object",
    "serve",
    "server_container",
    "server_pod",
    "shortest_gap",
    "volume_claim",
]


def serve(plan: Plan) -> dict[str, str]:
    """Files of a server: `kubectl apply -f kubernetes/`; one variant may replace hpa.yaml."""
    return {
        "kubernetes/configmap.yaml": dump(config_map(plan)),
        "kubernetes/deployment.yaml": dump(deployment(plan), head=resources_head(plan)),
        "kubernetes/service.yaml": dump(service(plan)),
        "kubernetes/pdb.yaml": dump(disruption_budget(plan)),
        "kubernetes/hpa.yaml": dump(autoscaler(plan)),
        "kubernetes/networkpolicy.yaml": dump(
            network_policy(plan),
            head="The server calls nobody, so no data can leave through it. Anybody in the cluster"
            "\nmay call it; name namespaces under 'from' to let in fewer.",
        ),
        "kubernetes/variants/keda.yaml": dump(
            scaled_object(plan), head=keda_head(plan)
        ),
        "kubernetes/variants/servicemonitor.yaml": dump(
            service_monitor(plan),
            head="Where the Prometheus operator runs, which does not read annotations of pods.",
        ),
    }  # fmt: skip


def batch(plan: Plan) -> dict[str, str]:
    """Files of a nightly run: `kubectl apply -f kubernetes/`."""
    return {
        "kubernetes/configmap.yaml": dump(config_map(plan)),
        "kubernetes/pvc.yaml": dump(
            volume_claim(plan),
            head=f"Holds input and output, at {DATA}. A killed run's work stays on it, in "
            "OUTPUT.unfinished/,\nand the next pod goes on from there.",
        ),
        "kubernetes/cronjob.yaml": dump(cron_job(plan), head=resources_head(plan)),
    }
