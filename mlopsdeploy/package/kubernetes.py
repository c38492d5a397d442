"""Objects of Kubernetes as Python dicts, and the files that hold them.

Written for 1.30 and later: `preStop.sleep` needs no shell in the image. Pods meet the restricted
Pod Security Standard.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from textwrap import wrap
from typing import Any

import yaml
from cronsim import CronSim

from mlopsdeploy import __version__
from mlopsdeploy.core.images import MAX_PIXELS
from mlopsdeploy.package.plan import CONFIG, DATA, USER, Plan
from mlopsdeploy.package.sizing import MIB
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES

Object = dict[str, Any]
_PICTURES = ("image_classification", "object_detection")
LIVE, READY = "/healthz", "/readyz"
# Seconds between "this pod goes" and SIGTERM, in which load balancers stop sending to it.
LEAVE = 5
# Seconds that the processes get beyond the drain, to end.
MARGIN = 5
TARGET_CPU = 70  # percent
SHARE = 0.7  # of the measured capacity that a pod is meant to carry


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


# ---------------------------------------------------------------- what all objects share


def dump(one: Object, head: str = "") -> str:
    """YAML under a few lines of comment."""
    lines = [part for line in head.splitlines() for part in wrap(line, 98)]
    comment = "".join(f"# {line}\n" for line in lines)
    return comment + yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)


class _Plain(yaml.SafeDumper):
    """Without anchors: what comes twice is written twice."""

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


def resource(plan: Plan, api: str, kind: str, spec: Object, suffix: str = "") -> Object:
    """An object with the plan's name and labels."""
    return {"apiVersion": api, "kind": kind, "metadata": metadata(plan, suffix), "spec": spec}


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


def resources(plan: Plan) -> dict[str, Any]:
    """Requests and limits. No limit of CPU: it would throttle a pod whose node has time."""
    requested, limit = memory(plan)
    cpu = plan.workers if plan.strategy == "serve" else int(plan.settings.get("threads") or 1)
    return {
        "requests": {"cpu": str(cpu), "memory": f"{requested // MIB}Mi"},
        "limits": {"memory": f"{limit // MIB}Mi"},
    }


def memory(plan: Plan) -> tuple[int, int]:
    """Bytes to request and to allow.

    Measured: a fifth more than was seen. Not measured: half a GiB and four times the model, for
    each worker. On top, in the limit, of a server what its threads can hold of the largest bodies
    (twice: raw and parsed) and of the largest picture, decoded; of a batch as much again.
    """
    measured = plan.measured
    if measured is None:
        model = sum(model.bytes for model in plan.models)
        requested = plan.workers * (512 * MIB + 4 * model)
    else:
        requested = int(1.2 * (measured.memory + (plan.workers - 1) * measured.worker))
    bodies = 0
    if plan.strategy == "serve":
        threads = int(plan.settings.get("request_threads", 16))
        pictures = any(model.task in _PICTURES for model in plan.models)
        largest = plan.settings.get("max_body") or (MAX_BODY_OF_PICTURES if pictures else MAX_BODY)
        bodies = plan.workers * (2 * threads * int(largest) + 3 * MAX_PIXELS * pictures)
    return _round_up(requested), _round_up(requested + (bodies or requested))


def _round_up(size: int) -> int:
    return math.ceil(size / (64 * MIB)) * 64 * MIB


def resources_head(plan: Plan) -> str:
    """Where the numbers come from."""
    measured = plan.measured
    if measured is None:
        return (
            "Memory is a careful guess: half a GiB and four times the model for each worker.\n"
            "'mlopsdeploy package --measure' puts in what a run takes."
        )
    took = f"{measured.memory / MIB:.0f} MiB"
    unit = "requests/s" if plan.strategy == "serve" else "rows/s"
    return (
        f"Measured: {took}, {measured.per_second:,.0f} {unit}\n({measured.how}).\n"
        "Memory: a fifth more than that is requested; the limit leaves room for the largest input."
    )


# ---------------------------------------------------------------- a server


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
    spec = {
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
    }
    return resource(plan, "apps/v1", "Deployment", spec)


def service(plan: Plan) -> Object:
    """Port 80 within the cluster."""
    spec = {
        "type": "ClusterIP",
        "selector": selector(plan),
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }
    return resource(plan, "v1", "Service", spec)


def disruption_budget(plan: Plan) -> Object:
    """A drained node takes one pod at a time; one that is sick anyway does not hold it up."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(plan)},
    }
    return resource(plan, "policy/v1", "PodDisruptionBudget", spec)


def network_policy(plan: Plan) -> Object:
    """In through the one port, out to nowhere."""
    spec = {
        "podSelector": {"matchLabels": selector(plan)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}],
        "egress": [],
    }
    return resource(plan, "networking.k8s.io/v1", "NetworkPolicy", spec)


def service_monitor(plan: Plan) -> Object:
    """What the Prometheus operator reads."""
    spec = {
        "selector": {"matchLabels": selector(plan)},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
    }
    return resource(plan, "monitoring.coreos.com/v1", "ServiceMonitor", spec)


def autoscaler(plan: Plan) -> Object:
    """On CPU, which a model keeps busy. Up at once, down after five quiet minutes."""
    usage = {"type": "Utilization", "averageUtilization": TARGET_CPU}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": usage}}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0},
            "scaleDown": {"stabilizationWindowSeconds": 300},
        },
    }
    return resource(plan, "autoscaling/v2", "HorizontalPodAutoscaler", spec)


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
    spec = {
        "scaleTargetRef": {"name": plan.name},
        "minReplicaCount": 2,
        "maxReplicaCount": 10,
        "pollingInterval": 15,
        "cooldownPeriod": 300,
        # Of pods, while Prometheus does not answer.
        "fallback": {"failureThreshold": 3, "replicas": 4},
        "triggers": [*triggers, usage],
    }
    return resource(plan, "keda.sh/v1alpha1", "ScaledObject", spec)


def keda_head(plan: Plan) -> str:
    """What to know before it is applied."""
    text = (
        "In place of hpa.yaml, where KEDA runs: delete hpa.yaml first, there can be only one.\n"
        "Change the address of Prometheus. If pods of this name run in several namespaces, add\n"
        'namespace="..." to the queries. All thresholds are per pod.'
    )
    if plan.measured:
        text += f"\nrequests: {SHARE:.0%} of what was measured ({plan.measured.how})."
    return text


# ---------------------------------------------------------------- a nightly run


def batch_pod(plan: Plan) -> Object:
    """A run on the volume; what databases and stores ask for comes from a Secret, if any."""
    job = container(plan, "batch")
    job["volumeMounts"].append({"name": "data", "mountPath": DATA})
    job["workingDir"] = DATA
    job["envFrom"] = [{"secretRef": {"name": plan.name, "optional": True}}]
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": f"{plan.name}-data"}}
    return pod(
        plan,
        [job],
        restartPolicy="Never",
        terminationGracePeriodSeconds=60,
        volumes=[claim],
    )


def volume_claim(plan: Plan) -> Object:
    """Where the data are."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "10Gi"}},
    }
    return resource(plan, "v1", "PersistentVolumeClaim", spec, "-data")


def cron_job(plan: Plan) -> Object:
    """One run at a time, resumed by the next pod where one is killed.

    An exit code of 2, a usage error, is not tried again; a node that is drained does not count
    as a failure.
    """
    policy = [
        {"action": "FailJob", "onExitCodes": {"containerName": "batch", "operator": "In",
                                              "values": [2]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]  # fmt: skip
    spec = {
        "schedule": plan.schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "metadata": {"labels": labels(plan)},
            "spec": {
                "backoffLimit": 6,
                "activeDeadlineSeconds": shortest_gap(plan.schedule),
                "podFailurePolicy": {"rules": policy},
                "template": {
                    "metadata": {"labels": labels(plan), "annotations": pins(plan)},
                    "spec": batch_pod(plan),
                },
            },
        },
    }
    return resource(plan, "batch/v1", "CronJob", spec)


def shortest_gap(schedule: str) -> int:
    """Seconds between two runs: with `Forbid`, one that takes longer would stop the next."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = list(islice(CronSim(schedule, start), 50))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    shortest: timedelta = min(gaps, default=timedelta(days=1))
    return max(int(shortest.total_seconds()), 60)
