"""Custom prediction routines: a class that loads, preprocesses, predicts and postprocesses, hosted unchanged.

A class written for the Vertex SDK runs here whether that SDK is installed or not, and so does one written for the
legacy AI Platform (`servegraph.routine.interfaces`). The code comes from the module that whoever starts the server
names, or from a packaged routine that they said is to be trusted (`servegraph.serve.routine`).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from servegraph.errors import InputError, RequestError
from servegraph.routine.interfaces import Predictor, from_path_as_predictor, stand_in_for_sdk
from servegraph.savedmodel.graph import Signature
from servegraph.serve.decode import parse_any
from servegraph.serve.lane import Lane, LaneLimits, Outcome
from servegraph.serve.methods import Method
from servegraph.serve.vertex import not_hosted

__all__ = ["HostedPredictor", "Predictor", "answer_of", "find_predictor", "host"]


_NOT_HOSTED = {"handle": "handler", "deserialize": "serializer"}  # by the method that tells it


class HostedPredictor:
    """A loaded predictor behind a lane of its own: one call at a time, as in the SDK's server."""

    is_routine = True

    def __init__(self, answer: Callable[[bytes], Outcome], limits: LaneLimits, name: str) -> None:
        """Keep `answer`, which returns the answer to a body, or the error, and is called in a thread of its own."""
        self.signatures: Mapping[str, Signature] = {}
        self.lane = Lane(lambda bodies: [answer(body) for body in bodies], lambda _: 1, limits, name)

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
            raise RequestError(f"A predictor has no method {method}.", code="UNIMPLEMENTED", fix="Use :predict.")
        self.lane.ask(body, done)


def find_predictor(name: str) -> type[Any]:
    """Return the class that `module:Class` names; one of the legacy AI Platform comes as a predictor.

    Raises:
        InputError: there is no such module or class, or it lacks `load` or `predict` (code `NO_PREDICTOR`); it is a
            handler or a serializer (code `NOT_HOSTED`).
    """
    module_name, _, class_name = name.partition(":")
    stand_in_for_sdk(_download_model_artifacts)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as exc:  # whatever the user's module raises while it is imported
        raise InputError(
            f"The predictor {name!r} cannot be imported: {type(exc).__name__}: {exc}.",
            code="NO_PREDICTOR",
            fix="Give it as module:Class, and have the module on the Python path, as by PYTHONPATH=FOLDER.",
        ) from exc
    for method, what in _NOT_HOSTED.items():
        if isinstance(found, type) and callable(getattr(found, method, None)) and not hasattr(found, "predict"):
            raise not_hosted(f"{name!r} is a {what} of the Vertex SDK")
    missing = [method for method in ("load", "predict") if not callable(getattr(found, method, None))]
    if isinstance(found, type) and missing == ["load"] and callable(getattr(found, "from_path", None)):
        return from_path_as_predictor(found)
    if not isinstance(found, type) or missing:
        raise InputError(
            f"{name!r} is not a predictor: it lacks {missing or 'a class'}.",
            code="NO_PREDICTOR",
            fix="Name a class with the methods load and predict; see servegraph.routine.interfaces.",
        )
    return found


def host(predictor_class: type[Any], artifacts_uri: str, limits: LaneLimits) -> HostedPredictor:
    """Return an instance of the class with the artifacts loaded. What its `load` raises, this raises."""
    predictor = predictor_class()
    predictor.load(artifacts_uri)
    return HostedPredictor(lambda body: answer_of(predictor, body), limits, predictor_class.__name__)


def answer_of(predictor: Any, body: bytes) -> Outcome:
    """Return the JSON that a loaded predictor answers to the JSON `body`, or what it raised."""
    try:
        results = predictor.postprocess(predictor.predict(predictor.preprocess(parse_any(body))))
        try:
            return _json(results)
        except TypeError as exc:  # 400 with the SDK too
            raise RequestError(
                f"JSON serialization failed for the prediction result: {exc}.",
                fix="Let its postprocess return what JSON has: dicts, lists, text, numbers, booleans and None.",
            ) from exc
    except Exception as exc:  # handed to whoever asked
        return exc


def _json(results: Any) -> bytes:
    """Return the JSON that `json.dumps` gives; orjson is many times faster but writes NaN as null."""
    try:
        text = orjson.dumps(results, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        text = b"null"
    return json.dumps(results).encode() if b"null" in text else text


def _download_model_artifacts(artifacts_uri: str, *_: Any, **__: Any) -> None:
    """Copy the artifacts into the working directory, as the SDK's function of that name does."""
    from servegraph.serve.artifacts import copy_tree

    copy_tree(artifacts_uri, ".")
