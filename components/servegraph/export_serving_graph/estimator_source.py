"""An Estimator's `model_dir`, exported after training and without retraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from servegraph import storage
from servegraph.data.schema_file import parse
from servegraph.errors import InputError, ModelError
from servegraph.estimator import MODEL_DIR, RECORD_FILE, estimator_function
from servegraph.estimator.call import call
from servegraph.export_serving_graph.interface import METHOD_NAMES
from servegraph.export_serving_graph.signature_choice import Requests
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.trained import SCHEMA_FILE


def save(source: Path, out: Path, schema_file: Path | None, requests: Requests) -> Path:
    """Write the SavedModel that the Estimator itself exports below `out`, and return its directory.

    Raises:
        InputError: what makes the Estimator is not known (code `WHICH_ESTIMATOR`), or not its inputs (`WHICH_INPUTS`).
        ModelError: the record of its training cannot be read.
    """
    record = _record(source)
    trainer = requests.trainer or record.get("trainer")
    make = estimator_function(trainer) if trainer else None
    if requests.trainer and make is None:
        raise InputError(
            f"--trainer {requests.trainer} names no Estimator: the name of one begins with 'estimator:'.",
            code="WHICH_ESTIMATOR",
            fix=f"Give --trainer estimator:{requests.trainer}.",
        )
    if make is None or (requests.trainer is None and trainer != "estimator"):
        # A name in a model's directory does not decide which code runs; the built-in one is ours.
        raise InputError(
            f"What makes the Estimator of {source} is {trainer or 'not known'}.",
            code="WHICH_ESTIMATOR",
            fix=f"Name the function: --trainer {trainer or 'estimator:file.py:function'}.",
        )
    schema = schema_file or (source / SCHEMA_FILE if (source / SCHEMA_FILE).is_file() else None)
    below = source / MODEL_DIR
    args = {
        "model_dir": str((below if below.is_dir() else source).resolve()),
        "schema": schema.read_text(encoding="utf-8") if schema else None,
        "classes": record.get("classes") or _classes(schema),
        "hyperparameters": record.get("hyperparameters") or {},
        "seed": record.get("seed", 1),
    }
    done = call(
        "export",
        make=make,
        args=args,
        out=str(out.resolve()),
        input_fn=requests.serving_input_fn,
        formats=list(requests.formats or ("json",)),
        strip_text=bool(record),  # `train` strips what it trains on; of another's training it is not known
    )
    return Path(done["path"])


def signatures(model: Path) -> dict[str, str]:
    """Return {name: Estimator's name}: predictions are the default, further formats are called as such.

    TensorFlow calls the signatures of a further receiver `csv:predict`, and makes classification the default of a
    canned classifier, which then leaves the export without one wherever the input is not a single tf.Example. A default
    that predicts is the choice of who wrote the Estimator, and so are the names of what else it predicts.
    """
    (meta_graph,) = read_saved_model(storage.open_dir(model)).meta_graphs
    found = {name: value for name, value in meta_graph.signatures.items() if not name.startswith("__saved_model_")}
    predicting = {name for name, value in found.items() if value.method_name == f"{METHOD_NAMES}predict"}
    is_own = DEFAULT_SIGNATURE in predicting
    default = DEFAULT_SIGNATURE if is_own else "predict"
    chosen = {DEFAULT_SIGNATURE: default} if default in found else {}
    for name in sorted(found.keys() - {default}):
        receiver, _, key = name.rpartition(":")
        if key == default:
            chosen[receiver] = name
        elif key.rpartition("/")[2] in ("classification", "regression"):  # one of several heads has its name before it
            if receiver in ("", "example"):
                chosen[key] = name
        elif is_own and name in predicting and found[name] != found.get(name.removesuffix(key) + default):
            chosen[name] = name
    return chosen or {name: name for name in found}


def _record(source: Path) -> dict[str, Any]:
    file = source / RECORD_FILE
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(record, dict):
            return record
    except (ValueError, OSError):
        pass
    raise ModelError(f"{file} cannot be read.", code="NOTHING_TO_EXPORT", fix="Name --trainer and --schema.")


def _classes(schema: Path | None) -> list[str]:
    if schema is None:
        return []
    parsed = parse(schema.read_text(encoding="utf-8"), str(schema))
    return list(parsed.label_column.classes or ()) if parsed.is_classification else []
