"""What the largest allowed requests take of memory, beside what `package` allows a worker."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlopsdeploy.core import machine
from mlopsdeploy.core.images import MAX_PIXELS
from mlopsdeploy.package import kubernetes
from mlopsdeploy.package.lock import Lock
from mlopsdeploy.package.plan import PackedModel, Plan
from mlopsdeploy.settings import MAX_BODY

JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


def in_json(key, row, end="]}"):
    """As many of a row as a body may hold, none of which need be what the model takes."""
    start = f'{{"{key}": ['.encode()
    count = (MAX_BODY - len(start) - len(end) - len(row)) // (len(row) + 1)
    return start + (row + b",") * count + row + end.encode()


def png(side):
    """A picture of one colour, square, in few bytes."""

    def chunk(name, data):
        sum_of = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + sum_of

    size = side.to_bytes(4, "big")
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", size * 2 + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def allowed(**model):
    """Bytes that `package` allows a server with one worker, in which nothing was measured."""
    one = PackedModel(
        "m", "1", "ab" * 32, "m", built_in=True, runtime="onnxruntime", bytes=0,
        **{"task": "", "data": "table"} | model,
    )  # fmt: skip
    lock = Lock((), "w.whl", "34" * 32, 0, ("amd64",))
    settings = {"workers": 1, "threads": 1}
    return kubernetes.memory(Plan("serve", "kubernetes", "m", settings, (one,), lock, "3.11"))[1]


@pytest.mark.parametrize("model", ["fraud", "sentiment", "sentiment-zh"])
def test_the_largest_requests_fit_into_what_is_allowed(serve, model):
    server = serve("--workers", "1", "--model", model, runtime="auto", threads=1)
    path, key = "/detect_fraud", "transaction_data"
    bodies = [in_json(key, row) for row in (b"[]", b"[0.5]", b"0.5", b"0", b"{}", b'""')]
    if model != "fraud":
        path, key = f"/v1/models/{model}:predict", "instances"
        texts = ("good ", "x", "a ", "!", "\u0301", " ")
        texts = [text.encode() * (MAX_BODY // len(text.encode()) - 100) for text in texts]
        bodies += [f'{{"{key}": "'.encode() + text + b'"}' for text in texts]
        bodies += [json.dumps({key: ["good " * 800] * 20}).encode(), in_json(key, b'"a"')]
    else:
        bodies += [json.dumps({key: [[0.1234567] * 30] * 10_000}).encode()]
    with ThreadPoolExecutor(4) as pool:
        statuses = {*pool.map(lambda body: server.call("POST", path, body, JSON).status, bodies)}
    assert {200, 413, 422} <= statuses <= {200, 413, 422, 503}  # some would wait too long
    [worker] = server.workers
    data = "table" if model == "fraud" else "text"
    assert machine.peak_memory(worker) < allowed(data=data) - 32 * MAX_BODY  # as 16 may wait


def test_the_largest_pictures_fit_into_what_is_allowed(serve):
    server = serve("--workers", "1", "--model", "detector", runtime="auto", threads=1)
    path = "/v1/models/detector:predict"
    side = int(MAX_PIXELS**0.5)
    assert server.call("POST", path, png(side), PNG).status == 200
    refused = server.call("POST", path, png(side + 1), PNG)
    assert refused.status == 422
    assert "the picture has more than 67,108,864 pixels" in refused.json["detail"]
    [worker] = server.workers
    assert machine.peak_memory(worker) < allowed(data="image") - 32 * (16 << 20)
