"""A file of Keras 2, loaded by Keras 2: what it names is Keras' own and computes, or its code is trusted.

Keras 2 has no safe mode for HDF5. That of its `.keras` lets a configuration import any module and name any function,
and reads weights that are pickled. What may be named is in `keras2_names`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from servegraph.errors import ModelError
from servegraph.estimator.keras2_names import Names


def load(file: Path, keras: Any, *, trust_code: bool) -> Any:
    """Return the model in a `.h5` or `.keras` file of Keras 2, read by `keras`, which is that of TensorFlow 2.15.

    Raises:
        ModelError: it could run code and is not trusted (`UNTRUSTED_CODE`), has weights in another file
            (`LINK_OUTSIDE`), or cannot be loaded (`KERAS_FILE_DAMAGED`).
    """
    try:
        refuse_other_files(file)
        if not trust_code:
            refuse_code(file, keras)
        return keras.models.load_model(file, compile=False, safe_mode=not trust_code)
    except ModelError:
        raise
    except (ValueError, TypeError, OSError, LookupError, AttributeError, RuntimeError) as exc:
        raise ModelError(
            f"Neither Keras 3 nor Keras 2 can load {file}: {exc}",
            code="KERAS_FILE_DAMAGED",
            fix="Write a function that builds the model and loads its weights, and give file.py:function.",
        ) from exc


def refuse_other_files(file: Path) -> None:
    """Raise `ModelError` (`LINK_OUTSIDE`) where weights are in another file: Keras 3 reads none, whoever made it.

    Raises:
        OSError, ValueError: it is no such file.
    """
    found: list[str] = []
    if _is_archive(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".h5"):
                    with archive.open(name) as weights, h5py.File(weights) as opened:
                        found += _elsewhere(opened)
    else:
        with h5py.File(file) as opened:
            found = _elsewhere(opened)
    if found:
        raise ModelError(
            f"{file} has {found[0]}, which is no part of it and not read.",
            code="LINK_OUTSIDE",
            fix="Save the model again where all of it is, or give file.py:function that builds it and loads weights.",
        )


def refuse_code(file: Path, keras: Any) -> None:
    """Raise `ModelError` (`UNTRUSTED_CODE`) where loading it could run code not of `keras`, or name another file.

    Raises:
        OSError, ValueError, KeyError: it is no such file.
    """
    found: list[str] = []
    if _is_archive(file):
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))
            found = [name for name in archive.namelist() if name.endswith(".npz")]  # they are pickled
        config = {**config, "compile_config": None}  # it is not compiled
    else:
        with h5py.File(file) as opened:
            text = opened.attrs["model_config"]
        config = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    for what in [*found, *Names.of(keras).strangers(config)]:
        raise ModelError(
            f"{file} holds {what}, which may run Python code or reach files; neither is done unasked.",
            code="UNTRUSTED_CODE",
            fix="If you trust whoever made the file, allow it with --trust-code (trust_code=True); "
            "a layer of your own needs file.py:function that builds the model.",
        )


def _is_archive(file: Path) -> bool:
    return file.suffix == ".keras" and zipfile.is_zipfile(file)  # which is how Keras tells


def _elsewhere(opened: h5py.File) -> list[str]:
    """Return what of an HDF5 file lies in other files, which HDF5 would open wherever they are."""
    found: list[str] = []

    def follow(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(f"{name} in the file {link.filename!r}")

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            others = (
                [source.file_name for source in item.virtual_sources()] if item.is_virtual else item.external[0][:1]
            )
            found.append(f"{name} in the file {others[0]!r}")

    opened.visititems_links(follow)
    opened.visititems(look)
    return found
