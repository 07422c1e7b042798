"""Where a control group is made, from what kernels and container runtimes say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from servegraph.measure import cgroups
from servegraph.measure.cgroups import Group, Hierarchy, hierarchies, limited_group

VERSION_2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
DISK = "24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"


def test_version_2_of_a_login_session() -> None:
    (found,) = hierarchies(DISK + VERSION_2, "0::/user.slice/user-0.slice/session-1.scope\n")
    assert found == Hierarchy(Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope"), 2)


@pytest.mark.parametrize(
    ("root", "own"),
    [("/docker/1f", "/docker/1f"), ("/", "/"), ("/docker/1f", "/../2e"), ("/docker/1f", "/")],
    ids=["shown as it is", "a namespace", "outside", "a namespace that shows more"],
)
def test_version_1_of_a_container(root: str, own: str) -> None:
    mounts = f"1201 1190 0:27 {root} /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n"
    (found,) = hierarchies(DISK + mounts, f"4:cpu,cpuacct:{own}\n1:name=systemd:{own}\n")
    place = Path("/sys/fs/cgroup/cpu,cpuacct")
    assert found == Hierarchy(place, place, 1, frozenset({"cpu", "cpuacct"}))


def test_a_kernel_with_both_versions() -> None:
    mounts = (
        "32 31 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    )
    found = hierarchies(mounts, "4:memory:/batch/7\n0::/\n")
    assert [(one.version, str(one.own)) for one in found] == [
        (1, "/sys/fs/cgroup/memory/batch/7"),
        (2, "/sys/fs/cgroup/unified"),
    ]


def tree(tmp_path: Path, **handed_down: str) -> Hierarchy:
    """A hierarchy of version 2 whose groups are nested in the order of the arguments; the last one is ours."""
    directory = tmp_path
    for name, controllers in handed_down.items():
        directory = directory if name == "root" else directory / name
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text(controllers)
        (directory / "cgroup.procs").write_text("")
    return Hierarchy(tmp_path, directory, 2)


def test_version_2_takes_the_nearest_group_that_hands_down_what_is_needed(tmp_path: Path) -> None:
    found = tree(tmp_path, root="cpu memory", middle="memory pids", own="")
    assert cgroups._parents_2([found], {"cpu", "memory"}) == {"cpu": tmp_path, "memory": tmp_path}
    assert cgroups._parents_2([found], {"memory"}) == {"memory": tmp_path / "middle"}
    assert cgroups._parents_2([found], {"io"}) == {}


def test_version_1_needs_both_controllers(tmp_path: Path) -> None:
    cpu = Hierarchy(tmp_path, tmp_path / "c", 1, frozenset({"cpu", "cpuacct"}))
    assert cgroups._parents_1([cpu], {"cpu"}) == {"cpu": tmp_path / "c"}
    assert cgroups._parents_1([cpu], {"cpu", "memory"}) == {}


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for found in ([], [Hierarchy(gone, gone, 1, frozenset({"cpu", "memory"}))]):
        with limited_group(1, 10**9, found) as group:
            assert group is None
    assert list(tmp_path.iterdir()) == []


def test_a_group_as_an_argument() -> None:
    group = Group((Path("/sys/fs/cgroup/cpu/a:b"), Path("/sys/fs/cgroup/memory/a:b")))
    assert Group.named(str(group)) == group
    assert group.oom_kills == 0
