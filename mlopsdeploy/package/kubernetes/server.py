"""A server's objects: a Deployment whose probes match the drain, and what stands around it."""

from __future__ import annotations

import math

from mlopsdeploy.package.kubernetes.objects import (
    Object,
    container,
    labels,
    metadata,
    pins,
    pod,
    selector,
)
from mlopsdeploy.package.plan import Plan

LIVE, READY = "/healthz", "/readyz"
# Seconds between "this pod goes" and SIGTERM, in which load balancers stop sending to it.
LEAVE = 5
# Seconds that the processes get beyond the drain, to end.
MARGIN = 5


def probe(path: str, **numbers: int) -> Object:
    """Of the HTTP endpoint that a server answers it at."""
    return {"httpGet": {"path": path, "port": "http"}, **numbers}


def server_container(plan: Plan, name: str = "serve") -> Object:
    """A server with its probes, and the time that it needs to leave."""
    return {
        **container(plan, name),
        "ports": [{"name": "http", "containerPort": plan.port, "protocol": "TCP"}],
        # Two minutes to load; after that only a hung server is restarted, and a pod that leaves
        # or is not ready gets no requests.
        "startupProbe": probe(READY, periodSeconds=2, timeoutSeconds=2, failureThreshold=60),
        "readinessProbe": probe(READY, periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": probe(LIVE, periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE}}},
    }


def grace(plan: Plan) -> int:
    """Seconds from "go" to SIGKILL: load balancers notice, requests in work are answered, end."""
    return LEAVE + math.ceil(plan.drain) + MARGIN


def server_pod(plan: Plan) -> Object:
    """Spread over nodes and zones, with the time to drain."""
    spread = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(plan)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return pod(
        plan,
        [server_container(plan)],
        terminationGracePeriodSeconds=grace(plan),
        topologySpreadConstraints=spread,
    )


def deployment(plan: Plan) -> Object:
    """Two pods at least. It has no `replicas`: the autoscaler alone says how many."""
    prometheus = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(plan.port),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan),
        "spec": {
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": selector(plan)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {
                    "labels": labels(plan),
                    "annotations": {**pins(plan), **prometheus},
                },
                "spec": server_pod(plan),
            },
        },
    }


def service(plan: Plan) -> Object:
    """Port 80 within the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(plan),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def disruption_budget(plan: Plan) -> Object:
    """A drained node takes one pod at a time; one that is sick anyway does not hold it up."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(plan),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(plan)},
        },
    }


def network_policy(plan: Plan) -> Object:
    """In through the one port, out to nowhere."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan),
        "spec": {
            "podSelector": {"matchLabels": selector(plan)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}],
            "egress": [],
        },
    }


def service_monitor(plan: Plan) -> Object:
    """What the Prometheus operator reads."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(plan),
        "spec": {
            "selector": {"matchLabels": selector(plan)},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
        },
    }
