"""How a server is to run a model, which the model's own files do not say: measured, and stored beside its requests.

`assets.extra/serving_settings.json` is written by `servegraph measure --save` and goes with the model wherever it is
deployed; TF Serving passes over what it does not know there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from servegraph.errors import ModelError, in_short
from servegraph.storage import open_dir
from servegraph.storage.local import answering

SETTINGS_FILE = "assets.extra/serving_settings.json"
DEFAULT_BATCH_ROWS = 64  # a call of 64 rows of a small model takes hardly longer than one of a single row
_MOST = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How a server runs a model; None is TensorFlow's own default.

    `batch_rows` are the rows of a shared call, 1 for none. oneDNN, the threads and `bfloat16` are the process's, not a
    model's. With `bfloat16` oneDNN may multiply float32 in bfloat16, and adds up in float32; a CPU that has no
    instructions for it computes as before (oneDNN's documentation, "Primitive Attributes: floating-point math mode").
    """

    batch_rows: int = DEFAULT_BATCH_ROWS
    onednn: bool | None = None
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    bfloat16: bool = False

    def arguments(self) -> list[str]:
        """Return what `servegraph serve` is given."""
        return ["--batch-rows", str(self.batch_rows)]

    def environment(self) -> dict[str, str]:
        """Return the variables that TensorFlow and oneDNN read when they are imported."""
        found = {
            "TF_ENABLE_ONEDNN_OPTS": None if self.onednn is None else int(self.onednn),
            "TF_NUM_INTRAOP_THREADS": self.intra_op_threads,
            "TF_NUM_INTEROP_THREADS": self.inter_op_threads,
            "ONEDNN_DEFAULT_FPMATH_MODE": "BF16" if self.bfloat16 else None,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the settings, and how to start a server with them."""
        return {**asdict(self), "arguments": self.arguments(), "environment": self.environment()}


def settings_of(document: Mapping[str, Any]) -> Settings:
    """Return what `Settings.to_json` wrote. Raises KeyError, TypeError or ValueError on all else."""
    counts = {name: document[name] for name in ("batch_rows", "intra_op_threads", "inter_op_threads")}
    for name, value in counts.items():
        if value is None and name != "batch_rows":
            continue
        if type(value) is not int or not 1 <= value <= _MOST:
            raise ValueError(f"{name} is {value!r}")
    onednn = document["onednn"]
    if onednn is not None and not isinstance(onednn, bool):
        raise ValueError(f"onednn is {onednn!r}")
    bfloat16 = document.get("bfloat16", False)  # files from before there was such a choice have none
    if not isinstance(bfloat16, bool):
        raise ValueError(f"bfloat16 is {bfloat16!r}")
    return Settings(onednn=onednn, bfloat16=bfloat16, **counts)


def read_settings(model: Path) -> Settings | None:
    """Return the settings stored with the model in that directory, None where there are none.

    Raises:
        ModelError: the file is not of this kind (code `BAD_SERVING_SETTINGS`).
    """
    try:
        text = (model / SETTINGS_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        return settings_of(json.loads(text))
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelError(
            f"{str(model / SETTINGS_FILE)!r} holds no settings: {in_short(exc)}.",
            code="BAD_SERVING_SETTINGS",
            fix="Write it again with `servegraph measure --save`, or remove it.",
        ) from exc


def write_settings(model: Path, settings: Settings) -> None:
    """Store the settings with the model in that directory.

    Raises:
        StorageError: it cannot be written.
    """
    open_dir(model).write_bytes(SETTINGS_FILE, json.dumps(settings.to_json(), indent=2).encode() + b"\n")


def require_writable(model: Path) -> None:
    """Check that settings can be stored with the model in that directory, before they are measured; nothing is left.

    Raises:
        StorageError: they cannot.
    """
    path = model / SETTINGS_FILE
    with answering("write", path):
        tempfile.TemporaryFile(dir=path.parent if path.parent.is_dir() else model).close()
