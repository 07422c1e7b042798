"""The component's function, called as the executor calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kfp import dsl

from servegraph import taken
from servegraph.errors import Refusal
from servegraph.inspect_graph.component import inspect_graph

MODELS = Path(__file__).parents[2] / "real_models"


def call(name: str, tmp_path: Path, **parameters: object) -> tuple:
    model = dsl.Model(uri=str(MODELS / name))
    report, inspection = (
        dsl.HTML(uri=str(tmp_path / "report.html")),
        dsl.Artifact(uri=str(tmp_path / "inspection")),
    )
    return inspect_graph.python_func(model=model, report=report, inspection=inspection, **parameters)


def test_outputs(tmp_path: Path) -> None:
    inspected = call("module", tmp_path)
    assert inspected.size_bytes == sum(path.stat().st_size for path in (MODELS / "module").rglob("*") if path.is_file())
    assert inspected.memory_bytes > 0
    assert inspected.tag_sets == [["serve"]]
    assert inspected.findings == {"error": 0, "warning": 1, "info": 0}
    assert json.loads((tmp_path / "inspection").read_text())["size_bytes"] == inspected.size_bytes
    assert "Where the bytes are" in (tmp_path / "report.html").read_text()


def test_the_log_says_what_was_taken_by_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("module", tmp_path)
    assert taken.read(capsys.readouterr().out.splitlines()) == {}  # nobody told it
    call("module", tmp_path, model_digest="sha256:aa")
    assert taken.read(capsys.readouterr().out.splitlines()) == {"model": "sha256:aa"}
    model = dsl.Model(uri=str(MODELS / "module"), metadata={"ServingModel": {"size_bytes": 3.0, "digest": "sha256:bb"}})
    pages = {"report": dsl.HTML(uri=str(tmp_path / "r")), "inspection": dsl.Artifact(uri=str(tmp_path / "i"))}
    inspect_graph.python_func(model=model, **pages)
    assert taken.read(capsys.readouterr().out.splitlines()) == {"model": "sha256:bb"}


def test_errors_fail_the_step_after_the_report_is_written(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        call("unsafe", tmp_path)
    assert caught.value.code == "MODEL_NOT_SERVABLE"
    assert "UNSAFE_OP" in caught.value.message
    assert (tmp_path / "report.html").exists()


def test_errors_can_be_let_pass(tmp_path: Path) -> None:
    assert call("unsafe", tmp_path, strict=False).findings["error"] == 3


def test_a_platform(tmp_path: Path) -> None:
    call("keras_dense", tmp_path, platform="vertex")
    assert json.loads((tmp_path / "inspection").read_text())["platform"] == "vertex"
