"""Discovery: what Home Assistant's documentation asks for, and a real Home Assistant where one is.

`HOME_ASSISTANT_PYTHON` names the Python of an environment with `homeassistant` in it, and what its
frontend, file_upload and mqtt need; tried with 2024.3.3.
"""

import dataclasses
import json
import os
import re
import subprocess

import pytest

from mlopsdeploy.edge.outputs import About
from mlopsdeploy.edge.sinks.home_assistant import entities
from mlopsdeploy.settings import EdgeSettings

PLACES = {
    "gates": {"middle": [[0.5, 0], [0.5, 1]], 'a "门" {{x}}': [[0.2, 0], [0.2, 1]]},
    "zones": {"lane": [[0, 0.6], [0.5, 0.6], [0.5, 1]]},
}


def found(model, **settings):
    settings = {"home_assistant": "homeassistant", "device": "cam7", **settings}
    about = About(EdgeSettings(**settings), "camera 0", True, model, print, dict)
    return dict(entities(about, "site/cam7"))


def test_each_entity_has_what_discovery_asks_for(model):
    told = found(model, **PLACES)
    kinds = [topic.split("/")[1] for topic in told]
    assert kinds == ["binary_sensor"] + ["sensor"] * 6
    assert len({one["unique_id"] for one in told.values()}) == 7
    for topic, one in told.items():
        prefix, kind, object_id, last = topic.split("/")
        assert (prefix, last) == ("homeassistant", "config")
        assert re.fullmatch("[a-zA-Z0-9_-]+", object_id)
        assert object_id == one["unique_id"]
        assert one["state_topic"] == "site/cam7/state"
        assert one["availability_topic"] == "site/cam7/availability"
        assert one["device"]["identifiers"] == ["mlopsdeploy_cam7"]
        assert one["device"]["name"] == "cam7"
        assert one["origin"]["name"] == "mlopsdeploy"
        assert one["name"]
        if kind == "sensor":
            assert one["state_class"] in ("measurement", "total_increasing")


def rendered(template, state):
    jinja2 = pytest.importorskip("jinja2")
    return jinja2.Environment(autoescape=False).from_string(template).render(value_json=state)


def test_templates_read_the_state(model):
    name = 'a "门" {{x}}'
    told = {one["name"]: one["value_template"] for one in found(model, **PLACES).values()}
    state = {
        "source": True, "objects": 3, "labels": {"Car": 3},
        "gates": {"middle": {"Car": {"in": 2, "out": 1}, "Bus": {"in": 1, "out": 0}},
                  name: {"Car": {"in": 7, "out": 0}}},
        "zones": {"lane": {"Car": {"entered": 5, "left": 3, "inside": 2}}},
    }  # fmt: skip
    assert {one: rendered(template, state) for one, template in told.items()} == {
        "Camera": "ON", "Objects": "3", "middle in": "3", "middle out": "1",
        f"{name} in": "7", f"{name} out": "0", "lane inside": "2",
    }  # fmt: skip
    first = {"source": None, "gates": {"middle": {}, name: {}}, "zones": {"lane": {}}}
    assert rendered(told["Camera"], first) == "OFF"
    assert rendered(told["Objects"], first) == rendered(told["middle in"], first) == "0"


def test_answers_in_place_of_objects(model):
    task = type("Task", (), {
        "finds_objects": False, "data": "table",
        "answers": ({"label": "label", "number": "score"}, {"label": "", "number": "heat"}),
    })  # fmt: skip
    task.answers = tuple(type("Answer", (), one) for one in task.answers)
    told = found(dataclasses.replace(model, task=task), lines="-")
    by_name = {one["name"]: one for one in told.values()}
    assert set(by_name) == {"Lines", "Label", "Heat"}
    assert "state_class" not in by_name["Label"]
    assert by_name["Heat"]["state_class"] == "measurement"
    state = {"source": True, "answer": {"label": "fraud", "heat": 3.5}}
    assert rendered(by_name["Label"]["value_template"], state) == "fraud"
    assert rendered(by_name["Heat"]["value_template"], state) == "3.5"
    assert rendered(by_name["Heat"]["value_template"], {"source": None}) == "None"


LISTENER = """
import asyncio, json, os, sys
from homeassistant import bootstrap, runner

async def main(folder):
    config = runner.RuntimeConfig(config_dir=folder, skip_pip=True)
    hass = await bootstrap.async_setup_hass(config)
    await hass.async_start()
    while not os.path.exists(folder + "/stop"):
        await asyncio.sleep(0.2)
        states = hass.states.async_all()
        found = {one.entity_id: [one.state, dict(one.attributes)] for one in states}
        with open(folder + "/states.part", "w") as file:
            json.dump(found, file, default=str)
        os.replace(folder + "/states.part", folder + "/states.json")
    await hass.async_stop()

asyncio.run(main(sys.argv[1]))
"""


def test_a_real_home_assistant_shows_the_entities(broker, until, start, street, tmp_path):
    python = os.environ.get("HOME_ASSISTANT_PYTHON")
    if python is None:
        pytest.skip("HOME_ASSISTANT_PYTHON names no Python with homeassistant")
    there, folder = broker(), tmp_path / "home"
    (folder / ".storage").mkdir(parents=True)
    (folder / "configuration.yaml").write_text("mqtt:\n", "utf-8")
    entry = {
        "entry_id": "a" * 32, "version": 1, "minor_version": 1, "domain": "mqtt", "title": "mqtt",
        "data": {"broker": "127.0.0.1", "port": there._inner}, "options": {}, "source": "user",
        "pref_disable_new_entities": False, "pref_disable_polling": False, "unique_id": None,
        "disabled_by": None,
    }  # fmt: skip
    (folder / ".storage" / "core.config_entries").write_text(
        json.dumps({"version": 1, "minor_version": 1, "key": "core.config_entries",
                    "data": {"entries": [entry]}}), "utf-8"
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (
        (tmp_path / "home.log").open("w") as log,
        subprocess.Popen([python, "-c", LISTENER, folder], stderr=log, stdout=log, env=environment),
    ):
        try:
            states = folder / "states.json"
            until(states.exists, 120)

            def shown():
                return json.loads(states.read_text("utf-8"))

            process = start(
                "--camera", street, "--realtime", "--no-window", "--gates", "middle=0.5,0 0.5,1",
                "--device", "cam7", "--home-assistant", "homeassistant",
                "--mqtt", f"mqtt://127.0.0.1:{there.port}/site",
            )  # fmt: skip
            until(lambda: shown().get("binary_sensor.cam7_camera", [""])[0] == "on")
            until(lambda: shown()["sensor.cam7_objects"][0] in "123")
            until(lambda: "Chair" in shown()["sensor.cam7_objects"][1])
            until(lambda: shown()["sensor.cam7_middle_out"][0] == "1")
            process.communicate(timeout=60)
            until(lambda: shown()["sensor.cam7_objects"][0] == "unavailable")
        finally:
            (folder / "stop").touch()
