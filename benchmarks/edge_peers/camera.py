"""A camera of 30 frames a second: motion JPEG over HTTP, at the pace of the machine's clock.

As a real one it doesn't wait: to a reader that is slow it leaves frames out, once the network's
buffers are full. Says its port on standard output. Which frames a connection was sent is in
`RECORDS/<name>.json` when it has ended, where `<name>.mjpg` was asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import clock
import cv2


def pictures(clip: str) -> list[bytes]:
    """A JPEG for each number."""
    capture, made = cv2.VideoCapture(clip), []
    for number in range(clock.NUMBERS):
        good, picture = capture.read()
        if not good:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            _, picture = capture.read()
        clock.write(picture, number)
        made.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    return made


class Handler(BaseHTTPRequestHandler):
    frames: list[bytes]
    records: Path

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        sent, before = [], -1
        try:
            while True:
                number = clock.number(time.monotonic())
                if number == before:
                    time.sleep((1 - time.monotonic() * clock.FPS % 1) / clock.FPS)
                    continue
                before = number
                jpeg = self.frames[number]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                sent.append(number)
        except OSError:  # the reader has gone
            name = Path(self.path).stem
            part = self.records / f"{name}.part"
            part.write_text(json.dumps(sent), encoding="utf-8")
            part.replace(self.records / f"{name}.json")

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    command.add_argument("clip")
    command.add_argument("records", type=Path)
    given = command.parse_args()
    Handler.frames, Handler.records = pictures(given.clip), given.records
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
