"""What is free: the least of what the machine has and what the container leaves."""

from pathlib import Path

import pytest
import tensorflow as tf

from servegraph.errors import ModelError
from servegraph.optimize.free_memory import free_bytes, needed_bytes, require_room
from servegraph.rewriting import draft_reader


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


def test_constants_count_many_times_and_variables_once(tmp_path: Path) -> None:
    def saved(name, rows):
        module = tf.Module()
        module.rows = rows
        spec = tf.TensorSpec([None], tf.int32)
        module.look_up = tf.function(lambda ids: tf.gather(rows, ids), input_signature=[spec])
        tf.saved_model.save(module, tmp_path / name, signatures=module.look_up)
        return needed_bytes(draft_reader.read(tmp_path / name))

    values = tf.random.normal([1000, 250])
    frozen, variable = saved("frozen", values), saved("variable", tf.Variable(values))
    assert 23e6 < frozen - variable < 26e6


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(ModelError, match=r"12\.0 GB of memory, and 4\.00 GB are free") as caught:
        require_room(12_000_000_000, 4_000_000_000)
    assert caught.value.code == "NO_MEMORY"
