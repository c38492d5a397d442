"""How many pods: the autoscaler that Kubernetes has, and KEDA's, which looks at requests."""

from __future__ import annotations

from mlopsdeploy.package.kubernetes.objects import Object, metadata
from mlopsdeploy.package.plan import Plan

TARGET_CPU = 70  # percent
SHARE = 0.7  # of the measured capacity that a pod is meant to carry


def autoscaler(plan: Plan) -> Object:
    """On CPU, which a model keeps busy. Up at once, down after five quiet minutes."""
    usage = {"type": "Utilization", "averageUtilization": TARGET_CPU}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(plan),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
            "minReplicas": 2,
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": usage}}],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": 300},
            },
        },
    }


def _query(plan: Plan, rate: str) -> str:
    pods = f'pod=~"{plan.name}-.+"'
    return f"sum({rate.replace('{}', '{' + pods + '}')})"


def scaled_object(plan: Plan) -> Object:
    """KEDA: on the requests that are in work and, where it was measured, on the capacity.

    The seconds that requests took, per second, are how many were in work on average (Little's
    law): exact, where a gauge seen every 15 seconds misses all that comes between.
    """
    in_work = _query(plan, "rate(mlopsdeploy_request_seconds_sum{}[1m])")
    # One that is computed and one that waits, for each worker.
    queries = {"in-flight": (in_work, f"{2 * plan.workers}")}
    waiting = _query(plan, "avg_over_time(mlopsdeploy_queue{}[1m])")
    queries["queue"] = (waiting, f"{plan.workers}")
    if plan.measured:
        carried = SHARE * plan.workers * plan.measured.per_second
        rate = _query(plan, "rate(mlopsdeploy_requests_total{}[1m])")
        queries["requests"] = (rate, f"{carried:.0f}" if carried >= 10 else f"{carried:.2f}")
    triggers: list[Object] = [
        {
            "type": "prometheus",
            "name": name,
            "metadata": {
                "serverAddress": "http://prometheus-operated.monitoring.svc:9090",
                "query": query,
                "threshold": threshold,
                "ignoreNullValues": "false",
            },
        }
        for name, (query, threshold) in queries.items()
    ]
    usage = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(TARGET_CPU)}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(plan),
        "spec": {
            "scaleTargetRef": {"name": plan.name},
            "minReplicaCount": 2,
            "maxReplicaCount": 10,
            "pollingInterval": 15,
            "cooldownPeriod": 300,
            # Of pods, while Prometheus does not answer.
            "fallback": {"failureThreshold": 3, "replicas": 4},
            "triggers": [*triggers, usage],
        },
    }


def keda_head(plan: Plan) -> str:
    """What to know before it is applied."""
    said = (
        "In place of hpa.yaml, where KEDA runs: delete hpa.yaml first, there can be only one.\n"
        "Change the address of Prometheus. If pods of this name run in several namespaces, add\n"
        'namespace="..." to the queries. All thresholds are per pod.'
    )
    if plan.measured:
        said += f"\nrequests: {SHARE:.0%} of what was measured ({plan.measured.how})."
    return said
