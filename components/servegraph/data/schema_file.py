"""A schema as a file: YAML, written by `servegraph schema` and edited by hand.

    label: income_bracket
    header: true                # false: the columns below are those of the file, in its order
    columns:
      age: {dtype: float32}
      workclass: {dtype: string, vocabulary_size: 9}
      occupation: {dtype: string, hash_buckets: 100}
      fnlwgt: {dtype: float32, role: ignore}
      income_bracket: {dtype: string, classes: ["<=50K", ">50K"]}
    crosses:
      - {columns: [education, occupation], hash_buckets: 1000}

Text that YAML takes for something else, such as `"NO"` or `"01"`, stands in quotes.
"""

from __future__ import annotations

from typing import Any, cast, get_args

import yaml

from servegraph.data.schema import Column, Cross, Dtype, Role, Schema, check
from servegraph.data.text import strip
from servegraph.errors import SchemaError
from servegraph.yaml_problem import yaml_problem

_COLUMN_KEYS = {"dtype", "role", "vocabulary", "vocabulary_size", "hash_buckets", "buckets", "default", "classes"}


def parse(text: str, source: str) -> Schema:
    """Return the schema written in `text` (YAML); `source` names it in errors.

    Raises:
        SchemaError: not YAML, an unknown key, a missing label, a value out of range.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  a safe loader
    except yaml.YAMLError as exc:
        raise SchemaError(
            f"The schema {source} is not YAML: {yaml_problem(exc)}.", fix="Write one with `servegraph schema DATA`."
        ) from exc
    if not isinstance(document, dict) or not isinstance(document.get("columns"), dict):
        raise SchemaError(
            f"The schema {source} has no mapping `columns`.", fix="Write one with `servegraph schema DATA`."
        )
    _refuse_unknown(document, {"label", "header", "delimiter", "columns", "crosses"}, source)
    columns = tuple(
        _column(_text(name, f"The name of a column of {source}"), spec, source)
        for name, spec in document["columns"].items()
    )
    label = document.get("label")
    names = [column.name for column in columns]
    if label not in names:
        raise SchemaError(
            f"The label {label!r} of the schema {source} is not one of its columns {names}.",
            fix="Set `label` to the name of a column.",
        )
    crosses = tuple(_cross(spec, names, source) for spec in _list(document.get("crosses"), f"`crosses` of {source}"))
    header = document.get("header", True)
    if not isinstance(header, bool):
        raise SchemaError(f"The header of the schema {source} is {header!r}.", fix="Write true or false, unquoted.")
    delimiter = _text(document.get("delimiter", ","), f"The delimiter of the schema {source}")
    schema = Schema(columns=columns, label=label, header=header, delimiter=delimiter, crosses=crosses)
    if len(schema.delimiter) != 1:
        raise SchemaError(
            f"The delimiter {schema.delimiter!r} of the schema {source} is not one character.",
            fix="Write one character, such as ',' or '|'; a tab is \"\\t\" in double quotes.",
        )
    check(schema, source)
    return schema


def dump(schema: Schema) -> str:
    """Return the YAML text that `parse` reads back to an equal schema."""
    columns: dict[str, Any] = {}
    for column in schema.columns:
        spec: dict[str, Any] = {"dtype": column.dtype}
        if column.role != "feature":
            spec["role"] = column.role
        for key in ("vocabulary_size", "hash_buckets", "default"):
            if getattr(column, key) is not None:
                spec[key] = getattr(column, key)
        for key in ("vocabulary", "buckets", "classes"):
            if getattr(column, key) is not None:
                spec[key] = list(getattr(column, key))
        columns[column.name] = spec
    document: dict[str, Any] = {"label": schema.label, "header": schema.header}
    if schema.delimiter != ",":
        document["delimiter"] = schema.delimiter
    document["columns"] = columns
    if schema.crosses:
        document["crosses"] = [{"columns": list(c.columns), "hash_buckets": c.hash_buckets} for c in schema.crosses]
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice; PyYAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, or raise `ConstructorError`."""
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


def _refuse_unknown(spec: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in set(spec) - known)
    if unknown:
        raise SchemaError(f"The schema has unknown keys {unknown} in {where}.", fix=f"Known keys are {sorted(known)}.")


def _column(name: str, spec: Any, source: str) -> Column:
    where = f"column {name!r} of {source}"
    if not isinstance(spec, dict):
        raise SchemaError(f"The schema gives {spec!r} for {where}.", fix="Write e.g. {dtype: float32}.")
    _refuse_unknown(spec, _COLUMN_KEYS, where)
    dtype, role = spec.get("dtype"), spec.get("role", "feature")
    if dtype not in get_args(Dtype):
        raise SchemaError(f"The dtype of {where} is {dtype!r}.", fix=f"Use one of {', '.join(get_args(Dtype))}.")
    if role not in get_args(Role):
        raise SchemaError(f"The role of {where} is {role!r}.", fix=f"Use one of {', '.join(get_args(Role))}.")
    if sum(spec.get(key) is not None for key in ("vocabulary", "vocabulary_size", "hash_buckets")) > 1:
        raise SchemaError(
            f"The schema gives more than one of vocabulary, vocabulary_size, hash_buckets for {where}.",
            fix="Keep one of them.",
        )
    bounds = _list(spec.get("buckets"), f"`buckets` of {where}")
    buckets = tuple(_number(bound, f"A bucket bound of {where}") for bound in bounds)
    if list(buckets) != sorted(set(buckets)):
        raise SchemaError(
            f"The buckets {list(buckets)} of {where} do not ascend.",
            fix="Write the bounds from the smallest to the largest, each once.",
        )
    if buckets and dtype == "string":
        raise SchemaError(
            f"The schema gives buckets for the text {where}.",
            fix="Leave the buckets out, or make its dtype float32 or int64.",
        )
    default = spec.get("default")
    if default is not None:
        what = f"The default of {where}"
        default = strip(_text(default, what)) if dtype == "string" else _number(default, what)
    return Column(
        name=name,
        dtype=cast("Dtype", dtype),
        role=cast("Role", role),
        vocabulary=_values(spec.get("vocabulary"), dtype, where),
        vocabulary_size=_count(spec.get("vocabulary_size"), f"The vocabulary_size of {where}"),
        hash_buckets=_count(spec.get("hash_buckets"), f"The hash_buckets of {where}"),
        buckets=buckets or None,
        default=default,
        classes=_values(spec.get("classes"), dtype, where),
    )


def _cross(spec: Any, names: list[str], source: str) -> Cross:
    where = f"a cross of {source}"
    if not isinstance(spec, dict):
        raise SchemaError(
            f"The schema gives {spec!r} for {where}.", fix="Write e.g. {columns: [a, b], hash_buckets: 1000}."
        )
    _refuse_unknown(spec, {"columns", "hash_buckets"}, where)
    given = _list(spec.get("columns"), f"`columns` of {where}")
    columns = tuple(_text(name, f"A column of {where}") for name in given)
    strangers = [name for name in columns if name not in names]
    if strangers or len(columns) < 2:
        raise SchemaError(
            f"The cross {list(columns)} in {source} needs two or more of the schema's columns; unknown: {strangers}.",
            fix="Name two or more columns, each as the schema names it.",
        )
    buckets = _count(spec.get("hash_buckets"), f"The hash_buckets of {where}")
    if buckets is None:
        raise SchemaError(f"The schema gives no hash_buckets for {where}.", fix="Add e.g. hash_buckets: 1000.")
    return Cross(columns, buckets)


def _values(values: Any, dtype: Any, where: str) -> tuple[str, ...] | None:
    """Return the values of a category as text; those of a column of numbers may be given as such."""
    if values is None:
        return None
    if not _list(values, f"the values of {where}"):
        raise SchemaError(f"The schema gives no values for {where}.", fix="List the values, or leave the key out.")
    texts = tuple(
        str(value) if dtype != "string" and _is_number(value) else strip(_text(value, f"A value of {where}"))
        for value in values
    )
    if len(set(texts)) != len(texts):
        raise SchemaError(
            f"The schema repeats a value in {where}: {list(texts)}.",
            fix="Write each value once; spaces round it do not count.",
        )
    return texts


def _list(value: Any, what: str) -> list[Any]:
    """Return `value` as a list, an empty one where nothing is given."""
    if value is not None and not isinstance(value, list):
        raise SchemaError(f"The schema gives {value!r} for {what}, not a list.", fix="Write it as [FIRST, SECOND].")
    return value or []


def _text(value: Any, what: str) -> str:
    """Return `value`, which YAML has as text: `NO` unquoted is a truth value to it, `01` a number."""
    if not isinstance(value, str):
        raise SchemaError(f"{what} is {value!r} to YAML, not a text.", fix="Quote it.")
    return value


def _count(value: Any, what: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SchemaError(
            f"{what} is {value!r}, not a whole number of at least 1.", fix="Write e.g. 100, without quotes."
        )
    return value


def _number(value: Any, what: str) -> float:
    if not _is_number(value):
        raise SchemaError(f"{what} is {value!r}, not a number.", fix="Write e.g. 0.5, without quotes.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
