"""Events of `edge` over MQTT: lost or doubled while the broker is killed, and what each costs.

    apt-get install mosquitto; pip install 'mlopsdeploy[mqtt]'
    python benchmarks/edge_events.py [KILLS]

**Arriving.** A real mosquitto is killed (SIGKILL) and started again while 250 events a second are
written; publishers get in only once a listener is subscribed, as what a broker acknowledges and has
nobody for is no loss of ours. The listener drops what it has seen, by the event's id.

**Cost.** Processor time of the thread that writes, in batches of a second at 30 events a second,
and of all threads for an event until it is acknowledged. Disk: bytes written for each event.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from mlopsdeploy.edge import sending
from mlopsdeploy.edge.outbox import Envelopes, Outbox, new_id
from mlopsdeploy.edge.sinks.mqtt import Mqtt

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = {
    "event": "crossed", "time": "2026-01-01T00:00:00.000Z", "frame": 49, "gate": "middle",
    "direction": "out", "track": 2, "label": "Car",
}  # fmt: skip
SECONDS = 20
A_SECOND = 30


class _About:
    """What a broker's client asks of a run."""

    device = "bench"
    settings: Any = type("Settings", (), {"home_assistant": None})


def arriving(kills: int) -> None:
    """Events lost and doubled."""
    chance, envelope = random.Random(7), Envelopes("bench")
    with tempfile.TemporaryDirectory() as folder:
        broker = _tests().Broker(Path(folder)).start()
        box = Outbox(f"{folder}/o.db", ("mqtt",), limit=10**9, age=1e6, log=print)
        mqtt = Mqtt(f"mqtt://127.0.0.1:{broker.port}/site", _About())  # type: ignore[arg-type]
        sender = sending.Sender(mqtt, box, dict, lambda _: None)
        sender.start()
        written, done = [0], threading.Event()

        def write() -> None:
            while not done.wait(0.1):
                numbers = range(written[0], written[0] + 25)
                box.add(envelope(new_id(), {**DOCUMENT, "number": one}) for one in numbers)
                written[0] += 25
                sender.wake()

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(kills):
            before = len(broker.heard)
            while len(broker.heard) < before + 20:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
            broker.kill()
            broker.start()
        done.set()
        writer.join()
        while box.standing()["mqtt"].waiting:
            time.sleep(0.1)
        time.sleep(1)
        numbers = [one["number"] for one in broker.events("crossed")]
        copies = sum("/events/" in one.topic for one in broker.heard)
        sender.finish(5)
        sender.wait()
        box.close()
        broker.kill()
    print(f"broker killed {kills} times, {written[0]:,} events written")
    print(f"  lost                      {written[0] - len(set(numbers))}")
    print(f"  doubled under one id      {copies - len(numbers)} (dropped by the listener)")
    print(f"  doubled under another id  {len(numbers) - len(set(numbers))}")
    print(f"  in order                  {numbers == sorted(numbers)}")


def cost() -> None:
    """Of an event, into the outbox and out of it."""
    envelope = Envelopes("bench")
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # on a disk, and not in memory
        box = Outbox(f"{folder}/o.db", ("mqtt",), limit=10**9, age=1e6, log=print)
        before, cpu, wall = _bytes_written(), time.thread_time(), time.perf_counter()
        for _ in range(SECONDS):
            box.add(envelope(new_id(), DOCUMENT) for _ in range(A_SECOND))
        count = SECONDS * A_SECOND
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        size = (_bytes_written() - before) / count
        box.add(envelope(new_id(), DOCUMENT) for _ in range(20_000))
        broker = _tests().Broker(Path(folder)).start()
        mqtt = Mqtt(f"mqtt://127.0.0.1:{broker.port}/site", _About())  # type: ignore[arg-type]
        sender = sending.Sender(mqtt, box, dict, lambda _: None)
        all_cpu, started = time.process_time(), time.perf_counter()
        sender.start()
        while box.standing()["mqtt"].waiting:
            time.sleep(0.05)
        took, all_cpu = time.perf_counter() - started, time.process_time() - all_cpu
        sender.finish(5)
        sender.wait()
        box.close()
        broker.kill()
    sent = 20_000 + count
    print(f"into the outbox, {A_SECOND} a commit: {1e6 * cpu / count:.0f} µs of a core an event,")
    print(f"  {1e3 * wall / SECONDS:.1f} ms a commit, {size:,.0f} bytes of disk an event")
    print(f"out of it to a broker here: {sent / took:,.0f} events/s,")
    print(f"  {1e6 * all_cpu / sent:.0f} µs of a core an event, with the listener's share")


def _bytes_written() -> int:
    """By this process, to disks."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def _tests() -> Any:
    """The broker of the tests."""
    path = ROOT / "tests" / "edge" / "sinks" / "conftest.py"
    spec = importlib.util.spec_from_file_location("brokers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    cost()
    arriving(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
