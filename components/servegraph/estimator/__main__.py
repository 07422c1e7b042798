"""Started by the Python that has TensorFlow 2.15: `python __main__.py REQUEST.json RESULT.json`.

servegraph is not installed there; it is imported from where this file is, and nothing else from beside it: that may be
the site-packages of another TensorFlow.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main(question: Path, answer: Path) -> None:
    """Import servegraph by its place alone and let `child` answer."""
    package = Path(__file__).resolve().parents[1]
    sys.path[0] = str(Path.cwd())  # in the place of this file's directory: for the user's own modules
    spec = importlib.util.spec_from_file_location(
        "servegraph", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["servegraph"] = module
    spec.loader.exec_module(module)
    from servegraph.estimator.child import run

    run(question, answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
