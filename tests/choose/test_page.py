"""The page in a real browser: nothing beside the window, nothing from the network."""

import json
import shutil

import pytest
from selenium import webdriver

from mlopsdeploy.choose import page
from mlopsdeploy.choose.assumptions import measurements
from mlopsdeploy.choose.decide import decide
from mlopsdeploy.choose.settings import ChooseSettings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("answers", [{"data_at": "device"}, {"may_leave": False}])
def test_it_fits_the_window_and_asks_for_nothing(browser, tmp_path, width, answers):
    settings = ChooseSettings(**answers)
    found = measurements("text")
    path = tmp_path / "choose.html"
    page.write(str(path), settings, found, decide(settings, found), "models: []")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shown = "return [...document.querySelectorAll('figure svg')].filter(e => e.clientWidth).length"
    assert browser.execute_script(shown) == 1
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = {
        each["params"]["request"]["url"].split(":")[0]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert browser.get_log("browser") == []
