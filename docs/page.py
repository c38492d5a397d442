"""Take docs/serve.png, the README's picture of the page at `/`: `python docs/page.py [--dark]`.

Starts `mlopsdeploy serve` for real, sends it the transactions of examples/transactions.csv for half
a minute, and has Chromium fill in the form with one of them. Needs selenium and Chromium.
"""

from __future__ import annotations

import csv
import http.client
import json
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

from browser import chromium, png_of
from selenium.webdriver.common.by import By

ROOT = Path(__file__).resolve().parent.parent
PORT = 8080  # the default, so that the curl line is what a reader would see
PICTURED = 1  # the row of the file that is filled in: one that is found to be fraud
WIDTH, HEIGHT = 1280, 900  # CSS pixels


def main() -> None:
    """Write the picture."""
    with (ROOT / "examples" / "transactions.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    command = [sys.executable, "-m", "mlopsdeploy", "serve", "--port", str(PORT)]
    command += ["--model", "fraud", "--model", "sentiment"]
    server = subprocess.Popen(command, cwd=ROOT)
    enough = Event()
    try:
        _wait()
        callers = Thread(target=_call, args=(rows, enough))
        callers.start()
        picture = _picture(rows[PICTURED], dark="--dark" in sys.argv)
        enough.set()
        callers.join()
    finally:
        enough.set()
        server.terminate()
        server.wait()
    (ROOT / "docs" / "serve.png").write_bytes(picture)


def _wait() -> None:
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not get ready")


def _call(rows: list[dict[str, float]], enough: Event) -> None:
    """A caller whose pace changes, so that the lines of the picture are not flat."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    headers = {"Content-Type": "application/json"}
    for place, row in enumerate(cycle(rows)):
        if enough.is_set():
            return
        connection.request("POST", "/detect_fraud", json.dumps({"transaction_data": row}), headers)
        connection.getresponse().read()
        time.sleep((0.004, 0.002, 0.006)[place // 1000 % 3])


def _picture(row: dict[str, float], *, dark: bool) -> bytes:
    """PNG."""
    with chromium(WIDTH, HEIGHT, dark=dark) as browser:
        browser.get(f"http://127.0.0.1:{PORT}/")
        time.sleep(30)  # the live lines need something to show
        for place, value in enumerate(row.values()):
            field = browser.find_element(By.ID, f"field-{place}")
            field.clear()
            field.send_keys(repr(value).removesuffix(".0"))
        button = browser.find_element(By.CSS_SELECTOR, "#form button[type=submit]")
        button.click()
        time.sleep(0.5)
        button.click()  # the first answer paid for the browser's connection
        time.sleep(1)
        return png_of(browser)


if __name__ == "__main__":
    main()
