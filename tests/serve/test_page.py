"""The page at `/`, in a real Chromium, of a real server."""

import base64
import json
import shutil
import subprocess
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture(scope="module")
def server(serve, churn_onnx, unnamed_onnx, per_feature_onnx):
    """One worker with a model for each kind of form."""
    churn = {"model": str(churn_onnx), "name": "churn", "answer": {"all": "scores", "is": "label"}}
    unnamed = {"model": str(unnamed_onnx), "name": "unnamed"}
    typed = {"model": str(per_feature_onnx), "name": "typed"}
    models = ["fraud", "sentiment", churn, unnamed, typed, "detector"]
    return serve(workers=1, models=models, runtime="auto")


@pytest.fixture(scope="module")
def models(server):
    """By name, as the page is told of them."""
    known = server.get("/page/models.json").json["models"]
    return {model["name"]: model for model in known}


class Page:
    """What a person does on the page, and sees."""

    def __init__(self, browser, server, model=""):
        self.browser = browser
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(f"{server.url}/#{model}" if model else f"{server.url}/")
        self.until(lambda: self.id("curl").text)

    def id(self, name):
        return self.browser.find_element(By.ID, name)

    def field(self, label):
        """The control that a label is bound to."""
        script = "return [...document.querySelectorAll('#fields label')]" \
            ".find((label) => label.textContent === arguments[0]).control"  # fmt: skip
        return self.browser.execute_script(script, label)

    def type(self, label, text):
        self.field(label).clear()
        self.field(label).send_keys(text)

    def predict(self):
        """Press Predict; the status and the JSON that is shown then."""
        self.browser.execute_script("document.getElementById('json').textContent = ''")
        self.browser.find_element(By.CSS_SELECTOR, "#form button[type=submit]").click()
        return self.answer()

    def answer(self):
        self.until(lambda: self.id("json").text)
        return int(self.id("status").text), json.loads(self.id("json").text)

    def told(self):
        return self.id("told").text

    def wrong(self):
        """The controls that are marked, each with what is said below it."""
        marked = self.browser.find_elements(By.CSS_SELECTOR, "[aria-invalid=true]")
        described = [self.id(control.get_attribute("aria-describedby")).text for control in marked]
        return list(zip(marked, described, strict=True))

    def until(self, true, seconds=20):
        return WebDriverWait(self.browser, seconds, 0.05).until(lambda _: true())

    def errors(self):
        return [line for line in self.browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture
def page(chromium, server):
    """`page("churn")` is the page with that model chosen."""
    return lambda model="": Page(chromium, server, model)


# ---------------------------------------------------------------- without a browser


def test_headers(server):
    files = ("page.js", "page.css", "look.css", "icon.svg", "models.json")
    for path in ("/", *(f"/page/{file}" for file in files)):
        got = server.get(path)
        assert got.status == 200, path
        policy = got.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert got.headers["x-content-type-options"] == "nosniff"
        again = server.call("GET", path, headers={"If-None-Match": got.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
    assert server.get("/page/__init__.py").status == 404
    assert server.call("POST", "/", b"{}").status == 405


def test_the_page_knows_the_models(server, models):
    assert list(models) == ["fraud", "sentiment", "churn", "unnamed", "typed", "detector"]
    fraud = models["fraud"]
    assert [field["name"] for field in fraud["fields"]] == list(fraud["example"])
    for model in models.values():
        document = server.get("/openapi.json").json
        assert model["route"] in document["paths"]


# ---------------------------------------------------------------- in a browser


def test_the_example_gives_what_the_api_gives(page, server, models):
    fraud, shown = models["fraud"], page("fraud")
    for name, value in fraud["example"].items():
        assert float(shown.field(name).get_attribute("value")) == value
    status, answer = shown.predict()
    by_api = server.call("POST", fraud["route"], {fraud["key"]: fraud["example"]})
    assert (status, answer) == (200, by_api.json)
    assert shown.told().splitlines()[0] == "legitimate"
    assert str(answer["score"]) in shown.told()
    assert f"threshold {answer['threshold']}" in shown.told()
    assert float(shown.id("latency").text.split(" ms")[0]) > 0


def test_changing_fields_changes_the_score(page, server, models):
    fraud, shown = models["fraud"], page("fraud")
    _, before = shown.predict()
    changed = {"V4": 8.5, "V14": -9, "V10": -7, "V12": -8, "V17": -6}
    for name, value in changed.items():
        shown.type(name, str(value))
    _, after = shown.predict()
    row = fraud["example"] | changed
    assert after == server.call("POST", fraud["route"], {fraud["key"]: row}).json
    assert after["score"] > before["score"]
    shown.id("example").click()
    assert shown.predict()[1] == before


def test_a_wrong_value_is_marked_where_it_stands(page):
    shown = page("fraud")
    wrong = {"high": "number", "": "missing", "1,5": "number", "1e999": "too large"}
    for typed, words in wrong.items():
        shown.type("V14", typed)
        status, problem = shown.predict()
        assert status in (400, 422)
        assert "Not accepted" in shown.told()
        assert problem["detail"] in shown.told()
        ((control, said),) = shown.wrong()
        assert control == shown.field("V14") == shown.browser.switch_to.active_element
        assert words in said, typed
        shown.type("V14", "0.5")
        assert shown.wrong() == []
        assert shown.predict()[0] == 200


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("model", ["fraud", "sentiment", "unnamed", "typed", "detector"])
def test_the_copied_line_runs(page, model):
    shown = page(model)
    if model == "detector":
        shown.until(lambda: "page/examples/detector" in shown.id("curl").text)
    if model == "sentiment":
        shown.type("Text", "It's \"good\" – isn't it?\n$HOME `date` \\ !! 好")
    origin = {"origin": shown.browser.current_url, "permissions": ["clipboardReadWrite"]}
    shown.browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    shown.id("copy").click()
    shown.until(lambda: shown.id("copy").text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0])"
    line = shown.browser.execute_async_script(read)
    assert line.startswith("curl ")
    done = subprocess.run(line, shell=True, capture_output=True, check=True, timeout=30)
    assert (200, json.loads(done.stdout)) == shown.predict()


def test_another_model_is_another_form(page, server, models):
    shown = page()
    assert shown.id("model").get_attribute("value") == "fraud", "the first is chosen"
    shown.id("model").send_keys("sentiment")
    shown.until(lambda: "sentiment" in shown.id("about").text)
    text = "The food was terrible <img src=x onerror=alert(1)> and cold."
    shown.type("Text", text)
    status, answer = shown.predict()
    sentiment = models["sentiment"]
    by_api = server.call("POST", sentiment["route"], {sentiment["key"]: text})
    assert (status, answer) == (200, by_api.json)
    assert shown.told().splitlines()[0] == answer["label"]
    assert shown.browser.find_elements(By.CSS_SELECTOR, "main img, main script") == []
    assert shown.browser.current_url.endswith("#sentiment")
    shown.browser.back()
    shown.until(lambda: "fraud" in shown.id("about").text)
    assert "press Predict" in shown.told(), "an answer of another model is not left there"


def test_a_template_of_the_users_own(page):
    """All scores, a bar each, and a label under another key."""
    shown = page("churn")
    for name, value in {"age": "60", "visits": "2", "spend": "10"}.items():
        shown.type(name, value)
    status, answer = shown.predict()
    assert status == 200
    assert shown.told().splitlines()[0] == answer["is"]
    bars = shown.browser.find_elements(By.CSS_SELECTOR, ".bar")
    assert len(bars) == 2
    for (label, score), bar in zip(answer["all"].items(), bars, strict=True):
        assert f"score of {label}" in bar.text
        track, fill = (bar.find_element(By.CLASS_NAME, name) for name in ("track", "fill"))
        assert fill.size["width"] / track.size["width"] == pytest.approx(score, abs=0.02)


def test_that_a_text_is_not_read_is_said(page):
    shown = page("sentiment")
    shown.type("Text", "Das ist leider ein sehr schlechtes Produkt.")
    assert shown.predict()[0] == 200
    assert "doesn't read this text (its language is de)" in shown.told()
    shown.type("Text", "This is a really bad product, sadly.")
    shown.predict()
    assert "doesn't read" not in shown.told()


def test_a_row_is_pasted(page):
    shown = page("churn")
    paste = """
        const data = new DataTransfer();
        data.setData("text/plain", arguments[1]);
        const options = {clipboardData: data, bubbles: true, cancelable: true};
        arguments[0].dispatchEvent(new ClipboardEvent("paste", options));
    """
    shown.browser.execute_script(paste, shown.field("visits"), "41\t7\t-3.25\n")
    found = [shown.field(name).get_attribute("value") for name in ("age", "visits", "spend")]
    assert found == ["41", "7", "-3.25"]
    assert '"age": 41, "visits": 7, "spend": -3.25' in shown.id("curl").text


def test_numbers_without_names_are_a_list(page):
    shown = page("unnamed")
    label = "3 numbers"
    shown.type(label, "30, 2 150.5")
    assert "[30, 2, 150.5]" in shown.id("curl").text
    assert shown.predict()[0] == 200
    shown.type(label, "30, two, 150.5")
    assert shown.predict()[0] == 422
    ((control, said),) = shown.wrong()
    assert "number" in said
    script = "const [box] = arguments; return box.value.slice(box.selectionStart, box.selectionEnd)"
    assert shown.browser.execute_script(script, control) == "two", "what is wrong is selected"
    shown.type(label, "30, 2")
    assert shown.predict()[0] == 422
    assert "3 values, not 2" in shown.wrong()[0][1]


def test_the_keyboard_is_enough(page):
    shown = page("typed")
    shown.type("visits", "1.5" + Keys.ENTER)
    assert shown.answer()[0] == 422
    assert shown.wrong()[0][0] == shown.field("visits")
    shown.browser.switch_to.active_element.send_keys(Keys.BACKSPACE * 3 + "2" + Keys.ENTER)
    shown.until(lambda: shown.id("status").text == "200")
    shown = page("sentiment")
    shown.field("Text").send_keys("fine", Keys.CONTROL, Keys.ENTER)
    assert shown.answer()[0] == 200


def test_live_numbers_move(page, server, models):
    shown = page("churn")
    shown.until(lambda: shown.id("total").text != "–")
    before = int(shown.id("total").text.replace(",", ""))
    good, bad = {"instances": [[30, 2, 150]]}, {"instances": [[30, 2]]}
    for body in [good] * 40 + [bad] * 2:
        server.call("POST", models["churn"]["route"], body)
        server.call("POST", models["unnamed"]["route"], good)
    shown.until(lambda: int(shown.id("total").text.replace(",", "")) == before + 42)
    assert "2 refused" in shown.id("refused").text
    assert float(shown.id("rate").text) > 0
    for name in ("p50", "p99"):
        assert shown.id(name).text.split()[1] in ("µs", "ms", "s")
    assert shown.id("rate-line").find_element(By.CLASS_NAME, "line").get_attribute("d")
    assert "highest" in shown.id("rate-line").get_attribute("aria-label")


def test_percentiles_are_as_prometheus_has_them(page):
    buckets = "[[0.001, 0], [0.002, 10], [0.005, 20], [Infinity, counts]]"
    script = """
        const [share, counts, done] = arguments;
        import("/page/live.js").then(({quantile}) => done(quantile(share, BUCKETS)));
    """.replace("BUCKETS", buckets)
    shown = page("churn")
    for share, counts, expected in [(0.5, 20, 0.002), (0.99, 20, 0.00494), (0.99, 40, 0.005)]:
        found = shown.browser.execute_async_script(script, share, counts)
        assert found == pytest.approx(expected)


def test_it_fits_and_every_control_has_a_label(page, models):
    unlabelled = """return [...document.querySelectorAll("input, select, textarea")]
        .filter((control) => control.labels.length !== 1).length"""
    for name in models:
        shown = page(name)
        shown.predict()
        for width in (380, 1280):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            shown.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            taken = "return document.documentElement.scrollWidth"
            assert shown.browser.execute_script(taken) <= width, name
            assert shown.browser.execute_script(unlabelled) == 0, name


def test_nothing_from_elsewhere_and_no_errors(page, server, models):
    shown = page()
    for name in models:
        shown.browser.execute_script("location.hash = arguments[0]", name)
        shown.until(lambda name=name: name in shown.id("about").text)
        assert shown.predict()[0] == 200
    asked = []

    def looked_at_metrics_again():
        for line in shown.browser.get_log("performance"):  # and empties it
            each = json.loads(line["message"])["message"]
            if each["method"] == "Network.requestWillBeSent":
                asked.append(urlsplit(each["params"]["request"]["url"]))
        return [url.path for url in asked].count("/metrics") > 2

    shown.until(looked_at_metrics_again)
    assert shown.errors() == []
    assert {"/", "/page/page.js", "/metrics"} <= {url.path for url in asked}
    assert {url.netloc for url in asked} == {urlsplit(server.url).netloc}


def test_a_server_that_is_gone(chromium, serve, churn_onnx):
    server = serve(workers=1, models=[str(churn_onnx)])
    shown = Page(chromium, server)
    assert not shown.id("choice").is_displayed(), "there is nothing to choose"
    assert shown.predict()[0] == 200
    server.stop()
    chromium.find_element(By.CSS_SELECTOR, "#form button[type=submit]").click()
    shown.until(lambda: "can't be reached" in shown.told())
    shown.until(lambda: "does not answer" in shown.id("pulse").text)


# ---------------------------------------------------------------- pictures

GREEN = """
    const [x1, y1, x2, y2] = arguments[0];
    const canvas = document.querySelector("canvas");
    const context = canvas.getContext("2d");
    const green = (x, y) => {  // within two pixels: lines are thin
      const place = [x * canvas.width - 2, y * canvas.height - 2].map(Math.round);
      const pixels = context.getImageData(...place, 5, 5).data;
      for (let at = 0; at < pixels.length; at += 4) {
        const [r, g, b] = pixels.slice(at, at + 3);
        if (g > 150 && r < 110 && b < 130) return true;
      }
      return false;
    };
    const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
    return [green(x, y1), green(x, y2), green(x1, y), green(x, y)];
"""


@pytest.fixture(scope="module")
def example(server, models):
    """The built-in detector's picture."""
    return server.get(f"/{models['detector']['example']}").body


def by_api(server, models, content, kind="image/jpeg"):
    return server.call("POST", models["detector"]["route"], content, {"Content-Type": kind})


def test_boxes_are_drawn_over_the_example(page, server, models, example):
    shown = page("detector")
    status, answer = shown.predict()
    assert (status, answer) == (200, by_api(server, models, example).json)
    assert len(answer["detections"]) == 2
    for found in answer["detections"]:
        drawn = shown.browser.execute_script(GREEN, found["relative"])
        assert drawn == [True, True, True, False], found["label"]
    assert shown.told().splitlines()[0] == "Chair, Car"
    assert len(shown.browser.find_elements(By.CSS_SELECTOR, ".bar")) == 2
    canvas = shown.browser.find_element(By.TAG_NAME, "canvas")
    assert canvas.get_attribute("aria-label").endswith("Chair, Car")


def test_a_picture_of_ones_own(page, server, models, example, tmp_path):
    path = tmp_path / "my picture.png"
    picture = cv2.imdecode(np.frombuffer(example, np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(path), picture[:, :400])
    shown = page("detector")
    shown.predict()
    shown.field("Picture").send_keys(str(path))
    shown.until(lambda: "'@my picture.png'" in shown.id("curl").text)
    assert "image/png" in shown.id("curl").text
    drawn = shown.browser.execute_script(GREEN, [0.1, 0.1, 0.2, 0.2])
    assert drawn[:3] == [False] * 3, "boxes are gone"
    status, answer = shown.predict()
    assert (status, answer) == (200, by_api(server, models, path.read_bytes(), "image/png").json)
    assert answer["width"] == 400
    shown.id("example").click()
    assert shown.predict()[1]["width"] == 640


def test_a_picture_is_dropped(page, server, models, rectangle, tmp_path):
    black = cv2.imencode(".png", rectangle("red", (0, 0, 0, 0), (30, 50)))[1].tobytes()
    drop = """
        const [content, done] = arguments;
        const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        const options = {dataTransfer: data, bubbles: true, cancelable: true};
        document.querySelector(".picture").dispatchEvent(new DragEvent("drop", options));
        done();
    """
    shown = page("detector")
    shown.until(lambda: "page/examples" in shown.id("curl").text)
    shown.browser.execute_async_script(drop, base64.b64encode(black).decode())
    shown.until(lambda: "@dropped.png" in shown.id("curl").text)
    assert shown.predict() == (200, by_api(server, models, black, "image/png").json)
    assert shown.told().splitlines()[0] == "nothing found"


def test_what_is_no_picture_is_said(page, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture", "utf-8")
    shown = page("detector")
    shown.field("Picture").send_keys(str(path))
    shown.until(lambda: "@notes.txt" in shown.id("curl").text)
    assert "can't show the picture" in shown.id("fields").text
    status, problem = shown.predict()
    assert status == 415
    assert problem["detail"] in shown.told()


FORMS = {
    "arrays": ({"shape": [2, -1]}, None, [[0], [0]]),
    "arrays with an example": ({"shape": [2]}, [1.5, 2], [1.5, 2]),
    "values: text": ({"dtype": "str"}, {"x": 'a "b"'}, {"x": 'a "b"'}),
    "values: true or false": ({"dtype": "bool"}, {"x": True}, {"x": True}),
    "values: a whole number": ({"dtype": "int64"}, [2**53 + 1], {"x": 2**53}),
}


@pytest.mark.parametrize("case", FORMS)
def test_forms_for_models_that_few_have(page, case):
    """No built-in task has them yet: the form alone, without a server that would answer."""
    field, example, row = FORMS[case]
    fields = [{"name": "x", "dtype": "float32", "shape": [], **field}]
    model = {"kind": case.split()[0].strip(":"), "named": True, "width": 1, "fields": fields}
    script = """
        const [model, example, done] = arguments;
        import("/page/forms.js").then(({formOf}) => {
          const form = formOf(model);
          form.fill(example);
          done(form.row());
        });
    """
    made = page("churn").browser.execute_async_script(script, model, example)
    assert json.loads(made) == row
