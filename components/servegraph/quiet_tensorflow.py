"""TensorFlow without the notices it starts with."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile


def quiet_tracebacks() -> None:
    """Keep TensorFlow from printing a traceback where it goes on, as with a damaged fingerprint.pb."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up notices on the terminal; a user's own log level wins.

    TensorFlow 2.21 writes the first of them before its logging is set up, where no setting reaches: what comes on
    stderr during the import is held back, and shown only if the import fails.

    Of the many objects that the import makes none becomes garbage. Without the collector it takes a sixth less time,
    and frozen they cost no later collection 0.2 s, nor a forked child copies of their pages.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    quiet_tracebacks()
    sys.stderr.flush()
    terminal = os.dup(2)
    collects, is_here = gc.isenabled(), "tensorflow" in sys.modules
    gc.disable()
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if collects:
                gc.enable()
    if not is_here:  # what somebody else has made since then may become garbage
        gc.freeze()
    tensorflow.get_logger().setLevel(logging.ERROR)
