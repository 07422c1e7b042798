"""What the component does beyond `export`: it takes what any step left, and replaces what a failed attempt left."""

from __future__ import annotations

from pathlib import Path

from servegraph.components import export_serving_graph
from servegraph.export_serving_graph.export import export_artifact

SAVED = Path(__file__).parents[2] / "real_models/v1_adam"


def test_a_saved_model_keeps_its_signatures_as_the_description_says(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "left by a failed attempt").write_text("")
    done = export_artifact(str(SAVED), str(out), samples=None, trainer=None, trust_code=False)
    assert (done.source_kind, done.signatures) == ("saved_model", ("look_up", "serving_default"))
    assert (out / "saved_model.pb").is_file() and not (out / "left by a failed attempt").exists()
    described = export_serving_graph.component_spec.description
    assert "SavedModel" in described and "servegraph export" in described
