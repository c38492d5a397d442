"""A server as KServe's InferenceService: it speaks the Open Inference Protocol already."""

from __future__ import annotations

from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.images import image_files
from mlopsdeploy.package.plan import Plan


def kserve(plan: Plan) -> dict[str, str]:
    """The image, the YAML and the InferenceService; `kubectl apply -f kserve/`."""
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
