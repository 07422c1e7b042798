"""A Keras file with layers of one's own, which a module registers as it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from servegraph_pipelines.cli import app

LAYER = """
import keras

@keras.saving.register_keras_serializable("own")
class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""
MODEL = """
x = keras.Input((3,))
keras.Model(x, Double()(x)).save("model.keras")
"""


def test_importing_the_module_is_enough(tmp_path: Path) -> None:
    """It need not train anything: there is no function `train` in it."""
    (tmp_path / "layers.py").write_text(LAYER)
    subprocess.run([sys.executable, "-c", LAYER + MODEL], cwd=tmp_path, check=True, capture_output=True)
    to_export = [str(tmp_path / "model.keras"), str(tmp_path / "out"), "--trainer", str(tmp_path / "layers.py")]
    app.main(["export", *to_export, "--json"], standalone_mode=False)
    assert (tmp_path / "out/saved_model.pb").exists()
