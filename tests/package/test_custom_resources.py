"""Resources of KEDA, the Prometheus operator and KServe against models made from their schemas.

They live in environments of their own. KubeRay publishes no such package: of a RayJob only the pods
are checked.
"""

import json

import pytest

from .conftest import MEASURED
from .container import ran

# Reads resources of one kind into the typed models, and prints what they kept of each.
TYPED = """
import importlib, json, sys
model = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
kept = [model.model_validate(made) for made in map(json.loads, sys.argv[3:])]
print(json.dumps([
    one.model_dump(mode="json", by_alias=True, exclude_unset=True) for one in kept
]))
"""
# What fields KServe's own models have.
KSERVE = """
import json
from kserve import models
print(json.dumps({
    name: list(getattr(models, name).attribute_map.values())
    for name in ("V1beta1InferenceService", "V1beta1InferenceServiceSpec", "V1beta1PredictorSpec")
}))
"""


def run(python, script, *arguments):
    done = ran([str(python), "-c", script, *arguments])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("keda.yaml", "cloudcoil.models.keda.v1alpha1"),
        ("servicemonitor.yaml", "cloudcoil.models.prometheus_operator.v1"),
    ],
)
def test_typed_models_keep_every_field(environment, written, file, module):
    python = environment(
        "cloudcoil", "cloudcoil-models-keda>=2.16", "cloudcoil-models-prometheus-operator>=0.80"
    )
    made = written("serve", "kubernetes", measured=MEASURED)[f"kubernetes/variants/{file}"]
    # What a slip of a name would look like.
    slip = {**made, "spec": {**made["spec"], "nonsense": 1}}
    kept = run(python, TYPED, module, made["kind"], json.dumps(made), json.dumps(slip))
    assert kept[0] == made
    assert kept[1] != slip


def test_an_inference_service_has_only_fields_that_kserve_knows(environment, written):
    fields = run(environment("kserve", "kserve>=0.15,<0.22"), KSERVE)
    made = written("serve", "kserve")["kserve/inferenceservice.yaml"]
    assert made.keys() <= set(fields["V1beta1InferenceService"])
    assert made["spec"].keys() <= set(fields["V1beta1InferenceServiceSpec"])
    assert made["spec"]["predictor"].keys() <= set(fields["V1beta1PredictorSpec"])
    [container] = made["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"  # that KServe looks for
