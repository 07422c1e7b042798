"""What TensorFlow's loader makes of the damaged models: it fails on all that are called errors, or it is said why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.bad_models.damage import DAMAGES, MODELS, Damage

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore")

TOO_LARGE_TO_TRY = 2**31  # TensorFlow reads all of it before it says no


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_tensorflow_agrees(damage: Damage, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODELS / damage.model, model)
    damage.do(model)
    if (model / "saved_model.pb").stat().st_size > TOO_LARGE_TO_TRY:
        pytest.skip("7 GB of memory")
    try:
        tf.saved_model.load(str(model))
    except Exception:  # TensorFlow raises a dozen types, plain OpError and KeyError among them
        assert not damage.loads
    else:
        assert damage.loads


@pytest.mark.parametrize("name", ["keras_dense", "module", "v1_adam"])
def test_tensorflow_loads_the_sound_models(name: str) -> None:
    tf.saved_model.load(str(MODELS / name))
