"""Infer a schema from the data itself, to be written out and edited."""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass

from servegraph import storage
from servegraph.data import csv_file, tfrecord_file
from servegraph.data import schema as schemas
from servegraph.data.contents import KEPT_VALUES, Contents
from servegraph.data.formats import look
from servegraph.data.header import column_names, has_header, places
from servegraph.data.schema import Column, Schema
from servegraph.data.table import chunks, class_order
from servegraph.data.text import is_missing, is_number, listed, quoted
from servegraph.errors import DataError
from servegraph.storage import FileRef

HEAD_ROWS = 10_000  # these tell whether there is a header
DELIMITER_ROWS = 50
LARGEST_VOCABULARY = 1_000  # above it a category is hashed
LARGEST_CLASS_COUNT = 100  # above it a whole-number label is taken as a measurement
BINARY = 2  # so many whole numbers nobody takes for a measurement
IDENTIFIER_ROWS = 100  # from here on a text column without any repetition is taken as an identifier
CODE_DIGITS = 6  # so many, or more, in every value, some with letters, are codes and no numbers
FREE_TEXT_WORDS = 3  # so many words a value on average, and most values different, make a column free text


@dataclass(frozen=True)
class Inferred:
    """A schema, and `notes` on what in it may be meant otherwise, a sentence each."""

    schema: Schema
    notes: tuple[str, ...]


def infer(uri: str, label: str | None = None) -> Inferred:
    """Return a schema for the files that `uri` names, from all their records.

    Numbers become float32, also where some are words for a missing one; text becomes a category with a vocabulary of
    its size, or hash buckets where there are many values; a text column that never repeats is ignored, unless most of
    it is written like numbers, and so is a column without any value. Where cells are empty, the default is the median
    or the empty text. The label is the last column unless named; few different whole numbers are classes. Nothing is
    judged by the first records alone: they may be of one class, or a file may be.

    Raises:
        DataError: no rows (`EMPTY_DATA`), the label is not a column (`MISSING_COLUMN`), nothing else is; records that
            no schema could read.
    """
    files = storage.match(uri)
    names, header, delimiter = _form(files)
    if not names:
        raise DataError(f"{uri} has no rows.", code="EMPTY_DATA", fix="Give files with records.")
    taken = None if label else _taken(names[-1], files)
    label = label or names[-1]
    if label not in names:
        raise DataError(
            f"{uri} has no column {label!r}; its columns are {listed(names)}.",
            code="MISSING_COLUMN",
            fix="Name one of its columns (--label, of a pipeline label).",
        )
    # Read as text with a default, nothing is refused but what is no table.
    plain = Schema(tuple(Column(name, "string", default="") for name in names), label, header, delimiter)
    contents = {name: Contents() for name in names}
    ignored: dict[str, dict[str, None]] = {}  # columns that the first file does not have: the files that do
    for file, chunk in chunks(uri, plain):
        for name in chunk.others:
            ignored.setdefault(name, {})[file.uri] = None
        for name, cells in chunk.cells.items():
            contents[name].add(cells)
    if not contents[label].rows:
        raise DataError(f"{uri} has no rows.", code="EMPTY_DATA", fix="Give files with records.")
    columns = tuple(_label(name, held) if name == label else _feature(name, held) for name, held in contents.items())
    schema = Schema(columns, label, header, delimiter)
    schemas.check(schema, f"inferred from {uri}")
    renamed = (_renamed(column) for column in schema.features)
    notes = (_note(column, contents[column.name], label) for column in columns)
    unknown = (_only_later(name, list(where)) for name, where in ignored.items())
    return Inferred(schema, tuple(note for note in (taken, *unknown, *renamed, *notes) if note))


def _form(files: list[FileRef]) -> tuple[list[str], bool, str]:
    """Return the names of the columns, whether the files have a header, and the delimiter.

    The first file with records under its first one says it, else the first one that is not empty.
    """
    if look(files[0])[1] == "tfrecord":
        examples = itertools.chain.from_iterable(tfrecord_file.examples(look(file)[0]) for file in files)
        return sorted({name for example in examples for name in example}), True, ","
    rows: list[list[str]] = []
    for file in (look(file)[0] for file in files):
        own_delimiter = _delimiter(file)
        own = list(itertools.islice(csv_file.records(file, own_delimiter), HEAD_ROWS))
        if len(own) > len(rows):
            rows, delimiter = own, own_delimiter
            _refuse_uneven(rows, file)
        if len(rows) > 1:
            break
    if not rows:
        return [], True, ","
    header = has_header(rows)
    names = column_names(rows[0]) if header else places(len(rows[0]))
    csv_file.refuse_repeated(names, file)
    return names, header, delimiter


def _taken(label: str, files: list[FileRef]) -> str | None:
    """Return the note on a label that nobody named: in a TFRecord, whose features have no order, any could be it."""
    if look(files[0])[1] != "tfrecord":
        return None
    return f"{label!r}, the last by name of the records' features, is taken as the label; name another one as `label`."


def _refuse_uneven(rows: list[list[str]], file: FileRef) -> None:
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"Row {number} of {file.uri} has {len(row)} cells where the first has {len(rows[0])}.",
                code="BAD_ROW",
                fix="Mend the file: one record a line, with the same cells in each.",
            )


def _delimiter(file: FileRef) -> str:
    """Return the delimiter that cuts the first lines into equally many cells, and into most."""

    def cells(delimiter: str) -> int:
        counts = {len(row) for row in itertools.islice(csv_file.records(file, delimiter), DELIMITER_ROWS)}
        return counts.pop() if len(counts) == 1 else 1

    return max(",;\t|", key=cells)


def _feature(name: str, held: Contents) -> Column:
    if held.is_blank:
        return Column(name, "string", role="ignore")
    if held.is_numeric:
        return Column(name, "float32", default=held.median() if held.empty or held.absent else None)
    if not held.repeats and not held.empty and held.rows >= IDENTIFIER_ROWS and _no_number(held) is None:
        return Column(name, "string", role="ignore")
    default = "" if held.empty else None
    distinct = len(held.values) + (default is not None)
    if distinct > LARGEST_VOCABULARY:
        return Column(name, "string", hash_buckets=1 << (distinct - 1).bit_length(), default=default)
    return Column(name, "string", vocabulary_size=distinct, default=default)


def _label(name: str, held: Contents) -> Column:
    if not held.values:
        raise DataError(
            f"The label column {name!r} is empty.",
            code="MISSING_VALUE",
            fix="Name the label's column (--label, of a pipeline label); without it the last one is taken.",
        )
    if not held.is_numeric and len(held.values) > LARGEST_CLASS_COUNT:
        if why := _no_number(held):
            raise DataError(
                f"The label column {name!r} cannot be read as numbers: {why}.",
                code="NOT_A_NUMBER",
                fix="Mend the values, or name the label's column (--label, of a pipeline label).",
            )
        raise DataError(
            f"The label column {name!r} has more than {LARGEST_CLASS_COUNT} different texts, too many to be classes.",
            code="TOO_MANY_CLASSES",
            fix="Name the label's column (--label, of a pipeline label), or list its `classes` in a schema.",
        )
    numbers = [value for value in held.values if not is_missing(value)] if held.is_numeric else []
    whole = all(float(value).is_integer() for value in numbers)
    if not whole or len(numbers) > LARGEST_CLASS_COUNT:
        return Column(name, "float32")
    are_whole = len(numbers) == len(held.values)
    return Column(name, "int64" if are_whole else "string", classes=tuple(sorted(held.values, key=class_order)))


def _only_later(name: str, files: list[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return (
        f"The column {quoted(name)} of {files[0]}{more} is ignored: the first file does not have it. Give it to all "
        "files, if the model is to learn from it."
    )


def _renamed(column: Column) -> str | None:
    """Return what the model calls a column whose name it cannot have; that of spaces and hyphens all expect."""
    if column.input_name == re.sub(r"[\s-]", "_", column.name):
        return None
    return f"The column {column.name!r} is the model's input {column.input_name!r}: requests have it under that name."


def _note(column: Column, held: Contents, label: str) -> str | None:
    """Return what was decided of a column that a look at it could decide otherwise; None for nothing."""
    if column.name != label and held.is_blank:
        return f"{column.name!r} is ignored: no record has a value of it."
    if column.name == label and column.dtype == "int64" and len(held.values) > BINARY:
        return (
            f"The {len(held.values)} different whole numbers of the label {label!r} are taken as classes; if they "
            "measure something, make its dtype float32 and drop its `classes` in a schema."
        )
    if column.default is not None and held.absent:
        return (
            f"{held.absent} cells of {column.name!r} say that there is no number; "
            f"they get the default {column.default}."
        )
    if column.dtype != "string":
        return None
    if why := _no_number(held):
        return f"{column.name!r} is taken as text: {why}."
    ignored = column.role == "ignore"
    if column.name != label and _is_free_text(held):
        return (
            f"{column.name!r} is free text, {'which is ignored' if ignored else 'of which each value is taken whole'}; "
            "to learn from its words, give a trainer of your own with a TextVectorization layer."
        )
    if ignored:
        return (
            f"{column.name!r} is ignored: none of its values comes twice, so it is taken as an identifier; if it is "
            "not, take its `role` out of a schema."
        )
    return None


def _no_number(held: Contents) -> str | None:
    """Return why a column is text whose values are mostly written like numbers; None if they are not."""
    strange = [value for value in held.values if not is_number(value)]
    like_numbers = len(held.values) - len(strange) + sum(_mark(value) is not None for value in strange)
    if not strange or like_numbers <= len(held.values) / 2 or _are_codes(held.values):
        return None
    if mark := _mark(example := min(strange)):
        return f"{example!r} is no number for its {mark}; write numbers with a decimal point and no other mark"
    return f"{example!r} is no number, but most of its values are"


def _are_codes(values: set[str]) -> bool:
    """Whether all are letters and digits, these as many in each but for one, which a letter may stand for, as in ISBNs.

    A number that was mistyped, or has its unit beside it, stands among numbers of other lengths.
    """
    if not all(value.isascii() and value.isalnum() for value in values):
        return False
    digits = [sum(map(str.isdecimal, value)) for value in values]
    return max(digits) >= CODE_DIGITS and min(digits) >= max(digits) - 1


def _mark(value: str) -> str | None:
    """Return what a number has that none may have: a decimal comma, marks between thousands, a currency, per cent."""
    ends = value.lstrip("+-")[:1], value[-1:]
    signs = [one for one in ends if one == "%" or (one and unicodedata.category(one) == "Sc")]
    bare = value.replace(signs[0], "", 1) if signs else value
    plain = bare.replace(",", "").replace(".", "") if "," in bare else bare
    if plain == value or not is_number(plain):
        return None
    return signs[0] if signs else "comma"


def _is_free_text(held: Contents) -> bool:
    words = sum(len(value.split()) for value in held.values)
    are_different = len(held.values) > min(held.rows - held.empty, KEPT_VALUES) / 2
    return are_different and words >= FREE_TEXT_WORDS * len(held.values)
