"""Custom prediction routines: a class that loads, preprocesses, predicts and postprocesses, hosted unchanged.

The interface is that of the Vertex SDK (google/cloud/aiplatform/prediction/predictor.py), and a class written for it
runs here whether that SDK is installed or not. The code comes from the module that whoever starts the server names; no
model ever brings code of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from servegraph.errors import InputError, RequestError
from servegraph.savedmodel.graph import Signature
from servegraph.serve.decode import parse
from servegraph.serve.lane import Lane, LaneLimits, Outcome
from servegraph.serve.methods import Method

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


class HostedPredictor:
    """A loaded predictor behind a lane of its own: one call at a time, as in the SDK's server."""

    def __init__(self, predictor: Any, limits: LaneLimits, name: str) -> None:
        """Keep `predictor`, which has been loaded."""
        self.signatures: Mapping[str, Signature] = {}
        self.lane = Lane(lambda bodies: [_answer(predictor, body) for body in bodies], lambda _: 1, limits, name)

    @property
    def load(self) -> tuple[int, int]:
        """How many requests wait, and how many run."""
        return self.lane.load

    def ask(self, method: Method, body: bytes, done: Callable[[Outcome], None]) -> None:
        """Call `done` with the answer to `body` or the error, in this thread, the event loop's.

        Raises:
            RequestError: a predictor has no such method.
            Refusal: too many requests wait.
        """
        if method != "predict":
            raise RequestError(f"A predictor has no method {method}.", code="UNIMPLEMENTED")
        self.lane.ask(body, done)


def find_predictor(name: str) -> type[Any]:
    """Return the class that `module:Class` names.

    Raises:
        InputError: there is no such module or class, or it lacks `load` or `predict` (code `NO_PREDICTOR`).
    """
    module_name, _, class_name = name.partition(":")
    _stand_in_for_sdk()
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as exc:  # whatever the user's module raises while it is imported
        raise InputError(
            f"The predictor {name!r} cannot be imported: {type(exc).__name__}: {exc}.",
            code="NO_PREDICTOR",
            fix="Give it as module:Class, and have the module on the Python path.",
        ) from exc
    missing = [method for method in ("load", "predict") if not callable(getattr(found, method, None))]
    if not isinstance(found, type) or missing:
        raise InputError(f"{name!r} is not a predictor: it lacks {missing or 'a class'}.", code="NO_PREDICTOR")
    return found


def host(predictor_class: type[Any], artifacts_uri: str, limits: LaneLimits) -> HostedPredictor:
    """Return an instance of the class with the artifacts loaded. What its `load` raises, this raises."""
    predictor = predictor_class()
    predictor.load(artifacts_uri)
    return HostedPredictor(predictor, limits, predictor_class.__name__)


def _answer(predictor: Any, body: bytes) -> Outcome:
    try:
        document = parse(body)
        results = predictor.postprocess(_predict(predictor, predictor.preprocess(document)))
        return _json(results)
    except Exception as exc:  # handed to whoever asked
        return exc


def _predict(predictor: Any, instances: Any) -> Any:
    return predictor.predict(instances)


def _json(results: Any) -> bytes:
    """Return the JSON that `json.dumps` gives; orjson is many times faster but writes NaN as null."""
    try:
        text = orjson.dumps(results, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        text = b"null"
    return json.dumps(results).encode() if b"null" in text else text


def _stand_in_for_sdk() -> None:
    """Let `from google.cloud.aiplatform.prediction.predictor import Predictor` work where the SDK is not installed."""
    if _is_installed(_SDK):
        return
    for name, content in (
        ("google.cloud", {}),
        (_SDK, {}),
        (f"{_SDK}.prediction", {}),
        (f"{_SDK}.prediction.predictor", {"Predictor": Predictor}),
        (f"{_SDK}.utils", {}),
        (f"{_SDK}.utils.prediction_utils", {"download_model_artifacts": _download_model_artifacts}),
    ):
        if name in sys.modules or _is_installed(name):
            continue
        module = types.ModuleType(name, "A stand-in by servegraph: the Vertex SDK is not installed.")
        module.__path__ = []
        module.__dict__.update(content)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        setattr(importlib.import_module(parent), child, module)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _download_model_artifacts(artifacts_uri: str, *_: Any, **__: Any) -> None:
    """Copy the artifacts into the working directory, as the SDK's function of that name does."""
    from servegraph.serve.artifacts import copy_tree

    copy_tree(artifacts_uri, ".")
