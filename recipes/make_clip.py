"""The example clip, examples/street.mp4, and pictures of it, from nothing but code.

    python recipes/make_clip.py

A chair stands on a pavement; a red car passes from left to right, then a blue one comes back.
Flat shapes with a little shading are enough for both built-in detectors to see a chair and cars.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Color = tuple[float, float, float]  # BGR

CLIP = Path(__file__).parents[1] / "examples" / "street.mp4"
PHOTOS = {"chair.jpg": 10, "red_car.jpg": 45, "blue_car.jpg": 128}  # in examples/photos: frames
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 25, 7

# Outlines in parts of an object's width, from its middle, and of its height, from its top.
CAR_BODY = (
    *((-0.5, 0.62), (-0.49, 0.45), (-0.38, 0.38), (-0.24, 0.08), (-0.18, 0.02), (0.12, 0.0)),
    *((0.2, 0.06), (0.34, 0.36), (0.47, 0.42), (0.5, 0.55), (0.5, 0.8), (-0.5, 0.8)),
)
CAR_WINDOWS = (
    ((-0.34, 0.38), (-0.22, 0.1), (-0.17, 0.06), (-0.03, 0.05), (-0.03, 0.38)),
    ((0.0, 0.38), (0.0, 0.05), (0.11, 0.05), (0.18, 0.1), (0.3, 0.37)),
)
CAR_WHEELS = (-0.3, 0.31)
# The chair's, far parts first: how bright each is and its corners.
CHAIR = (
    *((0.5, ((x, 0.53), (x + 0.07, 0.53), (x + 0.07, 0.83), (x, 0.83))) for x in (-0.62, 0.11)),
    *(
        (1.0, ((x, 0.03), (x + 0.08, 0.03), (x + 0.17, 0.48), (x + 0.09, 0.48)))
        for x in (-0.62, -0.476, -0.332, -0.188, -0.044, 0.1)
    ),
    (1.25, ((-0.66, 0.0), (0.22, 0.0), (0.22, 0.1), (-0.66, 0.1))),
    *(
        (0.85, ((x, 0.0), (x + 0.07, 0.0), (x + 0.16, 0.53), (x + 0.09, 0.53)))
        for x in (-0.66, 0.15)
    ),
    (1.3, ((-0.55, 0.43), (0.29, 0.43), (0.52, 0.63), (-0.52, 0.63))),
    (0.7, ((-0.52, 0.63), (0.52, 0.63), (0.52, 0.68), (-0.52, 0.68))),
    *((0.9, ((x, 0.68), (x + 0.07, 0.68), (x + 0.07, 1.0), (x, 1.0))) for x in (-0.5, 0.43)),
)


def main() -> None:
    """Write the clip."""
    street = backdrop()
    chair(street, x=540, ground=232, height=185)
    writer = cv2.VideoWriter(str(CLIP), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for frame in range(FPS * SECONDS):
        seconds = frame / FPS
        picture = street.copy()
        # Each car needs 2.8 seconds from beyond one edge to beyond the other.
        car(picture, x=-180 + 1000 * (seconds - 0.4) / 2.8, ground=345, color=(40, 40, 180))
        car(picture, x=820 - 1000 * (seconds - 3.8) / 2.8, ground=345, color=(180, 110, 40), way=-1)
        writer.write(cv2.GaussianBlur(picture, (0, 0), 0.8).clip(0, 255).astype(np.uint8))
    writer.release()
    photos()


def photos() -> None:
    """Write some frames of the clip as pictures."""
    folder = CLIP.with_name("photos")
    folder.mkdir(exist_ok=True)
    clip = cv2.VideoCapture(str(CLIP))
    for name, frame in PHOTOS.items():
        clip.set(cv2.CAP_PROP_POS_FRAMES, frame)
        cv2.imwrite(str(folder / name), clip.read()[1])
    clip.release()


def backdrop() -> Array:
    """A wall, a pavement and a road, shaded from far to near; float32, (HEIGHT, WIDTH, 3)."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.float32)
    bands: tuple[tuple[int, int, Color], ...] = (
        (0, 165, (150, 185, 205)),
        (165, 240, (165, 170, 172)),
        (240, HEIGHT, (95, 95, 98)),
    )
    for top, bottom, color in bands:
        shade = np.linspace(0.85, 1.05, bottom - top)[:, None, None]
        picture[top:bottom] = np.array(color) * shade
    picture[236:242] = 205  # the kerb
    picture[161:166] = 120
    return picture


def chair(picture: Array, *, x: float, ground: float, height: float) -> None:
    """A wooden chair, seen from the front and a little from its left and from above."""
    width, wood = 0.6 * height, np.array((40, 90, 150))
    shadow(picture, x, ground, 0.8 * width, 0.05 * height, 0.45)
    place = np.array((width, height))
    origin = np.array((x, ground - height))
    for shade, corners in CHAIR:
        fill(picture, np.array(corners) * place + origin, tuple((wood * shade).tolist()))


def car(
    picture: Array, *, x: float, ground: float, color: Color, height: float = 95, way: int = 1
) -> None:
    """A car from its side, that drives to the right (`way` 1) or to the left (-1)."""
    width = 2.9 * height
    if not -0.7 * width < x < WIDTH + 0.7 * width:
        return
    shadow(picture, x, ground, 0.55 * width, 0.1 * height, 0.6)
    place = np.array((way * width, height))
    origin = np.array((x, ground - height))
    mask = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    fill(mask, np.array(CAR_BODY) * place + origin, 255)
    down = ((np.arange(HEIGHT) - origin[1]) / height).clip(0, 1)
    light = 1.25 - 0.75 * down + 0.25 * np.exp(-(((down - 0.45) / 0.05) ** 2))  # and a glint
    cover = mask / 255
    picture *= 1 - cover
    picture += cover * (np.array(color) * light[:, None, None]).clip(0, 255)
    for window in CAR_WINDOWS:
        fill(picture, np.array(window) * place + origin, (70, 60, 50))
    for at in CAR_WHEELS:
        wheel(picture, x + way * at * width, ground - 0.17 * height, 0.2 * height)
    lamp = (round(x + way * 0.475 * width), round(ground - 0.5 * height))
    cv2.ellipse(picture, lamp, (7, 6), 0, 0, 360, (230, 240, 250), -1, cv2.LINE_AA)


def wheel(picture: Array, x: float, y: float, radius: float) -> None:
    """A tyre and a rim with five spokes, which turn as far as the wheel has rolled."""
    middle = (round(x), round(y))
    for part, color in ((1.0, (25, 25, 25)), (0.62, (190, 190, 190)), (0.2, (80, 80, 80))):
        cv2.circle(picture, middle, round(part * radius), color, -1, cv2.LINE_AA)
    for spoke in range(5):
        turn = x / radius + spoke * 2 * np.pi / 5
        end = (round(x + 0.6 * radius * np.cos(turn)), round(y + 0.6 * radius * np.sin(turn)))
        cv2.line(picture, middle, end, (90, 90, 90), 3, cv2.LINE_AA)


def shadow(picture: Array, x: float, y: float, wide: float, high: float, depth: float) -> None:
    """Darken a soft ellipse on the ground."""
    mask = np.zeros(picture.shape[:2], np.float32)
    cv2.ellipse(mask, (round(x), round(y)), (round(wide), round(high)), 0, 0, 360, 1, -1)
    picture *= 1 - depth * cv2.GaussianBlur(mask, (0, 0), 0.6 * high)[..., None]


def fill(picture: Array, corners: Array, color: Any) -> None:
    """A polygon of (x, y) corners."""
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], color, cv2.LINE_AA)


if __name__ == "__main__":
    main()
