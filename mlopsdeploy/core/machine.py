"""This machine, as a process sees it: cores that it may use, memory held, time taken, a free port.

Figures of memory and time are read from /proc and are 0 where a system has none, unless said.
"""

from __future__ import annotations

import ipaddress
import math
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on, by its affinity (taskset, cpusets)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count(root: Path = ROOT) -> int:
    """How many cores this process may keep busy: by its affinity and by its cgroup's quota.

    A quota (`docker run --cpus`, a limit of Kubernetes) is processor time a period, rounded up to
    whole cores; it is the smallest of the cgroup's and those above it, of version 1 or 2. More
    threads than that only run into its throttling.

    Args:
        root: where /proc and /sys are.
    """
    quotas = list(_quotas(root))
    return min([len(usable_cores()), *(max(math.ceil(quota), 1) for quota in quotas)])


def _quotas(root: Path) -> Iterator[float]:
    """Cores that a quota pays for, each that this process is under."""
    lines = _text(root / "proc/self/cgroup").splitlines()
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
        elif "cpu" in controllers.split(","):
            mount = mounts / controllers if (mounts / controllers).exists() else mounts / "cpu"
        else:
            continue
        # In a container the path may be that of the host, of which only the end is mounted.
        folder = mount / path.lstrip("/")
        for level in (folder, *folder.parents):
            if controllers:
                quota = _text(level / "cpu.cfs_quota_us")
                period = _text(level / "cpu.cfs_period_us")
            else:
                quota, _, period = _text(level / "cpu.max").partition(" ")
            if quota.strip() not in ("", "max", "-1") and int(period or 0):
                yield int(quota) / int(period)
            if level == mount:
                break


def name() -> str:
    """This machine in words: cores, processor, system."""
    processor = platform.processor() or platform.machine()
    lines = _text(ROOT / "proc/cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{core_count()} cores of {next(names, processor)}, {platform.system()}"


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this machine that nobody listens at."""
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.bind(address)
        port: int = probe.getsockname()[1]
        return port


def resident_memory(pid: int | str = "self") -> int:
    """Bytes that a process holds now; of this process, where there is no /proc, the most ever."""
    return _kilobytes(pid, "status", "VmRSS") or _peak_without_proc(pid)


def peak_memory(pid: int | str = "self") -> int:
    """The most bytes that a process has held so far; 0 when it is gone."""
    return _kilobytes(pid, "status", "VmHWM") or _peak_without_proc(pid)


def proportional_memory(pid: int) -> int:
    """Bytes that a process holds now; of a page that n processes share, each has 1/n."""
    return _kilobytes(pid, "smaps_rollup", "Pss")


def process_tree(pid: int) -> Iterator[int]:
    """A process and all that it started and that still run."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _text(children).split():
            yield from process_tree(int(child))


def processor_seconds(pid: int) -> float:
    """Processor time that a process and all that it started have taken."""
    total = 0
    for member in process_tree(pid):
        fields = _text(Path(f"/proc/{member}/stat")).rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def process_age() -> float:
    """Seconds since this process was started."""
    fields = _text(Path("/proc/self/stat")).rpartition(")")[2].split()
    uptime = _text(Path("/proc/uptime")).split()
    if not fields or not uptime:
        return 0.0
    return max(float(uptime[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK"), 0.0)


def _kilobytes(pid: int | str, file: str, field: str) -> int:
    """A field of a file about a process, in bytes."""
    for line in _text(Path(f"/proc/{pid}/{file}")).splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _peak_without_proc(pid: int | str) -> int:
    if pid != "self":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _text(path: Path) -> str:
    """What a file of the system says; nothing where it isn't, or its process has ended."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
