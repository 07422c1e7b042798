"""Which pipelines there are, and how any other is named: `module:function`, or a compiled YAML file."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from servegraph.errors import InputError
from servegraph.extras import of_extra
from servegraph.suggestion import did_you_mean
from servegraph.yaml_problem import yaml_problem
from servegraph_pipelines.specification import Specification

# One row a pipeline of this package: where it is.
FLOWS = {
    "train-and-deploy": "servegraph_pipelines.train_and_deploy:train_and_deploy",
    "retrain": "servegraph_pipelines.retrain:retrain",
}
DEFAULT = "train-and-deploy"


def load(reference: str) -> Specification:
    """Return the pipeline that `reference` names: a row of `FLOWS`, `module:function`, or a compiled YAML file.

    Raises:
        InputError: there is no such pipeline (code `UNKNOWN_PIPELINE`), or the file is none (`NOT_A_PIPELINE`).
    """
    if reference.endswith((".yaml", ".yml", ".json")):
        return read(Path(reference))
    return parse(compiled(function(reference)), reference)


def function(reference: str) -> Any:
    """Return the pipeline function, for kfp to compile or to run; modules are found here too, as `python -m` does it.

    Raises:
        InputError: there is none (code `UNKNOWN_PIPELINE`), its module raised while it was imported
            (`PIPELINE_FAILED`), or what it needs of ours is missing (`PACKAGE_MISSING`).
    """
    here = str(Path.cwd())
    if reference not in FLOWS and here not in sys.path:
        sys.path.insert(0, here)  # an installed command has its own folder there
    module, _, name = FLOWS.get(reference, reference).partition(":")
    found = getattr(_imported(module, reference), name, None)
    if found is None:
        raise _unknown(reference, f"the module {module!r} has no {name!r}" if name else "no function is named")
    if not hasattr(found, "pipeline_spec"):
        raise InputError(
            f"{reference!r} is no KFP pipeline.", code="UNKNOWN_PIPELINE", fix="Decorate it: @dsl.pipeline."
        )
    return found


def _imported(module: str, reference: str) -> ModuleType:
    if not all(part.isidentifier() for part in module.split(".")):
        raise _unknown(reference, f"{module!r} is no name of a module")
    try:
        return importlib.import_module(module)
    except Exception as exc:  # whatever the module does, and what kfp says of a pipeline in it
        if isinstance(exc, ImportError) and (missing := of_extra(exc)):
            raise missing from exc
        if isinstance(exc, ModuleNotFoundError) and exc.name and f"{module}.".startswith(f"{exc.name}."):
            raise _unknown(reference, str(exc)) from exc
        raise InputError(
            f"Importing the pipeline {reference!r} raised {type(exc).__name__}: {str(exc).rstrip('.')}.",
            code="PIPELINE_FAILED",
            fix="Mend the module, or install what it imports; with --debug the traceback is shown.",
        ) from exc


def _unknown(reference: str, why: str) -> InputError:
    return InputError(
        f"There is no pipeline {reference!r}: {why}.",
        code="UNKNOWN_PIPELINE",
        fix=f"{did_you_mean(reference, FLOWS)}Give one of {', '.join(FLOWS)}, or module:function (without .py), or "
        "a YAML file that KFP compiled.",
    )


def compiled(pipeline: Any) -> str:
    """Return a pipeline or component as the YAML that KFP compiles it to."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compiled.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text(encoding="utf-8")


def read(path: Path) -> Specification:
    """Return the pipeline of a compiled file. Raises `InputError` (`NOT_A_PIPELINE`)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"The pipeline {path} cannot be read: {exc}.",
            code="UNKNOWN_PIPELINE",
            fix="Give a pipeline that was compiled.",
        ) from exc
    return parse(text, str(path))


def parse(text: str, source: str) -> Specification:
    """Return the pipeline of compiled YAML: its specification, and after `---` that of a platform."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as exc:
        raise InputError(
            f"{source} is no YAML: {yaml_problem(exc)}.",
            code="NOT_A_PIPELINE",
            fix="Compile it again with kfp 2: `servegraph compile`, or kfp.compiler.Compiler().compile.",
        ) from exc
    is_spec = documents and isinstance(documents[0], dict)
    if not is_spec or not {"root", "pipelineInfo", "deploymentSpec"} <= documents[0].keys():
        raise InputError(
            f"{source} holds no pipeline that the KFP SDK 2 compiled.",
            code="NOT_A_PIPELINE",
            fix="Compile it with kfp 2: `servegraph compile`, or kfp.compiler.Compiler().compile.",
        )
    platforms = {key: value for document in documents[1:] for key, value in document.items()}
    return Specification(documents[0], platforms)
