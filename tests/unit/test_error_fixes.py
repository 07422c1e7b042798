"""Every error that is raised says what to do: it is given a `fix`, and not an empty one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from servegraph import errors
from servegraph.deploy_version import faults
from servegraph.errors import ServegraphError

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("components", "pipelines") for file in (ROOT / folder).rglob("*.py"))
KINDS = {
    module.__name__: {
        name for name, found in vars(module).items() if isinstance(found, type) and issubclass(found, ServegraphError)
    }
    for module in (errors, faults)
}
# By file and code, an expression as it is written: why there is nothing to tell.
WITHOUT = {
    ("inspect_graph/inspect.py", "'GRAPH_TOO_LARGE'"): "caught there and made a finding, whose rule has the fix",
    ("serve/model.py", "code"): "TensorFlow's own words to a request, as TF Serving hands them on",
}


def without_fix(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and code of each error of the tree, by the names that a module imports, that is given no fix."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in KINDS]
    kinds = {
        alias.asname or alias.name for node in imports for alias in node.names if alias.name in KINDS[str(node.module)]
    }
    kinds |= {  # those that the module has itself
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in set().union(*KINDS.values())
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if not _is_told(given.get("fix")):
                yield node.lineno, ast.unparse(given["code"]) if "code" in given else node.func.id


def _is_told(fix: ast.expr | None) -> bool:
    if isinstance(fix, ast.IfExp):
        return _is_told(fix.body) and _is_told(fix.orelse)
    return fix is not None and not (isinstance(fix, ast.Constant) and not fix.value)


def test_every_error_says_what_to_do() -> None:
    found = {
        (file.as_posix().partition("/servegraph")[2].partition("/")[2], code, line)
        for file in FILES
        for line, code in without_fix(file.read_text(encoding="utf-8"))
    }
    assert sorted(row for row in found if row[:2] not in WITHOUT) == []
    assert WITHOUT.keys() - {row[:2] for row in found} == set()


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        ('DataError("m")', [(2, "DataError")]),
        ('DataError("m", code="CODE")', [(2, "'CODE'")]),
        ('DataError("m", fix="")', [(2, "DataError")]),
        ('DataError("m", fix="Give more." if few else "")', [(2, "DataError")]),
        ('DataError("m", fix="Give more.")', []),
        ('Rejected("n1", "too small")', []),  # of another module
    ],
)
def test_a_missing_fix_is_seen(call: str, missing: list[tuple[int, str]]) -> None:
    assert list(without_fix(f"from servegraph.errors import DataError\nraise {call}\n")) == missing
