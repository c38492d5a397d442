"""What Home Assistant is told of a device, so that it shows it: MQTT discovery, an entity a topic.

All entities read the retained topic `state`, and are of one device that is there as long as its
`availability` says `online`. One topic for each entity is the form that every version reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from mlopsdeploy import __version__
from mlopsdeploy.edge.outputs import About

# Of a label `{"in": 2, "out": 1}`, or of one in a zone `{"inside": 1, …}`: over all labels.
_SUM = "{{{{ value_json.{kind}.get({name}, {{}}).values() | map(attribute='{of}') | sum }}}}"

_ANSWER = "{{{{ (value_json.answer | default({{}}))[{name}] | default(none) }}}}"


def entities(about: About, base: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The topic and the content of each entity's configuration.

    Args:
        about: the run; its settings have the discovery prefix.
        base: what the topics of the device begin with.
    """
    prefix, device, model = about.settings.home_assistant, about.device, about.model
    shared = {
        "state_topic": f"{base}/state",
        "availability_topic": f"{base}/availability",
        "qos": 1,
        "device": {
            "identifiers": [f"mlopsdeploy_{device}"],
            "name": device,
            "manufacturer": "mlopsdeploy",
            "model": f"{model.name} {model.version}".strip(),
            "sw_version": __version__,
        },
        "origin": {"name": "mlopsdeploy", "sw_version": __version__},
    }
    for kind, key, one in _entities(about):
        if "json_attributes_template" in one:
            one["json_attributes_topic"] = shared["state_topic"]
        unique = f"mlopsdeploy_{device}_{_slug(key)}"
        yield f"{prefix}/{kind}/{unique}/config", {**shared, "unique_id": unique, **one}


def _entities(about: About) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, key and what is special of each."""
    yield "binary_sensor", "source", {
        "name": "Camera" if about.settings.lines is None else "Lines",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "value_template": "{{ 'ON' if value_json.source else 'OFF' }}",
    }  # fmt: skip
    task, settings = about.model.task, about.settings
    if task.finds_objects:
        yield "sensor", "objects", {
            "name": "Objects",
            "icon": "mdi:shape",
            "state_class": "measurement",
            "value_template": "{{ value_json.objects | default(0) }}",
            "json_attributes_template": "{{ value_json.labels | default({}) | tojson }}",
        }  # fmt: skip
    else:
        for answer in task.answers:
            column = answer.label or answer.number
            number = {} if answer.label else {"state_class": "measurement"}
            template = _ANSWER.format(name=_quoted(column))
            yield "sensor", f"answer {column}", {
                "name": column.capitalize(), "value_template": template, **number,
            }  # fmt: skip
    for name in settings.gates or {}:
        for way in ("in", "out"):
            yield "sensor", f"gate {name} {way}", {
                "name": f"{name} {way}",
                "icon": "mdi:gate",
                "state_class": "total_increasing",
                "value_template": _SUM.format(kind="gates", name=_quoted(name), of=way),
            }  # fmt: skip
    for name in settings.zones or {}:
        yield "sensor", f"zone {name}", {
            "name": f"{name} inside",
            "icon": "mdi:vector-square",
            "state_class": "measurement",
            "value_template": _SUM.format(kind="zones", name=_quoted(name), of="inside"),
        }  # fmt: skip


def _quoted(name: str) -> str:
    """As a string in a template."""
    return json.dumps(name, ensure_ascii=False).replace("{", "\\x7b").replace("}", "\\x7d")


def _slug(text: str) -> str:
    """Of letters that a topic may have; two names never become one."""
    plain = re.sub("[^a-z0-9]+", "_", text).strip("_")
    return plain if plain == text.replace(" ", "_") else f"{plain}_{crc32(text.encode()):08x}"
