"""Draw docs/edge.jpg, the README's picture of the detector: `python docs/frame.py`.

Runs `mlopsdeploy edge` on the example clip and keeps one frame of the video that it writes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parent.parent
FRAME = 45


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "out.mp4"
        clip = ROOT / "examples" / "street.mp4"
        command = ["edge", "--camera", str(clip), "--save", str(video), "--no-window"]
        subprocess.run([sys.executable, "-m", "mlopsdeploy", *command], check=True)
        capture = cv2.VideoCapture(str(video))
        capture.set(cv2.CAP_PROP_POS_FRAMES, FRAME)
        good, frame = capture.read()
    if not good:
        sys.exit(f"no frame {FRAME}")
    cv2.imwrite(str(ROOT / "docs" / "edge.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
