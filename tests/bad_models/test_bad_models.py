"""Every damaged and every hostile model gets its answer: the finding, never another exception."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.bad_models.build import Hostile
from tests.bad_models.damage import DAMAGES, MODELS, Damage
from tests.bad_models.fuzz import MAX_SECONDS, SEEDS, bases, look, run
from tests.bad_models.hostile_bundles import BUNDLES
from tests.bad_models.hostile_graphs import GRAPHS
from tests.effort import processor_s

from servegraph.inspect_graph.html import render
from servegraph.inspect_graph.inspect import inspect

HERE = Path(__file__).parent
HOSTILE = (*GRAPHS, *BUNDLES)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found(damage: Damage, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODELS / damage.model, model)
    damage.do(model)
    inspection = inspect(str(model), verify=True)
    found = {item.code: item for item in inspection.findings}
    assert damage.code in found
    assert found[damage.code].severity == "error"
    json.dumps(inspection.to_json())


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_model_gets_its_answer(hostile: Hostile, tmp_path: Path) -> None:
    model = tmp_path / "model"
    hostile.make(model)
    assert processor_s(lambda: inspect(str(model), verify=True), MAX_SECONDS) < MAX_SECONDS
    inspection = inspect(str(model), verify=True)
    assert hostile.code in {item.code for item in inspection.findings if item.severity == "error"}
    assert "<script>alert" not in render(inspection)


def test_names_from_a_model_are_escaped_on_the_page(tmp_path: Path) -> None:
    from tests.bad_models.build import graph, node, placeholder, saved_model, write

    write(
        tmp_path / "model",
        saved_model(graph([placeholder(), node("y", "<script>alert(1)</script>", ("x",))]), tags=("serve", "\x1b[2Jx")),
    )
    page = render(inspect(str(tmp_path / "model")))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "\x1b" not in page
    assert r"\u001b[2Jx" in page


def test_what_once_broke_the_reader_does_not_any_more() -> None:
    model = next(files for files in bases() if "assets/vocabulary.txt" in files)
    for seed in sorted(SEEDS.iterdir()):
        for path in (
            "saved_model.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
        ):
            look({**model, path: seed.read_bytes()})
        look({"saved_model.pbtxt": seed.read_bytes()})


def test_some_mutated_models(tmp_path: Path) -> None:
    assert run(400, seed=7, found=tmp_path / "found") == 0
    assert MAX_SECONDS == 1.0


def test_the_readme_lists_every_row() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    for row in (*DAMAGES, *HOSTILE):
        assert f"| {row.name} | `{row.code}` |" in readme
