"""Limits that a kernel holds: real control groups and real processes, where this machine lets one make a group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servegraph.measure.cgroups import Group, limited_group

MODELS = Path(__file__).parent / "models"
MB = 1_000_000
NO_GROUP = "no control group can be made here: that takes root, and controllers that are handed down"

# Joins the group that its first argument names, and runs the second.
JOINED = "import sys; from servegraph.measure.cgroups import Group; Group.named(sys.argv[1]).join(); exec(sys.argv[2])"
# A second of work as far as it is let; prints the seconds that it got.
BURN = """
import os, time
os.sched_setaffinity(0, range(os.cpu_count()))
end = time.time() + 1
while time.time() < end: pass
print(time.process_time())
"""


@pytest.fixture
def group() -> Iterator[Group]:
    with limited_group(1, 200 * MB) as group:
        if group is None:
            pytest.skip(NO_GROUP)
        yield group


def inside(group: Group, code: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", JOINED, str(group), code], stdout=stdout)


def test_memory_above_the_limit_ends_the_child_and_no_one_else(group: Group) -> None:
    fits, does_not = inside(group, f"bytearray(50 * {MB})"), inside(group, f"len(bytearray(b'1' * 400 * {MB}))")
    assert (fits.wait(60), does_not.wait(60)) == (0, -signal.SIGKILL)
    assert group.oom_kills == 1


@pytest.mark.skipif(os.cpu_count() == 1, reason="one CPU cannot be exceeded here")
def test_two_busy_children_get_one_cpu_between_them(group: Group) -> None:
    for _ in range(10):
        before_s = time.monotonic()
        children = [inside(group, BURN, subprocess.PIPE) for _ in range(2)]
        used_s = sum(float(child.communicate(timeout=60)[0]) for child in children)
        assert used_s < (time.monotonic() - before_s) * 1.05 + 0.1  # a period of a tenth of a second may be ahead
        if throttled(group):
            return
    pytest.skip("this machine is too busy to give two processes a CPU each")


def throttled(group: Group) -> bool:
    """Whether the kernel has made the group wait."""
    files = [directory / "cpu.stat" for directory in group.directories if (directory / "cpu.stat").exists()]
    return any(line.startswith("nr_throttled ") and line != "nr_throttled 0" for line in _lines(files))


def _lines(files: list[Path]) -> list[str]:
    return [line for file in files for line in file.read_text().splitlines()]


def test_a_group_goes_when_its_block_fails_and_takes_what_is_in_it_along() -> None:
    with pytest.raises(ZeroDivisionError), limited_group(1, 200 * MB) as group:
        if group is None:
            pytest.skip(NO_GROUP)
        child = inside(group, "import time; print(flush=True); time.sleep(600)")
        while str(child.pid) not in (group.directories[0] / "cgroup.procs").read_text():
            time.sleep(0.01)
        raise ZeroDivisionError
    assert child.wait(10) == -signal.SIGKILL
    assert not [directory for directory in group.directories if directory.exists()]


def start(*options: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", "measure", *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def groups_of(pid: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"servegraph-{pid}-*"))


@pytest.mark.parametrize(("memory", "code"), [("2GB", 0), ("150MB", 1)])
def test_a_measurement_in_a_group(group: Group, tmp_path: Path, memory: str, code: int) -> None:
    options = (str(MODELS / "half"), "--cpus", "1", "--memory", memory, "--seconds", "0.1", "--no-tune", "--json")
    process = start(*options, folder=tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    if code == 0:
        assert json.loads(output)["limited_by"] == "cgroup"
    else:
        assert "DOES_NOT_FIT" in errors
        assert "under 1 CPU and 150 MB of memory: it was ended for needing more memory" in errors
    assert groups_of(process.pid) == []
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_that_is_terminated_leaves_nothing(group: Group, tmp_path: Path) -> None:
    process = start(str(MODELS / "half"), "--cpus", "1", "--memory", "2GB", "--seconds", "60", folder=tmp_path)
    deadline_s = time.monotonic() + 60
    while not (groups := groups_of(process.pid)) or not (groups[0] / "cgroup.procs").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    server = int((groups[0] / "cgroup.procs").read_text())
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    assert groups_of(process.pid) == []
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/proc/{server}").exists()
