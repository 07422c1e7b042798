"""What a source to export is, found out from its name and its files; no model is loaded for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servegraph.errors import InputError, ModelError
from servegraph.estimator import RECORD_FILE
from servegraph.storage.directory import GRAPH_FILES
from servegraph.storage.local_paths import require_local
from servegraph.trained import checkpoints

Kind = Literal["keras", "saved_model", "tf1_checkpoint", "estimator", "python"]

_KERAS_FILES = (".keras", ".h5", ".hdf5")
_FUNCTION = re.compile(r"(?!\w+://)(?P<module>.+\.py|[\w.]+):(?P<function>\w+)")


@dataclass(frozen=True)
class Found:
    """What a source is, and the path that stands for it.

    `keras`: the .keras or .h5 file. `saved_model`: its directory. `tf1_checkpoint`: the prefix that `.index` and
    `.meta` are added to. `estimator`: its `model_dir`, or what `train` left of one. `python`: `module:function` or
    `file.py:function`, which builds the model.
    """

    kind: Kind
    path: str


def recognize(source: str, *, is_estimator: bool = False) -> Found:
    """Return what `source` is; `is_estimator` where an Estimator is spoken of that no file of ours records.

    Raises:
        ModelError: it is nothing that can be exported, and why (code `NOTHING_TO_EXPORT`).
        InputError: it could be several things (code `WHICH_SOURCE`); the message asks which. Or it is an address
            (`NOT_LOCAL`).
    """
    path = Path(source)
    if path.is_dir() and (is_estimator or (path / RECORD_FILE).is_file()):
        return Found("estimator", source)
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _file(path)
    if path.with_name(f"{path.name}.index").is_file():
        return _checkpoint(path)
    if _FUNCTION.fullmatch(source):
        return Found("python", source)
    require_local(source)
    raise _nothing(f"{source} does not exist.", "Check the path.")


def _file(path: Path) -> Found:
    if path.suffix in _KERAS_FILES:
        if _is_weights_alone(path):
            raise _weights_alone(path)
        return Found("keras", str(path))
    if path.name in GRAPH_FILES:
        return Found("saved_model", str(path.parent))
    if path.suffix in (".meta", ".index"):
        return _checkpoint(path.with_suffix(""))
    if match := re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name):
        return _checkpoint(path.with_name(match[1]))
    raise _nothing(
        f"{path} is no model that is known here.",
        "Give a .keras or .h5 file, a SavedModel directory, a checkpoint, or file.py:function that builds the model.",
    )


def _directory(path: Path) -> Found:
    graph = [name for name in GRAPH_FILES if (path / name).is_file()]
    newest = checkpoints.newest(path)
    files = [newest[1]] if newest else sorted(p for s in _KERAS_FILES for p in path.glob(f"*{s}"))
    models = [file for file in files if not _is_weights_alone(file)]
    states = _checkpoint_prefixes(path)
    if len(models) > 1 or (models and graph):
        names = [file.name for file in models] + graph[:1]
        raise _which(f"{path} holds several models: {', '.join(names)}.", f"Give one of them, e.g. {models[0]}.")
    if graph:
        return Found("saved_model", str(path))
    if models:
        return Found("keras", str(models[0]))
    if states:
        return _checkpoint(states[-1])
    if files:
        raise _weights_alone(files[0])
    raise _nothing(f"{path} holds no model to export.", _what_below(path))


def _checkpoint(prefix: Path) -> Found:
    """A checkpoint of TensorFlow's own; without the graph beside it, it is weights alone."""
    if not prefix.with_name(f"{prefix.name}.index").is_file():
        raise _nothing(f"The checkpoint {prefix} has no index file beside it.", "Copy all of its files.")
    if not prefix.with_name(f"{prefix.name}.meta").is_file():
        raise _weights_alone(prefix)
    return Found("tf1_checkpoint", str(prefix))


def _checkpoint_prefixes(path: Path) -> list[Path]:
    """Return the checkpoints in a directory, the one that its `checkpoint` file names last."""
    prefixes = sorted((p.with_suffix("") for p in path.glob("*.index")), key=lambda p: (_step(p), p.name))
    state = path / "checkpoint"
    if state.is_file():
        named = re.search(r'^model_checkpoint_path: "(.*)"', state.read_text(errors="replace"), re.MULTILINE)
        latest = [prefix for prefix in prefixes if named and prefix.name == Path(named[1]).name]
        return [*(prefix for prefix in prefixes if prefix not in latest), *latest]
    return prefixes


def _step(prefix: Path) -> int:
    """Return the number that a checkpoint's name ends with, so that step 1000 comes after step 200."""
    match = re.search(r"-(\d+)$", prefix.name)
    return int(match[1]) if match else -1


def _what_below(path: Path) -> str:
    below = sorted((graph.parent for name in GRAPH_FILES for graph in path.glob(f"*/{name}")), key=_version)
    if below:
        return f"{len(below)} SavedModels are below it; give one of them, e.g. {below[-1]}."
    return "Give a .keras file, a SavedModel, a checkpoint directory written in training, or file.py:function."


def _version(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdecimal() else -1, path.name)


def _nothing(message: str, fix: str) -> ModelError:
    return ModelError(message, code="NOTHING_TO_EXPORT", fix=fix)


def _which(message: str, fix: str) -> InputError:
    return InputError(message, code="WHICH_SOURCE", fix=fix)


def _is_weights_alone(file: Path) -> bool:
    """Whether a Keras file lacks the model's configuration, as what `save_weights` writes does under any name."""
    if file.name.endswith(".weights.h5"):
        return True
    import h5py

    try:
        with h5py.File(file) as opened:
            return "model_config" not in opened.attrs
    except OSError:  # a .keras archive, or a damaged file: Keras says how
        return False


def _weights_alone(path: Path) -> InputError:
    return _which(
        f"{path} holds weights without the model that they belong to.",
        "Write a function that builds the model, loads these weights and returns it, and give file.py:function.",
    )
