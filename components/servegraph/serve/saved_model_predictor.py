"""A predictor over a SavedModel, to be subclassed by a routine that changes what goes in or comes out.

class Cleaned(SavedModelPredictor):
    def preprocess(self, prediction_input):
        for row in prediction_input["instances"]:
            row["job"] = row["job"].strip()
        return super().preprocess(prediction_input)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servegraph.errors import RequestError
from servegraph.serve.arrays import Array
from servegraph.serve.artifacts import copy_tree
from servegraph.serve.decode import parse, request_of
from servegraph.serve.encode import encode
from servegraph.serve.model import ModelOptions, load_model
from servegraph.serve.predictor import Predictor


class SavedModelPredictor(Predictor):
    """Answers `{"instances": [...]}` as the server of the model itself does; each stage can be overridden."""

    signature_name = "serving_default"

    def load(self, artifacts_uri: str, **kwargs: Any) -> None:
        """Load the SavedModel in the directory, or at the gs:// URI, and ask the requests that are stored with it."""
        directory = artifacts_uri
        if "://" in artifacts_uri:
            directory = tempfile.mkdtemp(prefix="servegraph-")
            copy_tree(artifacts_uri, directory)
        self.model = load_model(Path(directory), ModelOptions(batch_rows=1))

    def preprocess(self, prediction_input: Mapping[str, Any]) -> dict[str, Array]:
        """Return the inputs by name, each [batch, …], of a request's `instances`.

        Raises:
            RequestError: they do not match the signature.
        """
        if "instances" not in prediction_input:
            raise RequestError(
                "A request to a routine has 'instances', a list of rows.", fix='Send {"instances": […]}.'
            )
        rows = {"instances": prediction_input["instances"], "signature_name": self.signature_name}
        return dict(request_of(rows, self.model.graph).inputs)

    def predict(self, instances: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name, each [batch, …], for inputs by name."""
        return dict(self.model.run(self.signature_name, instances))

    def postprocess(self, prediction_results: Mapping[str, Array]) -> dict[str, Any]:
        """Return `{"predictions": [...]}`, a row each; a lone output goes without its name."""
        return parse(encode(prediction_results, "row"))
