"""`servegraph explain` as text: what is long is shortened there, and whole in `--json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.tiny_models import write_tiny_model

from servegraph.errors import InputError, Refusal
from servegraph_pipelines.cli import app


def test_the_baseline_of_an_image_is_shortened_in_the_text(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m", inputs={"x": ("float32", [None, 32, 32, 3]), "n": ("float32", [None, 3])})
    asked = ["explain", str(model)]
    shown = CliRunner().invoke(app, asked).stdout
    assert len(shown.splitlines()) < 60
    spec = json.loads(shown.split("explanationSpec: ", 1)[1].replace(" ...", ' "..."'))
    inputs = spec["metadata"]["inputs"]
    assert inputs["x"]["inputBaselines"] == [[[[0.0, "..."], "..."], "..."]]
    assert inputs["n"]["inputBaselines"] == [[0.0, 0.0, 0.0]]
    whole = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["explanationSpec"]["metadata"]["inputs"]
    assert whole["x"]["inputBaselines"] == [[[[0.0] * 3] * 32] * 32]


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m", inputs={"x": ("string", [None])})
    for platform, kind, code in (
        ("vertex", InputError, "NOT_FOR_THIS_TARGET"),
        ("ai-platform", Refusal, "NO_EXPLANATIONS"),
    ):
        with pytest.raises(kind) as caught:
            app.main(["explain", str(model), "--platform", platform, "--write"], standalone_mode=False)
        assert caught.value.code == code
    assert "cannot explain it" in caught.value.message
    assert not (tmp_path / "m/explanation_metadata.json").exists()
