"""What is free: the least of what the machine has and what the container leaves."""

from pathlib import Path

import pytest

from servegraph.errors import ModelError
from servegraph.optimize.free_memory import free_bytes, require_room


def _cgroup(path: Path, limit: str, used: int, cache: int) -> Path:
    path.mkdir()
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")
    return path


@pytest.mark.parametrize(
    ("limit", "free"), [("max", 8_192_000), ("2000000", 2_000_000 - 900_000 + 400_000), ("90000000000", 8_192_000)]
)
def test_the_narrower_limit_counts_and_cached_files_do_not(tmp_path: Path, limit: str, free: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\n")
    assert free_bytes(tmp_path / "meminfo", _cgroup(tmp_path / "cgroup", limit, 900_000, 400_000)) == free


def test_a_system_that_does_not_say_refuses_nothing(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "none", tmp_path / "none") is None
    require_room(10**15, None)


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(ModelError, match=r"12\.0 GB of memory, and 4\.00 GB are free") as caught:
        require_room(12_000_000_000, 4_000_000_000)
    assert caught.value.code == "NO_MEMORY"
