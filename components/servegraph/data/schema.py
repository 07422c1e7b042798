"""The schema of a table: which columns there are, what they hold, and which one is the label.

The file is YAML, written by `servegraph schema` and edited by hand:

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

Text is compared without surrounding white space (of ASCII) everywhere: `" Male"` and `"Male"` are one value.
Text that YAML takes for something else, such as `"NO"` or `"01"`, stands in quotes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import yaml

from servegraph.data.text import strip
from servegraph.errors import SchemaError
from servegraph.yaml_problem import yaml_problem

Dtype = Literal["float32", "int64", "string"]
Role = Literal["feature", "ignore"]


@dataclass(frozen=True)
class Column:
    """One column of the table; at most one of `vocabulary`, `vocabulary_size`, `hash_buckets` is set.

    A text column (or an int64 column with one of the three) is a category. `vocabulary_size` keeps that many of
    the most frequent values of the training data; `buckets` are ascending bounds that also make a number a category
    of the wide part; `default` stands for an empty cell,
    in a column of numbers also for NA, N/A, NaN, null, None, - and ?.
    """

    name: str
    dtype: Dtype
    role: Role = "feature"
    vocabulary: tuple[str, ...] | None = None
    vocabulary_size: int | None = None
    hash_buckets: int | None = None
    buckets: tuple[float, ...] | None = None
    default: float | str | None = None
    classes: tuple[str, ...] | None = None

    @property
    def input_name(self) -> str:
        """The name as a serving input: accents go, what is then no letter, digit or underscore becomes an underscore.

        tf.saved_model.save allows no other names of signature inputs, and not `self`.
        """
        plain = "".join(c for c in unicodedata.normalize("NFKD", self.name) if not unicodedata.combining(c))
        name = re.sub(r"\W", "_", plain, flags=re.ASCII)
        return name if name[:1].isalpha() and name != "self" else f"column_{name}"

    @property
    def categorical(self) -> bool:
        """Whether the values name things rather than measure them."""
        return self.dtype == "string" or any((self.vocabulary, self.vocabulary_size, self.hash_buckets))


@dataclass(frozen=True)
class Cross:
    """A crossed feature of the wide part: the combination of several categories, hashed into buckets."""

    columns: tuple[str, ...]
    hash_buckets: int


@dataclass(frozen=True)
class Schema:
    """The columns of a table in file order, the label's name, and the crosses of the wide part."""

    columns: tuple[Column, ...]
    label: str
    header: bool = True
    delimiter: str = ","
    crosses: tuple[Cross, ...] = field(default=())

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns a model sees, in order: neither the label nor ignored ones."""
        return tuple(c for c in self.columns if c.role == "feature" and c.name != self.label)

    @property
    def label_column(self) -> Column:
        """The label's column."""
        return self.column(self.label)

    @property
    def is_classification(self) -> bool:
        """Whether the label is a class (text or integer) rather than a measured number (float32)."""
        return self.label_column.dtype != "float32"

    def column(self, name: str) -> Column:
        """Return the column called `name`; `KeyError` if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


_COLUMN_KEYS = {
    "dtype",
    "role",
    "vocabulary",
    "vocabulary_size",
    "hash_buckets",
    "buckets",
    "default",
    "classes",
}


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
    crosses = tuple(_cross(spec, names, source) for spec in document.get("crosses") or [])
    header = document.get("header", True)
    if not isinstance(header, bool):
        raise SchemaError(f"The header of the schema {source} is {header!r}.", fix="Write true or false, unquoted.")
    delimiter = _text(document.get("delimiter", ","), f"The delimiter of the schema {source}")
    schema = Schema(columns=columns, label=label, header=header, delimiter=delimiter, crosses=crosses)
    if len(schema.delimiter) != 1:
        raise SchemaError(f"The delimiter {schema.delimiter!r} of the schema {source} is not one character.")
    check(schema, source)
    return schema


def check(schema: Schema, source: str) -> None:
    """Raise `SchemaError` where the columns cannot be the inputs of a model; `source` names the schema."""
    if not schema.features:
        raise SchemaError(
            f"The schema {source} has no feature column beside the label {schema.label!r}.",
            code="NO_FEATURES",
            fix="Give it a column to learn from; a text column that never repeats is taken for an identifier.",
        )
    _check_names(schema, source)
    for column in schema.features:
        _check_category(column, f"column {column.name!r} of {source}")
    for cross in schema.crosses:
        _check_cross(cross, schema, source)


def _check_names(schema: Schema, source: str) -> None:
    """A sample has the label under its own name beside the features under their input names: all are told apart."""
    names: dict[str, list[str]] = {}
    for column in schema.features:
        names.setdefault(column.input_name, []).append(column.name)
    names.setdefault(schema.label, []).append(schema.label)
    for name, columns in names.items():
        if len(columns) > 1:
            raise SchemaError(
                f"The columns {columns} of the schema {source} would have the same name in requests: {name!r}.",
                fix="Rename them; of a feature's name only ASCII letters, digits and underscores are kept.",
            )


def _check_category(column: Column, where: str) -> None:
    if column.dtype == "float32" and column.categorical:
        raise SchemaError(
            f"The schema makes a category of the float32 {where}.",
            fix="Make its dtype int64 or string, or give it `buckets` in place of a vocabulary or hash_buckets.",
        )
    if column.dtype == "int64":
        strange = [word for word in column.vocabulary or () if not re.fullmatch(r"[+-]?\d+", word, re.ASCII)]
        if strange:
            raise SchemaError(f"The vocabulary of the int64 {where} has {strange[0]!r}, which is no whole number.")


def _check_cross(cross: Cross, schema: Schema, source: str) -> None:
    where = f"The cross {list(cross.columns)} of the schema {source}"
    features = {column.name: column for column in schema.features}
    for name in cross.columns:
        if name not in features:
            raise SchemaError(
                f"{where} uses {name!r}, which is {'the label' if name == schema.label else 'ignored'}.",
                fix="Take it out of the cross; a model sees features only.",
            )
        if features[name].dtype == "float32" and not features[name].buckets:
            raise SchemaError(
                f"{where} uses the number {name!r}.",
                fix="Give the column `buckets`, or take it out of the cross.",
            )


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
        raise SchemaError(f"The schema gives more than one of vocabulary, vocabulary_size, hash_buckets for {where}.")
    buckets = tuple(_number(bound, f"A bucket bound of {where}") for bound in spec.get("buckets") or ())
    if list(buckets) != sorted(set(buckets)):
        raise SchemaError(f"The buckets {list(buckets)} of {where} do not ascend.")
    if buckets and dtype == "string":
        raise SchemaError(f"The schema gives buckets for the text {where}.")
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
        raise SchemaError(f"The schema gives {spec!r} for {where}.")
    _refuse_unknown(spec, {"columns", "hash_buckets"}, where)
    columns = tuple(_text(name, f"A column of {where}") for name in spec.get("columns") or ())
    strangers = [name for name in columns if name not in names]
    if strangers or len(columns) < 2:
        raise SchemaError(
            f"The cross {list(columns)} in {source} needs two or more of the schema's columns; unknown: {strangers}."
        )
    buckets = _count(spec.get("hash_buckets"), f"The hash_buckets of {where}")
    if buckets is None:
        raise SchemaError(f"The schema gives no hash_buckets for {where}.")
    return Cross(columns, buckets)


def _values(values: Any, dtype: Any, where: str) -> tuple[str, ...] | None:
    """Return the values of a category as text; those of a column of numbers may be given as such."""
    if values is None:
        return None
    if not isinstance(values, list) or not values:
        raise SchemaError(f"The schema gives {values!r} where {where} needs a list of values.")
    texts = tuple(
        str(value) if dtype != "string" and _is_number(value) else strip(_text(value, f"A value of {where}"))
        for value in values
    )
    if len(set(texts)) != len(texts):
        raise SchemaError(f"The schema repeats a value in {where}: {list(texts)}.")
    return texts


def _text(value: Any, what: str) -> str:
    """Return `value`, which YAML has as text: `NO` unquoted is a truth value to it, `01` a number."""
    if not isinstance(value, str):
        raise SchemaError(f"{what} is {value!r} to YAML, not a text.", fix="Quote it.")
    return value


def _count(value: Any, what: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SchemaError(f"{what} is {value!r}, not a whole number of at least 1.")
    return value


def _number(value: Any, what: str) -> float:
    if not _is_number(value):
        raise SchemaError(f"{what} is {value!r}, not a number.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
