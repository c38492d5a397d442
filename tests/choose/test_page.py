"""The page in a real browser: nothing beside the window, nothing from the network."""

import json

import pytest

from mlopsdeploy.choose import page
from mlopsdeploy.choose.assumptions import measurements
from mlopsdeploy.choose.decide import decide
from mlopsdeploy.choose.settings import ChooseSettings


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("answers", [{"data_at": "device"}, {"may_leave": False}])
def test_it_fits_the_window_and_asks_for_nothing(chromium, tmp_path, width, answers):
    settings = ChooseSettings(**answers)
    found = measurements("text")
    path = tmp_path / "choose.html"
    html = page.render(settings, found, decide(settings, found), "models: []")
    path.write_text(html, "utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get(path.as_uri())
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    shown = "return [...document.querySelectorAll('figure svg')].filter(e => e.clientWidth).length"
    assert chromium.execute_script(shown) == 1
    messages = [json.loads(line["message"])["message"] for line in chromium.get_log("performance")]
    asked = {
        each["params"]["request"]["url"].split(":")[0]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert chromium.get_log("browser") == []
