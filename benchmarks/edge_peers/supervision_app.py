"""supervision: its frame generator, detections and annotators; `process_video` with --save."""

from __future__ import annotations

from typing import Any

import contestant
import supervision


class Annotate:
    """What supervision calls for each frame."""

    def __init__(self, options: contestant.Options) -> None:
        self._options = options
        self._detector = contestant.Detector(options)
        self._boxes, self._labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()
        self.meter = contestant.Meter(options)
        self.enough = False

    def __call__(self, frame: Any, _number: int = 0) -> Any:
        number = self.meter.see(frame)
        boxes, classes, scores = self._detector.corners(frame, self._options.threshold)
        found = supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes)
        texts = [
            f"{self._options.labels[kind]} {score:.2f}"
            for kind, score in zip(classes, scores, strict=True)
        ]
        frame = self._boxes.annotate(frame, found)
        frame = self._labels.annotate(frame, found, labels=texts)
        self.enough = not self.meter.result(number, len(found))
        return frame


if __name__ == "__main__":
    options = contestant.options(__doc__)
    annotate = Annotate(options)
    if options.save:
        supervision.process_video(options.camera, options.save, annotate, max_frames=options.frames)
    else:
        for frame in supervision.get_video_frames_generator(options.camera):
            annotate(frame)
            if annotate.enough:
                break
    annotate.meter.close()
