"""What a graph looks up: the keys that a table of it holds, and the rows of an embedding table that ids pick."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from servegraph.answers.input_flow import Scope, attr
from servegraph.answers.made_up import Known

MOST_KNOWN = 64  # keys or rows of which made-up values are drawn, from all over a table
_READ_BYTES = 1 << 20  # of a text file
_FROM_CONSTANTS = ("LookupTableImportV2", "LookupTableImport", "InitializeTableV2", "InitializeTable")
_FROM_FILE = ("InitializeTableFromTextFileV2", "InitializeTableFromTextFile")
_WHOLE_LINE = -2  # as a column of a text file: tensorflow/core/kernels/lookup_util.cc


class Fills:
    """What fills the tables of a model; `assets` are the files they may come from, by the node that holds the path."""

    def __init__(self, root: Scope, assets: Mapping[str, Path]) -> None:
        """Take the main graph; it is searched when the first table is asked for."""
        self._root = root
        self._assets = assets

    @cached_property
    def _fills(self) -> list[tuple[Scope, Any]]:
        return list(self._root.nodes(_FROM_CONSTANTS + _FROM_FILE))

    @cached_property
    def _assignments(self) -> list[tuple[Scope, Any]]:
        return list(self._root.nodes(("AssignVariableOp",)))

    def keys(self, scope: Scope, find: Any, *, several: bool) -> Known | None:
        """Return keys of the table that `find` looks in; None where they are computed, or not to be read."""
        _, table = scope.origin(find.input[0])
        for inner, fill in self._fills if table is not None else ():
            if inner.origin(fill.input[0])[1] is table:
                entries = self._lines(inner, fill) if fill.op in _FROM_FILE else inner.constant(fill.input[1])
                if entries is None or not np.size(entries):
                    return None
                return Known(tuple(np.ravel(entries)[_spread(np.size(entries))].tolist()), several)
        return None

    def _lines(self, scope: Scope, fill: Any) -> Any:
        """Return lines of a vocabulary's file; None where they are no keys, or the file is not in the model."""
        if attr(fill, "key_index").i != _WHOLE_LINE or attr(fill, "offset").i:
            return None
        _, path = scope.origin(fill.input[1])
        if path is not None and path.op == "VarHandleOp":  # TF2 puts the path into a variable when a model is loaded
            puts = [(inner, put) for inner, put in self._assignments if inner.origin(put.input[0])[1] is path]
            path = puts[0][0].origin(puts[0][1].input[1])[1] if puts else None
        file = self._assets.get(path.name) if path is not None else None
        if file is None or not file.is_file():
            return None
        with file.open("rb") as stream:
            read = stream.read(_READ_BYTES)
        lines = read.splitlines()
        lines = lines if len(read) < _READ_BYTES else lines[:-1]
        size = attr(fill, "vocab_size").i
        return np.array(lines[:size] if size > 0 else lines, object)


def rows_of(scope: Scope, gather: Any) -> Known | None:
    """Return numbers of rows of the table that `gather` picks from, None where its size is not known."""
    axis = scope.constant(gather.input[2]) if gather.op == "GatherV2" else 0
    if axis is None or np.any(axis) or attr(gather, "batch_dims").i:
        return None
    return rows_of_matrix(scope, gather.input[0])


def rows_of_matrix(scope: Scope, tensor: str) -> Known | None:
    """Return numbers of rows of a variable or constant, the last among them; None where its size is not known."""
    _, table = scope.origin(tensor)
    if table is None:
        return None
    shape = table.attr["value"].tensor.tensor_shape if table.op == "Const" else attr(table, "shape").shape
    count = shape.dim[0].size if shape.dim else 0
    return Known(tuple(_spread(count).tolist())) if count > 0 else None


def _spread(count: int) -> Any:
    """Return numbers below `count`, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_KNOWN)).astype(np.int64))
