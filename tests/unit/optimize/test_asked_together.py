"""Rungs that lose nothing are asked together; one that changes an answer all the same is found and undone."""

import resource
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from servegraph import storage
from servegraph.answers import gate
from servegraph.answers.ask import Servable
from servegraph.answers.original import ask_original
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import StorageError
from servegraph.optimize.climb import start
from servegraph.optimize.goal import Goal
from servegraph.optimize.optimize import optimize
from servegraph.optimize.rungs import RUNGS, Rung
from servegraph.optimize.terms import Terms
from servegraph.progress import Progress
from servegraph.rewriting import draft_reader, draft_writer
from servegraph.savedmodel.graph_reader import read_saved_model

tf1 = tf.compat.v1
X = np.ones((2, 8), np.float32)


@pytest.fixture
def model(tmp_path):
    """y = x @ w · 2, of TF1: its checkpoint has nothing that serving does not need."""
    path = tmp_path / "model"
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None, 8], name="x")
        w = tf1.get_variable("w", [8, 8], initializer=tf1.random_normal_initializer(seed=1), use_resource=True)
        y = tf.matmul(x, w) * tf.constant(2.0, name="factor")
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    return path


def times(factor, draft):
    """A change of the graph: of the answers too where the factor is not 1. Adds an attribute, so that it is one."""

    def change(graph):
        nodes = dict(graph.nodes)
        nodes["factor"] = node = type(nodes["factor"])()
        node.CopyFrom(graph.nodes["factor"])
        node.attr["_times"].f = factor + node.attr["_times"].f
        value = node.attr["value"].tensor
        value.CopyFrom(tf.make_tensor_proto(np.float32(tf.make_ndarray(value) * np.float32(factor))))
        return replace(graph, nodes=nodes)

    return draft.with_graphs(change)


def rung(name, loss, factor):
    return Rung(name, "", loss, change=partial(times, factor), grows=True)


@pytest.fixture(params=[False, True], ids=["", "foreseen"])
def climbed(request, model, tmp_path, monkeypatch):
    """Climb, whether what the rungs make is written ahead or not; return the climb and how often a model was asked."""

    def climb_with(*rungs, tolerance=None):
        asked, wrote = [], []
        measure, write = gate.measure, draft_writer.write
        monkeypatch.setattr(gate, "measure", lambda path, *more: asked.append(path) or measure(path, *more))
        monkeypatch.setattr(
            draft_writer, "write", lambda draft, *more, **how: wrote.append(draft) or write(draft, *more, **how)
        )
        original = draft_reader.read(model)
        graph = read_saved_model(storage.open_dir(model))
        evidence = ask_original(model, graph, original.definitions, None)
        climb = start(
            original,
            Terms(None, tolerance or Tolerance(), rungs, climbs_all=True),
            tmp_path / "work",
            Progress("test", total=1),
        )
        if request.param:
            climb.foresee(lambda: False)
            assert wrote
        foreseen = len(wrote)
        climb.run(evidence)
        assert [path.name for path in (tmp_path / "work").iterdir()] == [climb.best.path.name]
        if request.param and all(step.kept for step in climb.steps):
            assert len(wrote) == foreseen
        return climb, len(asked) - 1  # one is that of the result through the other loader

    return climb_with


def answer(path):
    with Servable(path, loader="session") as servable:
        return servable("serving_default", {"x": X})["y"]


def kept(climb):
    return [(step.name, step.kept) for step in climb.steps]


def test_rungs_that_keep_every_bit_are_asked_once(model, climbed):
    climb, asked = climbed(rung("a", "none", 1), rung("b", "rounding", 1), rung("c", "none", 1))
    assert kept(climb) == [("a", True), ("b", True), ("c", True)]
    assert asked == 1
    assert [step.agreement for step in climb.steps] == [1, 1, 1]
    assert [step.max_abs_diff for step in climb.steps] == [0, 0, 0]
    assert [step.asking_seconds > 0 for step in climb.steps] == [False, False, True]
    assert (answer(climb.best.path) == answer(model)).all()


def test_one_that_changes_an_answer_is_undone_alone(model, climbed):
    climb, _ = climbed(rung("a", "none", 1), rung("b", "none", 3), rung("c", "none", 1))
    assert kept(climb) == [("a", True), ("b", False), ("c", True)]
    assert "a lossless rung changed an answer" in climb.steps[1].reason
    assert (answer(climb.best.path) == answer(model)).all()


def test_rounding_after_them_is_no_excuse_for_those_that_keep_every_bit(model, climbed):
    climb, _ = climbed(rung("a", "none", 1), rung("b", "none", 1 + 1e-6), rung("c", "rounding", 1 + 1e-6))
    assert kept(climb) == [("a", True), ("b", False), ("c", True)]


def test_where_one_rounds_what_was_before_it_is_asked_as_well(model, climbed):
    climb, asked = climbed(rung("a", "none", 1), rung("b", "rounding", 1 + 1e-6), rung("c", "none", 1))
    assert kept(climb) == [("a", True), ("b", True), ("c", True)]
    assert asked == 2
    assert climb.steps[0].max_abs_diff == 0
    assert climb.steps[1].max_abs_diff == climb.steps[2].max_abs_diff > 0


def test_what_loses_more_than_is_allowed_is_undone_and_what_was_written_after_it_is_not_used(model, climbed):
    halve, quarter = (found for found in RUNGS if found.name in ("halve", "quarter"))
    climb, _ = climbed(
        rung("a", "none", 1), halve, rung("b", "none", 1), quarter, tolerance=Tolerance(max_abs_diff=1e-7)
    )
    assert kept(climb) == [("a", True), ("halve", False), ("b", True), ("quarter", False)]
    assert (answer(climb.best.path) == answer(model)).all()


def test_rounding_beyond_measure_is_undone(model, climbed):
    climb, _ = climbed(rung("a", "none", 1), rung("b", "rounding", 1.1))
    assert kept(climb) == [("a", True), ("b", False)]
    assert (answer(climb.best.path) == answer(model)).all()


def test_the_result_shares_no_file_with_the_model(model, tmp_path):
    """Its variables are as they were: a second name of the same file would change with the model, and need its disk."""
    result = optimize(model, tmp_path / "out", Goal(rungs=("strip",)))
    assert [step.kept for step in result.steps] == [True]
    data = "variables/variables.data-00000-of-00001"
    assert (tmp_path / "out" / data).read_bytes() == (model / data).read_bytes()
    assert (tmp_path / "out" / data).stat().st_ino != (model / data).stat().st_ino
    assert (tmp_path / "out" / data).stat().st_nlink == 1


def test_no_room_is_one_error_and_nothing_stays(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes of a file; the variables have 256
    try:
        with pytest.raises(StorageError) as caught:
            optimize(model, tmp_path / "out", Goal())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.code == "DISK_FULL"
    assert "[" not in caught.value.message  # no error within another
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_where_the_disk_cannot_hold_what_is_written_ahead_it_is_written_one_after_the_other(
    model, tmp_path, monkeypatch
):
    fill, calls = draft_writer.fill, []

    def refuse_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise StorageError("The disk is full.")
        fill(*arguments)

    monkeypatch.setattr(draft_writer, "fill", refuse_first)
    result = optimize(model, tmp_path / "out", Goal())
    assert len(calls) == 2
    assert result.after_bytes < result.before_bytes
    assert (answer(tmp_path / "out") == answer(model)).all()
