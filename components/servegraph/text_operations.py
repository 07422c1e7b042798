"""TensorFlow Text's operations, which TensorFlow Serving has and TensorFlow alone has not.

TensorFlow Serving links them in: tensorflow_serving/model_servers/BUILD, SUPPORTED_TENSORFLOW_OPS. Translators and
models around BERT cut their text with them.
"""

from __future__ import annotations

import functools
import importlib.util
import logging

PACKAGE = "tensorflow_text"

_log = logging.getLogger(__name__)


@functools.cache
def register() -> None:
    """Let this process know them, where the package is installed; TensorFlow itself says what it misses."""
    if importlib.util.find_spec(PACKAGE) is None:
        return
    try:
        importlib.import_module(PACKAGE)
    except Exception:  # built for another TensorFlow
        _log.warning("%s is installed and cannot be imported.", PACKAGE, exc_info=True)
