"""The lock files have what pyproject.toml asks for: images are built from them alone."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {f"requirements/{extra}.txt": extra for extra in ("train", "train-gpu", "cloud", "serve", "serve-gpu")}
LOCKS |= {"requirements/dev.txt": "all", "components/servegraph/estimator/requirements.txt": "estimator"}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9"}  # one that every extra is for


def wanted(extra: str) -> list[Requirement]:
    """What an extra asks for, with what the extras that it is made of ask for."""
    rows = [Requirement(text) for text in requires("servegraph") or ()]
    rows = [row for row in rows if row.marker is None or row.marker.evaluate({"extra": extra, **PYTHON})]
    parts = [part for row in rows if row.name == "servegraph" for part in row.extras]
    return [row for row in rows if row.name != "servegraph"] + [row for part in parts for row in wanted(part)]


@pytest.mark.parametrize(("lock", "extra"), LOCKS.items(), ids=str)
def test_a_lock_has_what_its_extra_asks_for(lock: str, extra: str) -> None:
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall((ROOT / lock).read_text(encoding="utf-8")):
        pins.setdefault(canonicalize_name(name), set()).add(version)
    rows = wanted(extra)
    assert any(row.marker and "extra" in str(row.marker) for row in rows)
    found = {str(row): pins.get(canonicalize_name(row.name), set()) for row in rows}
    assert {row: versions for row, versions in found.items() if not versions} == {}
    assert [row for row in rows for version in found[str(row)] if not row.specifier.contains(version)] == []
