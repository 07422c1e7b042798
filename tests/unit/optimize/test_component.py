"""The component's report is for readers: it has the model's name, not where an engine keeps it."""

from pathlib import Path

import tensorflow as tf
from kfp import dsl

from servegraph.optimize.component import optimize


def test_the_page_is_titled_with_the_name_of_the_model(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable([[1.0], [2.0]])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ module.kernel}

    model = tmp_path / "export-serving-graph" / "model"
    tf.saved_model.save(module, str(model), signatures=serve)
    for given, title in (({"model_name": "census"}, "census"), ({}, "model")):
        outputs = {
            "optimized": dsl.Model(uri=str(tmp_path / "out")),
            "metrics": dsl.Metrics(),
            "report": dsl.HTML(uri=str(tmp_path / "page.html")),
        }
        optimize.python_func(model=dsl.Model(uri=str(model)), **outputs, rungs=["strip"], **given)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert f"<h1>{title}: " in page
        assert str(tmp_path) not in page
