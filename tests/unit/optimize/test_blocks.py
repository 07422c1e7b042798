"""A large matrix is turned back in blocks: the same values, in every form, and hardly more memory than they take."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from servegraph import storage
from servegraph.answers.ask import Servable
from servegraph.answers.tolerance import Tolerance
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.rewriting.blocks import Blocks, in_blocks
from servegraph.rewriting.contents import Literal
from servegraph.rewriting.forms import Cast, Part, plan_half
from servegraph.rewriting.int8 import plan_int8
from servegraph.savedmodel.bundle_reader import BundleReader
from servegraph.savedmodel.reachability import training_baggage


class Table(tf.Module):
    """A table [rows, columns], of which rows are picked, and a small matrix."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        super().__init__()
        self.table = tf.Variable(values)
        self.small = tf.Variable(tf.eye(values.shape[1]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
    def serve(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"rows": tf.gather(self.table, ids) @ self.small}


def values(rows: int, columns: int, *, by_row: bool = False) -> NDArray[np.float32]:
    """Random numbers, of which every row, or column, is on another scale."""
    random = np.random.default_rng(0)
    scales = random.uniform(0.1, 10, (rows, 1) if by_row else (1, columns))
    return random.standard_normal((rows, columns), np.float32) * scales.astype(np.float32)


# Float16 needs half of a matrix beside it, int8 a quarter, int4 more: from 4 MiB on blocks pay. No number of rows is one
# of whole blocks.
@pytest.mark.parametrize(
    ("rung", "shape", "by_row", "step"),
    [
        ("halve", (30_007, 104), False, 2.0**-10),
        ("quarter", (50_007, 104), False, 1 / 127),
        ("quarter", (50_007, 104), True, 1 / 127),
        ("eighth", (20_011, 104), False, 1 / 7),
        ("eighth", (20_011, 96), True, 1 / 7),
    ],
)
def test_every_row_is_in_its_place(
    rung: str, shape: tuple[int, int], by_row: bool, step: float, tmp_path: Path
) -> None:
    weights = values(*shape, by_row=by_row)
    table = Table(weights)
    tf.saved_model.save(table, str(tmp_path / "model"), signatures=table.serve)
    goal = Goal(rungs=("strip", "share", rung), tolerance=Tolerance(min_agreement=0))
    result = optimize(tmp_path / "model", tmp_path / "out", goal)
    assert result.steps[-1].kept, result.steps[-1].reason
    small = storage.open_dir(tmp_path / "out")
    with BundleReader(small) as tensors:
        assert sum(key.endswith(":001") for key in tensors.entries) >= 1
    inspection = inspect_directory(small, verify=True)
    assert [found for found in inspection.findings if found.severity == "error"] == []
    assert weights.nbytes <= (inspection.memory_bytes or 0) < 1.1 * weights.nbytes
    assert training_baggage(small) == []
    ids = np.arange(shape[0])
    largest = np.abs(weights).max(axis=1 if by_row else 0, keepdims=True)
    for loader in ("session", "v2"):
        with Servable(tmp_path / "out", loader=loader) as servable:
            have = servable("serving_default", {"ids": ids})["rows"]
        assert np.all(np.abs(have - weights) <= largest * step)


def cut(*shapes: tuple[int, ...], held: int = 0) -> list[bool]:
    """Whether each of float32 tensors of these shapes is cut as float16; the tenth is one to be left whole."""
    contents = {str(n): Literal(np.ones(shape, np.float32)) for n, shape in enumerate(shapes)}
    forms = {key: form for key, content in contents.items() if (form := plan_half(content, None))}
    return [isinstance(form, Blocks) for form in in_blocks(contents, forms, {"9"}, held).values()]


def test_equal_blocks_are_stored_once(tmp_path: Path) -> None:
    weights = values(50_007, 104)
    weights[10_000:] = 0  # words that no training met
    module = tf.Module()  # two slices of a table, of the same words
    module.halves = [tf.Variable(weights), tf.Variable(weights)]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
    def serve(ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"rows": (tf.gather(module.halves[0], ids) + tf.gather(module.halves[1], ids)) / 2}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    optimize(tmp_path / "model", tmp_path / "out", Goal(rungs=("strip", "quarter")))  # without share
    inspection = inspect_directory(storage.open_dir(tmp_path / "out"), verify=True)
    assert "DUPLICATE_TENSORS" not in {found.code for found in inspection.findings}
    assert inspection.size_bytes < weights.nbytes / 4 / 3
    assert 2 * weights.nbytes <= (inspection.memory_bytes or 0) < 2.2 * weights.nbytes
    for loader in ("session", "v2"):
        with Servable(tmp_path / "out", loader=loader) as servable:
            have = servable("serving_default", {"ids": np.arange(len(weights))})["rows"]
        assert np.abs(have - weights).max() <= np.abs(weights).max() / 127


LARGE = (10_000, 1000)  # 40 MB, and 20 MB beside it


def test_which_matrices_are_cut() -> None:
    assert cut(LARGE, (1000,)) == [True, False]
    assert cut((1000, 1000)) == [False]  # too small to leave much
    assert cut(*[(3000, 1000)] * 8) == [True] * 8
    assert cut((3000, 1000), *[LARGE] * 8) == [False, *[True] * 8]  # little of all that is held
    assert cut((10, 1000, 1000)) == [False]  # no matrix
    assert cut((32, 1_000_000)) == [False]  # 32 rows are a block
    assert cut(*[(8, 8)] * 9, LARGE) == [False] * 10


def test_where_the_original_held_more_there_is_room_to_turn_back_a_whole_matrix() -> None:
    assert cut(LARGE, held=40_000_000) == [True]
    assert cut(LARGE, held=50_000_000) == [True]
    assert cut(LARGE, held=80_000_000) == [False]


@pytest.mark.parametrize("rows", [2_097, 4_096, 60_001, 1_000_003])
def test_blocks_follow_each_other_and_the_last_is_the_largest(rows: int) -> None:
    content = Literal(np.broadcast_to(np.float32(1), (rows, 1024)))
    form = Cast("float16", 0.0, (Part("", "float16", content.shape),))
    found = in_blocks({"w": content}, {"w": form}, set(), 0)["w"]
    assert isinstance(found, Blocks)
    *others, last = found.blocks
    ends = [block.start + block.shape[0] for block in found.blocks]
    assert [0, *ends] == [*(block.start for block in found.blocks), rows]
    assert len({block.shape for block in others}) == 1
    assert others[0].shape[0] <= last.shape[0] < 2 * others[0].shape[0]
    assert len(found.blocks) < 1100


def test_scales_of_columns_are_stored_once() -> None:
    content = Literal(values(200_000, 100))
    form = plan_int8(content, None)
    assert form is not None
    blocks = in_blocks({"w": content}, {"w": form}, set(), 0)["w"]
    assert isinstance(blocks, Blocks)
    assert [part.suffix for part in blocks.parts].count(":scale") == 1
    assert sum(part.size_bytes for part in blocks.parts) == form.stored_bytes
    whole = b"".join(b"".join(chunks) for chunks in form.stored(content, None))
    assert b"".join(b"".join(chunks) for chunks in blocks.stored(content, None)) == whole


MEASURE = """
import json, sys
import tensorflow as tf
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    print(json.dumps(resident() - before))
"""


def test_loading_takes_hardly_more_than_the_original(tmp_path: Path) -> None:
    table = Table(values(200_000, 100))
    tf.saved_model.save(table, str(tmp_path / "model"), signatures=table.serve)
    optimize(tmp_path / "model", tmp_path / "out", Goal(rungs=("strip", "share", "fold", "halve")))

    def loaded(model: Path) -> int:
        command = [sys.executable, "-c", MEASURE, str(model)]
        return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    assert loaded(tmp_path / "out") < 1.15 * loaded(tmp_path / "model")  # 1.04; 1.5 as a whole
