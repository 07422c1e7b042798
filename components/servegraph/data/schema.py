"""The schema of a table: which columns there are, what they hold, and which one is the label.

Text is compared without surrounding white space (of ASCII) everywhere: `" Male"` and `"Male"` are one value.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

from servegraph.errors import SchemaError

Dtype = Literal["float32", "int64", "string"]
Role = Literal["feature", "ignore"]
_LAST_LATIN = "\u024f"  # of the blocks that Latin letters fill


def input_name(name: str) -> str:
    """Return a name as a serving input: accents go, what is then no letter, digit or underscore becomes an underscore.

    A letter of another script becomes `u` and its number in Unicode: all underscores, columns would be the same. It is
    not counted instead, because a column more would then give others another name.
    tf.saved_model.save allows no other names of signature inputs, no words of Python, and not `self`.
    """
    plain = "".join(map(_in_latin, unicodedata.normalize("NFC", name)))
    name = re.sub(r"\W", "_", plain, flags=re.ASCII)
    return name if name[:1].isalpha() and name != "self" and not keyword.iskeyword(name) else f"column_{name}"


def _in_latin(character: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    is_other = character.isalnum() and character > _LAST_LATIN and not any(map(str.isascii, plain))
    return f"u{ord(character):04x}" if is_other else plain


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
        """The name as a serving input."""
        return input_name(self.name)

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
                fix="Rename them; a feature's name is written in ASCII letters, digits and underscores.",
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
            raise SchemaError(
                f"The vocabulary of the int64 {where} has {strange[0]!r}, which is no whole number.",
                fix="Write whole numbers, or make its dtype string.",
            )


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
