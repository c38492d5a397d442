"""How the objects fit together; that each is well formed is seen in test_targets.py."""

import re

import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.package import kubernetes
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.settings import MAX_BODY

from .conftest import MEASURED


@pytest.fixture
def serve(written):
    files = written("serve", "kubernetes")
    return {path.partition("/")[2]: made for path, made in files.items() if "kubernetes/" in path}


@pytest.fixture
def pod(serve):
    return serve["deployment.yaml"]["spec"]["template"]["spec"]


def test_selectors_meet_the_pods(serve):
    labels = serve["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        serve["deployment.yaml"]["spec"]["selector"]["matchLabels"],
        serve["service.yaml"]["spec"]["selector"],
        serve["pdb.yaml"]["spec"]["selector"]["matchLabels"],
        serve["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    monitor = serve["variants/servicemonitor.yaml"]["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= serve["service.yaml"]["metadata"]["labels"].items()
    target = serve["hpa.yaml"]["spec"]["scaleTargetRef"]["name"]
    assert target == serve["deployment.yaml"]["metadata"]["name"]
    assert "replicas" not in serve["deployment.yaml"]["spec"]  # the autoscaler's


def test_a_pod_meets_the_restricted_standard(pod, written):
    """Pod Security Standards, "restricted": kubernetes.io/docs/concepts/security."""
    cron = written("batch", "kubernetes")["kubernetes/cronjob.yaml"]
    for one in (pod, cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]):
        assert one["securityContext"]["runAsNonRoot"]
        assert one["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not one["automountServiceAccountToken"]
        [container] = one["containers"]
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"]
        kinds = {key for volume in one["volumes"] for key in volume} - {"name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim"}


def test_the_grace_period_covers_leaving_and_draining(pod):
    [container] = pod["containers"]
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= leaving + 20


def test_a_new_yaml_means_new_pods(written):
    def checksum(**settings):
        settings = {"models": [{"model": "fraud"}], **settings}
        deployment = written("serve", "kubernetes", settings=settings)["kubernetes/deployment.yaml"]
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum()
    assert checksum() != checksum(threshold=0.4)


@pytest.mark.parametrize("text", ["plain", "a: 'b' # \u2028\x85😀\t{{ c }}"])
def test_the_config_map_holds_the_yaml_at_the_place_that_is_read(pod, written, plan, text):
    settings = {"models": [{"model": text}]}
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    data = written("serve", "kubernetes", settings=settings)["kubernetes/configmap.yaml"]["data"]
    made = plan("serve", "kubernetes", settings=settings)
    assert {f"{mounts['config']}/{name}": held for name, held in data.items()} == {
        made.config_path: made.config
    }


def test_memory_comes_from_what_was_measured(plan):
    requested, limit = kubernetes.memory(plan("serve", "kubernetes", measured=MEASURED))
    # Parent and two workers of 60 MiB, and a fifth more.
    assert requested >= 1.2 * (100 + 60) * 2**20
    assert requested < 1.2 * (100 + 60) * 2**20 + 64 * 2**20
    bodies = 2 * 16 * MAX_BODY * 2
    assert limit >= requested + bodies
    guessed, _ = kubernetes.memory(plan("serve", "kubernetes"))
    assert guessed >= 1024 * 2**20


def test_keda_asks_for_numbers_that_the_server_gives(written):
    metrics = Metrics({"fraud": load_model("fraud", threads=1)})
    metrics.of("fraud").started()
    metrics.of("fraud").answered(200, 0.001, 1)
    given = metrics.text().decode()
    names = set(re.findall(r"^(mlopsdeploy_\w+)", given, re.MULTILINE))
    made = written("serve", "kubernetes", measured=MEASURED)["kubernetes/variants/keda.yaml"]
    triggers = made["spec"]["triggers"]
    queries = [one["metadata"]["query"] for one in triggers if one["type"] == "prometheus"]
    assert len(queries) == 3
    for query in queries:
        [name] = re.findall(r"mlopsdeploy_\w+", query)
        assert name in names, names
    by_name = {one.get("name"): one["metadata"] for one in triggers}
    # Two workers of 1,000 requests/s each, at 70 %.
    assert by_name["requests"]["threshold"] == "1400"
    assert by_name["queue"]["threshold"] == "2"


def test_a_killed_pod_is_followed_and_a_wrong_question_is_not(written):
    files = written("batch", "kubernetes", schedule="*/30 * * * *")
    spec = files["kubernetes/cronjob.yaml"]["spec"]
    job = spec["jobTemplate"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job["activeDeadlineSeconds"] == 1800  # until the next one is due
    wrong = job["podFailurePolicy"]["rules"][0]
    assert wrong["action"] == "FailJob"
    assert wrong["onExitCodes"]["values"] == [2]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert wrong["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["containers"][0]["workingDir"] == "/data"


def test_ray_keeps_the_data_on_the_head(written):
    pytest.importorskip("ray")
    job = written("batch", "ray")["ray/rayjob.yaml"]["spec"]
    cluster = job["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    [group] = cluster["workerGroupSpecs"]
    worker = group["template"]["spec"]
    assert "data" in {volume["name"] for volume in head["volumes"]}
    assert "data" not in {volume["name"] for volume in worker["volumes"]}
    assert job["entrypoint"] == "mlopsdeploy batch --config /etc/mlopsdeploy/batch.yaml"
