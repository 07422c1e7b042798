"""Compile the pipelines and the components to the YAML files that are committed beside their sources.

`python -m servegraph_pipelines.compiling` writes them all; a test compares them with what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import servegraph.components
from servegraph_pipelines import flows


def committed_files() -> Iterator[tuple[Path, str]]:
    """Yield (file beside the source, text it should have) for every pipeline and every component."""
    for name in flows.FLOWS:
        file = Path(__file__).with_name(name.replace("-", "_") + ".yaml")
        yield file, flows.compiled(flows.function(name))
    package = Path(servegraph.components.__file__).parent
    for name in servegraph.components.__all__:
        yield package / name / "component.yaml", flows.compiled(getattr(servegraph.components, name))


if __name__ == "__main__":
    for file, text in committed_files():
        file.write_text(text, encoding="utf-8")
        print(file)
