"""CSV files: a header or not, any one-character delimiter, UTF-8, read in bounded chunks."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.data.header import column_names
from servegraph.data.schema import Schema
from servegraph.data.text import listed, quoted
from servegraph.errors import DataError
from servegraph.storage import FileRef

CHUNK_ROWS = 2_000  # so few that a processor's cache holds them


@dataclass(frozen=True)
class Chunk:
    """Rows of one file: `cells[column]` are its values as the file holds them; `first_row` counts from 1.

    `others` are columns of the file that the schema does not know.
    """

    first_row: int
    rows: int
    cells: Mapping[str, Sequence[Any]]
    others: tuple[str, ...] = ()


def records(file: FileRef, delimiter: str) -> Iterator[list[str]]:
    """Yield the records of the file as lists of cells, blank lines left out.

    Raises:
        DataError: not UTF-8 text, or not CSV (code `BAD_ROW`).
    """
    with io.TextIOWrapper(file.open_binary(), encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter)
        try:
            yield from (record for record in reader if record)
        except UnicodeDecodeError as exc:
            before, byte = exc.object[: exc.start + 1], exc.object[exc.start]
            line = reader.line_num + len(before.splitlines())  # all lines before are read before more is decoded
            raise DataError(
                f"{file.uri} is not UTF-8: line {line} has the byte 0x{byte:02x} where none can stand.",
                code="BAD_ROW",
                fix="Write it in UTF-8; of a file in Latin-1: iconv -f latin1 -t utf-8 FILE.",
            ) from exc
        except csv.Error as exc:
            what, fix = str(exc), "Give UTF-8 text with one record a line."
            if "field limit" in what:  # the quote that nobody closed, far more often than one long text
                what = f"a cell has more than {csv.field_size_limit():,} characters"
                fix = "Close the quote that opens that cell; if it is one text, shorten it, or leave the column out."
            raise DataError(
                f"{file.uri} cannot be read as CSV near line {reader.line_num + 1}: {what}.", code="BAD_ROW", fix=fix
            ) from exc


def chunks(file: FileRef, schema: Schema) -> Iterator[Chunk]:
    """Yield the columns that the schema uses, in chunks of at most `CHUNK_ROWS` rows.

    Raises:
        DataError: a column is missing (`MISSING_COLUMN`) or a row has another number of cells (`BAD_ROW`).
    """
    rows = records(file, schema.delimiter)
    names = [column.name for column in schema.columns]
    header = 0
    if schema.header:
        names = column_names(next(rows, []))
        refuse_repeated(names, file)
        header = 1
    wanted = [column.name for column in (*schema.features, schema.label_column)]
    missing = [name for name in wanted if name not in names]
    if missing and names:
        raise DataError(
            f"{file.uri} has no column {', '.join(map(repr, missing))}; its columns are {listed(names)}.",
            code="MISSING_COLUMN",
            fix="Give the file these columns, or take them out of the schema"
            + (" (or set `header: false` if the first line is a record)." if schema.header else "."),
        )
    index = {name: names.index(name) for name in wanted if name in names}
    known = {column.name for column in schema.columns}
    others = tuple(name for name in names if name not in known)
    first_row = 1 + header
    while some := list(itertools.islice(rows, CHUNK_ROWS)):
        _refuse_uneven(some, len(names), first_row, file)
        columns = list(zip(*some, strict=True))
        yield Chunk(first_row, len(some), {name: columns[at] for name, at in index.items()}, others)
        first_row += len(some)


def refuse_repeated(names: list[str], file: FileRef) -> None:
    """Raise `DataError` (code `REPEATED_COLUMN`) where two columns have one name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"{file.uri} has several columns called {', '.join(map(quoted, repeated))}.",
            code="REPEATED_COLUMN",
            fix="Give every column a name of its own.",
        )


def _refuse_uneven(rows: list[list[str]], cells: int, first_row: int, file: FileRef) -> None:
    for number, length in enumerate(map(len, rows), start=first_row):
        if length != cells:
            raise DataError(
                f"Row {number} of {file.uri} has {length} cells where {cells} are expected.",
                code="BAD_ROW",
                fix="Mend the row, or the schema's columns or delimiter.",
            )
