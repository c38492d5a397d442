"""One request of a bench, taken apart in this process."""

from __future__ import annotations

import gc
import io
import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.bench import measure
from mlopsdeploy.columns import Columns
from mlopsdeploy.errors import InputError
from mlopsdeploy.serve import server
from mlopsdeploy.serve.app import App, create_app
from mlopsdeploy.serve.endpoint import JSON, Predict, PredictPictures
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.pictures import decode_all, with_sizes
from mlopsdeploy.settings import ServeSettings

PARTS_SECONDS = 1.0
_MEDIA = {".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}


class Parts:
    """One request, taken apart."""

    def __init__(self, settings: ServeSettings, row: str | None) -> None:
        models = server.load_models(settings)
        self.name, self.model = next(iter(models.items()))
        self.app: App = create_app(models, settings)
        self.path, endpoint = next(
            (path, endpoint)
            for path, endpoint in self.app.endpoints.items()
            if isinstance(endpoint, Predict)
        )
        self.endpoint: Predict = endpoint
        if isinstance(endpoint, PredictPictures):
            self.kind, self.body = _picture(row, endpoint, self.model)
        else:
            given = _row(row, endpoint, self.model)
            self.kind, self.body = JSON, json.dumps({endpoint.instances.key: given}).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        self.request = head.encode() + self.body
        answer = endpoint(self._environ(), "bench")
        if answer.status != 200:
            detail = json.loads(answer.body).get("detail", "")
            raise InputError(f"{row or 'the example row'}: {self.name} refuses it: {detail}")

    def _environ(self) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": self.path,
            "CONTENT_TYPE": self.kind,
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.input": io.BytesIO(self.body),
        }

    def _parse(self) -> Columns:
        if isinstance(self.endpoint, PredictPictures):
            return decode_all([self.body], [""], [])
        return self.endpoint.instances.decode(self.body)[0]

    def measure(self) -> dict[str, float]:
        """Median microseconds: parse, encode, model, decode, answer, endpoint, application.

        To parse is called "json", or "picture" where bodies are pictures.
        """
        model, endpoint = self.model, self.endpoint
        task, runtime = model.task, model.runtime
        pictures = isinstance(endpoint, PredictPictures)
        columns = self._parse()
        sizes = [image.shape[:2] for image in columns["image"]] if pictures else []
        encoded = task.encode(columns)
        tensors = task.collate(encoded)
        outputs = runtime.run(tensors)
        predictions = with_sizes(task.decode(outputs, encoded), sizes)
        calls: dict[str, Callable[[], object]] = {
            "picture" if pictures else "json": self._parse,
            "encode": lambda: task.collate(task.encode(columns)),
            "model": lambda: runtime.run(tensors),
            "decode": lambda: task.decode(outputs, encoded),
            "answer": lambda: endpoint._encode(endpoint.answers.one(predictions)),
            "endpoint": lambda: endpoint(self._environ(), "bench"),
            "application": lambda: list(self.app.wsgi_app(self._environ(), lambda *_: None)),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        gc.collect()
        gc.freeze()  # as a worker does when it is ready
        end = time.perf_counter() + PARTS_SECONDS
        while len(times["model"]) < 5 or time.perf_counter() < end:
            for name, call in calls.items():  # in turns, so that all meet the same machine
                started = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - started)
        gc.unfreeze()
        return {name: 1e6 * float(np.median(values[1:])) for name, values in times.items()}


def _picture(said: str | None, endpoint: PredictPictures, model: Any) -> tuple[str, bytes]:
    """The media type and the bytes of a picture's file."""
    if said is not None:
        try:
            return _MEDIA.get(Path(said).suffix.lower(), "image/jpeg"), Path(said).read_bytes()
        except (OSError, ValueError) as error:
            raise InputError(f"--row {said}: can't be read ({error})") from error
    example = endpoint.example()
    if example is not None:
        kind, _, content = example.removeprefix("data:").partition(";base64,")
        return kind, b64decode(content)
    import cv2

    pixels = measure.made_up_rows(model, 1)["image"][0]
    return "image/jpeg", cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), 4))[1].tobytes()


def _row(said: str | None, endpoint: Predict, model: Any) -> Any:
    """One row as a caller would send it."""
    if said is not None:
        text = said
        if not said.lstrip().startswith(("[", "{", '"')):
            try:
                text = Path(said).read_text("utf-8")
            except (OSError, ValueError) as error:
                raise InputError(f"--row {said}: can't be read ({error})") from error
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InputError(f"--row {said[:60]}: not JSON ({error})") from error
        key = endpoint.instances.key
        return given[key] if isinstance(given, dict) and set(given) == {key} else given
    example = endpoint.example()
    return _made_up(endpoint.instances, model) if example is None else example


def _made_up(instances: Instances, model: Any) -> Any:
    columns = measure.made_up_rows(model, 1)
    if instances.kind == "text":
        return next(iter(columns.values()))[0]
    if instances.kind == "arrays" and len(columns) == 1:
        return next(iter(columns.values()))[0].tolist()
    if instances.matrix is not None and instances.matrix.name in columns:
        return columns[instances.matrix.name][0].tolist()
    return {
        name: values[0] if isinstance(values[0], str) else values[0].tolist()
        for name, values in columns.items()
    }
