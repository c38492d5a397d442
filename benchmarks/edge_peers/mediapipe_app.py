"""MediaPipe tasks: ObjectDetector, on a video in its video mode, on a camera in its live mode.

It takes a .tflite only with metadata, so the same file with metadata is written beside it. It has
no option for the number of threads.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import contestant
import cv2
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision


def with_metadata(model: str, labels: list[str]) -> str:
    """The model with normalisation and labels in it; made once."""
    path = Path(model).with_suffix(".mediapipe.tflite")
    if not path.exists():
        # The wheel lacks the native module that names the oldest version which can read them.
        name = "mediapipe.tasks.cc.metadata.python"
        native: Any = ModuleType(f"{name}._pywrap_metadata_version")
        native.GetMinimumMetadataParserVersion = lambda _: "1.0.0"
        package: Any = ModuleType(name)
        package._pywrap_metadata_version = native
        sys.modules |= {name: package, native.__name__: native}
        from mediapipe.tasks.python.metadata.metadata_writers import (
            metadata_writer,
            object_detector,
        )

        writer = object_detector.MetadataWriter.create_for_models_with_nms(
            bytearray(Path(model).read_bytes()),
            [127.5],
            [127.5],
            metadata_writer.Labels().add(labels),
        )
        path.write_bytes(writer.populate()[0])
    return str(path)


class App:
    def __init__(self, options: contestant.Options) -> None:
        self._options = options
        self.meter = contestant.Meter(options)
        self.enough = False
        self._mode = vision.RunningMode
        live = {"running_mode": self._mode.LIVE_STREAM, "result_callback": self._come}
        settings = vision.ObjectDetectorOptions(
            base_options=BaseOptions(model_asset_path=with_metadata(options.model, options.labels)),
            score_threshold=options.threshold,
            **(live if options.live else {"running_mode": self._mode.VIDEO}),
        )
        self._detector = vision.ObjectDetector.create_from_options(settings)

    def run(self) -> None:
        capture = cv2.VideoCapture(self._options.camera)
        start, stamp = time.monotonic(), -1
        with self._detector:
            while not self.enough:
                good, frame = capture.read()
                if not good:
                    break
                image = mediapipe.Image(
                    image_format=mediapipe.ImageFormat.SRGB,
                    data=cv2.cvtColor(frame, cv2.COLOR_BGR2RGB),
                )
                stamp = max(stamp + 1, int(1000 * (time.monotonic() - start)))
                if self._options.live:
                    self._detector.detect_async(image, stamp)
                else:
                    self._draw(self._detector.detect_for_video(image, stamp), frame)
        capture.release()

    def _come(self, result: Any, image: Any, _stamp: int) -> None:
        if not self.enough:
            self._draw(result, image.numpy_view()[:, :, ::-1].copy())

    def _draw(self, result: Any, frame: Any) -> None:
        number = self.meter.see(frame)
        height, width = frame.shape[:2]
        for found in result.detections:
            box, kind = found.bounding_box, found.categories[0]
            sides = (
                box.origin_y / height,
                box.origin_x / width,
                (box.origin_y + box.height) / height,
                (box.origin_x + box.width) / width,
            )
            contestant.draw(frame, sides, f"{kind.category_name} {kind.score:.2f}")
        self.enough = not self.meter.result(number, len(result.detections))


if __name__ == "__main__":
    app = App(contestant.options(__doc__))
    app.run()
    app.meter.close()
