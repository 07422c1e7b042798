"""A file of Keras 2, loaded by Keras 2: what it names is Keras' own and computes, or its code is trusted.

Keras 2 has no safe mode for HDF5. That of its `.keras` lets a configuration import any module and name any function,
and reads weights that are pickled. So what may be named is listed here, rather than what is known to do harm.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import h5py

from servegraph.errors import ModelError

_KINDS = ("layers", "initializers", "regularizers", "constraints", "optimizers", "losses", "metrics")
_RUN_CODE = {"Lambda"}
_LOOK_UP = {"get", "deserialize", "serialize"}
# What Keras writes into a configuration and has under no public name.
_OPERATIONS = {"TFOpLambda", "SlicingOpLambda"}
_OWN = {"Functional", "Model", "Sequential", "SyncBatchNormalization", "Policy"} | _OPERATIONS
_VALUES = {"TensorShape", "__tuple__", "__ellipsis__", "__tensor__", "__numpy__", "__bytes__"}
# Of TensorFlow's functions, as a TFOpLambda names them, those of values alone: `io.write_file` is one too.
_COMPUTES = re.compile(
    r"(compat\.v1\.)?((__operators__|bitwise|image|linalg|math|nn|ragged|random|signal|sparse|strings)\.\w+"
    r"|boolean_mask|broadcast_to|cast|clip_by_\w+|concat|convert_to_tensor|einsum|expand_dims|eye|fill|gather|gather_nd"
    r"|identity|norm|one_hot|ones|ones_like|pad|range|rank|repeat|reshape|reverse|roll|scatter_nd|searchsorted|shape|size"
    r"|slice|sort|argsort|split|squeeze|stack|stop_gradient|strided_slice|tensordot|tile|transpose|unstack|where|zeros"
    r"|zeros_like)"
)


def load(file: Path, keras: Any, *, trust_code: bool) -> Any:
    """Return the model in a `.h5` or `.keras` file of Keras 2, read by `keras`, which is that of TensorFlow 2.15.

    Raises:
        ModelError: it could run code and is not trusted (`UNTRUSTED_CODE`), or it cannot be loaded
            (`KERAS_FILE_DAMAGED`).
    """
    try:
        if not trust_code:
            refuse_code(file, keras)
        return keras.models.load_model(file, compile=False, safe_mode=not trust_code)
    except ModelError:
        raise
    except (ValueError, TypeError, OSError, KeyError) as exc:
        raise ModelError(
            f"Neither Keras 3 nor Keras 2 can load {file}: {exc}",
            code="KERAS_FILE_DAMAGED",
            fix="Write a function that builds the model and loads its weights, and give file.py:function.",
        ) from exc


def refuse_code(file: Path, keras: Any) -> None:
    """Raise `ModelError` (`UNTRUSTED_CODE`) where loading the file could run other code than that of `keras`.

    Raises:
        OSError, ValueError, KeyError: it is no such file.
    """
    if file.suffix == ".keras" and zipfile.is_zipfile(file):  # which is how Keras tells
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))
            pickled = [name for name in archive.namelist() if name.endswith(".npz")]
        config = {**config, "compile_config": None}  # it is not compiled
    else:
        with h5py.File(file) as opened:
            text = opened.attrs["model_config"]
        config, pickled = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text), []
    for name in [*pickled, *_strangers(config, keras)]:
        raise ModelError(
            f"{file} holds {name}, which may be Python code or run some; that is not run unasked.",
            code="UNTRUSTED_CODE",
            fix="If you trust whoever made the file, allow it with --trust-code (trust_code=True); "
            "a layer of your own needs file.py:function that builds the model.",
        )


def _strangers(config: Any, keras: Any) -> Iterator[str]:
    """Yield what a configuration names, at any depth, that is not known to do no more than compute."""
    functions = {name for name in vars(keras.activations) if not name.startswith("_")} - _LOOK_UP
    classes = {name for kind in _KINDS for name, value in vars(getattr(keras, kind)).items() if isinstance(value, type)}
    classes = classes - _RUN_CODE | _OWN | _VALUES
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            stack += value.values()
            if "class_name" in value and not _is_known(value, classes, functions):
                yield str(value["class_name"])


def _is_known(named: dict[str, Any], classes: Set[str], functions: Set[str]) -> bool:
    """Whether an object of a configuration is one of Keras, by each of the names that Keras may look it up by."""
    name, module, config = named["class_name"], named.get("module"), named.get("config")
    if name == "function":
        return module == "builtins" and isinstance(config, str) and config in functions
    if name in _OPERATIONS and not (isinstance(config, dict) and _COMPUTES.fullmatch(str(config.get("function")))):
        return False
    by_module = module is None or re.fullmatch(r"keras(\.\w+)*", str(module))
    return bool(by_module) and name in classes and named.get("registered_name") in (None, name)
