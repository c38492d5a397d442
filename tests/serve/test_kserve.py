"""KServe's own client of the Open Inference Protocol, in an environment of its own."""

import json
import subprocess

import numpy as np
import pytest

# Speaks to a server as KServe's users do. Arguments: base URL, input's name, rows as JSON.
SCRIPT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, name, rows = sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3]), np.float32)

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    said = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "fraud"),
    }
    for binary in (False, True):
        tensor = InferInput(name, list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        asked = InferRequest(model_name="fraud", infer_inputs=[tensor], request_id="q1")
        got = await client.infer(url, asked, model_name="fraud")
        outputs = {output.name: output.as_numpy().tolist() for output in got.outputs}
        said["binary" if binary else "json"] = [got.model_name, got.id, outputs["scores"]]
    print(json.dumps(said))

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def kserve_python(environment):
    return environment("kserve", "kserve>=0.15,<0.22")


def test_kserves_client_just_works(kserve_python, server, fraud):
    rows = np.random.default_rng(7).normal(0, 2, (3, 30)).astype(np.float32)
    name = fraud.task.matrix.name
    done = subprocess.run(
        [str(kserve_python), "-c", SCRIPT, server.url, name, json.dumps(rows.tolist())],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["live"]
    assert said["ready"]
    assert said["model_ready"]
    expected = fraud.predict({name: rows})["scores"]
    for way in ("json", "binary"):
        model, request_id, scores = said[way]
        assert (model, request_id) == ("fraud", "q1")
        np.testing.assert_allclose(np.reshape(scores, expected.shape), expected, atol=1e-6)
