"""What cannot be optimized, or is ended on the way: one error that says why, and nothing left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from servegraph.errors import InputError, StorageError
from servegraph.optimize.goal import Goal, goal_of
from servegraph.optimize.optimize import optimize
from servegraph_pipelines.cli.cmd_optimize import command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "m"
    module = tf.Module()
    module.w = tf.Variable(np.ones((40, 40), np.float32))
    serve = tf.function(lambda x: {"y": x @ module.w}, [tf.TensorSpec([None, 40], tf.float32, "x")])
    tf.saved_model.save(module, str(path), {"serving_default": serve})
    return path


def contents(path: Path) -> set[str]:
    return {found.relative_to(path).as_posix() for found in path.rglob("*")}


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("m", "OUTPUT_EXISTS"),
        ("m/deep/out", "OUTPUT_IN_MODEL"),
        ("dangling", "OUTPUT_EXISTS"),
        ("file/out", "CANNOT_WRITE"),
    ],
)
def test_where_it_must_not_be_written_the_model_is_not_touched(model, where, code):
    (model.parent / "file").write_text("")
    if not (model.parent / "dangling").is_symlink():
        (model.parent / "dangling").symlink_to("nowhere")
    before = contents(model.parent)
    with pytest.raises((InputError, StorageError)) as caught:
        optimize(model, model.parent / where, Goal())
    assert caught.value.code == code
    assert caught.value.fix
    assert contents(model.parent) == before


def test_an_asset_that_leads_out_of_the_model_is_named(model, tmp_path):
    (tmp_path / "secret").write_text("not of the model")
    (model / "assets").mkdir(exist_ok=True)
    (model / "assets/link").symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(StorageError) as caught:
            optimize(model, tmp_path / "out", Goal(rungs=("halve",)))
    finally:
        (model / "assets/link").unlink()
    assert caught.value.code == "LINK_OUTSIDE"
    assert contents(tmp_path) == {"secret"}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"min_agreement": 99.0}, "BAD_TOLERANCE"),
        ({"max_abs_diff": -1.0}, "BAD_TOLERANCE"),
        ({"max_metric_drop": float("nan"), "label": "y"}, "BAD_TOLERANCE"),
        ({"min_count": 0}, "BAD_TOLERANCE"),
        ({"max_metric_drop": 0.01}, "BAD_INPUT"),
    ],
)
def test_a_goal_that_cannot_be_held_to_is_refused_with_what_to_do(given, code):
    with pytest.raises(InputError) as caught:
        goal_of(**given)
    assert caught.value.code == code
    assert caught.value.fix


def test_a_budget_that_no_model_fits_is_refused():
    with pytest.raises(InputError) as caught:
        goal_of(budget="0")
    assert caught.value.code == "BAD_SIZE"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "NOT_FOUND"),
        ({"max_abs_diff": "abc"}, "BAD_TOLERANCE"),
        ({"max_metric_drop": "a%"}, "BAD_TOLERANCE"),
        ({"max_metric_drop": "0.01"}, "BAD_INPUT"),
        ({"budget": "much"}, "BAD_SIZE"),
    ],
)
def test_the_component_refuses_before_tensorflow_is_started(tmp_path, given, code):
    script = f"""
from kfp import dsl
from servegraph.answers import child
from servegraph.errors import ServegraphError
from servegraph.optimize.component import optimize
outputs = {{"optimized": dsl.Model(uri="{tmp_path}/o"), "metrics": dsl.Metrics(), "report": dsl.HTML()}}
try:
    optimize.python_func(model=dsl.Model(uri="{tmp_path}/none"), **outputs, **{given!r})
except ServegraphError as error:
    print(error.code, child._server)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == [f"{code} None"], done.stderr


def test_a_rung_that_is_no_text_is_no_rung(model, tmp_path):
    with pytest.raises(InputError) as caught:
        optimize(model, tmp_path / "out", goal_of(rungs=[1, {}, "quater"]))
    assert (caught.value.code, caught.value.message) == ("UNKNOWN_RUNG", "There is no rung 1, quater, {}.")
    assert "Did you mean quarter?" in caught.value.fix


def test_a_page_that_cannot_be_written_is_said_before_anything_runs(model, tmp_path):
    page = tmp_path / "no/page.html"
    result = CliRunner().invoke(command, [str(model), str(tmp_path / "out"), "--html", str(page)])
    assert isinstance(result.exception, StorageError)
    assert str(page) in result.exception.message
    assert contents(tmp_path) == set()


def test_the_metric_before_and_after_is_shown(tmp_path):
    doubling = tf.Module()
    doubling.w = tf.Variable(2.0)
    serve = tf.function(lambda x: {"y": x * doubling.w}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(doubling, str(tmp_path / "m"), signatures=serve)
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(f'{{"x": {x}, "label": {2 * x + 1}}}\n' for x in range(20)))
    options = ("--samples", str(samples), "--label", "label", "--rungs", "strip")
    result = CliRunner().invoke(command, [str(tmp_path / "m"), str(tmp_path / "out"), *options])
    assert "(20 samples)\nmean absolute error 1.0000 → 1.0000\n" in result.stdout, result.output


def test_sigterm_ends_it_and_nothing_stays(model, tmp_path):
    program = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
    with subprocess.Popen([*program, "optimize", str(model), str(tmp_path / "out")], stderr=subprocess.PIPE) as tool:
        while not any(tmp_path.glob(".out-*/*")):
            assert tool.poll() is None, tool.communicate()[1]
            time.sleep(0.01)
        tool.send_signal(signal.SIGTERM)
        tool.communicate(timeout=60)
    assert tool.returncode == 130
    assert contents(tmp_path) == set()


def test_what_is_wrong_with_the_paths_is_said_without_tensorflow(model, tmp_path):
    for model_path, out, code in [(tmp_path, "out", "NOT_A_SAVED_MODEL"), (model, ".", "OUTPUT_EXISTS")]:
        (tmp_path / "a file").write_text("")
        script = f"""
import sys
from click.testing import CliRunner
from servegraph_pipelines.cli.cmd_optimize import command

result = CliRunner().invoke(command, [{str(model_path)!r}, {str(tmp_path / out)!r}])
print(result.exception.code, "tensorflow" in sys.modules)
"""
        ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert ran.stdout.split() == [code, "False"]
