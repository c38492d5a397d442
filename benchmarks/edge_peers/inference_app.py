"""Roboflow's inference: InferencePipeline with the model as its custom logic."""

from __future__ import annotations

import os
from typing import Any

import contestant
import supervision
from inference import InferencePipeline


class Logic:
    """The model, and the sink that draws."""

    def __init__(self, options: contestant.Options) -> None:
        self._options = options
        self._detector = contestant.Detector(options)
        self._boxes, self._labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()
        self.meter = contestant.Meter(options)
        self.pipeline: Any = None

    def infer(self, frames: list[Any]) -> list[Any]:
        found = []
        for frame in frames:
            boxes, classes, scores = self._detector.corners(frame.image, self._options.threshold)
            found.append(supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes))
        return found

    def show(self, predictions: Any, frames: Any) -> None:
        number = self.meter.see(frames.image)
        texts = [
            f"{self._options.labels[kind]} {score:.2f}"
            for kind, score in zip(predictions.class_id, predictions.confidence, strict=True)
        ]
        picture = self._boxes.annotate(frames.image, predictions)
        picture = self._labels.annotate(picture, predictions, labels=texts)
        if self.meter.frames < self._options.frames and not self.meter.result(
            number, len(predictions)
        ):
            self.pipeline.terminate()


if __name__ == "__main__":
    options = contestant.options(__doc__)
    logic = Logic(options)
    logic.pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=options.camera,
        on_video_frame=logic.infer,
        on_prediction=logic.show,
    )
    logic.pipeline.start()
    logic.pipeline.join()
    logic.meter.close()
    os._exit(0)  # its reader may sit in a read of the camera
