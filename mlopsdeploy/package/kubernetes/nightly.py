"""A batch's objects: a CronJob on a volume, resumed by the next pod where one is killed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from cronsim import CronSim

from mlopsdeploy.package.kubernetes.objects import Object, container, labels, metadata, pins, pod
from mlopsdeploy.package.plan import DATA, Plan


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
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(plan, "-data"),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}},
        },
    }


def cron_job(plan: Plan) -> Object:
    """One run at a time, resumed by the next pod where one is killed.

    An exit code of 2, "asked wrongly", is not tried again; a node that is drained does not count
    as a failure.
    """
    policy = [
        {"action": "FailJob", "onExitCodes": {"containerName": "batch", "operator": "In",
                                              "values": [2]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]  # fmt: skip
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(plan),
        "spec": {
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
        },
    }


def shortest_gap(schedule: str) -> int:
    """Seconds between two runs: with `Forbid`, one that takes longer would stop the next."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = list(islice(CronSim(schedule, start), 50))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    shortest: timedelta = min(gaps, default=timedelta(days=1))
    return max(int(shortest.total_seconds()), 60)
