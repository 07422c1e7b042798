"""Whoever waits for a model learns for what, however long it takes."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers.ask import LOADERS, Servable
from servegraph.patience import waited_for, waiting_for


def heard(what: str) -> str:
    """Wait until the first line comes, and return it."""
    lines: list[str] = []
    came = threading.Event()
    with waiting_for(what, lambda line: (lines.append(line), came.set()), first_s=0.0):
        assert came.wait(60)
    return lines[0]


def in_a_fork() -> None:
    os._exit(0 if "the child's model" in heard("the child's model") else 1)


def test_a_line_says_what_is_waited_for() -> None:
    assert heard("a model").endswith(" s still waiting for a model.")
    assert waited_for() == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
def test_a_forked_process_says_it_as_well() -> None:
    heard("a model")
    child = multiprocessing.get_context("fork").Process(target=in_a_fork)
    child.start()
    child.join()
    assert child.exitcode == 0


def test_a_line_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    said = ""
    with waiting_for("a\x1bmodel", first_s=0.0):
        while not said.endswith("\n"):  # a line may come in pieces
            said += capfd.readouterr().err
    assert said.endswith("s still waiting for a\\u001bmodel. Ctrl-C ends it.\n")


@pytest.mark.parametrize("loader", LOADERS)
def test_the_signature_is_named_that_does_not_answer(tmp_path, loader) -> None:
    seen: list[list[str]] = []

    def look(x: np.ndarray) -> np.ndarray:
        seen.append(waited_for())
        return x

    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": tf.ensure_shape(tf.numpy_function(look, [x], tf.float32), [None])},
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"slow": module.f})
    with Servable(tmp_path / "m", loader=loader) as servable:
        servable("slow", {"x": np.ones(3, np.float32)})
    assert seen == [[f"the answer of signature 'slow' of {tmp_path / 'm'} ({loader} loader)"]]
