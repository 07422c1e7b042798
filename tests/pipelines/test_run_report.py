"""A run's record and its page: what they say of the steps, the metrics and the deployment."""

import errno
import html
import json
import os
import re

import pytest

from servegraph_pipelines.cli.cmd_run import _show
from servegraph_pipelines.run import Run, StepRecord, failure
from servegraph_pipelines.run_report import MAX_MATRIX, confused, finish


def test_a_step_on_a_full_disk_says_so_and_the_report_has_the_rest(tmp_path):
    folder = tmp_path / "pipeline"
    for step, output in (("digest-data", '{"parameterValues": {}}'), ("train", "")):
        (folder / step).mkdir(parents=True)
        (folder / step / "executor_output.json").write_text(output)
    said = f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    (tmp_path / "run.log").write_text(f"    {said}\njson.decoder.JSONDecodeError: Expecting value\n")
    state = Run(tmp_path, {}, steps=[StepRecord("train", "failed"), StepRecord("optimize")], pipeline_dir=folder)
    state.error = failure(state)
    assert (state.error.code, state.error.message) == ("DISK_FULL", f"Step train: {said}")
    assert finish(state)["error"]["code"] == "DISK_FULL"
    assert "DISK_FULL" in (tmp_path / "report.html").read_text()
    assert "<td>optimize</td><td>not run</td>" in (tmp_path / "report.html").read_text()


def left(folder, step, **metadata):
    """What a step leaves beside its artifacts: their metadata."""
    (folder / step).mkdir(parents=True)
    rows = {artifact: {"artifacts": [{"metadata": row}]} for artifact, row in metadata.items()}
    (folder / step / "executor_output.json").write_text(json.dumps({"artifacts": rows}))


def test_what_was_decided_about_the_data_is_shown(tmp_path, capsys):
    notes = [
        "'text' is free text, of which each value is taken whole.",
        "'hours' is taken as text: '0,5' is no number.",
    ]
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {}, "notes": notes}})
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=folder))
    assert document["notes"] == notes
    _show(document)
    shown, page = capsys.readouterr().out, html.unescape((tmp_path / "report.html").read_text())
    assert all(note in shown and note in page for note in notes)


def test_a_refusal_says_that_nothing_was_deployed(tmp_path, capsys):
    folder = tmp_path / "pipeline"
    metric = {"metric": {"name": "accuracy", "value": 0.8}, "size_bytes": 5, "latency_ms": 1.0}
    reasons = ["The accuracy is 0.8; 0.9 is asked for."]
    left(folder, "evaluate", evaluation={})
    evaluation = {"verdict": "refused", "reasons": reasons, "candidate": metric, "live": None}
    (folder / "evaluate/evaluation").write_text(json.dumps(evaluation))
    _show(finish(Run(tmp_path, {}, steps=[StepRecord("evaluate", "succeeded")], pipeline_dir=folder)))
    assert f"evaluated  refused, so nothing was deployed: {reasons[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("measured", ["optimize", "evaluate", None])
def test_metrics_say_which_model_they_are_of(tmp_path, measured, capsys):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9, "auc": 0.95}}})
    figures = {"before_bytes": 9, "after_bytes": 5, "agreement": 0.98, "max_abs_diff": 0.1}
    figures |= {"accuracy_after": 0.8} if measured == "optimize" else {}
    left(folder, "optimize", metrics=figures, optimized={"ServingModel": {"size_bytes": 5}})
    metric = {"metric": {"name": "accuracy", "value": 0.8}, "size_bytes": 5, "latency_ms": 1.0}
    evaluation = {"verdict": "blessed", "reasons": [], "candidate": metric, "live": None}
    if measured == "evaluate":
        left(folder, "evaluate", evaluation={})
        (folder / "evaluate/evaluation").write_text(json.dumps(evaluation))
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=folder))
    assert document["metrics"] == {"accuracy": 0.9, "auc": 0.95}
    assert document["optimized_metrics"] == ({"accuracy": 0.8} if measured else {})
    page = (tmp_path / "report.html").read_text()
    assert "Metrics of the trained model" in page
    assert ("of the optimized model" in page) == ("which is not deployed: accuracy 0.8000." in page) == bool(measured)
    assert ("held against the trained one" in page) != bool(measured)
    _show(document)
    shown = capsys.readouterr().out
    assert "trained: accuracy 0.9000, auc 0.9500\n" in shown
    assert ("optimized: accuracy 0.8000\n" in shown) == bool(measured)


@pytest.mark.parametrize("deploy", ["succeeded", "skipped", "failed", None])
def test_the_report_says_what_was_deployed_and_what_stays_live(tmp_path, deploy):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9}}})
    left(folder, "optimize", optimized={"ServingModel": {"size_bytes": 5}})
    left(folder, "live-version")
    (folder / "live-version/executor_output.json").write_text('{"parameterValues": {"version": "3", "uri": "/v/3"}}')
    if deploy == "succeeded":
        left(folder, "deploy-version")
        deployment = {"name": "kinds", "version": "4", "outcome": "created", "target": "vertex"}
        (folder / "deploy-version/deployment").write_text(json.dumps(deployment))
    steps = [StepRecord("train", "succeeded")]
    if deploy:
        steps.append(StepRecord("deploy-version", deploy, started=0.0 if deploy == "skipped" else 1.0))
    finish(Run(tmp_path, {"target": "vertex"}, steps=steps, pipeline_dir=folder))
    page = (tmp_path / "report.html").read_text()
    assert ("what is deployed" in page) == ("which is deployed" in page) == (deploy == "succeeded")
    assert (">not deployed<" in page) == ("which is not deployed" in page) == (deploy != "succeeded")
    # A deploy that was begun may have moved the traffic.
    assert ("Nothing was deployed: version 3 stays live." in page) == (deploy in ("skipped", None))


def test_an_error_has_one_name(tmp_path, capsys):
    folder = tmp_path / "pipeline"
    left(folder, "train", model={"TrainedModel": {"size_bytes": 9, "metrics": {"mae": 101597.3533, "r2": 0.9}}})
    left(folder, "optimize", metrics={"mean_absolute_error_after": 101597.3551, "agreement": 1.0, "max_abs_diff": 0.1})
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=folder))
    assert document["optimized_metrics"] == {"mean_absolute_error": 101597.3551}
    page = (tmp_path / "report.html").read_text()
    assert "<td>mean absolute error</td>" in page
    assert "<span>mean absolute error</span><b>101597.3551</b>" in page
    _show(document)
    shown = capsys.readouterr().out
    assert "trained: mean absolute error 101597.3533, r2 0.9000\n" in shown
    assert "optimized: mean absolute error 101597.3551\n" in shown


def test_the_pages_of_steps_open_as_pages(tmp_path):
    left(tmp_path / "pipeline", "optimize")
    (tmp_path / "pipeline/optimize/report").write_text("<p>größer")
    finish(Run(tmp_path, {}, steps=[StepRecord("optimize", "succeeded")], pipeline_dir=tmp_path / "pipeline"))
    assert (tmp_path / "ladder.html").read_text() == "<p>größer"
    assert re.findall(r'href="(.*?)"', (tmp_path / "report.html").read_text()) == ["ladder.html"]


@pytest.mark.parametrize("classes", [MAX_MATRIX, MAX_MATRIX + 1])
def test_many_classes_have_their_confusions_in_the_place_of_a_matrix(tmp_path, classes):
    rows = [[10 * (column == row) for column in range(classes)] for row in range(classes)]
    rows[2][5], rows[7][1] = 3, 4
    matrix = {
        "annotationSpecs": [{"displayName": f"class {number}"} for number in range(classes)],
        "rows": [{"row": row} for row in rows],
    }
    assert confused(matrix) == [("class 7", "class 1", 4), ("class 2", "class 5", 3)]
    model = {"TrainedModel": {"size_bytes": 9, "metrics": {"accuracy": 0.9}}}
    left(tmp_path, "train", model=model, classification_metrics={"confusionMatrix": matrix})
    finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")], pipeline_dir=tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert ('<div class="scroll"><table class="matrix">' in page) == (classes <= MAX_MATRIX)
    assert ("All confusions among 13 classes" in page) == (classes > MAX_MATRIX)


def test_a_report_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    (tmp_path / "report.html").mkdir()
    document = finish(Run(tmp_path, {}, steps=[StepRecord("train", "succeeded")]))
    assert (document["status"], document["error"]["code"], document["report"]) == ("failed", "NOT_A_FILE", None)
    assert json.loads((tmp_path / "run.json").read_text()) == document
