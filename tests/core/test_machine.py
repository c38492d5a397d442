"""Cores and memory, against the system's own figures and cgroups of every kind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlopsdeploy.core import machine

CORES = machine.core_count()


def system(folder, cgroup, **files):
    """A /proc and a /sys that say so; `__` in a name stands for a slash, `_` stays."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        file = folder / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: list(range(8)))


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"pod__box__cpu_max": "max 100000\n"}, 8),
        ({"pod__box__cpu_max": "200000 100000\n"}, 2),
        ({"pod__box__cpu_max": "150000 100000\n"}, 2),
        ({"pod__box__cpu_max": "50000 100000\n"}, 1),
        ({"pod__box__cpu_max": "1600000 100000\n"}, 8),
        ({"pod__box__cpu_max": "75000 25000\n"}, 3),
        # The smallest quota of all levels counts.
        ({"pod__cpu_max": "200000 100000", "pod__box__cpu_max": "max 100000"}, 2),
    ],
)
def test_quota_of_version_2(tmp_path, quotas, cores):
    root = system(tmp_path, "0::/pod/box\n", **quotas)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("cpu memory\n")
    assert machine.core_count(root) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", 8), ("250000\n", 3), ("20000\n", 1)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
# A container may be named as on its host, and see its own group alone.
@pytest.mark.parametrize("group", ["cpu__x", "cpu"])
def test_quota_of_version_1(tmp_path, quota, cores, controllers, group):
    files = {f"{group}__cpu_cfs_quota_us": quota, f"{group}__cpu_cfs_period_us": "100000\n"}
    cgroup = f"5:memory:/x\n4:{controllers}:/x\n1:cpuset:/\n0::/\n"
    assert machine.core_count(system(tmp_path, cgroup, **files)) == cores


def test_without_cgroups_affinity_alone_counts(tmp_path):
    assert machine.core_count(tmp_path) == 8


def python(code, **options):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **options
    )
    return done.stdout


COUNT = "from mlopsdeploy.core.machine import core_count; print(core_count())"


def test_affinity_of_a_process_counts():
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {COUNT}"
    assert python(code) == "1\n"


def test_quota_that_the_kernel_keeps_counts():
    mount = Path("/sys/fs/cgroup/cpu")
    if CORES < 2 or not (mount / "cpu.cfs_quota_us").exists() or not os.access(mount, os.W_OK):
        pytest.skip("needs two cores and the right to make a cgroup of version 1")
    group = mount / f"mlopsdeploy-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        join = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid())); "
        assert python(join + COUNT) == "1\n"
    finally:
        group.rmdir()


HOLD = """
import subprocess, sys
held = b"x" * 50_000_000
del held
held = b"x" * 20_000_000
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=sys.stdin)
print("there", flush=True)
sys.stdin.read()
"""


def test_memory_and_time_of_a_process_and_those_it_started(tmp_path):
    (tmp_path / "hold.py").write_text(HOLD)
    command = [sys.executable, "hold.py", "hold.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == [b"there\n"] * 2
        tree = list(machine.process_tree(parent.pid))
        assert len(tree) == 2
        now, most = machine.resident_memory(parent.pid), machine.peak_memory(parent.pid)
        together = sum(map(machine.proportional_memory, tree))
        time = machine.processor_seconds(parent.pid)
        parent.stdin.close()
    assert 20e6 < now < most - 15e6
    assert 40e6 < together < 2 * most
    assert 0 <= time < 60
    assert machine.resident_memory(parent.pid) == machine.peak_memory(parent.pid) == 0
    assert machine.proportional_memory(parent.pid) == 0


def test_memory_of_this_process():
    assert 1e7 < machine.resident_memory() <= machine.peak_memory()


def test_a_machine_in_words():
    assert machine.name().startswith("8 cores of ")
