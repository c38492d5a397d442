"""How accurate and how fast detectors are, on labelled pictures of the Pascal VOC kind.

    pip install pycocotools==2.0.11
    python recipes/measure_detector.py --labelled FOLDER --models detector detector-fast

The folder has `images/NAME.jpg` and `boxes/NAME.xml`. Models run as users run them: by their name,
with their own preparation and non-maximum suppression, on one thread. Printed as JSON, for each:

- AP (mean over IoUs 0.5 to 0.95), AP50 and AP by size (small: below 32 x 32 pixels, large:
  from 96 x 96) by COCO's own evaluation, over the 20 classes of Pascal VOC, of which some models
  know a part, and over those that all of the models know;
- at some thresholds, of persons and of all classes, the part that is found at an IoU of 0.5 and how
  many false ones there are a picture. What is labelled as difficult counts as neither.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from build_detector_fast import box_iou
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mlopsdeploy import load_model

Array = npt.NDArray[Any]
Rows = list[dict[str, Any]]

THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
LEAST = 0.01  # of a score that counts in AP
# What Pascal VOC, or Open Images, calls otherwise than COCO.
SAME = {
    "aeroplane": "airplane", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv", "diningtable": "dining table",
    "cattle": "cow", "computer monitor": "tv", "table": "dining table",
}  # fmt: skip


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    arguments = parser.parse_args()
    pictures, truth = labelled(arguments.labelled)
    classes = sorted({box["name"] for box in truth})
    known = {name: names(name) for name in arguments.models}
    shared = [name for name in classes if all(name in labels for labels in known.values())]
    report: dict[str, Any] = {"pictures": len(pictures), "classes_of_all": shared}
    for model in arguments.models:
        found, milliseconds = answers(model, pictures, classes)
        report[model] = {
            "milliseconds": milliseconds,
            "all_classes": precision(pictures, truth, found, classes),
            "classes_of_all": precision(pictures, truth, found, shared),
            "persons": counts(pictures, truth, found, ["person"]),
            "objects": counts(pictures, truth, found, shared),
        }
    print(json.dumps(report, indent=2))


def same(label: str) -> str:
    """A label's name in COCO."""
    return SAME.get(label.lower(), label.lower())


def names(model: str) -> set[str]:
    """What a model's labels are called in COCO."""
    return {same(label) for label in load_model(model, threads=1).task.labels}


def labelled(folder: Path) -> tuple[Rows, Rows]:
    """Pictures, and what is in them: for each box its picture, name, corners, and if it's hard."""
    pictures: Rows = []
    boxes: Rows = []
    for number, path in enumerate(sorted((folder / "boxes").glob("*.xml"))):
        root = ET.parse(path).getroot()
        image = cv2.imread(str(folder / "images" / f"{path.stem}.jpg"))
        assert image is not None, path.stem
        pictures.append({"id": number, "image": image})
        for entry in root.iter("object"):
            place = entry.find("bndbox")
            assert place is not None
            corners = [float(place.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            corners[:2] = corners[0] - 1, corners[1] - 1  # pixels are counted from 1, both included
            hard = entry.findtext("difficult", "0") == "1"
            name = same(entry.findtext("name", ""))
            boxes.append({"picture": number, "name": name, "corners": corners, "hard": hard})
    return pictures, boxes


def answers(model: str, pictures: Rows, classes: list[str]) -> tuple[Rows, float]:
    """All that a model finds of these classes, and the median time of one picture."""
    detector = load_model(model, threads=1, threshold=LEAST)
    found: Rows = []
    times = []
    for picture in pictures:
        column = np.empty(1, object)
        column[0] = picture["image"]
        started = time.perf_counter()
        predicted = detector.predict({"image": column})
        times.append(time.perf_counter() - started)
        height, width = picture["image"].shape[:2]
        corners = predicted["boxes"][0].clip(0, 1) * (width, height, width, height)
        for box, label, score in zip(
            corners, predicted["label"][0], predicted["score"][0], strict=True
        ):
            if same(label) in classes:
                found.append({
                    "picture": picture["id"], "name": same(label), "corners": box.tolist(),
                    "score": float(score),
                })  # fmt: skip
    return found, round(float(np.median(times)) * 1000, 2)


def precision(pictures: Rows, truth: Rows, found: Rows, classes: list[str]) -> dict[str, float]:
    """COCO's average precisions."""
    numbers = {name: number for number, name in enumerate(classes, 1)}
    known = COCO()
    known.dataset = {
        "images": [{"id": picture["id"]} for picture in pictures],
        "categories": [{"id": number} for number in numbers.values()],
        "annotations": [
            {"id": number, "iscrowd": int(box["hard"]), **_as_coco(box, numbers)}
            for number, box in enumerate(truth, 1)
            if box["name"] in numbers
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        guessed = known.loadRes(
            [
                {"score": box["score"], **_as_coco(box, numbers)}
                for box in found
                if box["name"] in numbers
            ]
        )
        evaluation = COCOeval(known, guessed, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    places = {"AP": 0, "AP50": 1, "small": 3, "medium": 4, "large": 5}
    return {name: round(float(evaluation.stats[place]), 3) for name, place in places.items()}


def _as_coco(box: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    left, top, right, bottom = box["corners"]
    sides = right - left, bottom - top
    return {
        "image_id": box["picture"], "category_id": numbers[box["name"]],
        "bbox": [left, top, *sides], "area": sides[0] * sides[1],
    }  # fmt: skip


def counts(
    pictures: Rows, truth: Rows, found: Rows, classes: list[str]
) -> dict[str, dict[str, float]]:
    """For each threshold the part that is found, and the false ones a picture."""
    real = sum(not box["hard"] and box["name"] in classes for box in truth)
    result = {}
    for threshold in THRESHOLDS:
        right = wrong = 0
        for picture in pictures:
            for name in classes:
                here = [
                    [box for box in boxes if (box["picture"], box["name"]) == (picture["id"], name)]
                    for boxes in (truth, found)
                ]
                sure = [box for box in here[1] if box["score"] >= threshold]
                hits = matched(here[0], sure)
                right += sum(hit is not None and not here[0][hit]["hard"] for hit in hits)
                wrong += hits.count(None)
        result[f"{threshold:g}"] = {
            "recall": round(right / real, 3),
            "false_per_picture": round(wrong / len(pictures), 3),
        }
    return result


def matched(truth: Rows, found: Rows) -> list[int | None]:
    """For each find, the surest first, the real box that it overlaps most and no other has."""
    if not truth:
        return [None] * len(found)
    found = sorted(found, key=lambda box: -box["score"])
    ours, theirs = (
        np.array([box["corners"] for box in boxes], np.float64).reshape(-1, 4)
        for boxes in (found, truth)
    )
    hits: list[int | None] = []
    overlaps = box_iou(ours, theirs)
    for row in overlaps:
        best = int(row.argmax())
        hits.append(best if row[best] >= 0.5 else None)
        if row[best] >= 0.5:
            overlaps[:, best] = 0
    return hits


if __name__ == "__main__":
    main()
