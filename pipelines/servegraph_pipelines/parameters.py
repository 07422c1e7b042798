"""The parameters of a run: from text and from a YAML file, held to the types that the pipeline declares."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from servegraph.errors import InputError
from servegraph.yaml_problem import yaml_problem
from servegraph_pipelines import foresight
from servegraph_pipelines.resources import EngineName
from servegraph_pipelines.specification import Specification


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # a date of YAML; NaN and infinity, which JSON has not
        return False
    return True


_FIX = "Give a YAML file in UTF-8 with NAME: VALUE lines."
_HOW = {
    "STRING": "Write a text, in YAML in quotes.",
    "NUMBER_INTEGER": "Write a whole number.",
    "NUMBER_DOUBLE": "Write a number.",
    "BOOLEAN": "Write true or false.",
    "STRUCT": 'Write JSON, like {"epochs": 1}, or in a file a mapping.',
    "LIST": "Write JSON, like [10, 50], or in a file a list.",
}
# How a value of each type of the IR is told; a whole float is a whole number, as JSON has it.
_IS: dict[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "NUMBER_INTEGER": lambda value: _is_number(value) and math.isfinite(value) and float(value).is_integer(),
    "NUMBER_DOUBLE": lambda value: _is_number(value) and math.isfinite(value),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "STRUCT": lambda value: isinstance(value, dict) and _is_json(value),
    "LIST": lambda value: isinstance(value, list) and _is_json(value),
}


def gather(
    specification: Specification,
    file: Path | None,
    texts: Sequence[str],
    filled_in: Collection[str] = (),
    engine: EngineName | None = None,
) -> dict[str, Any]:
    """Return the parameters of a YAML file, and over them those given as NAME=VALUE, checked.

    Those that are `filled_in` later may be missing. Where no `engine` is named, the run is on this machine.

    Raises:
        InputError: see `check`; a text that is no NAME=VALUE, or a file that is no mapping (code `BAD_PARAMETER`).
    """
    given = read_file(file) if file else {}
    return check(specification, {**given, **from_texts(specification, texts)}, filled_in, engine)


def read_file(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file. Raises `InputError` (code `BAD_PARAMETER`)."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as exc:
        raise InputError(
            f"The parameters of {path} are no YAML: {yaml_problem(exc)}.", code="BAD_PARAMETER", fix=_FIX
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"The parameters of {path} cannot be read: {exc}.", code="BAD_PARAMETER", fix=_FIX) from exc
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(
            f"{path} holds no mapping of parameters.", code="BAD_PARAMETER", fix="Write NAME: VALUE lines."
        )
    return values


def from_texts(specification: Specification, texts: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of NAME=VALUE texts, with the types of the pipeline's inputs."""
    values = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not found:
            raise InputError("A --param has no value.", code="BAD_PARAMETER", fix="Write --param NAME=VALUE.")
        values[name] = _parsed(name, value, _definition(specification, name)["parameterType"])
    return values


def check(
    specification: Specification,
    values: Mapping[str, Any],
    filled_in: Collection[str] = (),
    engine: EngineName | None = None,
) -> dict[str, Any]:
    """Return the values if the pipeline takes them, whole numbers as int.

    Raises:
        InputError: an unknown parameter (code `UNKNOWN_PARAMETER`), one of another type (`BAD_PARAMETER`), or one
            without a default that is missing (`MISSING_PARAMETER`).
        ServegraphError: what a step of our own pipelines would raise on them, see `foresight`.
    """
    checked = {}
    for name, value in values.items():
        kind = _definition(specification, name)["parameterType"]
        if kind not in _IS or not _IS[kind](value):
            raise _of_another_type(name, value, kind)
        checked[name] = int(value) if kind == "NUMBER_INTEGER" else value
    missing = [
        name
        for name, row in specification.parameters.items()
        if name not in (*values, *filled_in) and "defaultValue" not in row and not row.get("isOptional")
    ]
    if missing:
        raise InputError(
            f"The pipeline {specification.name} needs the parameters {', '.join(missing)}.",
            code="MISSING_PARAMETER",
            fix=f"Give --param {missing[0]}=VALUE, or put it in the file of parameters.",
        )
    foresight.check(specification, {**dict.fromkeys(filled_in, "filled in later"), **checked}, engine)
    return checked


def _definition(specification: Specification, name: str) -> Mapping[str, Any]:
    known = specification.parameters
    if name not in known:
        raise InputError(
            f"The pipeline {specification.name} has no parameter {name!r}.",
            code="UNKNOWN_PARAMETER",
            fix=f"It has {', '.join(sorted(known))}.",
        )
    return known[name]


def _parsed(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    try:
        value = float(text) if kind == "NUMBER_DOUBLE" else int(text) if kind == "NUMBER_INTEGER" else json.loads(text)
    except ValueError as exc:
        raise _of_another_type(name, text, kind) from exc
    if not _IS[kind](value):
        raise _of_another_type(name, text, kind)
    return value


def _of_another_type(name: str, value: Any, kind: str) -> InputError:
    what = f"The parameter {name} is {value!r}, not of type {kind}."
    return InputError(what, code="BAD_PARAMETER", fix=_HOW.get(kind, ""))
