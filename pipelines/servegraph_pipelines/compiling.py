"""Compile the pipeline and the components to the YAML files that are committed beside their sources.

`python -m servegraph_pipelines.compiling` writes them all; a test compares them with what this writes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp import compiler

import servegraph.components
from servegraph_pipelines.train_and_deploy import train_and_deploy


def pipeline_yaml() -> str:
    """Return the pipeline `train-and-deploy` as IR YAML."""
    return _compile(train_and_deploy)


def committed_files() -> Iterator[tuple[Path, str]]:
    """Yield (file beside the source, text it should have) for the pipeline and every component."""
    yield Path(__file__).with_name("train_and_deploy.yaml"), pipeline_yaml()
    package = Path(servegraph.components.__file__).parent
    for name in servegraph.components.__all__:
        yield package / name / "component.yaml", _compile(getattr(servegraph.components, name))


def _compile(what: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compiled.yaml"
        compiler.Compiler().compile(what, str(path))
        return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    for file, text in committed_files():
        file.write_text(text, encoding="utf-8")
        print(file)
