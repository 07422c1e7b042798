"""The table of error codes, read from where they are raised: a code that is not in the table is not in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "components/servegraph", ROOT / "pipelines/servegraph_pipelines")
_CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|STORAGE|REFUSED|ERROR|DAMAGED|CRASHED|INTERNAL|[A-Z]{6,}")
_GAP = "…"  # for what depends on the case
_HEAD = """# Error codes

An error is `error CODE: what was asked and found`, with `fix: what to do` below it; with `--json` it is
`{"error": {"code", "message", "fix"}}`. Codes stay, texts may change; `…` stands for what depends on the case. Findings
of `inspect` are errors too where the model cannot be used for them. A prediction server answers with the codes of gRPC,
as TF Serving does.

<style>td:first-child code { white-space: nowrap; }</style>

| Code | What is said | What to do |
|---|---|---|
"""
_MOST = 4  # texts of a code
_WORDS = {  # of codes whose texts are all made elsewhere
    "BAD_USAGE": ("There is no such option or argument, or one is missing.", "See `servegraph VERB --help`."),
    "UNEXPECTED": ("Not an error that was foreseen.", "Run again with --debug and report the traceback."),
    "WHICH_SOURCE": ("The source may be read in several ways.", "Name the file or directory that is meant."),
}


class Said(NamedTuple):
    """What one place says with a code, and what it tells to do; either may be empty."""

    code: str
    message: str
    fix: str


def page() -> str:
    """Return the page: each code with what is said and what to do about it."""
    by_code: dict[str, list[Said]] = {}
    for said in found():
        by_code.setdefault(said.code, []).append(said)
    for code, (message, fix) in _WORDS.items():
        by_code[code] = [Said(code, message, fix)]
    rows = [
        f"| `{code}` | {_cell(s.message for s in all_)} | {_cell(s.fix for s in all_)} |"
        for code, all_ in sorted(by_code.items())
    ]
    return _HEAD + "\n".join(rows) + "\n"


def found() -> Iterator[Said]:
    """Yield all codes of the source with the texts that stand beside them."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for root in SOURCES for file in sorted(root.rglob("*.py"))]
    names = {name: code for tree in trees for name, code in _constants(tree)}
    for tree in trees:
        of_module = {name: text for part in tree.body for name, text in _assigned(part)}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        tables = [part for part in tree.body if not isinstance(part, (ast.FunctionDef, ast.ClassDef))]
        for scope in (*tables, *functions):
            texts = of_module | {name: text for node in ast.walk(scope) for name, text in _assigned(node)}
            for node in ast.walk(scope):
                yield from _said(node, names, texts)
        yield from _defaults(tree)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and _is_code(node.value.value):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))


def _assigned(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Assign) and (text := _text(node.value, {})):
        yield from ((target.id, text) for target in node.targets if isinstance(target, ast.Name))


def _said(node: ast.AST, names: dict[str, str], texts: dict[str, str]) -> Iterator[Said]:
    """Yield what a call of an error, a row of a table or a document of an error says."""
    if isinstance(node, ast.Call):
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        message = _text(node.args[0], texts) if node.args else ""
        for code in _codes(given.get("code"), names):
            yield Said(code, message, _text(given.get("fix"), texts))
    row = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
    if len(row) > 1 and isinstance(row[0], ast.Constant) and _is_code(row[0].value):
        told = [text for text in (_text(part, texts) for part in row[1:]) if " " in text]
        if told:
            is_fix = isinstance(node, ast.Tuple) and len(told) == 1
            yield Said(row[0].value, "" if is_fix else told[0], told[-1] if is_fix or len(told) > 1 else "")
    if isinstance(node, ast.Dict):
        document = {k.value: v for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)}
        for code in _codes(document.get("code"), names):
            yield Said(code, _text(document.get("message"), texts), _text(document.get("fix"), texts))


def _defaults(tree: ast.Module) -> Iterator[Said]:
    """Yield the codes that errors of a class have where none is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                target = part.target if isinstance(part, ast.AnnAssign) else None
                target = part.targets[0] if isinstance(part, ast.Assign) else target
                if isinstance(target, ast.Name) and target.id == "default_code":
                    yield Said(part.value.value, (ast.get_docstring(node) or "").partition("\n")[0], "")


def _codes(node: ast.expr | None, names: dict[str, str]) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*_codes(node.body, names), *_codes(node.orelse, names)]
    if isinstance(node, ast.Name):
        return [names[node.id]] if node.id in names else []
    return [node.value] if isinstance(node, ast.Constant) and _is_code(node.value) else []


def _is_code(value: object) -> bool:
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def _text(node: ast.AST | None, texts: dict[str, str]) -> str:
    """Return a text as it stands in the source, with a gap for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, texts) if isinstance(part, ast.Constant) else _GAP for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, texts) + _text(node.right, texts)
    if isinstance(node, ast.IfExp):
        return _text(node.body, texts) or _text(node.orelse, texts)
    return texts.get(node.id, "") if isinstance(node, ast.Name) else ""


def _cell(texts: Iterator[str]) -> str:
    different = [text for text in dict.fromkeys(" ".join(text.split()) for text in texts) if text.strip(f"{_GAP} .:")]
    cells = [text.replace("|", "\\|").replace("<", "&lt;") for text in different]
    return "<br>".join([*cells[:_MOST], *([_GAP] if len(cells) > _MOST else [])])
