"""The time in the picture: black and white bars say which frame of the machine's clock it is.

Frame n of `camera.py` is due n / 30 seconds after the machine was started (`time.monotonic`, the
same in all processes on Linux), modulo 1,024 frames. So whoever has a picture knows how old it is,
whatever queues it went through, up to 34 seconds.
"""

from __future__ import annotations

from typing import Any

FPS = 30
NUMBERS = 1024
BITS = 10
HIGH = 16  # pixels; enough for JPEG


def write(picture: Any, number: int) -> None:
    """Put a number into the upper rim of a picture of shape (height, width, 3)."""
    bar = picture.shape[1] // BITS
    for bit in range(BITS):
        picture[:HIGH, bit * bar : (bit + 1) * bar] = 255 * (number >> bit & 1)


def read(picture: Any) -> int:
    """The number in it."""
    bar = picture.shape[1] // BITS
    row = picture[HIGH // 2 - 1, bar // 2 :: bar, 1][:BITS]
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def number(now: float) -> int:
    """The frame that is due at this time, or was last."""
    return int(now * FPS) % NUMBERS


def age(number: int, now: float) -> float:
    """Seconds since a frame was due."""
    return (now * FPS - number) % NUMBERS / FPS
