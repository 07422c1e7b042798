"""Find the trainer that a name names, and import it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from servegraph import storage
from servegraph.errors import InputError, ServegraphError, TrainerError


def load_trainer(name: str) -> Callable[..., Any]:
    """Return the trainer that `name` names.

    Raises:
        InputError: there is no such module, file or function (code `NO_TRAINER`).
        TrainerError: the module raised while it was imported (code `TRAINER_FAILED`).
    """
    source, function = _source_and_function(name)
    trainer = getattr(import_source(name), function, None)
    if not callable(trainer):
        raise InputError(
            f"The trainer module {source!r} has no function {function!r}.",
            code="NO_TRAINER",
            fix="Name it: package.module:function or file.py:function.",
        )
    return trainer  # type: ignore[no-any-return]


def import_source(name: str) -> ModuleType:
    """Import and return the module of a trainer, whose own layers Keras knows from then on.

    Raises:
        InputError: there is no such module or file (code `NO_TRAINER`).
        TrainerError: it raised while it was imported (code `TRAINER_FAILED`).
    """
    source, _ = _source_and_function(name)
    try:
        return _module_from_file(source) if source.endswith(".py") else importlib.import_module(source)
    except ModuleNotFoundError as exc:
        if exc.name and source.startswith(exc.name):
            raise InputError(
                f"There is no trainer module {source!r}.",
                code="NO_TRAINER",
                fix="Give package.module:function of an installed package, or the path of a .py file.",
            ) from exc
        raise TrainerError(
            f"The trainer {name!r} imports {exc.name!r}, which is not installed.",
            fix="Install it where the trainer runs; a step's image needs it too.",
        ) from exc
    except ServegraphError:
        raise
    except Exception as exc:
        raise TrainerError(
            f"Importing the trainer {name!r} raised {type(exc).__name__}: {exc}.",
            fix="Mend the module so that it can be imported.",
        ) from exc


def source_file(name: str) -> str | None:
    """Return the file, a path or gs://, that a trainer's name names (`file.py:train`); None for one of a package."""
    source, _ = _source_and_function(name.removeprefix("estimator:"))
    return source if source.endswith(".py") else None


def require_file(file: str | Path) -> None:
    """Look for a trainer's file on this machine. Raises `InputError` (code `NO_TRAINER`) where it is not."""
    if not Path(file).is_file():
        fix = "Give the path of a .py file."
        raise InputError(f"There is no trainer file {str(file)!r}.", code="NO_TRAINER", fix=fix)


def comes_along(name: str) -> bool:
    """Whether the trainer is servegraph's own: it reads nothing but what it is given. Of others that is not known."""
    return name in ("", "estimator") or name.startswith("servegraph.")


def _source_and_function(name: str) -> tuple[str, str]:
    """Split `file.py:train` at the last colon, unless that is of a scheme (`gs://…/file.py`)."""
    source, colon, function = name.rpartition(":")
    return (source, function) if colon and not function.startswith("//") else (name, "train")


def _module_from_file(source: str) -> ModuleType:
    path = Path(source)
    if "://" in source:
        file = storage.match(source)[0]
        path = Path(tempfile.mkdtemp(prefix="servegraph-trainer-")) / PurePosixPath(source).name
        with file.open_binary() as stream:
            path.write_bytes(stream.read())
    require_file(path)
    spec = importlib.util.spec_from_file_location(f"servegraph_trainer_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(
            f"The trainer file {source!r} cannot be imported.",
            code="NO_TRAINER",
            fix="Give a Python file whose name ends in .py.",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and Keras serialization look the module up by name
    spec.loader.exec_module(module)
    return module
