"""Pictures as bodies, in base64, in forms and as tensors; and what is no picture."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import jsonschema_rs
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import create_app, pictures
from mlopsdeploy.serve.endpoint import Served
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES, ServeSettings

BOX = (0.25, 0.25, 0.75, 0.5)
FINDER, COLORS = "/v1/models/finder:predict", "/v1/models/colors:predict"
INFER = "/v2/models/finder/infer"
MARK = b"s3cr3t-4711"
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def finder(tflite_models):
    """Finds one red, green or blue rectangle."""
    return load_model(str(tflite_models / "raw_described.tflite"), threads=1)


@pytest.fixture(scope="module")
def colors(tflite_models):
    """Says which of the three a picture is."""
    return load_model(str(tflite_models / "described.tflite"), threads=1)


@pytest.fixture(scope="module", params=["short way", "through Flask"])
def call(request, client, finder, colors, fraud):
    models = {"finder": finder, "colors": colors, "fraud": fraud}
    return client(models, through_flask=request.param == "through Flask")


@pytest.fixture(scope="module")
def image(rectangle):
    return rectangle("red", BOX)


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image)[1].tobytes()


def base64_of(content):
    return base64.b64encode(content).decode()


def check(answer, label="red", size=(640, 480)):
    """One object at BOX of a picture of that width and height."""
    (found,) = answer["detections"]
    assert found["label"] == label
    assert found["relative"] == pytest.approx(BOX, abs=0.03)
    sides = [side * size[place % 2] for place, side in enumerate(found["relative"])]
    assert found["box"] == pytest.approx(sides, abs=1)
    assert (answer["width"], answer["height"]) == size


# ---------------------------------------------------------------- what works


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
def test_a_picture_is_a_body(call, image, kind):
    headers = {"Content-Type": f"Image/{kind}; x=y"}
    answer = call("POST", FINDER, encoded(image, f".{kind}"), headers)
    assert answer.status == 200, answer
    assert list(answer.json) == ["detections", "width", "height"]
    check(answer.json)


@pytest.mark.parametrize("wrapped", [
    lambda text: text,
    lambda text: {"b64": text},
    lambda text: {"image": text},
    lambda text: {"image": {"b64": text}},
    lambda text: f"data:image/png;base64,{text}",
    lambda text: {"b64": f"data:image/png;base64,{text}"},
])  # fmt: skip
def test_base64_in_each_of_its_forms(call, image, wrapped):
    text = base64_of(encoded(image))
    by_body = call("POST", FINDER, encoded(image), {"Content-Type": "image/png"}).json
    assert call("POST", FINDER, {"instances": wrapped(text)}).json == by_body
    many = call("POST", FINDER, {"instances": [wrapped(text)]}).json
    assert many == {"predictions": [by_body], "model": "finder", "version": ""}


def test_several_pictures_of_any_size_are_answered_in_order(call, rectangle):
    small = rectangle("blue", BOX, (60, 100))
    rows = [
        base64_of(encoded(rectangle("green", BOX), ".jpg")),
        {"b64": base64_of(encoded(small))},
        small.tolist(),
    ]
    answers = call("POST", FINDER, {"instances": rows}).json["predictions"]
    check(answers[0], "green")
    check(answers[1], "blue", (100, 60))
    assert answers[1] == answers[2]
    assert call("POST", FINDER, {"instances": small.tolist()}).json == answers[1]


def form(*files, fields=("note",), boundary="xYzZy"):
    parts = [(f'"{name}"', b"hello") for name in fields]
    parts += [('"f"; filename="a.png"', content) for content in files]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; name={name}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return body + f"--{boundary}--\r\n".encode(), headers


def test_a_form_with_one_file(call, image):
    check(call("POST", FINDER, *form(encoded(image))).json)
    check(call("POST", FINDER, *form(encoded(image), fields=())).json)


def test_a_classifier_of_pictures(call, rectangle):
    whole = rectangle("green", (0, 0, 1, 1))
    answer = call("POST", COLORS, encoded(whole, ".jpg"), JPEG).json
    assert list(answer) == ["label", "score"]
    assert answer["label"] == "green"
    rows = [base64_of(encoded(rectangle(color, (0, 0, 1, 1)))) for color in ("red", "blue")]
    answers = call("POST", COLORS, {"instances": rows}).json["predictions"]
    assert [one["label"] for one in answers] == ["red", "blue"]


def test_nothing_found_is_an_answer(call):
    black = np.zeros((50, 70, 3), np.uint8)
    answer = call("POST", FINDER, encoded(black), {"Content-Type": "image/png"})
    assert answer.json == {"detections": [], "width": 70, "height": 50}


def test_templates_of_detectors(client, finder, image):
    template = {"red": "label == red", "blue": "label == blue", "names": "label", "all": "boxes",
                "found": "detections", "wide": "width", "by": "model"}  # fmt: skip
    models = [{"model": "x", "name": "finder", "answer": template}]
    call = client({"finder": finder}, models=models)
    answer = call("POST", FINDER, encoded(image, ".jpg"), JPEG).json
    assert list(answer) == list(template)
    assert (answer["red"], answer["blue"], answer["names"]) == (True, False, ["red"])
    assert (answer["wide"], answer["by"]) == (640, "finder")
    assert answer["all"] == [pytest.approx(BOX, abs=0.03)]
    assert answer["found"][0]["label"] == "red"
    document = call("GET", "/openapi.json").json
    described = document["paths"][FINDER]["post"]["responses"]["200"]["content"]
    jsonschema_rs.validate(described["application/json"]["schema"], answer)


@pytest.mark.parametrize(("model", "said"), [
    ("finder", "detection"), ("finder", "scores"), ("finder", "score.red"),
    ("colors", "detections"), ("fraud", "width"),
])  # fmt: skip
def test_templates_that_ask_for_what_a_model_does_not_give(request, model, said):
    models = [{"model": "x", "name": model, "answer": {"a": said}}]
    with pytest.raises(ConfigError, match="answer: a: .*is nothing that the model outputs"):
        create_app({model: request.getfixturevalue(model)}, ServeSettings(models=models))


# ---------------------------------------------------------------- what is refused


def refused(answer, status, kind, field=None):
    assert answer.status == status, answer
    document = answer.json
    assert document["type"] == f"urn:mlopsdeploy:problem:{kind}", document
    assert document.get("field") == field, document
    assert "\n" not in document["detail"]
    assert MARK not in answer.body
    return document["detail"]


NO_PICTURE = {
    "nothing": (b"", "the body: the picture is empty"),
    "text": (MARK, "the body: not a picture that can be read"),
    "a GIF's start": (b"GIF89a" + MARK, "the body: not a picture"),
    "a JPEG's start": (b"\xff\xd8\xff\xe0" + MARK, "the body: "),
}


@pytest.mark.parametrize("name", NO_PICTURE)
def test_a_body_that_is_no_picture(call, name):
    body, words = NO_PICTURE[name]
    assert words in refused(call("POST", FINDER, body, JPEG), 422, "no-picture")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_is_cut_off_is_not_answered(call, image, suffix):
    content = encoded(image, suffix)
    for length in (len(content) // 2, len(content) - 5):
        refused(call("POST", FINDER, content[:length], JPEG), 422, "no-picture")
        row = {"b64": base64_of(content[:length])}
        answer = call("POST", FINDER, {"instances": [base64_of(content), row]})
        assert "instances[1]: " in refused(answer, 422, "no-picture", "instances[1]")


GOOD = base64_of(b"\x89PNG")


@pytest.mark.parametrize(
    ("instances", "kind", "field"),
    [
        ([], "empty", "instances"),
        (7, "wrong-type", "instances"),
        (None, "wrong-type", "instances"),
        ([GOOD, 7], "wrong-type", "instances[1]"),
        ({"b64": 7}, "wrong-type", "instances.b64"),
        ({"image": {"b64": 7}}, "wrong-type", "instances.image.b64"),
        ({"image": {}}, "missing", "instances.image.b64"),
        ({"picture": GOOD}, "missing", "instances.image"),
        ([{"image": None}], "missing", "instances[0].image"),
        (MARK.decode(), "not-base64", "instances"),
        ([GOOD, MARK.decode()], "not-base64", "instances[1]"),
        ({"b64": GOOD + "\n"}, "not-base64", "instances.b64"),
        ({"b64": GOOD.rstrip("=")}, "not-base64", "instances.b64"),
        ([{"image": {"b64": GOOD + "=AAAA"}}], "not-base64", "instances[0].image.b64"),
        (f"data:text/html;base64,{GOOD}", "not-base64", "instances"),
        ("\u20ac", "not-base64", "instances"),
        ("", "no-picture", "instances"),
        (GOOD, "no-picture", "instances"),
        ([[1, 2]], "wrong-type", "instances[0][0]"),
        ([[[1, 2]]], "wrong-shape", "instances"),
        ([[[[1, 2]]]], "wrong-shape", "instances[0]"),
        ([[[[False, 2, 3]]]], "wrong-type", "instances[0][0][0][0]"),
        ([[[1.5, 2, 3]]], "wrong-type", "instances"),
        ([[[1, 2, 3]], "x"], "wrong-shape", "instances"),
        ([[[300, 2, 3]]], "out-of-range", "instances"),
    ],
)
def test_json_that_holds_no_picture(call, instances, kind, field):
    refused(call("POST", FINDER, {"instances": instances}), 422, kind, field)


def test_forms_that_are_none(call, image):
    content = encoded(image)
    assert "not 2" in refused(call("POST", FINDER, *form(content, content)), 422, "one-file")
    assert "not 0" in refused(call("POST", FINDER, *form()), 422, "one-file")
    body, headers = form(content)
    for wrong in (body[:-30], b"\r\n", MARK, body.replace(b"xYzZy", b"other")):
        refused(call("POST", FINDER, wrong, headers), 400, "not-a-form")
    for kind in ("multipart/form-data", "multipart/form-data; boundary="):
        refused(call("POST", FINDER, body, {"Content-Type": kind}), 400, "not-a-form")
    many = form(content, fields=[f"f{place}" for place in range(200)])
    refused(call("POST", FINDER, *many), 400, "not-a-form")


@pytest.mark.parametrize("kind", ["", "image/gif", "application/octet-stream", "text/plain"])
def test_other_types_are_told_what_is_taken(call, image, kind):
    answer = call("POST", FINDER, encoded(image), {"Content-Type": kind})
    detail = refused(answer, 415, "no-picture-type")
    for taken in (*pictures.TYPES, "multipart/form-data", "application/json"):
        assert taken in detail
        assert taken in answer.headers["accept"]


def test_models_of_numbers_take_no_pictures(call, image):
    refused(call("POST", "/detect_fraud", encoded(image, ".jpg"), JPEG), 415, "not-json")


def test_all_pictures_of_a_request_are_bounded_together(call, image, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2 * 480 * 640)
    row = base64_of(encoded(image))
    assert call("POST", FINDER, {"instances": [row, row]}).status == 200
    answer = call("POST", FINDER, {"instances": [row] * 3})
    detail = refused(answer, 422, "too-large", "instances[2]")
    assert "614,400 pixels together" in detail


def test_a_telephones_picture_fits_and_the_refusal_says_what_to_raise(client, call, finder):
    assert call.app.endpoints[FINDER].max_body == MAX_BODY_OF_PICTURES == 16 << 20
    assert call.app.endpoints[INFER].max_body == MAX_BODY_OF_PICTURES
    assert call.app.endpoints["/detect_fraud"].max_body == MAX_BODY == 4 << 20
    low = client({"finder": finder}, max_body=1000)
    detail = refused(low("POST", FINDER, bytes(1001), JPEG), 413, "too-long")
    assert "1,000 bytes" in detail
    assert "max_body" in detail


def test_no_more_pictures_than_a_request_may_have(client, call, finder, image):
    rows = [base64_of(encoded(image))] * 3
    low = client({"finder": finder}, max_rows=2)
    assert low("POST", FINDER, {"instances": rows[:2]}).status == 200
    refused(low("POST", FINDER, {"instances": rows}), 413, "too-many-rows", "instances")
    by_kind = {
        path: call.app.endpoints[path].instances.max_rows for path in (FINDER, "/detect_fraud")
    }
    assert by_kind == {FINDER: 64, "/detect_fraud": 10_000}
    assert call.app.endpoints[INFER].max_rows == 64


def test_no_more_pictures_are_decoded_at_once_than_the_model_has_streams(finder, image, ask):
    served = Served("finder", finder, Metrics({"finder": finder}).of("finder"))
    now, most, lock = 0, 0, threading.Lock()

    def decode():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        columns = pictures.decode_all([encoded(image)], [""])
        with lock:
            now -= 1
        return columns

    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda one: ask(served.queue, one), [decode] * 12)
        labels = [one["label"][0][0] for one in found]
    assert labels == ["red"] * 12
    assert most == finder.runtime.streams == 1


# ---------------------------------------------------------------- the Open Inference Protocol


def tensor(data, shape, datatype="BYTES", **more):
    said = {"name": "image", "datatype": datatype, "shape": shape, "data": data, **more}
    return {"inputs": [said]}


def outputs(answer):
    assert answer.status == 200, answer
    return {
        one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json["outputs"]
    }


def test_metadata_names_what_all_clients_can_make(call):
    described = call("GET", "/v2/models/finder").json
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert described["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
        {"name": "label", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "count", "datatype": "INT64", "shape": [-1]},
    ]
    classifier = call("GET", "/v2/models/colors").json["outputs"]
    assert [one["name"] for one in classifier] == ["label", "score", "scores"]


def test_files_in_json_and_pixels(call, rectangle, image):
    black = np.zeros((480, 640, 3), np.uint8)
    texts = [base64_of(encoded(one)) for one in (image, black)]
    for shape in ([2], [2, 1]):
        found = outputs(call("POST", INFER, tensor(texts, shape)))
        assert found["count"].tolist() == [1, 0]
        assert found["label"].tolist() == [["red"], [""]]
        assert found["boxes"].shape == (2, 1, 4)
        assert found["boxes"][0, 0] == pytest.approx(BOX, abs=0.03)
        assert found["boxes"][1].tolist() == [[0, 0, 0, 0]]
    small = rectangle("blue", BOX, (60, 100))
    pixels = tensor(small.ravel().tolist(), [1, 60, 100, 3], "UINT8")
    found = outputs(call("POST", INFER, pixels))
    assert found["label"].tolist() == [["blue"]]
    none = outputs(call("POST", INFER, tensor(texts[1:], [1])))
    assert none["boxes"].shape == (1, 0, 4)
    assert none["count"].tolist() == [0]


def test_a_classifier_by_the_protocol(call, rectangle):
    text = base64_of(encoded(rectangle("green", (0, 0, 1, 1))))
    found = outputs(call("POST", "/v2/models/colors/infer", tensor([text], [1])))
    assert found["label"].tolist() == ["green"]
    assert found["scores"].shape == (1, 3)


@pytest.mark.parametrize(
    ("asked", "status", "kind", "field"),
    [
        (tensor([MARK.decode()], [1]), 422, "not-base64", "inputs.image.data[0]"),
        (tensor([GOOD, GOOD[:-4]], [2]), 422, "no-picture", "inputs.image[0]"),
        (tensor([GOOD], [2]), 400, "wrong-length", "inputs.image.data"),
        (tensor([7], [1]), 400, "wrong-type", "inputs.image.data"),
        (tensor([GOOD], [1, 2]), 400, "wrong-shape", "inputs.image"),
        (tensor([], [0]), 400, "empty", "inputs"),
        (tensor([], [1, 0, 4, 3], "UINT8"), 400, "wrong-shape", "inputs.image"),
        (tensor([1] * 4, [1, 1, 1, 4], "UINT8"), 400, "wrong-shape", "inputs.image"),
        (tensor([1.0] * 3, [1, 1, 1, 3], "FP32"), 400, "wrong-type", "inputs.image"),
    ],
)
def test_tensors_that_are_no_pictures(call, asked, status, kind, field):
    refused(call("POST", INFER, asked), status, kind, field)


@pytest.fixture(scope="module")
def server(serve, tflite_models):
    server = serve(workers=1, models=[f"finder={tflite_models / 'raw_described.tflite'}"])
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log
    for line in server.log.splitlines():  # nothing of OpenCV's own about damaged pictures
        json.loads(line)


def test_triton(server, image):
    """Triton's own client, with files as bytes and in JSON, and with pixels."""
    jpeg = encoded(image, ".jpg")
    black = encoded(np.zeros((40, 40, 3), np.uint8))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        (field,) = client.get_model_metadata("finder")["inputs"]
        given = triton.InferInput(field["name"], [2], field["datatype"])
        given.set_data_from_numpy(np.array([jpeg, black], object), binary_data=True)
        for binary in (True, False):
            wanted = [
                triton.InferRequestedOutput(name, binary_data=binary)
                for name in ("boxes", "label", "score", "count")
            ]
            found = client.infer("finder", [given], outputs=wanted)
            assert found.as_numpy("count").tolist() == [1, 0]
            assert found.as_numpy("boxes")[0, 0] == pytest.approx(BOX, abs=0.03)
            labels = found.as_numpy("label")
            assert labels.shape == (2, 1)
            assert labels[0, 0] in (b"red", "red")
        alone = triton.InferInput("image", [1], "BYTES")
        alone.set_data_from_numpy(np.array([black], object), binary_data=True)
        found = client.infer("finder", [alone])
        assert found.as_numpy("boxes").shape == (1, 0, 4)
        assert found.as_numpy("label").shape == (1, 0)
        alone.set_data_from_numpy(np.array([base64_of(jpeg)], object), binary_data=False)
        assert client.infer("finder", [alone]).as_numpy("label").tolist() == [[b"red"]]
        pixels = triton.InferInput("image", [1, *image.shape], "UINT8")
        pixels.set_data_from_numpy(image[None], binary_data=True)
        assert client.infer("finder", [pixels]).as_numpy("label").tolist() == [[b"red"]]
        alone.set_data_from_numpy(np.array([jpeg[:900]], object), binary_data=True)
        with pytest.raises(InferenceServerException, match=r"image\[0\]: .*cut off"):
            client.infer("finder", [alone])


def test_a_real_server_answers_and_refuses(server, image):
    check(server.call("POST", FINDER, encoded(image, ".jpg"), JPEG).json)
    refused(server.call("POST", FINDER, encoded(image, ".jpg")[:900], JPEG), 422, "no-picture")
    refused(server.call("POST", FINDER, b"\x89PNG\r\n\x1a\n" + MARK, JPEG), 422, "no-picture")
    check(server.call("POST", FINDER, *form(encoded(image))).json)


# ---------------------------------------------------------------- what is said about it


def test_openapi_has_every_way(call, image):
    document = call("GET", "/openapi.json").json
    content = document["paths"][FINDER]["post"]["requestBody"]["content"]
    assert set(content) == {*pictures.TYPES, "multipart/form-data", "application/json"}
    assert content["image/jpeg"]["schema"] == {"type": "string", "format": "binary"}
    schema = content["application/json"]["schema"]
    text = base64_of(encoded(image))
    for row in (text, {"b64": text}, {"image": text}, {"image": {"b64": text}}, [text, text]):
        assert jsonschema_rs.is_valid(schema, {"instances": row})
    for row in (7, [], {"x": text}, {"image": 7}, [7]):
        assert not jsonschema_rs.is_valid(schema, {"instances": row})
    protocol = document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]
    assert jsonschema_rs.is_valid(protocol["schema"], tensor([text], [1]))
    numbers = document["paths"]["/detect_fraud"]["post"]["requestBody"]["content"]
    assert set(numbers) == {"application/json"}


def test_the_built_in_detector_brings_an_example(client):
    detector = load_model("detector", threads=1)
    call = client({"detector": detector})
    document = call("GET", "/openapi.json").json
    path = "/v1/models/detector:predict"
    content = document["paths"][path]["post"]["requestBody"]["content"]
    answer = call("POST", path, content["application/json"]["example"]).json
    assert [one["label"] for one in answer["detections"]] == ["Chair", "Car"]
    (about,) = call("GET", "/page/models.json").json["models"]
    picture = call("GET", f"/{about['example']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert call("POST", path, picture.body, JPEG).json == answer
