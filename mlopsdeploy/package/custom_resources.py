"""Resources of operators: KServe's InferenceService, and KubeRay's RayJob."""

from __future__ import annotations

from importlib import metadata

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.images import image_files
from mlopsdeploy.package.plan import Plan


def kserve(plan: Plan) -> dict[str, str]:
    """The image, the YAML and the InferenceService; `kubectl apply -f kserve/`.

    A server speaks the Open Inference Protocol already.
    """
    return {
        **image_files(plan),
        "kserve/configmap.yaml": kubernetes.dump(kubernetes.config_map(plan)),
        "kserve/inferenceservice.yaml": kubernetes.dump(
            inference_service(plan), head=kubernetes.resources_head(plan)
        ),
    }


def inference_service(plan: Plan) -> kubernetes.Object:
    """A predictor with a container of its own, as a plain Deployment.

    Knative is not asked for: it allows neither `preStop` nor volumes of one's own by default.
    """
    pod = kubernetes.server_pod(plan)
    pod["containers"] = [kubernetes.server_container(plan, "kserve-container")]
    spread = pod.pop("topologySpreadConstraints")
    for constraint in spread:
        # KServe labels the pods itself.
        constraint["labelSelector"] = {
            "matchLabels": {"serving.kserve.io/inferenceservice": plan.name}
        }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            **kubernetes.metadata(plan),
            "annotations": {
                "serving.kserve.io/deploymentMode": "RawDeployment",
                **kubernetes.pins(plan),
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": 2,
                "maxReplicas": 10,
                "scaleMetric": "cpu",
                "scaleTarget": kubernetes.TARGET_CPU,
                "timeout": 60,
                **pod,
                "topologySpreadConstraints": spread,
            }
        },
    }


def ray(plan: Plan) -> dict[str, str]:
    """The image, the YAML, the volume and the RayJob; `kubectl apply -f ray/`.

    KubeRay makes a cluster for the run, and takes it down after it.
    """
    return {
        **image_files(plan),
        "ray/configmap.yaml": kubernetes.dump(kubernetes.config_map(plan)),
        "ray/pvc.yaml": kubernetes.dump(
            kubernetes.volume_claim(plan),
            head="Only the head reads and writes it.",
        ),
        "ray/rayjob.yaml": kubernetes.dump(
            ray_job(plan),
            head=kubernetes.resources_head(plan)
            + "\nThe head reads and writes; the workers compute. A job that failed goes on from "
            "where\nit was when it is submitted again.",
        ),
    }


def ray_job(plan: Plan) -> kubernetes.Object:
    """One head with the data, two to eight workers with the model."""
    head, worker = kubernetes.batch_pod(plan), kubernetes.batch_pod(plan)
    for pod, name in ((head, "ray-head"), (worker, "ray-worker")):
        pod.pop("restartPolicy")
        container = pod["containers"][0]
        container["name"] = name
        # KubeRay writes the command that starts Ray.
        del container["args"]
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
        for volume in pod["volumes"]:
            if volume["name"] == "tmp":  # where Ray keeps its logs and what it spills
                volume["emptyDir"] = {"sizeLimit": "4Gi"}
        pod["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    worker["volumes"] = [one for one in worker["volumes"] if one["name"] != "data"]
    container = worker["containers"][0]
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != "data"]
    template = {"labels": kubernetes.labels(plan), "annotations": kubernetes.pins(plan)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": kubernetes.metadata(plan),
        "spec": {
            "entrypoint": " ".join([plan.program, *plan.arguments]),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "backoffLimit": 2,
            "rayClusterSpec": {
                "rayVersion": _version(),
                "headGroupSpec": {
                    # No work on the head: it reads, writes, and must not run out of memory.
                    "rayStartParams": {"num-cpus": "0"},
                    "template": {"metadata": template, "spec": head},
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": 2,
                        "minReplicas": 2,
                        "maxReplicas": 8,
                        "rayStartParams": {},
                        "template": {"metadata": template, "spec": worker},
                    }
                ],
            },
        },
    }


def _version() -> str:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError as error:
        raise ConfigError("batch --to ray needs Ray: pip install 'mlopsdeploy[ray]'") from error
