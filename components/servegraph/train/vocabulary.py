"""The vocabulary of a category: as the schema lists it, or learned from the training records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from servegraph.data.schema import Column, Schema
from servegraph.data.table import Table
from servegraph.data.text import strip


def vocabulary(column: Column, data: Table) -> list[str]:
    """Return the column's vocabulary: as the schema lists it, else the most frequent values, most frequent first."""
    if column.vocabulary:
        return list(column.vocabulary)
    values, counts = np.unique(
        np.array([strip(str(value)) for value in data.features[column.input_name]]), return_counts=True
    )
    order = np.lexsort((values, -counts))[: column.vocabulary_size]
    return [str(values[i]) for i in order]


def with_vocabularies(schema: Schema, data: Table) -> Schema:
    """Return the schema with the vocabulary of every category that is not hashed written out."""
    columns = tuple(
        replace(column, vocabulary=tuple(vocabulary(column, data)), vocabulary_size=None)
        if column.categorical and column.hash_buckets is None and column in schema.features
        else column
        for column in schema.columns
    )
    return replace(schema, columns=columns)
