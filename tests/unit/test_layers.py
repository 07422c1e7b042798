"""Which package imports which: one way down, and between components only what is named here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "components/servegraph"
COMPONENTS = {file.parent.name for file in ROOT.glob("*/component.py")}
# What a component asks of another one: its verb or its values, as other code of the same step would.
ACROSS = {
    ("deploy_version", "inspect_graph.inspect"): "is the model whole",
    ("deploy_version", "inspect_graph.findings"): "what of it is refused, or said",
    ("optimize", "inspect_graph.inspect"): "is the model whole",
    ("live_version", "deploy_version.targets"): "which version has the traffic",
}
FORMAT_AND_PLACES = {"savedmodel": {"storage"}, "machines": set(), "storage": set()}


def imported(package: Path) -> Iterator[str]:
    """Yield the modules of other packages of ours that the package's modules import, anywhere in them."""
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "servegraph":
                names = [f"servegraph.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                top, _, rest = name.partition(".")
                if top == "servegraph_pipelines":
                    yield name
                elif top == "servegraph" and rest.partition(".")[0] != package.name:
                    yield rest


def test_the_packages_are_found() -> None:
    assert {"train", "optimize", "inspect_graph", "deploy_version", "live_version"} <= COMPONENTS
    assert {"savedmodel.layout", "pages.render", "storage.directory"} <= set(imported(ROOT / "inspect_graph"))


def test_components_ask_one_another_for_nothing_else() -> None:
    found = {
        (component, module)
        for component in COMPONENTS
        for module in imported(ROOT / component)
        if module.partition(".")[0] in COMPONENTS
    }
    assert found == ACROSS.keys()


@pytest.mark.parametrize("package", sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()))
def test_nothing_imports_what_is_above_it(package: str) -> None:
    tops = {module.partition(".")[0] for module in imported(ROOT / package)}
    assert "servegraph_pipelines" not in tops
    if package not in COMPONENTS:
        assert not tops & COMPONENTS
    if package in FORMAT_AND_PLACES:
        packages = {top for top in tops if (ROOT / top).is_dir()}
        assert packages <= FORMAT_AND_PLACES[package]


def test_no_package_needs_itself_by_way_of_another() -> None:
    needs = {
        package.name: {top for module in imported(package) if (ROOT / (top := module.partition(".")[0])).is_dir()}
        for package in ROOT.iterdir()
        if (package / "__init__.py").exists()
    }
    while free := {name for name, others in needs.items() if not others & needs.keys()}:
        for name in free:
            del needs[name]
    assert needs == {}
