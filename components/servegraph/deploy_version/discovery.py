"""Google's discovery documents: the routes and the schemas of a service, and a strict check of requests against them.

The documents come with google-api-python-client. Neither it nor Google's other clients check a request's body against
its schema: a field that is misspelt is refused by the service after the upload, or worse, ignored.
Source of the format: https://developers.google.com/discovery/v1/reference/apis.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servegraph.errors import InputError
from servegraph.extras import package_missing

_INTEGERS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}
_TEXTS = {
    "int64": re.compile(r"-?\d{1,19}"),
    "uint64": re.compile(r"\d{1,20}"),
    "google-datetime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)"),
    "google-duration": re.compile(r"-?\d+(\.\d{1,9})?s"),
    "google-fieldmask": re.compile(r"[A-Za-z0-9_.]+(,[A-Za-z0-9_.]+)*"),
}


@dataclass(frozen=True)
class Document:
    """One service in one version, as published."""

    methods: Mapping[str, Mapping[str, Any]]  # by id
    schemas: Mapping[str, Mapping[str, Any]]
    root_url: str

    def problems(self, method_id: str, params: Mapping[str, str], body: Mapping[str, Any] | None) -> list[str]:
        """Return what is wrong with a request, a sentence each; empty where it is as the service publishes it.

        Unknown fields, wrong types, output-only fields and missing required ones are problems. In a patch, only
        what changes is sent, so nothing is required.
        """
        method = self.methods[method_id]
        found = list(_parameter_problems(method, params))
        if "request" not in method:
            return found if body is None else [*found, "body: this request has none"]
        if body is None:
            return [*found, "body: missing"]
        is_patch = method["httpMethod"] == "PATCH"
        in_path = frozenset(name for name, row in method["parameters"].items() if row["location"] == "path")
        check = _Check(self, require=not is_patch, elsewhere=in_path)
        return found + list(check.value({"$ref": method["request"]["$ref"]}, body, "body"))

    def value_problems(self, schema: str, value: Any) -> list[str]:
        """Return what is wrong with a value that is to be of a schema, a sentence each."""
        return list(_Check(self, require=True, elsewhere=frozenset()).value({"$ref": schema}, value, schema))

    def path(self, method_id: str, params: Mapping[str, str]) -> str:
        """Return the path of a request with its parameters filled in."""
        template = str(self.methods[method_id]["path"])
        return "/" + re.sub(r"\{\+?(\w+)\}", lambda found: params[found[1]], template)


@functools.cache
def load(service: str, version: str) -> Document:
    """Return the document of `service`, such as `aiplatform`, in `version`.

    Raises:
        InputError: google-api-python-client is not installed (code `PACKAGE_MISSING`).
    """
    import importlib.resources

    try:
        folder = importlib.resources.files("googleapiclient.discovery_cache") / "documents"
    except ImportError as exc:
        raise package_missing("googleapiclient", f"Checking a request to {service} by its published schema") from exc
    document = json.loads((folder / f"{service}.{version}.json").read_text(encoding="utf-8"))
    methods = {method["id"]: method for method in _methods(document)}
    return Document(methods, document["schemas"], document["rootUrl"])


def require_valid(document: Document, method_id: str, params: Mapping[str, str], body: Any) -> None:
    """Refuse a request that is not as the service publishes it.

    Raises:
        InputError: it is not (code `BAD_REQUEST_BODY`).
    """
    problems = document.problems(method_id, params, body)
    if problems:
        raise InputError(
            f"The request {method_id} is not one that the service takes: {'; '.join(problems[:5])}.",
            code="BAD_REQUEST_BODY",
            fix="Check the options that were given for this target.",
        )


def _methods(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from node.get("methods", {}).values()
    for child in node.get("resources", {}).values():
        yield from _methods(child)


def _parameter_problems(method: Mapping[str, Any], params: Mapping[str, str]) -> Iterator[str]:
    rows = method.get("parameters", {})
    for name, value in params.items():
        row = rows.get(name)
        if row is None:
            yield f"{name}: unknown parameter"
        elif "pattern" in row and not re.search(row["pattern"], value):
            yield f"{name}: {value!r} does not match {row['pattern']}"
        elif row.get("type") == "integer" and not re.fullmatch(r"-?\d+", value):
            yield f"{name}: {value!r} is not an integer"
        elif row.get("format") in _TEXTS and not _TEXTS[row["format"]].fullmatch(value):
            yield f"{name}: {value!r} is not a {row['format']}"
    yield from (f"{name}: missing" for name, row in rows.items() if row.get("required") and name not in params)


@dataclass(frozen=True)
class _Check:
    """The check of a body. `elsewhere` are fields that the path has, which the body need not."""

    document: Document
    require: bool
    elsewhere: frozenset[str]

    def value(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[str]:
        if "$ref" in schema:
            schema = self.document.schemas[schema["$ref"]]
        kind = schema.get("type", "any")
        if value is None:
            yield f"{at}: null"
        elif kind == "object":
            yield from self._object(schema, value, at)
        elif kind == "array":
            if not isinstance(value, list):
                yield f"{at}: expected an array"
                return
            for index, item in enumerate(value):
                yield from self.value(schema["items"], item, f"{at}[{index}]")
        elif kind != "any":
            problem = _scalar_problem(kind, schema, value)
            if problem:
                yield f"{at}: {problem}"

    def _object(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{at}: expected an object, got {type(value).__name__}"
            return
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            if name in properties:
                if _is_output_only(properties[name]):
                    yield f"{at}.{name}: is output only"
                else:
                    yield from self.value(properties[name], item, f"{at}.{name}")
            elif rest is not None:
                yield from self.value(rest, item, f"{at}[{name!r}]")
            else:
                yield f"{at}.{name}: unknown field"
        for name, row in properties.items():
            if self.require and name not in value and name not in self.elsewhere and _is_required(row):
                yield f"{at}.{name}: is required"


def _is_output_only(row: Mapping[str, Any]) -> bool:
    # The flag is not set on all of them; the words are.
    return bool(row.get("readOnly")) or str(row.get("description", "")).startswith("Output only")


def _is_required(row: Mapping[str, Any]) -> bool:
    return str(row.get("description", "")).startswith("Required") and not _is_output_only(row)


def _scalar_problem(kind: str, schema: Mapping[str, Any], value: Any) -> str | None:
    if kind == "boolean":
        return None if isinstance(value, bool) else "expected a boolean"
    if kind == "integer":
        low, high = _INTEGERS.get(schema.get("format", ""), (-(2**63), 2**63 - 1))
        is_fine = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if is_fine else f"expected {schema.get('format', 'an integer')}"
    if kind == "number":
        return None if isinstance(value, (int, float)) and not isinstance(value, bool) else "expected a number"
    if not isinstance(value, str):
        return f"expected a string, got {type(value).__name__}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not one of {', '.join(schema['enum'])}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{value!r} does not match {schema['pattern']}"
    return _format_problem(str(schema.get("format", "")), value)


def _format_problem(form: str, value: str) -> str | None:
    if form == "byte":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return "expected base64"
    if form in _TEXTS and not _TEXTS[form].fullmatch(value):
        return f"{value!r} is not a {form}"
    return None
