"""The article's loop: read, resize, invoke, draw, one after the other."""

from __future__ import annotations

import contestant
import cv2

if __name__ == "__main__":
    options = contestant.options(__doc__)
    detector, meter = contestant.Detector(options), contestant.Meter(options)
    capture = cv2.VideoCapture(options.camera)
    while True:
        good, frame = capture.read()
        if not good:
            break
        number = meter.see(frame)
        boxes, classes, scores = detector(frame)
        found = 0
        for box, kind, score in zip(boxes, classes, scores, strict=True):
            if score >= options.threshold:
                found += 1
                contestant.draw(frame, box, f"{options.labels[kind]}: {int(score * 100)}%")
        if not meter.result(number, found):
            break
    capture.release()
    meter.close()
