"""From a user's modules to a wheel and a source distribution, by hatchling; the same modules give the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from servegraph.errors import InputError, Refusal
from servegraph.routine import interfaces
from servegraph.routine.manifest import ADAPTER

_EPOCH = "1580601600"  # hatchling's own default for the time of files, said here against the caller's environment
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = {name}
version = {version}
dependencies = {dependencies}

[tool.hatch.build]
only-include = {modules}
ignore-vcs = true
"""


class Built(NamedTuple):
    """The two files of a build."""

    wheel: Path
    sdist: Path


def modules_of(source: Path) -> list[Path]:
    """Return the top-level modules and packages of `source`, a Python file or a directory of them, sorted.

    Raises:
        InputError: there are none (code `NO_MODULES`).
    """
    if source.is_file() and source.suffix == ".py":
        return [source]
    entries = sorted(source.iterdir()) if source.is_dir() else []
    # A setup.py is no module of the routine; it would also be run by whoever installs the source distribution.
    modules = [p for p in entries if p.suffix == ".py" and p.is_file() and p.name != "setup.py"]
    packages = [p for p in entries if (p / "__init__.py").is_file()]
    if not modules + packages:
        raise InputError(
            f"{str(source)!r} holds no Python modules.",
            code="NO_MODULES",
            fix="Give the file of the routine, or the directory that its modules and packages lie in.",
        )
    return sorted(modules + packages)


def build(
    source: Path, name: str, version: str, requirements: Sequence[str], predictor: str | None, work: Path
) -> Built:
    """Build the modules of `source` in the empty directory `work`.

    With `predictor` (module:Class) the adapter that AI Platform calls is added for it.

    Raises:
        InputError: `source` cannot be packaged (codes `NO_MODULES`, `NAME_TAKEN`).
        Refusal: the build fails (code `BUILD_FAILED`).
    """
    project = work / "project"
    project.mkdir()
    modules = modules_of(source)
    if any(module.stem == ADAPTER for module in modules):
        raise InputError(
            f"The name {ADAPTER} is taken by the adapter that is added.",
            code="NAME_TAKEN",
            fix="Rename that module of the source.",
        )
    for module in modules:
        if module.is_dir():
            shutil.copytree(module, project / module.name, ignore=_IGNORED)
        else:
            shutil.copy(module, project / module.name)
    if predictor is not None:
        text = Path(interfaces.__file__).read_text(encoding="utf-8")
        (project / f"{ADAPTER}.py").write_text(f"{text}\n\nPREDICTOR = {predictor!r}\n", encoding="utf-8")
    included = sorted(entry.name for entry in project.iterdir())
    quoted = {"name": name, "version": version, "dependencies": list(requirements), "modules": included}
    # JSON's strings and lists of strings are TOML's too.
    text = _PROJECT.format(**{key: json.dumps(value) for key, value in quoted.items()})
    (project / "pyproject.toml").write_text(text, encoding="utf-8")
    _run_hatchling(project, work / "dist")
    (wheel,), (sdist,) = (list((work / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return Built(wheel, sdist)


def _run_hatchling(project: Path, destination: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"]
    command += ["-d", str(destination.resolve())]  # it runs in another directory
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip().splitlines()
    raise Refusal(
        f"The routine cannot be built: {said[-1] if said else 'no reason is given'}.",
        code="BUILD_FAILED",
        fix="Mend what it names in the source, then package again.",
    )
