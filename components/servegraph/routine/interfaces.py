"""The two interfaces that routines are written for, and the bridges between them.

`Predictor` is that of the Vertex SDK (google/cloud/aiplatform/prediction/predictor.py); AI Platform asked for a class
with `from_path` and `predict`. This module needs nothing but the standard library of Python 3.7: it is packaged beside
the code of a routine, where AI Platform's runtime finds `Routine` in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

PREDICTOR = ""  # module:Class; a line at the end of the packaged copy sets it
_SDK = "google.cloud.aiplatform"


class Predictor(ABC):
    """What a custom prediction routine defines; a request is `postprocess(predict(preprocess(body)))`."""

    @abstractmethod
    def load(self, artifacts_uri: str, **kwargs: Any) -> None:
        """Load what `predict` needs from the directory or gs:// URI of the artifacts."""

    def preprocess(self, prediction_input: Any) -> Any:
        """Return what `predict` takes, from the JSON document of the request."""
        return prediction_input

    @abstractmethod
    def predict(self, instances: Any) -> Any:
        """Return the results for what `preprocess` returned."""

    def postprocess(self, prediction_results: Any) -> Any:
        """Return the JSON document of the answer, from what `predict` returned."""
        return prediction_results


def from_path_as_predictor(found: type) -> type:
    """Return a predictor over a class as AI Platform has them, with `from_path(model_dir)` and `predict(instances)`."""

    class FromPath(Predictor):
        def load(self, artifacts_uri: str, **kwargs: Any) -> None:
            self._routine = found.from_path(artifacts_uri)  # type: ignore[attr-defined]

        def predict(self, instances: Any) -> Any:
            # All other fields of a request were keyword arguments there.
            more = {key: value for key, value in instances.items() if key != "instances"}
            return {"predictions": self._routine.predict(instances["instances"], **more)}

    FromPath.__name__ = found.__name__
    return FromPath


class Routine:
    """A predictor behind AI Platform's interface: what `predictionClass` names there."""

    def __init__(self, predictor: Any) -> None:
        """Keep `predictor`, which has been loaded."""
        self._predictor = predictor

    @classmethod
    def from_path(cls, model_dir: str) -> Routine:
        """Return the routine with the artifacts in `model_dir` loaded."""
        stand_in_for_sdk()
        module, _, name = PREDICTOR.partition(":")
        predictor = getattr(importlib.import_module(module), name)()
        predictor.load(model_dir)
        return cls(predictor)

    def predict(self, instances: Any, **kwargs: Any) -> Any:
        """Return a prediction for each of `instances`; `kwargs` are the other fields of the request."""
        predictor = self._predictor
        document = dict(kwargs, instances=instances)
        return predictor.postprocess(predictor.predict(predictor.preprocess(document)))["predictions"]


def copy_to_working_directory(artifact_uri: str) -> None:
    """Copy local artifacts into the working directory, as the SDK's `download_model_artifacts` does."""
    shutil.copytree(artifact_uri, ".", dirs_exist_ok=True)


def stand_in_for_sdk(download: Callable[[str], None] = copy_to_working_directory) -> None:
    """Let a class for the SDK be imported without the SDK, or without the ten seconds that it takes to be imported.

    Where the SDK is installed, all else in it is found as ever: its modules are loaded when something else is asked of
    them.
    """
    for name, content in (
        ("google.cloud", {}),
        (_SDK, {}),
        (_SDK + ".prediction", {"Predictor": Predictor}),
        (_SDK + ".prediction.predictor", {"Predictor": Predictor}),
        (_SDK + ".utils", {}),
        (_SDK + ".utils.prediction_utils", {"download_model_artifacts": download}),
    ):
        spec = _spec(name)
        is_plain = name == "google.cloud" and spec is not None  # has other packages in it, and costs nothing
        if name not in sys.modules and not is_plain:
            sys.modules[name] = _stand_in(name, spec, content)
            parent, _, child = name.rpartition(".")
            setattr(importlib.import_module(parent), child, sys.modules[name])


def _stand_in(name: str, spec: Any, content: dict[str, Any]) -> types.ModuleType:
    if spec is None:
        module = types.ModuleType(name, "A stand-in by servegraph: the Vertex SDK is not installed here.")
        module.__path__ = []
    else:
        module = importlib.util.module_from_spec(spec)

        def load(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            module.__dict__.pop("__getattr__", None)
            spec.loader.exec_module(module)
            return getattr(module, attribute)

        module.__dict__["__getattr__"] = load
    module.__dict__.update(content)
    return module


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
